//! Runs real guests under KVM against [`vm_device`]: its test bed, and the model of how to wire it to `kvm-ioctls`.
//!
//! What a VMM over KVM needs is small, and can be taken from here:
//!
//! - [`vcpu`] turns what `KVM_RUN` comes back with into one [`Exit`](vcpu::Exit), with the element size and the count of
//!   port I/O that `kvm-ioctls` does not tell;
//! - [`bridge`] lets the manager answer it;
//! - [`irq`] is an [`InterruptController`](vm_device::InterruptController) over KVM's in-kernel interrupt controllers;
//! - [`doorbell`] gives the writes that a device declares as doorbells to KVM, as ioeventfds;
//! - [`vm`] backs the [`PhysicalMmio`](vm_device::IoType::PhysicalMmio) ranges of an address map with memory.
//!
//! The rest is about guests: [`memory`], [`paging`] and [`machine`] build what they run on, [`guest`] is their side of the
//! devices in [`devices`], [`run`] runs one with a [`watchdog`] until it says whether it passed, and [`scenarios`] holds them
//! all. [`platform`] is the whole of it in `static`s. [`torture`] is accesses and changes of the topology against each other,
//! on threads and in guests.

pub mod bench;
pub mod bridge;
pub mod devices;
pub mod doorbell;
pub mod guest;
pub mod image;
pub mod irq;
pub mod machine;
pub mod membarrier;
pub mod memory;
pub mod paging;
pub mod platform;
pub mod run;
pub mod scenarios;
pub mod torture;
pub mod type1;
pub mod vcpu;
pub mod vm;
pub mod watchdog;

/// A manager with room for 16 devices, 32 ranges, ports and memory together, and 4 processors.
pub type Manager<'d> = vm_device::DeviceManager<'d, 16, 32, 4>;

/// The README's code blocks, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Says on the standard error what is wrong, if anybody hears it.
pub fn complain(what: &dyn std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "hosttest: {what}");
}
