//! An unmodified Linux kernel as the guest (Linux, Documentation/arch/arm64/booting.rst).
//!
//! The machine's interrupt controller and timers are the guest's own: the registers of the first are mapped for it, and the second
//! are the processor's. The serial port is emulated, and so is the firmware (PSCI). Where no device is the guest reads all ones.
//! What the machine is it learns from a device tree, which is written from what is registered.

use vm_device::devices::pl011::Pl011;
use vm_device::tables::fdt::{Clock, Config, ControllerKind, InterruptParent, Nodes};
use vm_device::{Gsi, GuestUsize, IoResource, IoType, IrqResource, Property, RegisterError};

use super::boot::Loaded;
use super::guest::{MEMORY, clean, memory};
use super::host::HostClock;
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
    magic: *b"ARM\x64",
    initrd: MEMORY + (192 << 20),
    tree: MEMORY + (248 << 20),
    arguments: "earlycon=pl011,0x9000000 console=ttyAMA0 panic=-1 nokaslr ",
};
/// The size of the guest's memory.
const SIZE: u64 = 256 << 20;

/// The emulated UART, and its line.
const UART_MEMORY: u64 = 0x0900_0000;
const UART_LINE: Gsi = Gsi(33);
/// Distributor and redistributor of the machine's GICv3.
const DISTRIBUTOR: (u64, u64) = (0x0800_0000, 0x1_0000);
const REDISTRIBUTOR: (u64, u64) = (0x080a_0000, 0x2_0000);

static BUS: Silent = Silent("bus");
static WIRE: Wire = Wire::new();
static UART: Pl011<'static, &'static Wire, HostClock> = Pl011::new("serial", &WIRE, HostClock);
static GIC: [Silent; 2] = [Silent("distributor"), Silent("redistributor")];

fn register_devices() -> Result<(), RegisterError<&'static str>> {
    let bus = MANAGER.register_device(&BUS, None, &[], &[])?;
    MANAGER.register_device(&UART, Some(bus), &[UART.mmio(UART_MEMORY)], &[IrqResource::Fixed(UART_LINE)])?;
    for (device, (address, size)) in GIC.iter().zip([DISTRIBUTOR, REDISTRIBUTOR]) {
        let range = IoResource::fixed(IoType::PhysicalMmio, address.into(), GuestUsize(size));
        MANAGER.register_device(device, Some(bus), &[range], &[])?;
    }
    Ok(())
}

/// Registers the devices, puts the tree into the guest's memory, and lets it start at the kernel.
///
/// # Errors
/// A device could not be registered, or the kernel is none.
pub fn load(loaded: Loaded, vcpu: &mut Vcpu) -> Result<Guest, Failure> {
    register_devices()?;
    let memory = memory(SIZE);
    let config = Config {
        interrupts: Some(InterruptParent { phandle: GIC_HANDLE, kind: ControllerKind::Gic }),
        clock: Some(Clock { phandle: CLOCK_HANDLE, hertz: 24_000_000 }),
        nodes: Some(&processor),
        ..Config::new()
    };
    KERNEL.prepare(memory, loaded.command_line, config)?;
    clean(MEMORY, SIZE);
    vcpu.pass_interrupts();
    vcpu.start_at(KERNEL.address, KERNEL.tree);
    Ok(Guest { memory, judge: turned_off })
}

const GIC_HANDLE: u32 = 1;
const CLOCK_HANDLE: u32 = 2;

/// What the machine has besides its devices.
fn processor(root: &mut Nodes<'_, '_>) {
    root.node("cpus", |cpus| {
        cpus.property("#address-cells", Property::Cells(&[1]));
        cpus.property("#size-cells", Property::Cells(&[0]));
        cpus.node("cpu@0", |cpu| {
            cpu.property("device_type", Property::Text("cpu"));
            cpu.property("compatible", Property::Text("arm,armv8"));
            cpu.property("reg", Property::Cells(&[0]));
        });
    });
    root.node("psci", |psci| {
        psci.property("compatible", Property::Texts(&["arm,psci-1.0", "arm,psci-0.2"]));
        psci.property("method", Property::Text("hvc"));
    });
    root.node("interrupt-controller@8000000", |gic| {
        let wide = |(address, size): (u64, u64)| [0, address as u32, 0, size as u32];
        let ([a, b, c, d], [e, f, g, h]) = (wide(DISTRIBUTOR), wide(REDISTRIBUTOR));
        gic.property("compatible", Property::Text("arm,gic-v3"));
        gic.property("reg", Property::Cells(&[a, b, c, d, e, f, g, h]));
        gic.property("interrupt-controller", Property::Empty);
        gic.property("#interrupt-cells", Property::Cells(&[3]));
        gic.property("#address-cells", Property::Cells(&[0]));
        gic.property("phandle", Property::Cells(&[GIC_HANDLE]));
    });
    root.node("timer", |timer| {
        timer.property("compatible", Property::Text("arm,armv8-timer"));
        timer.property("interrupts", Property::Cells(&[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]));
        timer.property("always-on", Property::Empty);
    });
}
