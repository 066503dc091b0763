//! A device model and device manager for virtual machine monitors that have no operating system under them: `no_std`,
//! without a heap, all of it in `static`s if need be.
//!
//! A VMM registers devices with a [`DeviceManager`]. Each device asks for what it needs ([`IoResource`], [`IrqResource`]), gets
//! it out of what the [`SystemAllocator`] has, and is told. When a guest's access causes a VM exit, the manager finds the
//! device that owns the address and calls it: from any vCPU, without a lock, while devices are registered, moved and removed.
//!
//! ```
//! use spin::Mutex;
//! use vm_device::{
//!     Access, Device, DeviceManager, IoRange, IoResource, IoType, Storage, SystemAllocator,
//! };
//!
//! /// A register of 4 bytes.
//! struct Scratch(Mutex<[u8; 4]>);
//!
//! impl Device<'_> for Scratch {
//!     fn name(&self) -> &str {
//!         "scratch"
//!     }
//!     fn read(&self, access: &Access<'_>, data: &mut [u8]) {
//!         access.load(&*self.0.lock(), data);
//!     }
//!     fn write(&self, access: &Access<'_>, data: &[u8]) {
//!         access.store(&mut *self.0.lock(), data);
//!     }
//! }
//!
//! // Room for 8 devices, 16 ranges and 2 vCPUs. Devices get ports, addresses from 3 GiB on, and lines 5 to 15.
//! const DEVICE_MEMORY: IoRange = IoRange::of::<0xc000_0000, 0xffff_ffff>();
//! static SCRATCH: Scratch = Scratch(Mutex::new([0; 4]));
//! static STORAGE: Storage<8, 16, 2> = Storage::new();
//! static MANAGER: DeviceManager<'static> = DeviceManager::new(
//!     &STORAGE,
//!     SystemAllocator::new(DEVICE_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 15),
//! );
//!
//! let scratch = MANAGER.register_device(&SCRATCH, None, &[IoResource::pio(0x500, 4)], &[])?;
//!
//! // In the exit handler of each vCPU. The results are for logs: for the guest each access is complete.
//! let mut vcpu = MANAGER.dispatcher(0)?;
//! let (mut word, mut hole) = ([0; 2], [0; 2]);
//! let _ = vcpu.write(0x500_u16.into(), &[1, 2, 3, 4], IoType::Pio);
//! let _ = vcpu.read(0x502_u16.into(), &mut word, IoType::Pio);
//! let _ = vcpu.read(0x600_u16.into(), &mut hole, IoType::Pio);
//! assert_eq!((word, hole), ([3, 4], [0xff, 0xff]));
//!
//! // When this returns, no vCPU is inside the device, and none enters it again.
//! MANAGER.unregister_device(scratch)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds
//!
//! - Nothing a guest does can panic, overflow, block or corrupt the manager.
//! - Every byte of a read is defined on every path: by the device, or as the open-bus value, which is all ones unless
//!   the VMM says otherwise ([`DeviceManager::with_open_bus`]).
//! - A registration, a removal or a relocation happens as a whole or not at all, and an error names what was asked for and
//!   what is in its way.
//! - A dispatch takes no lock and waits for nothing.
//! - When [`DeviceManager::unregister_device`] has returned, no vCPU is inside the device, and none will be.
//! - Ids are never reused.
//!
//! # Where to read on
//!
//! | page | what is in it |
//! |---|---|
//! | [start](guide::start) | the first ten minutes, step by step: interrupts, buses, hot unplug |
//! | [from 2019](guide::from_2019) | from the rust-vmm design of 2019, call by call |
//! | [map](guide::map) | states of ranges, what waits, windows, which range answers, what a VMM maps itself |
//! | [interrupts](guide::interrupts) | several lines a device, sharing, moves to other lines, ends, messages |
//! | [vmm](guide::vmm) | names and the map, the observer, accesses that fail, time, the reset of the machine |
//! | [devices](guide::devices) | devices that are ready, a PC made of them, exits of whole boots |
//! | [tables](guide::tables) | what a guest finds of the machine: ACPI, a device tree |
//! | [concurrency](guide::concurrency) | the contract, and what each operation waits for |
//! | [speed](guide::speed) | measurements, beside other crates |
//! | [memory](guide::memory) | memory, code size, stack and worst case |
//! | [testing](guide::testing) | how the crate is tested, and how a device is |
//! | [porting](guide::porting) | targets, features, other processors |
//! | [internals](guide::internals) | for maintainers: modules, protocol, where a change begins |
//!
//! Type-1 hypervisors find their exits in [`exit`].
//!
//! # Features
//!
//! - `x86_64`: `PortPassthrough`, a device that forwards ports to those of the machine.
//! - `devices`: `devices`, the chipset of a PC: serial ports, timers, the keyboard controller, ports of power and firmware, interrupt
//!   controllers, and PCI, which a guest programs.
//! - `tables`: `tables`, ACPI tables and a device tree, written from what is registered.
//! - `alloc`: `owned`, a manager that owns its devices, for a VMM with a heap.

