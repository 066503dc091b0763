//! Ports of the machine itself, given to the guest.
//!
//! Only this module and `quiescence` have `unsafe` in them: reaching hardware is unsafe by nature.

#![allow(unsafe_code)]

use x86_64::instructions::port::{PortReadOnly, PortWriteOnly};

use crate::access::Access;
use crate::device::Device;
use crate::sizes::AccessSizes;

/// A device that forwards a range of guest ports to the ports of the machine, by the `IN` and `OUT` instructions.
///
/// Register it with [`AccessSizes`] from [`SIZES`](Self::SIZES): ports are 1, 2 or 4 bytes wide (Intel SDM vol. 1,
/// 19.3). The guest's port number `base + n` of the range reaches the machine's port `first + n`.
///
/// ```
/// use vm_device::{IoResource, PortPassthrough};
///
/// // SAFETY: this example never dispatches to it.
/// let uart = unsafe { PortPassthrough::new("uart", 0x3f8) };
/// let request = IoResource::pio(0x3f8, 8).sizes(PortPassthrough::SIZES);
/// # let _ = (uart, request);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortPassthrough<'n> {
    name: &'n str,
    first: u16,
}

impl<'n> PortPassthrough<'n> {
    /// The access sizes that ports have.
    pub const SIZES: AccessSizes = AccessSizes::BYTE.union(AccessSizes::WORD).union(AccessSizes::DWORD);

    /// A device that forwards to the ports of the machine from `first` on, as many as the range it is registered with
    /// has.
    ///
    /// # Safety
    /// `IN` and `OUT` must be allowed for these ports where the program runs (CPL not above IOPL, or permitted by the TSS). As
    /// long as the device is registered, no access of the guest to these ports, of any value and in any order, may break the
    /// memory safety of the program (as a DMA transfer into its memory or a reset of the machine would), and nothing else in
    /// the program may rely on having these ports to itself.
    pub const unsafe fn new(name: &'n str, first: u16) -> Self {
        Self { name, first }
    }

    fn port(&self, access: &Access<'_>) -> u16 {
        self.first.wrapping_add(access.offset() as u16)
    }
}

impl Device<'_> for PortPassthrough<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let port = self.port(access);
        // SAFETY: `new` demands that the guest may read these ports.
        unsafe {
            match data {
                [byte] => *byte = PortReadOnly::<u8>::new(port).read(),
                [_, _] => data.copy_from_slice(&PortReadOnly::<u16>::new(port).read().to_le_bytes()),
                [_, _, _, _] => data.copy_from_slice(&PortReadOnly::<u32>::new(port).read().to_le_bytes()),
                _ => {}
            }
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let port = self.port(access);
        // SAFETY: `new` demands that the guest may write these ports.
        unsafe {
            match *data {
                [a] => PortWriteOnly::<u8>::new(port).write(a),
                [a, b] => PortWriteOnly::<u16>::new(port).write(u16::from_le_bytes([a, b])),
                [a, b, c, d] => PortWriteOnly::<u32>::new(port).write(u32::from_le_bytes([a, b, c, d])),
                _ => {}
            }
        }
    }
}
