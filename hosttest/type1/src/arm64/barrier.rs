//! The heavy barrier of the asymmetric fence: an interrupt to each other processor, which executes a barrier and acknowledges.
//!
//! **It is exact.** Each processor has two numbers: of the barriers that were *requested* of it, and of those that it has *passed*. A
//! requester counts up the first, interrupts, and waits until the second is as high. The handler reads the first, executes a full
//! barrier, and stores what it has read as the second. So the barrier comes after the request, and before the end of the wait. A
//! request that comes after the handler has read finds the interrupt acknowledged: it comes again.
//!
//! **It ends.** The other processor takes the interrupt
//! - in the guest, where it waits for an interrupt too: it exits, and takes this one as soon as the hypervisor's code goes on;
//! - in the hypervisor's code, in a callback of a device too, whatever locks that code holds: the handler takes none. EL2 masks
//!   interrupts only for the instructions of [`Vcpu::run`](super::vcpu::Vcpu::run) around the guest, and in the handler. So a
//!   removal waits for no callback of another device. One that masks interrupts delays every removal until it unmasks them, and
//!   must not wait for a removal meanwhile;
//! - while it waits for a barrier itself: two that wait for each other both go on. The wait also serves requests, so that this
//!   holds with interrupts masked;
//! - never, where it has no dispatcher: it is off, or not on yet. Then it is not *present*, and needs no barrier. A processor
//!   becomes present, and executes a full barrier, before it acquires its dispatcher: a requester that does not see it present has
//!   executed a barrier before that one, and the processor sees what the requester has stored. One that is seen absent again has
//!   ended its last access.
//!
//! A processor that panics ends the machine.

use core::arch::asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use vm_device::HeavyBarrier;

use super::gic;
use super::litmus;
use super::vcpu::mrs;

/// How many processors there may be.
pub const PROCESSORS: usize = 2;

struct Processor {
    present: AtomicBool,
    requested: AtomicU64,
    passed: AtomicU64,
    /// How many interrupts it has taken.
    interrupts: AtomicU64,
}

static ALL: [Processor; PROCESSORS] = [const { Processor::absent() }; PROCESSORS];
/// How many barriers were executed.
static EXECUTED: AtomicU64 = AtomicU64::new(0);

// SAFETY: `execute` returns when every other processor has executed a full barrier since it was called, or has no dispatcher: see
// the documentation of this module.
pub const HEAVY_BARRIER: HeavyBarrier = unsafe { HeavyBarrier::new(execute) };

impl Processor {
    const fn absent() -> Self {
        Self {
            present: AtomicBool::new(false),
            requested: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
        }
    }

    /// Executes the barriers that were requested of this processor, by which it is called.
    fn serve(&self) {
        let requested = self.requested.load(Ordering::Acquire);
        if self.passed.load(Ordering::Relaxed) < requested {
            fence(Ordering::SeqCst);
            // The interrupt may have come in between, and have served a later one.
            self.passed.fetch_max(requested, Ordering::AcqRel);
        }
    }
}

/// The number of the processor that calls it (MPIDR_EL1, Aff0).
pub fn current() -> usize {
    (mrs!("mpidr_el1") & 0xff) as usize
}

/// The processor that calls it is going to acquire a dispatcher. It takes interrupts from now on.
pub fn enter() {
    let number = current();
    gic::enable(number);
    if let Some(processor) = ALL.get(number) {
        processor.present.store(true, Ordering::Relaxed);
    }
    fence(Ordering::SeqCst);
    // SAFETY: the vectors are there, and the handler keeps every register.
    unsafe { asm!("msr daifclr, #2", options(nostack)) };
}

/// The processor that calls it has no dispatcher any more.
pub fn leave() {
    if let Some(processor) = ALL.get(current()) {
        processor.present.store(false, Ordering::Release);
    }
}

/// The heavy barrier.
pub fn execute() {
    fence(Ordering::SeqCst);
    EXECUTED.fetch_add(1, Ordering::Relaxed);
    let own = current();
    for (number, other) in ALL.iter().enumerate().filter(|(number, _)| *number != own) {
        if !other.present.load(Ordering::Acquire) {
            continue;
        }
        let request = other.requested.fetch_add(1, Ordering::AcqRel) + 1;
        gic::interrupt(number);
        while other.passed.load(Ordering::Acquire) < request && other.present.load(Ordering::Acquire) {
            if let Some(own) = ALL.get(own) {
                own.serve();
            }
            spin_loop();
        }
    }
    fence(Ordering::SeqCst);
}

/// The processor that calls it was interrupted.
pub fn interrupted() {
    if let Some(processor) = ALL.get(current()) {
        processor.interrupts.fetch_add(1, Ordering::Relaxed);
        litmus::before_barrier();
        processor.serve();
    }
}

/// How many barriers were executed, and how many interrupts each processor has taken.
pub fn counts() -> (u64, [u64; PROCESSORS]) {
    (EXECUTED.load(Ordering::Relaxed), ALL.each_ref().map(|processor| processor.interrupts.load(Ordering::Relaxed)))
}
