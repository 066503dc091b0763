//! A type-1 hypervisor: a bare-metal image that runs a guest with the virtualisation of its processor, and whose devices are
//! those of a `vm_device` [`DeviceManager`](vm_device::DeviceManager) in a `static`. It has no allocator and no operating
//! system.
//!
//! What is the same on every processor stands beside this file. In the order of the reading:
//! - [`machine`]: a virtual machine, and the loop that runs it;
//! - [`manager`]: the manager of the guest's devices; [`devices`], [`wire`], [`interrupts`], [`power`]: what the guest sees,
//!   beside the devices of the crate; [`counts`]: who is accessed how often;
//! - [`memory`], [`nested`]: the guest's memory, and the tables by which the processor finds it;
//! - [`small`]: the devices of the small guest, and the verdict over it; [`failure`]: what a verdict says.
//!
//! What differs has a folder for each processor, which is the module [`processor`] of an image for it:
//!
//! | in it | what it has |
//! |---|---|
//! | `image.ld` | where the image lies in the machine, and the small guest in the image |
//! | `boot` | the way from the loader to [`start`], and [`Loaded`]: what the loader tells |
//! | `host` | the machine the hypervisor runs on: its console, its clock, and its end |
//! | `vcpu` | [`Vcpu`]: the virtual processor, entering the guest and its interrupts |
//! | `nested` | the format of the nested page tables' entries, and forgetting those that were cached |
//! | `exits` | from exits to devices, and [`Stopped`](processor::exits::Stopped): why the guest cannot go on |
//! | `guest` | the guests: their machines, and the program of the small one |
//!
//! `svm` is AMD's, `vmx` Intel's, which the feature `vmx` chooses; what both share is in `x86`. `arm64` is Arm's with EL2, `riscv64`
//! RISC-V's with the hypervisor extension; what both share of starting a kernel is in `kernel` and `device_tree`. A further processor is a further
//! folder, a line below, and one in `build.rs`, which links by its `image.ld`.
//!
//! On Arm a guest can turn a second virtual processor on, which a second processor runs (`processors`): removals interrupt it, so that
//! accesses need no fence (`barrier`), and `torture` removes devices while it uses them.
//!
//! It is no product. A kernel has interrupt controllers and timers of the machine itself, and can keep the interrupts; what would take the
//! processor from the hypervisor is withheld on x86 (`x86/controllers`). Nothing confines a device of the machine that accesses memory
//! by itself: no guest has one. A guest that makes no exit runs for as long as it wants, but on RISC-V.

#![no_std]
#![no_main]

mod console;
mod counts;
#[cfg(not(target_arch = "x86_64"))]
mod device_tree;
mod devices;
mod failure;
mod interrupts;
#[cfg(not(target_arch = "x86_64"))]
mod kernel;
mod machine;
mod manager;
mod memory;
mod nested;
mod power;
mod small;
mod wire;

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
#[path = "arm64/mod.rs"]
mod processor;
#[cfg(target_arch = "riscv64")]
#[path = "riscv64/mod.rs"]
mod processor;
#[cfg(all(target_arch = "x86_64", not(feature = "vmx")))]
#[path = "svm/mod.rs"]
mod processor;
#[cfg(all(target_arch = "x86_64", feature = "vmx"))]
#[path = "vmx/mod.rs"]
mod processor;

use spin::{Mutex, MutexGuard};

use crate::counts::COUNTS;
use crate::failure::Failure;
use crate::machine::{Guest, Machine};
use crate::manager::MANAGER;
use crate::nested::Mappings;
use crate::power::POWER;
use crate::processor::boot::Loaded;
use crate::processor::guest;
use crate::processor::host::{Ending, leave};
use crate::processor::vcpu::Vcpu;

/// The virtual processor.
static VCPU: Mutex<Vcpu> = Mutex::new(Vcpu::new());
/// Which guest physical addresses are memory.
static MAPPINGS: Mutex<Mappings> = Mutex::new(Mappings::new());

/// Runs the guest that the loader asks for, tells the verdict, and ends the machine.
fn start(loaded: Loaded) -> ! {
    println!("type-1 hypervisor on vm-device");
    match run(loaded) {
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

/// Runs the guest to its end, and judges it.
fn run(loaded: Loaded) -> Result<(), Failure> {
    let vcpu = MutexGuard::leak(VCPU.lock()).enable(MAPPINGS.lock().root())?;
    let Guest { memory, judge } = guest::load(loaded, vcpu)?;
    MAPPINGS.lock().map_all(memory)?;
    println!("the machine:\n{}", MANAGER.map());

    let devices = MANAGER.dispatcher(0).map_err(|_| "no dispatcher")?;
    let ended = Machine { vcpu, memory, mappings: &MAPPINGS, devices, ticked: 0, off: false }.run();
    if let Some(ended) = POWER.ended() {
        println!("{ended}");
    }
    println!("the machine at the end:\n{}", MANAGER.map());
    COUNTS.print();
    ended?;
    judge()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    println!("verdict: FAILED, the hypervisor panicked");
    leave(Ending::Failed)
}
