//! A device model and device manager for virtual machine monitors that have no operating system under them: `no_std`,
//! without a heap, all of it in `static`s if need be.
//!
//! A VMM registers devices with a [`DeviceManager`]. Each asks for what it needs ([`IoResource`], [`IrqResource`]), is
//! given it out of the [`SystemAllocator`], and is told. When a guest's access causes a VM exit, the manager finds the
//! device that owns the address and calls it, from any vCPU, without a lock; and a device can be moved or removed
//! meanwhile.
//!
//! # Example
//!
//! The example of the 2019 rust-vmm design this crate descends from: a dummy PCI host bridge at ports `0xcf8` to
//! `0xcff`, driven by a vCPU's port exits.
//!
//! ```
//! use spin::Mutex;
//! use vm_device::{
//!     Access, Device, DeviceManager, IoRange, IoResource, IoType, IrqResource, Storage, SystemAllocator,
//! };
//!
//! struct PciBridge {
//!     config_address: Mutex<[u8; 4]>,
//! }
//!
//! impl Device<'_> for PciBridge {
//!     fn name(&self) -> &str {
//!         "pci"
//!     }
//!     fn read(&self, access: &Access<'_>, data: &mut [u8]) {
//!         access.load(&*self.config_address.lock(), data);
//!     }
//!     fn write(&self, access: &Access<'_>, data: &[u8]) {
//!         access.store(&mut *self.config_address.lock(), data);
//!     }
//! }
//!
//! // Room for 8 devices, 16 ranges and 2 vCPUs. Devices get ports, addresses from 3 GiB on, and lines 5 to 15.
//! const DEVICE_MEMORY: IoRange = IoRange::of::<0xc000_0000, 0xffff_ffff>();
//! static BRIDGE: PciBridge = PciBridge { config_address: Mutex::new([0; 4]) };
//! static STORAGE: Storage<8, 16, 2> = Storage::new();
//! static MANAGER: DeviceManager<'static> = DeviceManager::new(
//!     &STORAGE,
//!     SystemAllocator::new(DEVICE_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 15),
//! );
//!
//! /// What KVM, SVM or VMX tells of a port access.
//! enum Exit<'a> {
//!     IoIn(u16, &'a mut [u8]),
//!     IoOut(u16, &'a [u8]),
//! }
//!
//! let bridge = MANAGER.register_device(&BRIDGE, None, &[IoResource::pio(0xcf8, 8)], IrqResource::Any)?;
//! assert_eq!(MANAGER.find_by_path("/pci"), Some(bridge));
//!
//! let mut vcpu = MANAGER.dispatcher()?;
//! let mut eax = [0; 4];
//! let mut nothing_there = [0; 1];
//! for exit in [
//!     Exit::IoOut(0xcf8, &[0x00, 0x08, 0x00, 0x80]),
//!     Exit::IoIn(0xcf8, &mut eax),
//!     Exit::IoIn(0x60, &mut nothing_there),
//! ] {
//!     // The result is for logs: whatever happens, the bytes of a read are the right ones.
//!     let _ = match exit {
//!         Exit::IoIn(port, data) => vcpu.read(port.into(), data, IoType::Pio),
//!         Exit::IoOut(port, data) => vcpu.write(port.into(), data, IoType::Pio),
//!     };
//! }
//! assert_eq!(u32::from_le_bytes(eax), 0x8000_0800);
//! assert_eq!(nothing_there, [0xff]);
//!
//! MANAGER.unregister_device(bridge)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Map
//!
//! An access goes `dispatch` → `hints` or `table` → `slots` → the device; a registration goes `manager` → `state` (allocator,
//! topology, lines) → the device → `slots` → `table`. Imports point that way, but that the vocabulary names the place in `slots`
//! from which an access comes.
//!
//! | module | what it is |
//! |---|---|
//! | `address`, `resource`, `access`, `device` | the vocabulary: addresses and ranges, requests, one access, the [`Device`] trait |
//! | `allocator` | [`SystemAllocator`]: pools of addresses and ports, interrupt lines, instance ids |
//! | `interrupt` | [`InterruptController`], which the VMM implements, and [`IrqLine`], which a device keeps |
//! | `topology`, `state` | the tree of buses and devices; what writers share behind one lock |
//! | `slots`, `table`, `hints` | the quiescence protocol (the one module with `unsafe`, but for `passthrough`); the sorted range table; where a vCPU found addresses before |
//! | `dispatch`, `dispatcher` | `read`, `write`, strings; a vCPU's [`Dispatcher`], and [`Nested`] for callbacks |
//! | [`exit`] | for type-1 hypervisors: VM exits of SVM and VMX, and instructions that touched MMIO, as accesses |
//! | `manager`, `removal`, `relocation`, `inspection` | [`DeviceManager`]: register, unregister, relocate, walk |
//!
//! # What holds
//!
//! - Nothing a guest does can panic, overflow, block or corrupt the manager.
//! - Every byte of a read is defined on every path: by the device, or as the open-bus value, which is all ones unless
//!   the VMM says otherwise ([`DeviceManager::with_open_bus`]).
//! - A registration, a removal or a relocation happens as a whole or not at all, and an error names what was asked for and
//!   what is in its way.
//! - A dispatch takes no lock and waits for nobody.
//! - When [`DeviceManager::unregister_device`] has returned, no vCPU is inside the device, and none will be.
//! - Ids are never reused.
//!
//! # Worst case
//!
//! Among n ranges in use, whatever the capacities, with s starts: as many, or up to twice as many where some lie in windows.
//! Tests count the looks and the moves, `.ci/instructions` instructions and loads:
//!
//! | | looks | moves |
//! |---|---|---|
//! | an access by a hint | at 1 slot | |
//! | a search | at 3 ⌈log₄ s⌉ starts of up to 4,096, at least 3, at 1 for each further halving, and at 1 slot | |
//! | a registration of one fixed range | at 5 ⌈log₂ (n + 1)⌉ + 30 ranges or starts | 5 n + 1 entries of 2 to 10 bytes |
//! | a relocation of one range | at 9 ⌈log₂ (n + 1)⌉ + 45 | 10 n + 2 |
//! | a removal of one range | at 4 ⌈log₂ (n + 1)⌉ + 32 | 5 n + 1 |
//!
//! Where no range lies in a window, the moves are 3 n + 1, 6 n + 2 and 3 n + 1. A search in a manager for fewer than 8 ranges
//! looks at up to 4 starts. An access through a handle is searched for up to twice more where it is not in one range alone,
//! and one more time, or two, for each change that is published meanwhile: 11 times at most. A range asked for anywhere is
//! looked for among up to n others besides, and a change of a window with ranges in it makes the index anew.
//!
//! # Memory
//!
//! A manager is one value of fixed size; nothing is allocated beside it. `DeviceManager<'_, 8, 16, 2>`, for 8 devices,
//! 16 ranges and 2 vCPUs, takes 3968 bytes: 104 for each further device, 147 for each range, 128 for each vCPU. A vCPU's
//! handle takes 6192 bytes, of which each hint is 2: [`DeviceManager::dispatcher_with_hints`] makes smaller ones.
//!
//! A `static` manager is made by the compiler. One that is made while the program runs passes through the stack: without
//! optimisation 5.4 times its size, 6.4 times with [`DeviceManager::with_asymmetric_fence`], with optimisation up to twice.
//!
//! # Features
//!
//! - `x86_64`: `PortPassthrough`, a device that forwards ports to those of the machine.
//! - `instruction`: `exit::instruction`, which decodes and executes the instruction that touched MMIO.

