//! Devices of rust-vmm under a manager of this crate, and devices of this crate under rust-vmm's: so that a VMM moves one
//! device at a time.
//!
//! | adapter | from | to |
//! |---|---|---|
//! | [`serial`], [`rtc`] | the serial port and the clock of `vm-superio` | a device of this crate |
//! | [`from_io_manager`] | a device of rust-vmm's `vm-device` 0.1: `DevicePio`, `DeviceMmio`, and a `Mutex` of what has `MutDevicePio`, `MutDeviceMmio` | a device of this crate |
//! | [`for_io_manager`] | a device of this crate | a device of an `IoManager` of that crate |
//! | [`io_manager_bus`] | a whole `IoManager` with its devices | a bus of this crate, which answers where no device of this crate does |
//!
//! There are two ways to move. In the first, the manager of this crate takes all accesses from the start. The whole `IoManager` is
//! a [bus](io_manager_bus) under it, and the devices move out of that bus one at a time, as they are or rewritten. In the second,
//! the `IoManager` goes on taking the accesses while its devices are rewritten [for this crate](for_io_manager), and the manager is
//! changed at the end.
//!
//! In these modules, the *peer* is rust-vmm's `vm-device` 0.1. A guest sees no difference between the two managers, if the VMM fills
//! the buffer of each read with ones for the peer, as the manager of this crate does by itself, and but for these:
//!
//! - a range of the peer's takes accesses of every size; here, those that its [request](vm_device::IoResource::sizes) says;
//! - the peer has no ranges inside of others, and does not [split](vm_device::Straddling) an access that no range holds whole;
//! - the peer cannot have a range of all 65,536 ports, nor one of all memory.
//!
//! Both call a device through `&self`, from any vCPU. The peer's devices in a `std::sync::Mutex` panic once a call has
//! panicked while it held the lock, here as there.

pub mod for_io_manager;
pub mod from_io_manager;
pub mod io_manager_bus;
pub mod rtc;
pub mod serial;
