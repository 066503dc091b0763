//! The device of the histories that makes accesses of its own.

use spin::Mutex;
use vm_device::{Access, Device, DeviceManager, GuestAddress, IoError, IoType};

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
    pub(crate) manager: &'d DeviceManager<'d>,
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