#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

#[cfg(not(target_has_atomic = "64"))]
compile_error!(
    "vm-device needs atomics of 64 bits, which this target does not have (`rustc --print cfg --target TARGET` shows no \
     `target_has_atomic=\"64\"`): its readers take no lock, and tell by a 64-bit version what a writer has changed meanwhile"
);

/// Items that are there if the condition holds, in the form in which rustfmt looks for modules.
macro_rules! cfg_if {
    (if #[cfg($condition:meta)] { $($item:item)* }) => { $(#[cfg($condition)] $item)* };
}

// Everything: a target that cannot have it gets the one error above, and not those that follow from it.
cfg_if! { if #[cfg(target_has_atomic = "64")] {

mod access;
mod address;
mod allocator;
mod cost;
mod device;
mod dispatch;
mod error;
pub mod exit;
mod index;
mod indices;
mod instance;
mod interrupt;
mod manager;
#[cfg(all(test, vm_device_loom))]
mod models;
mod orderings;
#[cfg(all(feature = "x86_64", target_arch = "x86_64"))]
mod passthrough;
mod quiescence;
mod resource;
mod sync;
#[cfg(all(test, not(vm_device_loom)))]
mod tests;

pub use access::{Access, IoError, MAX_DEPTH, OpenBus};
pub use address::{GuestAddress, GuestUsize, IoRange, IoType, RangeError};
pub use allocator::SystemAllocator;
pub use device::{Device, Doorbell, Rejected};
pub use dispatch::{Accesses, Dispatcher, MEMORY_HINTS, Nested, PORT_HINTS};
pub use error::{
    DispatcherError, IrqError, MAX_LINES, Owner, RangeRefusal, RegisterError, RelocateError, UnregisterError,
};
pub use instance::InstanceId;
pub use interrupt::{Gsi, InterruptController, InterruptError, IrqLine, MAX_SHARING};
pub use manager::{DeviceInfo, DeviceManager, MAX_RELOCATIONS, MappedRange, Relocation, Storage};
#[cfg(all(feature = "x86_64", target_arch = "x86_64"))]
pub use passthrough::PortPassthrough;
pub use quiescence::{HeavyBarrier, MAX_ANONYMOUS};
pub use resource::{
    AccessSizes, Assigned, Fit, IoResource, IrqResource, MAX_RANGES_PER_DEVICE, Placement, Resources,
};

} }