#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(not(target_has_atomic = "64"))]
compile_error!(
    "vm-device needs atomics of 64 bits, which this target does not have (`rustc --print cfg --target TARGET` shows no \
     `target_has_atomic=\"64\"`): its readers take no lock, and tell by a 64-bit version what a writer has changed meanwhile"
);

/// Items that are compiled if the condition holds. rustfmt finds the modules in a macro of this name.
macro_rules! cfg_if {
    (if #[cfg($condition:meta)] { $($item:item)* }) => { $(#[cfg($condition)] $item)* };
}

// All of the crate, so that a target without these atomics gets the error above and no others.
cfg_if! { if #[cfg(target_has_atomic = "64")] {

mod access;
mod address;
mod allocator;
mod arrays;
mod cost;
mod description;
mod device;
#[cfg(feature = "devices")]
pub mod devices;
mod dispatch;
mod error;
pub mod exit;
#[cfg(doc)]
pub mod guide;
mod index;
mod indices;
mod instance;
mod interrupt;
mod listener;
mod manager;
#[cfg(all(test, vm_device_loom))]
mod models;
mod observer;
mod orderings;
#[cfg(feature = "alloc")]
pub mod owned;
#[cfg(all(feature = "x86_64", target_arch = "x86_64"))]
mod passthrough;
mod power;
mod quiescence;
#[cfg(doctest)]
mod refused;
mod resource;
mod sizes;
mod sync;
#[cfg(feature = "tables")]
pub mod tables;
#[cfg(all(test, not(vm_device_loom)))]
mod tests;
mod transfer;

pub use access::{Access, IoError, MAX_DEPTH, OpenBus, Straddling};
pub use address::{GuestAddress, GuestUsize, IoRange, IoType, RangeError};
pub use allocator::SystemAllocator;
pub use description::{AcpiCommand, Description, DeviceRegister, Part, Property, Role, UartKind};
pub use device::{Device, Doorbell, Failed, Rejected};
pub use dispatch::{Accesses, Dispatcher, MEMORY_HINTS, Nested, PORT_HINTS};
pub use error::{
    DispatcherError, IrqError, IrqRefusal, MAX_LINES, Owner, PathError, RangeRefusal, RegisterError, RelocateError, RerouteError, ResetError, UnregisterError,
};
pub use instance::InstanceId;
pub use interrupt::{Gsi, InterruptController, InterruptError, IrqLine, MAX_SHARING, Message, Messages};
pub use listener::{PlacedRange, RangeListener};
pub use manager::{DeviceInfo, DeviceManager, DevicePath, MapText, MappedRange, Relocation, Storage, Taken};
pub use observer::{AccessDirection, AccessObserver, ObservedAccess};
#[cfg(all(feature = "x86_64", target_arch = "x86_64"))]
pub use passthrough::PortPassthrough;
pub use power::PowerControl;
pub use quiescence::{HeavyBarrier, MAX_ANONYMOUS};
pub use resource::{
    Assigned, AssignedIrq, Fit, IoResource, IrqResource, MAX_IRQS_PER_DEVICE, MAX_RANGES_PER_DEVICE, MAX_WINDOW_DEPTH, Placement, RangeState, Resources,
};
pub use sizes::AccessSizes;

} }
