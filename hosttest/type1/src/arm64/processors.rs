//! The second processor: it runs the second virtual processor of the guest, which the guest turns on and off by calls of its firmware.
//! Both have the same memory, the same nested page tables and the same devices, and each a dispatcher of its own.

use core::arch::asm;
use core::hint::spin_loop;

use spin::{Mutex, MutexGuard};
use vm_device::devices::time::Clock;

use super::barrier;
use super::boot;
use super::gic;
use super::host::HostClock;
use super::vcpu::Vcpu;
use crate::MAPPINGS;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::manager::MANAGER;
use crate::memory::GuestMemory;
use crate::power::POWER;

/// Its number.
const SECOND: u16 = 1;

static VCPU: Mutex<Vcpu> = Mutex::new(Vcpu::without_lines());
static STATE: Mutex<State> = Mutex::new(State { phase: Phase::Unpowered, failure: None });

struct State {
    phase: Phase,
    /// Why the guest could not go on there.
    failure: Option<Failure>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// The processor is off.
    Unpowered,
    /// The processor waits, and the virtual one is off.
    Off,
    Starting(Start),
    On,
}

/// Where a virtual processor begins.
#[derive(Clone, Copy)]
pub struct Start {
    pub entry: u64,
    /// What it finds in `x0`.
    pub argument: u64,
    pub memory: GuestMemory,
}

/// Why a virtual processor was not turned on (Arm DEN0022, 5.2.2).
pub enum NotTurnedOn {
    /// There is none of this number.
    Unknown,
    /// It is on.
    On,
    /// The machine has no processor for it.
    NoProcessor,
}

/// Turns a virtual processor on.
///
/// # Errors
/// [`NotTurnedOn`].
pub fn turn_on(number: u64, start: Start) -> Result<(), NotTurnedOn> {
    match number {
        0 => return Err(NotTurnedOn::On),
        number if number != u64::from(SECOND) => return Err(NotTurnedOn::Unknown),
        _ => {}
    }
    let mut state = STATE.lock();
    match state.phase {
        Phase::Starting(_) | Phase::On => return Err(NotTurnedOn::On),
        Phase::Unpowered => {
            // From now on there are two, and removals interrupt this one too.
            barrier::enter();
            if power_on() != 0 {
                return Err(NotTurnedOn::NoProcessor);
            }
        }
        Phase::Off => {}
    }
    state.phase = Phase::Starting(start);
    Ok(())
}

/// Lets the machine's firmware turn the second processor on, and returns what that says: 0 if it does.
fn power_on() -> u64 {
    const CPU_ON: u64 = 0xc400_0003;
    let outcome;
    // SAFETY: the processor begins at an entry of the image that is meant for it, with a stack of its own.
    unsafe {
        asm!("smc #0", inout("x0") CPU_ON => outcome, inout("x1") u64::from(SECOND) => _, inout("x2") boot::second_entry() => _,
            inout("x3") 0_u64 => _, options(nostack));
    }
    outcome
}

/// Whether the second virtual processor is on.
pub fn is_on() -> bool {
    matches!(STATE.lock().phase, Phase::Starting(_) | Phase::On)
}

/// What the second processor does: it runs its virtual processor whenever that is on.
pub fn second() -> ! {
    let mut vcpu: &'static mut Vcpu = MutexGuard::leak(VCPU.lock());
    loop {
        let start = wait_for_start();
        barrier::enter();
        let outcome;
        (vcpu, outcome) = run(vcpu, start);
        barrier::leave();
        let mut state = STATE.lock();
        if let Err(failure) = outcome {
            POWER.halt();
            state.failure.get_or_insert(failure);
        }
        state.phase = Phase::Off;
    }
}

/// Runs the virtual processor until it is off, or the machine is.
fn run(vcpu: &'static mut Vcpu, start: Start) -> (&'static mut Vcpu, Result<(), Failure>) {
    if let Err(failure) = vcpu.set_up(MAPPINGS.lock().root()) {
        return (vcpu, Err(failure.into()));
    }
    vcpu.start_at(start.entry, start.argument);
    let Ok(devices) = MANAGER.dispatcher(SECOND) else { return (vcpu, Err("no dispatcher for the second".into())) };
    let mut machine = Machine { vcpu, memory: start.memory, mappings: &MAPPINGS, devices, ticked: 0, off: false };
    let ended = machine.run();
    (machine.vcpu, ended.map_err(Failure::from))
}

/// Waits until the virtual processor is turned on.
fn wait_for_start() -> Start {
    loop {
        let phase = &mut STATE.lock().phase;
        if let Phase::Starting(start) = *phase {
            *phase = Phase::On;
            return start;
        }
        spin_loop();
    }
}

/// Waits until the second virtual processor is off, after the end of the machine.
///
/// # Errors
/// It could not go on, or does not end.
pub fn end() -> Result<(), Failure> {
    const LIMIT: u64 = 5_000_000_000;
    let begun = HostClock.now();
    while is_on() {
        // It exits, if it has not for a while, and finds the end.
        gic::interrupt(SECOND.into());
        if HostClock.now() - begun > LIMIT {
            return Err("the second virtual processor does not end".into());
        }
        spin_loop();
    }
    STATE.lock().failure.take().map_or(Ok(()), Err)
}
