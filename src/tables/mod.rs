//! Tables that tell a guest what the machine is, written from what is registered with a manager: ACPI, and a flattened device tree.
//!
//! | module | what it writes |
//! |---|---|
//! | [`acpi`] | RSDP, XSDT, FADT, FACS, MADT, MCFG, HPET, SPCR and the DSDT |
//! | [`fdt`] | a flattened device tree |
//!
//! Both write into a buffer of the embedder's, without a heap. What a device is, it says in
//! [`Device::describe`](crate::Device::describe); where it lies, and which lines it has, the manager says. So the guest is told what is
//! decoded. The embedder adds what neither knows: the processors, memory, the windows of PCI root bridges.
//!
//! Devices stand side by side: a guest physical address means the same on every bus. PCI functions are in no table, because a guest
//! finds them in configuration space.
//!
//! The tables are written before the guest runs, when nothing else changes the manager: what is registered while they are written
//! may be in them or not.
//!
//! # Lines
//!
//! Every line from 16 on is level-triggered, and so are those below that devices may share, unless one of these says that it is
//! [edge-triggered](crate::Description::edge_triggered). The others are edge-triggered, as those of ISA. At an IOAPIC the tables call
//! level-triggered lines active low and edge-triggered ones active high, as on a PC; at a GIC every line is active high. To this
//! crate's handles a line is asserted or not, and its controller does not go by the polarity that a guest programs.

pub mod acpi;
pub mod fdt;
mod pci;
mod registered;
mod survey;
mod writer;

use core::fmt;

pub use pci::{PciInterrupts, PciRoot};
pub use registered::Registered;

use crate::address::{GuestAddress, IoRange};
use crate::instance::InstanceId;

/// Why tables could not be written. What is in the buffer then is of no use.
///
/// ```
/// use vm_device::tables::{TableError, fdt};
/// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
///
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// // An empty buffer tells the size.
/// let Err(TableError::TooSmall { needed }) = fdt::write(&manager, &fdt::Config::new(), &mut []) else { panic!() };
/// let mut buffer = vec![0; needed];
/// assert_eq!(fdt::write(&manager, &fdt::Config::new(), &mut buffer), Ok(needed));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TableError {
    /// The buffer is too small.
    TooSmall {
        /// How many bytes it takes.
        needed: usize,
    },
    /// The tables cannot lie at this guest physical address: it is no multiple of 64, or they would pass the end of the address space.
    BadAddress {
        /// The address.
        address: GuestAddress,
    },
    /// A window that a PCI root bridge is to have is not free for base address registers.
    WindowTaken {
        /// The window.
        window: IoRange,
        /// What lies in it.
        range: IoRange,
        /// The device that has it; `None` if the VMM has reserved it.
        holder: Option<InstanceId>,
    },
    /// Devices were registered or removed while the tables were written.
    Changed,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::TooSmall { needed } => write!(f, "the tables take {needed} bytes, and the buffer is smaller"),
            TableError::BadAddress { address } => {
                write!(f, "tables cannot lie at {:#x}: they begin at a multiple of 64 and end below 2^64", address.0)
            }
            TableError::WindowTaken { window, range, holder: Some(holder) } => {
                write!(
                    f,
                    "the window {window} of a PCI root bridge holds {range} of {holder}, which a BAR could not have"
                )
            }
            TableError::WindowTaken { window, range, holder: None } => {
                write!(f, "the window {window} of a PCI root bridge holds {range}, which the VMM has reserved")
            }
            TableError::Changed => f.write_str("devices were registered or removed while the tables were written"),
        }
    }
}

impl core::error::Error for TableError {}
