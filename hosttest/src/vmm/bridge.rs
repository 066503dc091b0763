//! From an exit of a virtual processor to a call of the device manager: all that a KVM VMM needs.

use vm_device::{Accesses, GuestAddress, IoError, IoType};

use crate::vmm::exit::Exit;

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
        Exit::InterruptEnded { .. } | Exit::Halted | Exit::Interrupted | Exit::Crashed(_) => return None,
    })
}
