//! An unmodified Linux kernel as the guest (Linux, Documentation/arch/arm64/booting.rst).
//!
//! The machine's interrupt controller and timers are the guest's own: the registers of the first are mapped for it, and the second
//! are the processor's. The serial port is emulated, and so is the firmware (PSCI). Where no device is the guest reads all ones.
//! What the machine is it learns from a device tree, which is written from what is registered.

use spin::Mutex;
use vm_device::devices::pl011::Pl011;
use vm_device::tables::fdt::{self, Clock, Config, ControllerKind, InterruptParent, Nodes};
use vm_device::{Gsi, GuestUsize, IoRange, IoResource, IoType, IrqResource, Property, RegisterError};

use super::boot::Loaded;
use super::guest::{MEMORY, clean, memory};
use super::host::HostClock;
use super::vcpu::Vcpu;
use crate::devices::Silent;
use crate::failure::Failure;
use crate::machine::Guest;
use crate::manager::MANAGER;
use crate::memory::{GuestMemory, Page};
use crate::power::turned_off;
use crate::wire::Wire;

/// Where QEMU has put the files of the kernel and the initial RAM disk: guest physical addresses. The image's command line
/// is `linux`, the size of the latter, and the kernel's own command line.
const KERNEL: u64 = MEMORY + (2 << 20);
const INITRD: u64 = MEMORY + (192 << 20);
/// Where the device tree is.
const TREE: u64 = MEMORY + (248 << 20);
/// The size of the guest's memory.
const SIZE: u64 = 256 << 20;

/// What the kernel is told besides what the user says: its console.
const ARGUMENTS: &str = "earlycon=pl011,0x9000000 console=ttyAMA0 panic=-1 nokaslr ";

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

/// The tree, before it is in the guest's memory, and the kernel's command line.
static BUFFER: Mutex<Page<16384>> = Mutex::new(Page([0; 16384]));
static COMMAND_LINE: Mutex<[u8; 2048]> = Mutex::new([0; 2048]);

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
    let words = loaded.command_line.strip_prefix("linux ").and_then(|words| words.split_once(' '));
    let (initrd_size, arguments) = words.ok_or("the command line is not `linux SIZE ...`")?;
    let initrd_size: u64 = initrd_size.parse().map_err(|_| "the size of the initial RAM disk is no number")?;
    if initrd_size == 0 || initrd_size > TREE - INITRD {
        return Err("the initial RAM disk does not fit the guest's memory".into());
    }
    let mut magic = [0; 4];
    memory.read(KERNEL + 56, &mut magic).ok_or("no memory at the kernel")?;
    if &magic != b"ARM\x64" {
        return Err("the kernel is no Image".into());
    }
    write_tree(memory, initrd_size, arguments)?;
    clean(MEMORY, SIZE);
    vcpu.pass_interrupts();
    vcpu.start_at(KERNEL, TREE);
    Ok(Guest { memory, judge: turned_off })
}

/// Tells the kernel what the machine is.
fn write_tree(memory: GuestMemory, initrd_size: u64, arguments: &str) -> Result<(), &'static str> {
    let mut command_line = COMMAND_LINE.lock();
    let mut length = 0;
    for part in [ARGUMENTS, arguments] {
        let place = command_line.get_mut(length..length + part.len()).ok_or("the command line is too long")?;
        place.copy_from_slice(part.as_bytes());
        length += part.len();
    }
    let range =
        |first: u64, size: u64| IoRange::new(first.into(), (first + size - 1).into()).map_err(|_| "an empty range");
    let config = Config {
        interrupts: Some(InterruptParent { phandle: GIC_HANDLE, kind: ControllerKind::Gic }),
        memory: &[range(MEMORY, SIZE)?],
        bootargs: core::str::from_utf8(&command_line[..length]).ok(),
        initrd: Some(range(INITRD, initrd_size)?),
        clock: Some(Clock { phandle: CLOCK_HANDLE, hertz: 24_000_000 }),
        nodes: Some(&processor),
        ..Config::new()
    };
    let tree = &mut BUFFER.lock().0;
    let length = fdt::write(&MANAGER, &config, tree).map_err(|_| "the device tree cannot be written")?;
    memory.write(TREE, &tree[..length]).ok_or("no memory for the device tree")
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
