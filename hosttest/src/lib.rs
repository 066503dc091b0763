//! Runs real guests under KVM against [`vm_device`]: its test bed, and the model of how to wire it to `kvm-ioctls`.
//!
//! [`vmm`] is what a VMM over KVM needs, and [`adapters`] what one needs that has devices of rust-vmm: both can be taken from here.
//! The rest tests with them:
//!
//! - [`guests`] are the guests: each with the devices that it finds, and what these must have seen. Their own code is written
//!   with what is in [`guest_side`], and the devices are in [`devices`];
//! - [`platform`] is the whole of it in `static`s;
//! - [`torture`] makes accesses and changes of the topology against each other, on threads and by a guest;
//! - [`instructions`] executes random instructions beside two decoders and the processor itself;
//! - [`boot`] is a whole PC of the crate's devices, which boots firmware and kernels;
//! - [`bench`](mod@bench) measures dispatch and registration beside other crates;
//! - [`qemu`] runs this program itself on a genuine `kvm_amd`;
//! - [`mod@type1`] builds and runs the bare-metal hypervisor of `hosttest/type1`, in emulators of its machines;
//! - [`linux_guest`] is what Linux as a guest takes: the kernels, and an initramfs that reports what the kernel found;
//! - [`output`] is a file that the results of a command go to.

pub mod adapters;
pub mod bench;
pub mod boot;
mod complaint;
pub mod cpio;
pub mod devices;
mod elf;
pub mod guest_side;
pub mod guests;
pub mod instructions;
pub mod linux_guest;
pub mod output;
pub mod platform;
pub mod qemu;
mod random;
mod svg;
pub mod torture;
pub mod type1;
pub mod vmm;

pub use complaint::complain;

/// The README's code blocks, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
