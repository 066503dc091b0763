//! An unmodified Linux kernel as the guest.
//!
//! The serial port is emulated, and so is the firmware (SBI), which has the timer. There is no interrupt controller: the kernel asks
//! the serial port now and then. Where no device is the guest reads all ones.

use vm_device::devices::uart::Uart16550;
use vm_device::tables::fdt::{Clock, Config, Nodes};
use vm_device::{Property, RegisterError};

use super::boot::Loaded;
use super::guest::{MEMORY, memory};
use super::host::{HERTZ, HostClock};
use super::vcpu::Vcpu;
use crate::devices::Silent;
use crate::failure::Failure;
use crate::kernel::Kernel;
use crate::machine::Guest;
use crate::manager::MANAGER;
use crate::power::turned_off;
use crate::wire::Wire;

/// Where QEMU has put the files, and what the kernel is told: its console.
const KERNEL: Kernel = Kernel {
    address: MEMORY + (2 << 20),
    magic: *b"RSC\x05",
    initrd: MEMORY + (192 << 20),
    tree: MEMORY + (248 << 20),
    arguments: "earlycon=uart8250,mmio,0x10000000 console=ttyS0 panic=-1 ",
};
/// The size of the guest's memory.
const SIZE: u64 = 256 << 20;

/// The emulated UART.
const UART_MEMORY: u64 = 0x1000_0000;

static BUS: Silent = Silent("bus");
static WIRE: Wire = Wire::new();
static UART: Uart16550<'static, &'static Wire, HostClock> = Uart16550::new("serial", &WIRE, HostClock);

fn register_devices() -> Result<(), RegisterError<&'static str>> {
    let bus = MANAGER.register_device(&BUS, None, &[], &[])?;
    MANAGER.register_device(&UART, Some(bus), &[UART.mmio(UART_MEMORY)], &[])?;
    Ok(())
}

/// Registers the devices, puts the tree into the guest's memory, and lets it start at the kernel.
///
/// # Errors
/// A device could not be registered, or the kernel is none.
pub fn load(loaded: Loaded, vcpu: &mut Vcpu) -> Result<Guest, Failure> {
    const CLOCK_HANDLE: u32 = 1;
    register_devices()?;
    let memory = memory(SIZE);
    let config = Config {
        clock: Some(Clock { phandle: CLOCK_HANDLE, hertz: 1_843_200 }),
        nodes: Some(&processor),
        ..Config::new()
    };
    KERNEL.prepare(memory, loaded.command_line, config)?;
    const HART: u64 = 0;
    vcpu.start_at(KERNEL.address, [HART, KERNEL.tree]);
    Ok(Guest { memory, judge: turned_off })
}

/// What the machine has besides its devices.
fn processor(root: &mut Nodes<'_, '_>) {
    root.node("cpus", |cpus| {
        cpus.property("#address-cells", Property::Cells(&[1]));
        cpus.property("#size-cells", Property::Cells(&[0]));
        cpus.property("timebase-frequency", Property::Cells(&[HERTZ as u32]));
        cpus.node("cpu@0", |cpu| {
            cpu.property("device_type", Property::Text("cpu"));
            cpu.property("compatible", Property::Text("riscv"));
            cpu.property("reg", Property::Cells(&[0]));
            cpu.property("riscv,isa", Property::Text("rv64imafdc"));
            cpu.property("mmu-type", Property::Text("riscv,sv39"));
            cpu.node("interrupt-controller", |interrupts| {
                interrupts.property("compatible", Property::Text("riscv,cpu-intc"));
                interrupts.property("interrupt-controller", Property::Empty);
                interrupts.property("#interrupt-cells", Property::Cells(&[1]));
            });
        });
    });
}
