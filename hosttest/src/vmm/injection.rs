//! Interrupts of the crate's PIC reach the processor of a machine that has no interrupt controller of KVM's.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, Once};
use std::time::Duration;

use kvm_bindings::kvm_run;
use vm_device::Gsi;
use vm_device::devices::pic::{IntrPin, Pic};
use vmm_sys_util::signal::register_signal_handler;

use crate::vmm::exit::{Crash, Exit};
use crate::vmm::run::{Halt, Interrupts};
use crate::vmm::vcpu::Vcpu;

/// How long a halted processor waits for an interrupt before its watchdog is looked at.
const WAIT: Duration = Duration::from_millis(10);

/// The pin INTR of a processor. It gets the thread of the processor out of `KVM_RUN`, or out of its wait in a halt, and keeps the
/// ends of interrupts for that thread to pass them on.
#[derive(Default)]
pub struct Intr {
    state: Mutex<State>,
    rises: Condvar,
    ended: Mutex<Vec<Gsi>>,
}

#[derive(Default)]
struct State {
    asserted: bool,
    /// The thread that runs the processor.
    thread: Option<libc::pthread_t>,
}

impl Intr {
    /// The pin of a processor that does not run.
    pub fn new() -> Self {
        Self::default()
    }

    /// The lines whose interrupts have ended since the last call: each is passed on to
    /// [`DeviceManager::end_of_interrupt`](vm_device::DeviceManager::end_of_interrupt) after an exit.
    pub fn take_ended(&self) -> Vec<Gsi> {
        std::mem::take(&mut self.ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl IntrPin for Intr {
    fn set(&self, asserted: bool) {
        let mut state = self.lock();
        state.asserted = asserted;
        if !asserted {
            return;
        }
        self.rises.notify_all();
        // SAFETY: `pthread_self` has no preconditions. A thread that is noted has not ended: it takes its note back under the same
        // lock before it does, in the `drop` of its `Injection`.
        unsafe {
            if let Some(thread) = state.thread
                && libc::pthread_equal(thread, libc::pthread_self()) == 0
            {
                libc::pthread_kill(thread, kick_signal());
            }
        }
    }

    fn ended(&self, gsi: Gsi) {
        self.ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(gsi);
    }
}

/// Injects the interrupts of a PIC into the processor that the calling thread runs (Linux, Documentation/virt/kvm/api.rst,
/// `KVM_INTERRUPT`, and `request_interrupt_window` in "The kvm_run structure").
pub struct Injection<'a> {
    pic: &'a Pic<&'a Intr>,
    intr: &'a Intr,
}

impl<'a> Injection<'a> {
    /// Injects what `pic` has, whose pin is `intr`, into a processor of the calling thread.
    pub fn new(pic: &'a Pic<&'a Intr>, intr: &'a Intr) -> Self {
        install_handler();
        // SAFETY: it has no preconditions.
        intr.lock().thread = Some(unsafe { libc::pthread_self() });
        Self { pic, intr }
    }

    /// Injects the interrupt that is there if the processor can take one. Otherwise, and while there are more, `KVM_RUN` comes back
    /// as soon as it can.
    fn inject(&self, vcpu: &mut Vcpu) -> Result<(), kvm_ioctls::Error> {
        let run = vcpu.kvm_run();
        let is_ready = run.ready_for_interrupt_injection != 0 && run.if_flag != 0;
        if is_ready && self.pic.has_interrupt() {
            vcpu.interrupt(self.pic.acknowledge())?;
        }
        vcpu.kvm_run().request_interrupt_window = self.pic.has_interrupt().into();
        Ok(())
    }
}

impl Drop for Injection<'_> {
    fn drop(&mut self) {
        self.intr.lock().thread = None;
    }
}

impl Interrupts for Injection<'_> {
    fn enter<'v>(&mut self, vcpu: &'v mut Vcpu) -> Exit<'v> {
        // A kick from here on lets the entry come back at once, so that what is not seen now is seen before the next one.
        let _kickable = Kickable::new(vcpu);
        match self.inject(vcpu) {
            Ok(()) => vcpu.run(),
            Err(error) => Exit::Crashed(Crash::Failed(error)),
        }
    }

    fn wait(&mut self, vcpu: &mut Vcpu) -> Halt {
        if vcpu.kvm_run().if_flag == 0 {
            return Halt::ForGood;
        }
        let state = self.intr.lock();
        match self.intr.rises.wait_timeout_while(state, WAIT, |state| !state.asserted) {
            Ok((_, waited)) if waited.timed_out() => Halt::Waits,
            _ => Halt::Over,
        }
    }
}

thread_local! {
    /// The flag of the processor that this thread is about to enter, by which an entry comes back at once.
    static IMMEDIATE_EXIT: Cell<*const AtomicU8> = const { Cell::new(ptr::null()) };
}

/// While it lives, a kick of this thread sets the flag `immediate_exit` of a processor.
struct Kickable;

impl Kickable {
    fn new(vcpu: &mut Vcpu) -> Self {
        let run: *mut kvm_run = vcpu.kvm_run();
        // SAFETY: `kvm_run` stays mapped while the processor lives. The flag is a byte, and so is the atomic.
        let flag = unsafe { AtomicU8::from_ptr(&raw mut (*run).immediate_exit) };
        IMMEDIATE_EXIT.set(flag);
        flag.store(0, Ordering::SeqCst);
        Self
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null());
    }
}

fn kick_signal() -> libc::c_int {
    // The one before is the watchdog's.
    libc::SIGRTMIN() + 1
}

fn install_handler() {
    extern "C" fn kicked(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: this thread has set the pointer, in `Kickable::new`, and takes it back before it leaves the function that borrows
        // the processor.
        if let Some(flag) = unsafe { IMMEDIATE_EXIT.get().as_ref() } {
            flag.store(1, Ordering::SeqCst);
        }
    }
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        register_signal_handler(kick_signal(), kicked).expect("a real-time signal accepts a handler");
    });
}
