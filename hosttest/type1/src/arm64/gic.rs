//! The machine's interrupt controller, a GICv3, as far as processors interrupt each other by it (Arm IHI 0069).

use core::arch::asm;

use super::vcpu::{mrs, msr};

/// The software-generated interrupt by which a processor asks another for a barrier.
pub const BARRIER: u64 = 1;

/// GICD_CTLR, and the redistributors: one for each processor, of two frames.
const DISTRIBUTOR_CONTROL: *mut u32 = 0x0800_0000 as *mut u32;
const REDISTRIBUTORS: usize = 0x080a_0000;
const REDISTRIBUTOR_SIZE: usize = 0x2_0000;

/// Lets the processor that calls it, which has this number, take [`BARRIER`] at EL2.
pub fn enable(processor: usize) {
    const WAKER: usize = 0x14;
    const SLEEP: u32 = 1 << 1;
    const ASLEEP: u32 = 1 << 2;
    const GROUPS: usize = 0x1_0080;
    const SET_ENABLED: usize = 0x1_0100;
    const GROUP_1: u32 = 1 << 1;
    const AFFINITY_ROUTING: u32 = 1 << 4;
    let register = |offset| (REDISTRIBUTORS + processor * REDISTRIBUTOR_SIZE + offset) as *mut u32;
    // SAFETY: the registers are the interrupt controller's, and touch no memory.
    unsafe {
        DISTRIBUTOR_CONTROL.write_volatile(AFFINITY_ROUTING | GROUP_1);
        let waker = register(WAKER);
        waker.write_volatile(waker.read_volatile() & !SLEEP);
        while waker.read_volatile() & ASLEEP != 0 {}
        let groups = register(GROUPS);
        groups.write_volatile(groups.read_volatile() | 1 << BARRIER);
        register(SET_ENABLED).write_volatile(1 << BARRIER);
    }
    msr!("icc_sre_el2", mrs!("icc_sre_el2") | 1);
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack)) };
    msr!("icc_pmr_el1", 0xff);
    msr!("icc_igrpen1_el1", 1);
}

/// Interrupts another processor by [`BARRIER`]. What was stored before is seen by its handler.
pub fn interrupt(processor: usize) {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst", options(nostack)) };
    msr!("icc_sgi1r_el1", BARRIER << 24 | 1 << processor);
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack)) };
}

/// The number of the interrupt that the processor takes: from now on it may come again.
pub fn acknowledge() -> u64 {
    let number = mrs!("icc_iar1_el1");
    // SAFETY: a barrier: the interrupt is acknowledged before anything else is done.
    unsafe { asm!("dsb sy", options(nostack)) };
    number
}

/// The interrupt has been dealt with.
pub fn end(number: u64) {
    /// Numbers from here on are of no interrupt.
    const SPECIAL: u64 = 1020;
    if number < SPECIAL {
        msr!("icc_eoir1_el1", number);
    }
}
