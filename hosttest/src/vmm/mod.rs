//! What a VMM over KVM needs: the machine, its processors and their exits, its memory, and the wiring to a device manager.
//!
//! From the exit to the device:
//!
//! - [`vcpu`] turns what `KVM_RUN` comes back with into one [`Exit`](exit::Exit), with the element size and the count of
//!   port I/O that `kvm-ioctls` does not tell;
//! - [`bridge`] lets the manager answer it;
//! - [`irq`] is an [`InterruptController`](vm_device::InterruptController) over KVM's in-kernel interrupt controllers;
//!   [`resample`] is another, by events that also tell of the ends of interrupts; [`ioapic`] is what the crate's IOAPIC needs
//!   where only the local APICs are KVM's; [`injection`] is what its PIC needs where nothing is;
//! - [`backing`] is a [`RangeListener`](vm_device::RangeListener): memory slots for physically backed ranges;
//! - [`doorbell`] is another: it gives the writes that a device declares as doorbells to KVM, as ioeventfds; [`listeners`] makes
//!   one of several;
//! - [`counters`] is an [`AccessObserver`](vm_device::AccessObserver), which counts the accesses of each device; [`trace`] is
//!   another, which writes a line for each; [`observers`] makes one of both;
//! - [`clock`] is the time of the host, and the thread that tells it to the devices;
//! - [`power`] notes what a guest asks of the whole machine: its reset, its end;
//! - [`membarrier`] is the heavy barrier of the asymmetric fence.
//!
//! What a guest runs on: [`host`] opens KVM, [`vm`] is the machine with its [`memory`] slots, [`machine`] adds RAM, the
//! program's own [`image`], [`paging`] and descriptor tables, so that a guest can be a function of this program. [`run`] runs
//! it with a [`watchdog`]; [`crew`] runs several processors, each on a thread.

pub mod backing;
pub mod bridge;
pub mod clock;
pub mod counters;
pub mod crew;
pub mod doorbell;
pub mod exit;
pub mod host;
pub mod image;
pub mod injection;
pub mod ioapic;
pub mod irq;
pub mod listeners;
pub mod machine;
pub mod membarrier;
pub mod memory;
pub mod observers;
pub mod paging;
pub mod power;
pub mod resample;
pub mod run;
pub mod trace;
pub mod vcpu;
pub mod vm;
pub mod watchdog;
