//! Guests that never end: the watchdog ends them.

use std::time::Duration;

use kvm_ioctls::Kvm;

use super::scenario::{Failure, Room, Scenario, expect, manager};
use super::verdict::{NotPassed, run_to_verdict};
use crate::devices::verdict::Verdict;
use crate::guest_side::{port, real_mode};
use crate::vmm::machine::Machine;
use crate::vmm::run::{RunError, Tally};
use crate::vmm::vcpu::{Ring, Vcpu};

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario { name: "watchdog/ring-3", about: "a guest in ring 3 that hangs without an exit is stopped", run: ring_3 },
    Scenario {
        name: "watchdog/real-mode",
        about: "a guest in real mode that hangs without an exit is stopped",
        run: real_mode,
    },
    Scenario { name: "watchdog/exits", about: "a guest that exits again and again is stopped", run: exits },
    Scenario { name: "watchdog/crash", about: "a guest that crashes is reported, with where it stood", run: crash },
];

const LIMIT: Duration = Duration::from_millis(100);

fn expect_hung(mut vcpu: Vcpu) -> Result<Tally, Failure> {
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;
    match run_to_verdict(&mut vcpu, &mut &manager, &verdict, LIMIT) {
        Err(NotPassed::NoVerdict(RunError::Hung { tally, .. })) => Ok(tally),
        other => Err(Failure(format!("a guest that hangs: saw {other:?}"))),
    }
}

extern "C" fn spin(_: u64) {
    loop {
        core::hint::spin_loop();
    }
}

fn ring_3(kvm: &Kvm) -> Result<Tally, Failure> {
    expect_hung(Machine::new(kvm)?.start(0, Ring::User, spin, 0)?)
}

fn real_mode(kvm: &Kvm) -> Result<Tally, Failure> {
    expect_hung(Machine::new(kvm)?.start_real_mode(real_mode::spin())?)
}

fn exits(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        loop {
            port::write(0x80, 0u8);
        }
    }
    expect_hung(Machine::new(kvm)?.start(0, Ring::User, guest, 0)?)
}

fn crash(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        // Nothing is mapped there, and there is no handler for the page fault, nor for what follows from that.
        crate::guest_side::mmio::write(0x1234_5678_9000, 0u8);
    }
    let mut vcpu = Machine::new(kvm)?.start(0, Ring::User, guest, 0)?;
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    match run_to_verdict(&mut vcpu, &mut &manager, &verdict, super::scenario::LIMIT) {
        Err(NotPassed::NoVerdict(RunError::Crashed { tally, position, .. })) => {
            expect("the position names an instruction", position.starts_with("rip 0x"), true)?;
            Ok(tally)
        }
        other => Err(Failure(format!("a guest that crashes: saw {other:?}"))),
    }
}
