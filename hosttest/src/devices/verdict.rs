//! The ports through which a guest says whether it passed.

use std::fmt;

use spin::Mutex;
use vm_device::{Access, Device, IoResource};

/// The first of the verdict's ports.
pub const VERDICT_PORT: u16 = 0x600;
/// How many ports it has.
pub const VERDICT_PORTS: u32 = 20;

/// Which check of a guest failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The source line of the check, or whatever number the guest gives it; not 0.
    pub check: u32,
    /// What the guest saw.
    pub seen: u64,
    /// What it should have seen.
    pub expected: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "check {}: saw {:#x}, expected {:#x}", self.check, self.seen, self.expected)
    }
}

/// A device of five 32-bit registers: the number of the check that failed, or 0 for a pass, which ends the run; and, to be
/// written before, what was seen (low, high) and what was expected (low, high).
pub struct Verdict(Mutex<State>);

struct State {
    given: bool,
    registers: [u32; 5],
}

impl Verdict {
    /// No verdict yet.
    pub const fn new() -> Self {
        Self(Mutex::new(State { given: false, registers: [0; 5] }))
    }

    /// What it has to be registered with.
    pub const fn resource() -> IoResource {
        IoResource::pio(VERDICT_PORT, VERDICT_PORTS)
    }

    /// The verdict, once there is one.
    pub fn given(&self) -> Option<Result<(), Finding>> {
        let state = self.0.lock();
        let [check, seen_low, seen_high, expected_low, expected_high] = state.registers;
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        state.given.then_some(match check {
            0 => Ok(()),
            check => {
                Err(Finding { check, seen: join(seen_low, seen_high), expected: join(expected_low, expected_high) })
            }
        })
    }
}

impl Default for Verdict {
    fn default() -> Self {
        Self::new()
    }
}

impl Device<'_> for Verdict {
    fn name(&self) -> &str {
        "verdict"
    }

    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let mut state = self.0.lock();
        let register = state.registers.get_mut(access.offset() as usize / 4);
        if let (Some(register), Ok(word)) = (register, data.try_into()) {
            *register = u32::from_le_bytes(word);
            state.given |= access.offset() == 0;
        }
    }
}
