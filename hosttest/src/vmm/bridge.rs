//! From an exit of a virtual processor to a call of the device manager: all that a KVM VMM needs.

use vm_device::{DeviceManager, Dispatcher, GuestAddress, IoError, IoType, Nested};

use crate::vmm::exit::Exit;

/// Whatever answers the accesses of a guest: a manager, one processor's [`Dispatcher`] of it, or a callback's
/// [`Nested`] view.
pub trait Accesses {
    /// The guest reads. Every byte of `data` is defined afterwards, whatever the result.
    ///
    /// # Errors
    /// Why no device answered; for the guest the access is complete nevertheless.
    fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError>;

    /// The guest writes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write(&mut self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError>;

    /// The guest reads a port again and again, in elements of `element` bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_string(&mut self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError>;

    /// The guest writes a port again and again, in elements of `element` bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write_string(&mut self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError>;
}

/// Implements [`Accesses`] by the methods of the same names.
macro_rules! accesses {
    ($answerer:ty, $methods:ident) => {
        impl<const DEVICES: usize, const RANGES: usize, const VCPUS: usize> Accesses for $answerer {
            fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
                $methods::read(self, address, data, io_type)
            }
            fn write(&mut self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
                $methods::write(self, address, data, io_type)
            }
            fn read_string(&mut self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
                $methods::read_string(self, port, element, data)
            }
            fn write_string(&mut self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
                $methods::write_string(self, port, element, data)
            }
        }
    };
}

accesses!(Dispatcher<'_, DEVICES, RANGES, VCPUS>, Dispatcher);
accesses!(&DeviceManager<'_, DEVICES, RANGES, VCPUS>, DeviceManager);
accesses!(Nested<'_, '_, DEVICES, RANGES, VCPUS>, Nested);

/// Lets the manager answer an access of the guest. `None` if the exit is no access.
pub fn answer(exit: &mut Exit<'_>, accesses: &mut impl Accesses) -> Option<Result<(), IoError>> {
    Some(match exit {
        Exit::PortRead { port, element, data } if data.len() == *element => {
            accesses.read(GuestAddress::from(*port), data, IoType::Pio)
        }
        Exit::PortRead { port, element, data } => accesses.read_string(*port, *element, data),
        Exit::PortWrite { port, element, data } if data.len() == *element => {
            accesses.write(GuestAddress::from(*port), data, IoType::Pio)
        }
        Exit::PortWrite { port, element, data } => accesses.write_string(*port, *element, data),
        Exit::MmioRead { address, data } => accesses.read(*address, data, IoType::Mmio),
        Exit::MmioWrite { address, data } => accesses.write(*address, data, IoType::Mmio),
        Exit::Halted | Exit::Interrupted | Exit::Crashed(_) => return None,
    })
}
