//! One doorbell: the writes that ring it, and the events that KVM makes of them.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use kvm_bindings::{
    kvm_ioeventfd, kvm_ioeventfd_flag_nr_datamatch, kvm_ioeventfd_flag_nr_deassign, kvm_ioeventfd_flag_nr_pio,
};
use vm_device::{Doorbell, GuestAddress, InstanceId, IoRange, IoType};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::ioctl::ioctl_with_ref;

use super::rung::Rung;
use crate::vmm::vm::Vm;

/// `KVM_IOEVENTFD` (Linux, include/uapi/linux/kvm.h).
#[allow(missing_docs)]
mod request {
    use kvm_bindings::{KVMIO, kvm_ioeventfd};
    vmm_sys_util::ioctl_iow_nr!(KVM_IOEVENTFD, KVMIO, 0x79, kvm_ioeventfd);
}

/// The lengths that a write can have, in bytes. Other lengths are parts of a write across a page, and exit.
const SIZES: [u8; 4] = [1, 2, 4, 8];
/// The longest write to a port, in bytes.
const LONGEST_TO_PORT: u8 = 4;

/// Why a doorbell was not given to KVM.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The doorbell does not lie within this range.
    Outside(IoType, IoRange),
    /// The range is a window: the range of another device may lie over the doorbell.
    InWindow,
    /// The range is backed by memory: no write there exits, and none rings.
    NotDispatched,
    /// No write there has this length.
    NoSuchSize(Doorbell),
    /// The value has more bytes than the write.
    ValueTooLong(Doorbell),
    /// KVM refuses it, or the process can have no more file descriptors.
    Host(io::Error),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Outside(io_type, range) => write!(f, "it does not lie within {io_type} {range}"),
            Reason::InWindow => f.write_str("the range is a window, over which those of other devices may lie"),
            Reason::NotDispatched => f.write_str("the range is backed by memory, where no write exits"),
            Reason::NoSuchSize(Doorbell { size, .. }) => {
                write!(f, "no write there has {size} bytes, but 1, 2, 4, or in memory 8; 0 stands for all of them")
            }
            Reason::ValueTooLong(Doorbell { size, value, .. }) => {
                write!(f, "the value {:#x} has more bytes than a write of {size}", value.unwrap_or(0))
            }
            Reason::Host(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                f.write_str("the same write rings another doorbell already")
            }
            Reason::Host(error) => write!(f, "the host refuses it: {error}"),
        }
    }
}

/// The lengths of the writes that ring a doorbell in this range.
///
/// One of any length rings for each of them: KVM could listen for all at once, but would not tell which it was, and the
/// device may accept some of them only. Nor could KVM compare the value then.
pub(super) fn writes(doorbell: &Doorbell, io_type: IoType, range: IoRange, window: bool) -> Result<Vec<u8>, Reason> {
    if io_type == IoType::PhysicalMmio {
        return Err(Reason::NotDispatched);
    }
    if window {
        return Err(Reason::InWindow);
    }
    let longest = if io_type == IoType::Pio { LONGEST_TO_PORT } else { 8 };
    let asked = |size: &u8| *size <= longest && (doorbell.size == 0 || doorbell.size == *size);
    let lies_within = |size: &u8| {
        let room = (range.last().0 - range.first().0).checked_sub(u64::from(*size) - 1);
        room.is_some_and(|last| doorbell.offset <= last)
    };
    let holds_value = |size: &u8| doorbell.value.is_none_or(|value| *size == 8 || value >> (8 * size) == 0);

    let mut sizes = SIZES.to_vec();
    for (condition, reason) in [
        (&asked as &dyn Fn(&u8) -> bool, Reason::NoSuchSize(*doorbell)),
        (&lies_within, Reason::Outside(io_type, range)),
        (&holds_value, Reason::ValueTooLong(*doorbell)),
    ] {
        sizes.retain(condition);
        if sizes.is_empty() {
            return Err(reason);
        }
    }
    Ok(sizes)
}

/// One doorbell of one device, known to KVM while a write can reach it.
pub(super) struct Bell {
    pub(super) device: InstanceId,
    pub(super) doorbell: Doorbell,
    vm: Arc<Vm>,
    listeners: Vec<Listener>,
    /// Where KVM listens.
    at: Option<(IoType, GuestAddress)>,
}

/// One length of write, and the event that KVM makes of it.
struct Listener {
    size: u8,
    token: u64,
    event: EventFd,
}

impl Bell {
    /// A doorbell that KVM does not know yet, rung by writes of `sizes`.
    pub(super) fn new(
        vm: &Arc<Vm>,
        device: InstanceId,
        doorbell: Doorbell,
        sizes: Vec<u8>,
        next_token: &mut u64,
    ) -> io::Result<Self> {
        let mut listener = |size| {
            let token = *next_token;
            *next_token += 1;
            Ok(Listener { size, token, event: EventFd::new(EFD_NONBLOCK)? })
        };
        let listeners = sizes.into_iter().map(&mut listener).collect::<io::Result<_>>()?;
        Ok(Self { device, doorbell, vm: Arc::clone(vm), listeners, at: None })
    }

