//! The devices of the histories: they keep what they were called with, or make accesses of their own.

use spin::Mutex;
use vm_device::{Access, Assigned, Device, GuestAddress, IoError, IoType};

use crate::Manager;

/// A call that a device has had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    pub(crate) write: bool,
    pub(crate) range_index: usize,
    pub(crate) address: u64,
    pub(crate) base: u64,
    pub(crate) length: usize,
}

/// A device that answers byte `i` of an access with its own number and `i`, and keeps what it was called with.
pub(crate) struct Recorder {
    pub(crate) number: u8,
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) assigned: Mutex<Vec<Assigned>>,
}

impl Recorder {
    pub(crate) fn record(&self, write: bool, access: &Access<'_>, length: usize) {
        assert_eq!(access.offset(), access.address().0 - access.base().0);
        let (address, base) = (access.address().0, access.base().0);
        self.calls.lock().push(Call { write, range_index: access.range_index(), address, base, length });
    }
}

impl Device<'_> for Recorder {
    fn name(&self) -> &str {
        ["a", "b", "c"][self.number as usize % 3]
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        assert!(data.iter().all(|byte| *byte == 0xff), "the buffer comes with the open-bus value");
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = self.number * 16 + i as u8;
        }
        self.record(false, access, data.len());
    }
    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.record(true, access, data.len());
    }
    fn set_resources(&self, resources: &vm_device::Resources<'_, '_>) -> Result<(), vm_device::Rejected> {
        *self.assigned.lock() = resources.ranges().to_vec();
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Io {
    pub(crate) io_type: IoType,
    pub(crate) address: u64,
    pub(crate) write: bool,
    /// The element size of a string; 0 for a plain access.
    pub(crate) element: usize,
    pub(crate) length: usize,
}

/// A device that makes an access of its own when it is written to.
pub(crate) struct Relay<'d> {
    pub(crate) manager: &'d Manager<'d>,
    pub(crate) order: Mutex<Option<Io>>,
    pub(crate) outcome: Mutex<(Result<(), IoError>, Vec<u8>)>,
}

impl<'d> Device<'d> for Relay<'d> {
    fn name(&self) -> &str {
        "relay"
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, access: &Access<'_>, _: &[u8]) {
        let Some(io) = self.order.lock().take() else { return };
        let nested = self.manager.nested(access);
        let mut data = vec![0x55; io.length];
        let outcome = match (io.element, io.write) {
            (0, false) => nested.read(GuestAddress(io.address), &mut data, io.io_type),
            (0, true) => nested.write(GuestAddress(io.address), &data, io.io_type),
            (element, false) => nested.read_string(io.address as u16, element, &mut data),
            (element, true) => nested.write_string(io.address as u16, element, &data),
        };
        *self.outcome.lock() = (outcome, data);
    }
}
