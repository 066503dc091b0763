//! Doorbells: writes that KVM turns into an event, so that the virtual processor goes on without an exit to the VMM.

use std::io;
use std::sync::Arc;

use kvm_bindings::{
    kvm_ioeventfd, kvm_ioeventfd_flag_nr_datamatch, kvm_ioeventfd_flag_nr_deassign, kvm_ioeventfd_flag_nr_pio,
};
use std::os::fd::AsRawFd;
use vm_device::{DeviceManager, Doorbell, GuestAddress, IoType};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::bridge::Accesses;
use crate::vm::Vm;

/// `KVM_IOEVENTFD` (Linux, include/uapi/linux/kvm.h).
#[allow(missing_docs)]
mod request {
    use kvm_bindings::{KVMIO, kvm_ioeventfd};
    vmm_sys_util::ioctl_iow_nr!(KVM_IOEVENTFD, KVMIO, 0x79, kvm_ioeventfd);
}

/// The doorbells of all devices of a manager, as they lie when it is made: after a relocation or a hot plug, make it anew.
pub struct Doorbells {
    vm: Arc<Vm>,
    bells: Vec<Bell>,
    epoll: Epoll,
    stop: EventFd,
}

struct Bell {
    address: GuestAddress,
    io_type: IoType,
    doorbell: Doorbell,
    event: EventFd,
}

impl Doorbells {
    /// Gives the doorbells of all devices to KVM.
    ///
    /// # Errors
    /// What KVM refuses: two doorbells at the same place.
    pub fn new<const DEVICES: usize, const RANGES: usize, const VCPUS: usize>(
        vm: &Arc<Vm>,
        manager: &DeviceManager<'_, DEVICES, RANGES, VCPUS>,
    ) -> io::Result<Self> {
        let (epoll, stop) = (Epoll::new()?, EventFd::new(EFD_NONBLOCK)?);
        let mut doorbells = Self { vm: Arc::clone(vm), bells: Vec::new(), epoll, stop };
        doorbells.watch(&doorbells.stop, u64::MAX)?;
        for info in manager.walk() {
            for doorbell in info.device.doorbells() {
                let Some(place) = manager.range(info.id, doorbell.range_index).filter(|range| range.decoded) else {
                    continue;
                };
                let address = GuestAddress(place.range.first().0.wrapping_add(doorbell.offset));
                if !place.range.contains(address) {
                    return Err(io::Error::other(format!("{doorbell:?} of {} lies outside {place}", info.name)));
                }
                let event = EventFd::new(EFD_NONBLOCK)?;
                let bell = Bell { address, io_type: place.io_type, doorbell: *doorbell, event };
                bell.assign(vm, true)?;
                doorbells.watch(&bell.event, doorbells.bells.len() as u64)?;
                doorbells.bells.push(bell);
            }
        }
        Ok(doorbells)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.bells.len()
    }

    /// Makes each ring a write to the device, until [`stop`](Self::stop). Rings that come faster than they are served
    /// become one write. It goes through the manager, so that a device that was removed is not called.
    ///
    /// The value written is the one that the doorbell asks for; for a doorbell of any value it is 0.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn serve(&self, accesses: &mut impl Accesses) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 8];
        loop {
            let ready = match self.epoll.wait(-1, &mut events) {
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in events.iter().take(ready) {
                let Some(bell) = self.bells.get(event.data() as usize) else { return Ok(()) };
                bell.event.read()?;
                let value = bell.doorbell.value.unwrap_or(0).to_le_bytes();
                let size = usize::from(bell.doorbell.size).clamp(1, value.len());
                // The guest is past it already: there is nobody to tell that no device is there any more.
                let _ = accesses.write(bell.address, &value[..size], bell.io_type);
            }
        }
    }

    /// Ends [`serve`](Self::serve), on whatever thread that is.
    pub fn stop(&self) {
        // It fails only after 2^64 calls.
        let _ = self.stop.write(1);
    }

    fn watch(&self, event: &EventFd, token: u64) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Add, event.as_raw_fd(), EpollEvent::new(EventSet::IN, token))
    }
}

impl Drop for Doorbells {
    fn drop(&mut self) {
        for bell in &self.bells {
            // It was assigned, so KVM knows it.
            let _ = bell.assign(&self.vm, false);
        }
    }
}

impl Bell {
    fn assign(&self, vm: &Vm, assign: bool) -> io::Result<()> {
        let flag = |set: bool, bit: u32| u32::from(set) << bit;
        let request = kvm_ioeventfd {
            addr: self.address.0,
            len: self.doorbell.size.into(),
            datamatch: self.doorbell.value.unwrap_or(0),
            fd: self.event.as_raw_fd(),
            flags: flag(self.doorbell.value.is_some(), kvm_ioeventfd_flag_nr_datamatch)
                | flag(self.io_type == IoType::Pio, kvm_ioeventfd_flag_nr_pio)
                | flag(!assign, kvm_ioeventfd_flag_nr_deassign),
            ..Default::default()
        };
        // `kvm-ioctls` offers no doorbell of a given length and any value, hence the ioctl itself.
        // SAFETY: the file descriptor is a virtual machine's, and the kernel only reads the structure.
        match unsafe { ioctl_with_ref(vm.fd(), request::KVM_IOEVENTFD(), &request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
