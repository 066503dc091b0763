//! Level-triggered lines over irqfds, whose resample events tell of the ends of interrupts.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vm_device::{Gsi, GuestAddress, InterruptController, InterruptError};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::vmm::irq::send_message;
use crate::vmm::vm::Vm;

/// The token of the event that ends [`ResampledLines::serve`]. Those of the lines count from 0.
const STOP: u64 = u64::MAX;

/// Level-triggered lines of KVM's IOAPIC, each asserted by writing an event, without an ioctl (Linux,
/// Documentation/virt/kvm/api.rst, `KVM_IRQFD` with `KVM_IRQFD_FLAG_RESAMPLE`).
///
/// Such a line stays asserted until the guest ends its interrupt. KVM lets it go then, and tells so by a second event, for
/// which [`serve`](Self::serve) calls back: the VMM passes the end on to
/// [`DeviceManager::end_of_interrupt`](vm_device::DeviceManager::end_of_interrupt), which asserts the line once more if a
/// device asserts it still. A device that takes its assertion back earlier does not let the line go: the guest may see one
/// interrupt that no device asks for.
pub struct ResampledLines {
    vm: Arc<Vm>,
    lines: Vec<Line>,
    epoll: Epoll,
    stop: EventFd,
}

struct Line {
    gsi: Gsi,
    /// The VMM asserts the line.
    assert: EventFd,
    /// KVM has let it go.
    ended: EventFd,
}

impl ResampledLines {
    /// These lines of `vm`, which has an irqchip; no two are the same.
    ///
    /// # Errors
    /// What KVM refuses, or that the process can have no more file descriptors.
    pub fn new(vm: &Arc<Vm>, lines: &[Gsi]) -> io::Result<Self> {
        let (epoll, stop) = (Epoll::new()?, EventFd::new(EFD_NONBLOCK)?);
        let watch = |event: &EventFd, token| {
            epoll.ctl(ControlOperation::Add, event.as_raw_fd(), EpollEvent::new(EventSet::IN, token))
        };
        watch(&stop, STOP)?;
        let lines = (0..).zip(lines).map(|(token, gsi)| {
            let line = Line { gsi: *gsi, assert: EventFd::new(EFD_NONBLOCK)?, ended: EventFd::new(EFD_NONBLOCK)? };
            vm.fd().register_irqfd_with_resample(&line.assert, &line.ended, gsi.0)?;
            watch(&line.ended, token)?;
            Ok(line)
        });
        let lines = lines.collect::<io::Result<_>>()?;
        Ok(Self { vm: Arc::clone(vm), lines, epoll, stop })
    }

    /// Calls `ended` with each line whose interrupt has ended, until [`stop`](Self::stop). Ends that come faster than they are
    /// served become one. What has ended before `stop` is called is served.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn serve(&self, mut ended: impl FnMut(Gsi)) -> io::Result<()> {
        let mut events = vec![EpollEvent::default(); self.lines.len() + 1];
        loop {
            let ready = match self.epoll.wait(-1, &mut events) {
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let tokens = events.iter().take(ready).map(|event| event.data());
            for line in tokens.clone().filter_map(|token| self.lines.get(usize::try_from(token).ok()?)) {
                // Before the devices are told: what ends from here on is told again.
                if line.ended.read().is_ok() {
                    ended(line.gsi);
                }
            }
            if tokens.into_iter().any(|token| token == STOP) {
                return Ok(());
            }
        }
    }

    /// Ends [`serve`](Self::serve), on whatever thread that is.
    pub fn stop(&self) {
        // It fails only after 2^64 calls.
        let _ = self.stop.write(1);
    }
}

impl Drop for ResampledLines {
    /// KVM forgets the events.
    fn drop(&mut self) {
        for line in &self.lines {
            // It was registered, so KVM knows it.
            let _ = self.vm.fd().unregister_irqfd(&line.assert, line.gsi.0);
        }
    }
}

impl InterruptController for ResampledLines {
    /// # Errors
    /// [`InterruptError::Refused`] for another line than these.
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let line = self.lines.iter().find(|line| line.gsi == gsi).ok_or(InterruptError::Refused)?;
        if asserted { line.assert.write(1).map_err(|_| InterruptError::Refused) } else { Ok(()) }
    }

    /// # Errors
    /// Always [`InterruptError::Refused`]: these lines are level-triggered.
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }

    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        send_message(&self.vm, address, data)
    }
}
