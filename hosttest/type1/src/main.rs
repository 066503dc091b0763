//! A type-1 hypervisor: a bare-metal image that runs a guest with AMD SVM and nested paging, and whose devices are those
//! of a `vm_device` [`DeviceManager`] in a `static`. It has no allocator and no operating system.
//!
//! The map, in the order of the reading:
//! - [`exits`]: from the guest's exits to its devices, the reason for the rest;
//! - [`devices`], [`uart`], [`interrupts`]: what the guest sees;
//! - [`small`]: the small guest's machine and the verdict over it, [`guest`]: the guest;
//! - [`svm`], [`nested`], [`memory`]: the processor;
//! - [`boot`], [`serial`]: the machine the hypervisor runs on.
//!
//! It is no product: one virtual processor, no protection of the machine's model-specific registers from the guest.

#![no_std]
#![no_main]

mod boot;
mod counts;
mod devices;
mod exits;
mod guest;
mod interrupts;
mod memory;
mod nested;
mod serial;
mod small;
mod svm;
mod topology;
mod uart;

use core::sync::atomic::{AtomicBool};

use spin::{Mutex, MutexGuard};
use vm_device::{DeviceManager, Dispatcher, IoRange, SystemAllocator};

use crate::interrupts::Lines;
use crate::nested::Mappings;
use crate::serial::{Ending, leave};
use crate::svm::Vcpu;

const MAX_DEVICES: usize = 16;
const MAX_RANGES: usize = 32;

type Manager = DeviceManager<'static, MAX_DEVICES, MAX_RANGES, 1>;
type Devices = Dispatcher<'static, MAX_DEVICES, MAX_RANGES, 1>;

/// The devices of the guest.
static MANAGER: Manager = DeviceManager::new(
    SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 23),
)
.with_interrupt_controller(&LINES);
/// The interrupt lines of the guest.
static LINES: Lines = Lines::new();
/// The virtual processor.
static VCPU: Mutex<Vcpu> = Mutex::new(Vcpu::new());
/// Which guest physical addresses are memory.
static MAPPINGS: Mutex<Mappings> = Mutex::new(Mappings::new());

/// Whether devices came or went since the guest's memory was mapped.
static TOPOLOGY_CHANGED: AtomicBool = AtomicBool::new(false);

/// Called by [`boot`], with the physical address of the PVH start info.
extern "sysv64" fn start(_: u64) -> ! {
    println!("type-1 hypervisor on vm-device");
    match small::run(MutexGuard::leak(VCPU.lock()), MutexGuard::leak(MAPPINGS.lock())) {
        Ok(()) => {
            println!("verdict: passed");
            leave(Ending::Passed)
        }
        Err(reason) => {
            println!("verdict: FAILED, {reason}");
            leave(Ending::Failed)
        }
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    leave(Ending::Failed)
}
