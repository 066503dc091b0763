//! Writes a line for each access: an observer of a manager.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use spin::Mutex;
use vm_device::{AccessDirection, AccessObserver, InstanceId, IoType, ObservedAccess};

/// Writes a line for each access: who makes it, the space, the direction, the address, the length, the data in the order of its
/// bytes, the device and the outcome. An access that is nested in others is indented by their number, and so is a piece of one that
/// is split.
pub struct Trace(Mutex<State>);

struct State {
    out: Box<dyn Write + Send>,
    paths: BTreeMap<InstanceId, String>,
    outcome: io::Result<()>,
}

impl Trace {
    /// Writes to `out`.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self(Mutex::new(State { out: Box::new(out), paths: BTreeMap::new(), outcome: Ok(()) }))
    }

    /// From now on these devices are written as their paths, and all others as their ids.
    pub fn name_devices(&self, paths: impl Iterator<Item = (InstanceId, String)>) {
        let paths = paths.collect();
        self.0.lock().paths = paths;
    }

    /// Writes what is left in buffers.
    ///
    /// # Errors
    /// The first that writing any of the lines has had.
    pub fn finish(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        std::mem::replace(&mut state.outcome, Ok(()))?;
        state.out.flush()
    }
}

impl AccessObserver for Trace {
    fn observe(&self, access: &ObservedAccess<'_>) {
        let mut state = self.0.lock();
        let State { out, paths, outcome } = &mut *state;
        if outcome.is_ok() {
            let path = access.device.and_then(|id| paths.get(&id)).map(String::as_str);
            *outcome = writeln!(out, "{}", Line { access, path });
        }
    }
}

struct Line<'a> {
    access: &'a ObservedAccess<'a>,
    path: Option<&'a str>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access, path } = self;
        let indent = 2 * (access.depth + usize::from(access.is_piece));
        match access.vcpu {
            Some(vcpu) => write!(f, "{:indent$}vcpu {vcpu}", "")?,
            None => write!(f, "{:indent$}no vcpu", "")?,
        }
        let space = match access.io_type {
            IoType::Pio => "port",
            IoType::Mmio => "mmio",
            IoType::PhysicalMmio => "memory",
        };
        let direction = match access.direction {
            AccessDirection::Read => "read",
            AccessDirection::Write => "write",
        };
        write!(f, " {space} {direction} {} {} ", access.address, access.data.len())?;
        access.data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        match (path, access.device) {
            (Some(path), _) => write!(f, " {path}")?,
            (None, Some(id)) => write!(f, " {id}")?,
            (None, None) => f.write_str(" -")?,
        }
        match access.outcome {
            Ok(()) => f.write_str(" ok"),
            Err(error) => write!(f, " {error}"),
        }
    }
}
