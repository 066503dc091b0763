//! A type-1 hypervisor: a bare-metal image that runs a guest with AMD SVM and nested paging, and whose devices are those
//! of a `vm_device` [`DeviceManager`] in a `static`. It has no allocator and no operating system.
//!
//! The map, in the order of the reading:
//! - [`exits`]: from the guest's exits to its devices, the reason for the rest;
//! - [`manager`]: the manager of the guest's devices; [`devices`], [`wire`], [`interrupts`]: what the guest sees, beside
//!   the devices of the crate;
//! - [`small`]: the small guest's machine and the verdict over it, [`guest`]: the guest; [`linux`]: the other one;
//! - [`svm`], [`nested`], [`memory`]: the processor;
//! - [`boot`], [`serial`]: the machine the hypervisor runs on.
//!
//! It is no product: it has one virtual processor, and a guest that has the machine's interrupts can keep them.

#![no_std]
#![no_main]

mod boot;
mod counts;
mod devices;
mod exits;
mod failure;
mod guest;
mod interrupts;
mod linux;
mod manager;
mod memory;
mod nested;
mod serial;
mod small;
mod stop;
mod svm;
mod wire;

use spin::{Mutex, MutexGuard};
use vm_device::exit::x86::Gpr;

use crate::boot::StartInfo;
use crate::counts::COUNTS;
use crate::exits::Machine;
use crate::failure::Failure;
use crate::manager::MANAGER;
use crate::nested::Mappings;
use crate::serial::{Ending, leave};
use crate::svm::Vcpu;

/// The virtual processor.
static VCPU: Mutex<Vcpu> = Mutex::new(Vcpu::new());
/// Which guest physical addresses are memory.
static MAPPINGS: Mutex<Mappings> = Mutex::new(Mappings::new());

/// Called by [`boot`], with the physical address of the PVH start info.
extern "sysv64" fn start(info: u64) -> ! {
    println!("type-1 hypervisor on vm-device");
    match run(info) {
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

/// Runs the guest that the command line asks for, to its end, and judges it.
fn run(info: u64) -> Result<(), Failure> {
    // SAFETY: the loader passed the address, and nothing writes below the image.
    let info = unsafe { StartInfo::at(info) }.ok_or("not started by a PVH loader")?;
    let mappings = MutexGuard::leak(MAPPINGS.lock());
    let vcpu = MutexGuard::leak(VCPU.lock()).enable(mappings.root())?;
    let linux = !info.command_line().is_empty();
    let memory = if linux {
        let (memory, entry) = linux::load(info)?;
        vcpu.pass_interrupts();
        vcpu.start_in_protected_mode(entry);
        vcpu.registers.set(Gpr::Rsi, linux::BOOT_PARAMETERS);
        memory
    } else {
        vcpu.start_in_real_mode(guest::ENTRY);
        small::load()?
    };
    mappings.map_all(memory)?;
    println!("the machine:\n{}", MANAGER.map());

    let devices = MANAGER.dispatcher(0).map_err(|_| "no dispatcher")?;
    let mut machine = Machine { vcpu, memory, mappings, devices, ticked: 0 };
    let ended = machine.run();
    println!("the machine at the end:\n{}", MANAGER.map());
    COUNTS.print();
    ended?;
    if linux { linux::judge() } else { small::judge() }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    leave(Ending::Failed)
}