    /// Its events, and the token of each.
    pub(super) fn events(&self) -> impl Iterator<Item = (u64, &EventFd)> {
        self.listeners.iter().map(|listener| (listener.token, &listener.event))
    }

    /// Takes what was rung, if anything was, and if the event with this token is one of this doorbell's.
    pub(super) fn take(&self, token: u64) -> Option<Rung> {
        let listener = self.listeners.iter().find(|listener| listener.token == token)?;
        // Another thread that serves may have been faster.
        listener.event.read().ok()?;
        let Doorbell { range_index, offset, value, .. } = self.doorbell;
        Some(Rung { device: self.device, range_index, offset, size: listener.size, value })
    }

    /// Whether KVM listens.
    pub(super) fn is_listening(&self) -> bool {
        self.at.is_some()
    }

    /// Lets KVM no longer listen.
    pub(super) fn leave(&mut self) {
        if let Some((io_type, address)) = self.at.take() {
            for listener in &self.listeners {
                // It was assigned, so KVM knows it.
                let _ = self.assign(listener, io_type, address, false);
            }
        }
    }

    /// Lets KVM listen at this place. On an error it listens nowhere.
    pub(super) fn listen_at(&mut self, (io_type, address): (IoType, GuestAddress)) -> io::Result<()> {
        self.leave();
        for (done, listener) in self.listeners.iter().enumerate() {
            if let Err(error) = self.assign(listener, io_type, address, true) {
                for listener in self.listeners.iter().take(done) {
                    // It was assigned, so KVM knows it.
                    let _ = self.assign(listener, io_type, address, false);
                }
                return Err(error);
            }
        }
        self.at = Some((io_type, address));
        Ok(())
    }

    fn assign(&self, listener: &Listener, io_type: IoType, address: GuestAddress, assign: bool) -> io::Result<()> {
        let flag = |set: bool, bit: u32| u32::from(set) << bit;
        let value = self.doorbell.value;
        let request = kvm_ioeventfd {
            addr: address.0,
            len: listener.size.into(),
            datamatch: value.unwrap_or(0),
            fd: listener.event.as_raw_fd(),
            flags: flag(value.is_some(), kvm_ioeventfd_flag_nr_datamatch)
                | flag(io_type == IoType::Pio, kvm_ioeventfd_flag_nr_pio)
                | flag(!assign, kvm_ioeventfd_flag_nr_deassign),
            ..Default::default()
        };
        // `kvm-ioctls` offers no doorbell of a given length and any value, hence the ioctl itself.
        // SAFETY: the file descriptor is a virtual machine's, and the kernel only reads the structure.
        match unsafe { ioctl_with_ref(self.vm.fd(), request::KVM_IOEVENTFD(), &request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_device::GuestUsize;

    fn sizes(io_type: IoType, size: u8, offset: u64, value: Option<u64>) -> Result<Vec<u8>, String> {
        let range = IoRange::with_size(GuestAddress(0x1000), GuestUsize(8)).expect("a range");
        let doorbell = Doorbell { range_index: 0, offset, size, value };
        writes(&doorbell, io_type, range, false).map_err(|reason| reason.to_string())
    }

    #[test]
    fn a_doorbell_of_any_length_is_rung_by_each_write_that_can_be_it() {
        assert_eq!(sizes(IoType::Mmio, 0, 0, None), Ok(vec![1, 2, 4, 8]));
        assert_eq!(sizes(IoType::Pio, 0, 0, None), Ok(vec![1, 2, 4]));
        assert_eq!(sizes(IoType::Mmio, 0, 6, None), Ok(vec![1, 2]));
        assert_eq!(sizes(IoType::Mmio, 0, 0, Some(0x100)), Ok(vec![2, 4, 8]));
        assert_eq!(sizes(IoType::Mmio, 0, 0, Some(u64::MAX)), Ok(vec![8]));
        assert_eq!(sizes(IoType::Mmio, 4, 4, Some(0xffff_ffff)), Ok(vec![4]));
    }

    #[test]
    fn a_doorbell_that_nothing_can_ring_is_refused_with_the_reason() {
        for (io_type, size, offset, value, reason) in [
            (IoType::Mmio, 3, 0, None, "no write there has 3 bytes"),
            (IoType::Pio, 8, 0, None, "no write there has 8 bytes"),
            (IoType::Mmio, 4, 5, None, "does not lie within mmio [0x1000, 0x1007]"),
            (IoType::Mmio, 0, 8, None, "does not lie within"),
            (IoType::Mmio, 1, u64::MAX, None, "does not lie within"),
            (IoType::Mmio, 1, 0, Some(0x100), "the value 0x100 has more bytes than a write of 1"),
            (IoType::PhysicalMmio, 4, 0, None, "backed by memory"),
        ] {
            let refused = sizes(io_type, size, offset, value).expect_err(reason);
            assert!(refused.contains(reason), "{refused}");
        }
        let doorbell = Doorbell { range_index: 0, offset: 0, size: 4, value: None };
        let in_window = writes(&doorbell, IoType::Mmio, IoRange::ALL_MEMORY, true);
        assert!(matches!(in_window, Err(Reason::InWindow)));
    }
}
