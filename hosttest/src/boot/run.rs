//! Runs a board's guest until it ends.

use std::fmt;
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use vm_device::IoError;

use crate::boot::board::{Board, refused};
use crate::boot::error::BootError;
use crate::vmm::bridge::answer;
use crate::vmm::clock::HostClock;
use crate::vmm::crew::Crew;
use crate::vmm::exit::{Crash, Exit};
use crate::vmm::host::kvm;
use crate::vmm::power::Request;

/// How a guest has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Ended {
    /// The guest has switched the machine off.
    PoweredOff,
    /// The guest has reset the machine, and that is to be its end.
    Reset,
    /// Somebody has stopped it, by the crew.
    Stopped {
        /// Where its processors stand.
        position: String,
    },
    /// It has not ended in time.
    TimedOut {
        /// Where its processors stand.
        position: String,
    },
    /// It cannot go on.
    Crashed {
        /// The number of the processor.
        cpu: u16,
        /// Why.
        crash: Crash,
        /// Where it stands.
        position: String,
    },
    /// A device has failed.
    DeviceFailed {
        /// The device's code.
        code: u32,
        /// Where the processor stands.
        position: String,
    },
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::PoweredOff => f.write_str("the guest switched the machine off"),
            Ended::Reset => f.write_str("the guest reset the machine"),
            Ended::Stopped { position } => write!(f, "the guest was stopped at {position}"),
            Ended::TimedOut { position } => write!(f, "the guest did not end in time; it is at {position}"),
            Ended::Crashed { cpu, crash, position } => {
                write!(f, "the guest crashed: processor {cpu}: {crash}, at {position}")
            }
            Ended::DeviceFailed { code, position } => {
                write!(f, "a device failed (code {code}), the guest is at {position}")
            }
        }
    }
}

/// How to run a guest.
#[derive(Clone, Copy)]
pub struct Run<'r> {
    /// How many processors it has.
    pub cpus: usize,
    /// How long it may run, with all its resets.
    pub limit: Option<Duration>,
    /// Is asked at each reset by the guest: whether it starts again. Otherwise the reset is its end.
    pub starts_again: &'r dyn Fn() -> bool,
}

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// How often the guest has reset the machine, and was started again.
    pub resets: u32,
    /// How long it ran.
    pub elapsed: Duration,
}

/// Runs the guest of a board. `crew` stops it.
///
/// # Errors
/// [`BootError`] if it cannot be started.
pub fn run(board: &Board<'_>, crew: &Crew, run: &Run<'_>) -> Result<Outcome, BootError> {
    run_on(&kvm()?, board, crew, run)
}

/// The same on a KVM that is open.
///
/// # Errors
/// As [`run`].
pub fn run_on(kvm: &Kvm, board: &Board<'_>, crew: &Crew, run: &Run<'_>) -> Result<Outcome, BootError> {
    let start = Instant::now();
    let mut resets = 0;
    thread::scope(|scope| {
        scope.spawn(|| board.clock.run(|now| board.manager.tick(now)));
        let _ticks = StopClock(board.clock);
        loop {
            let ended = run_once(board, crew, run, kvm, start)?;
            if ended == Ended::Reset && (run.starts_again)() {
                resets += 1;
                board.manager.reset().map_err(refused)?;
                continue;
            }
            return Ok(Outcome { ended, resets, elapsed: start.elapsed() });
        }
    })
}

/// Ends the ticks, however the run ends.
struct StopClock<'r>(&'r HostClock);

impl Drop for StopClock<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs the guest from power-on to its next reset, or to its end.
fn run_once(board: &Board<'_>, crew: &Crew, run: &Run<'_>, kvm: &Kvm, start: Instant) -> Result<Ended, BootError> {
    let vcpus = board.power_on(kvm, run.cpus)?;
    let mut members = Vec::new();
    for (cpu, vcpu) in (0_u16..).zip(vcpus) {
        let devices = board.manager.dispatcher(cpu).map_err(refused)?;
        members.push((cpu, vcpu, devices));
    }
    let limit = run.limit.map(|limit| limit.saturating_sub(start.elapsed()));
    let ended = crew.run(&mut members, limit, |(cpu, vcpu, devices)| -> ControlFlow<Option<Ended>> {
        let mut exit = board.controllers.enter(*cpu, vcpu);
        match answer(&mut exit, devices) {
            Some(Err(IoError::Failed { code })) => {
                return ControlFlow::Break(Some(Ended::DeviceFailed { code, position: vcpu.position() }));
            }
            Some(_) => {}
            None => match exit {
                Exit::Crashed(crash) => {
                    if vcpu.passes_wait(&crash, |address, bytes| board.ram.read(address.0, bytes)) {
                        return ControlFlow::Continue(());
                    }
                    return ControlFlow::Break(Some(Ended::Crashed { cpu: *cpu, crash, position: vcpu.position() }));
                }
                Exit::InterruptEnded { vector } => board.controllers.end(vector, board.manager),
                _ => {}
            },
        }
        board.controllers.pass_ends_on(board.manager);
        // It is looked at only, so that the processor that has asked for it does not go on.
        if board.power.is_requested() { ControlFlow::Break(None) } else { ControlFlow::Continue(()) }
    });
    if let Some(error) = board.controllers.refused() {
        return Err(error.into());
    }
    match board.power.take() {
        Some(Request::Reset) => return Ok(Ended::Reset),
        Some(Request::PowerOff) => return Ok(Ended::PoweredOff),
        None => {}
    }
    Ok(ended.flatten().unwrap_or_else(|| {
        let is_over = run.limit.is_some_and(|limit| start.elapsed() >= limit);
        let positions: Vec<_> =
            members.iter().map(|(cpu, vcpu, _)| format!("processor {cpu}: {}", vcpu.position())).collect();
        let position = positions.join("; ");
        if is_over { Ended::TimedOut { position } } else { Ended::Stopped { position } }
    }))
}
