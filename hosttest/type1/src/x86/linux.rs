//! An unmodified Linux kernel as the guest (Linux, Documentation/x86/boot.rst: the 32-bit boot protocol).
//!
//! The machine's interrupt controllers and timers are the guest's own: their registers and ports are passed through, by the manager
//! like all others, but for what would take the processor from the hypervisor (`controllers`). The serial port, the keyboard controller, the power switch and the reset
//! registers are emulated, by devices of the crate, and so is a second serial port in memory, on which the kernel begins to
//! speak (`earlycon`). Of all other ports and addresses the guest reads all ones.

use vm_device::devices::i8042::I8042;
use vm_device::devices::pm1::Pm1;
use vm_device::devices::reset_control::ResetControl;
use vm_device::devices::system_control::SystemControlA;
use vm_device::exit::x86::Gpr;
use vm_device::{Gsi, GuestUsize, IoResource, IoType, IrqResource, PortPassthrough, RegisterError};

use crate::devices::Silent;
use crate::failure::Failure;
use crate::machine::Guest;
use crate::manager::MANAGER;
use crate::memory::GuestMemory;
use crate::power::{POWER, Power, turned_off};
use crate::processor::vcpu::Vcpu;
use crate::wire::Wire;
use crate::x86::boot::{MemoryMapEntry, StartInfo};
use crate::x86::controllers::{Ioapic, LocalApic};
use crate::x86::guest::{Uart, memory};
use crate::x86::host::HostClock;
use crate::x86::interrupts::{Routing, route};

/// Where QEMU has put the files of the kernel and the initial RAM disk: guest physical addresses. The image's command line
/// is `linux`, the size of the latter, and the kernel's own command line.
const KERNEL: u64 = 16 << 20;
const INITRD: u64 = 256 << 20;
/// The end of the guest's memory.
const MEMORY_END: u64 = 384 << 20;
/// The kind of memory for use in memory maps (ACPI 6.5, table 15.4).
const MEMORY: u32 = 1;
/// The structure that the kernel is handed ("zero page"), and its command line.
const BOOT_PARAMETERS: u64 = 0x1_0000;
const COMMAND_LINE: u64 = 0x2_0000;

/// What the kernel is told besides what the user says: its consoles, first in memory, then at ports; and the speed of the
/// emulated processor, which it would spend seconds to measure.
const ARGUMENTS: &str =
    "earlycon=uart8250,mmio,0xd0000000 console=ttyS0 panic=-1 nokaslr lpj=4000000 tsc_early_khz=1000000 ";
const UART_MEMORY: u64 = 0xd000_0000;

static ISA: Silent = Silent("isa");
static SYSTEM: Silent = Silent("system");
static WIRE: Wire = Wire::new();
static UART: Uart = Uart::new("uart", &WIRE, HostClock);
static EARLY_UART: Uart = Uart::new("early uart", &WIRE, HostClock);
static KEYBOARD: I8042<'static, &'static Power> = I8042::new(&POWER);
static PM1: Pm1<'static, &'static Power> = Pm1::new(&POWER);
static RESET_CONTROL: ResetControl<&'static Power> = ResetControl::new(&POWER);
static SYSTEM_CONTROL: SystemControlA<&'static Power> = SystemControlA::new(&POWER);
static LOCAL_APIC: LocalApic = LocalApic;
static IOAPIC: Ioapic = Ioapic;
static FIRMWARE: [Silent; 3] = [Silent("firmware 1"), Silent("firmware 2"), Silent("firmware 3")];

/// The ports of the machine that are the guest's.
static PORTS: [(PortPassthrough<'static>, u16, u32); 8] = {
    const fn pass(name: &'static str, first: u16, count: u32) -> (PortPassthrough<'static>, u16, u32) {
        // SAFETY: the image runs at CPL 0. None of these accesses memory, and the hypervisor uses none of them: it takes
        // no interrupt and keeps no time.
        (unsafe { PortPassthrough::new(name, first) }, first, count)
    }
    [
        pass("pic master", 0x20, 2),
        pass("pit", 0x40, 4),
        pass("pit gate", 0x61, 1),
        pass("rtc", 0x70, 2),
        pass("pic slave", 0xa0, 2),
        pass("pic triggers", 0x4d0, 2),
        pass("acpi timer", 0x608, 4),
        pass("acpi gpe", 0xafe0, 4),
    ]
};

/// Where the firmware's tables say that the PM1 registers are, and which line the SCI is.
const PM1_PORT: u16 = 0x600;
const SCI: Gsi = Gsi(9);

fn register_devices(info: &StartInfo) -> Result<(), RegisterError<&'static str>> {
    const NO_IRQ: &[IrqResource] = &[];
    let isa = MANAGER.register_device(&ISA, None, &[IoResource::pio(0, 0x1_0000).window()], NO_IRQ)?;
    let on_isa =
        |device, ranges: &[IoResource], irqs: &[IrqResource]| MANAGER.register_device(device, Some(isa), ranges, irqs);
    on_isa(&UART, &[UART.ports(0x3f8)], &[IrqResource::Fixed(Gsi(4))])?;
    on_isa(&KEYBOARD, &KEYBOARD.ports(), &KEYBOARD.interrupts())?;
    on_isa(&PM1, &[PM1.registers(PM1_PORT), PM1.command_port()], &[IrqResource::Fixed(SCI)])?;
    on_isa(&RESET_CONTROL, &[RESET_CONTROL.port()], NO_IRQ)?;
    on_isa(&SYSTEM_CONTROL, &[SYSTEM_CONTROL.port()], NO_IRQ)?;
    for (device, first, count) in &PORTS {
        let ports = IoResource::pio(*first, *count).sizes(PortPassthrough::SIZES);
        on_isa(device, &[ports], NO_IRQ)?;
    }
    let system = MANAGER.register_device(&SYSTEM, None, &[], NO_IRQ)?;
    MANAGER.register_device(&EARLY_UART, Some(system), &[EARLY_UART.mmio(UART_MEMORY)], NO_IRQ)?;
    MANAGER.register_device(&LOCAL_APIC, Some(system), &[LOCAL_APIC.range()], NO_IRQ)?;
    MANAGER.register_device(&IOAPIC, Some(system), &[IOAPIC.range()], NO_IRQ)?;
    let mapped = |device, address: u64, size| {
        let range = IoResource::fixed(IoType::PhysicalMmio, address.into(), GuestUsize(size));
        MANAGER.register_device(device, Some(system), &[range], NO_IRQ)
    };
    for (device, tables) in FIRMWARE.iter().zip(firmware_tables(info)) {
        mapped(device, tables.base, tables.size)?;
    }
    Ok(())
}

/// The ranges of the machine's memory map that hold the firmware's tables, as far as they are whole pages.
fn firmware_tables(info: &StartInfo) -> impl Iterator<Item = &'static MemoryMapEntry> {
    let map = info.memory_map().iter();
    map.filter(|entry| entry.kind != MEMORY && (entry.base | entry.size) % 0x1000 == 0 && entry.base < 1 << 32)
}

/// Registers the devices, puts the kernel's parameters into the guest's memory, and lets it start at the kernel.
///
/// # Errors
/// A device could not be registered, or the kernel is none.
pub fn load(info: &StartInfo, vcpu: &mut Vcpu) -> Result<Guest, Failure> {
    register_devices(info)?;
    route(Routing::Ioapic);
    let memory = memory(MEMORY_END);
    let entry = write_parameters(memory, info)?;
    vcpu.pass_interrupts();
    vcpu.start_in_protected_mode(entry);
    vcpu.registers.set(Gpr::Rsi, BOOT_PARAMETERS);
    Ok(Guest { memory, judge: turned_off })
}

/// Tells the kernel where everything is. Returns its 32-bit entry point.
fn write_parameters(memory: GuestMemory, info: &StartInfo) -> Result<u32, &'static str> {
    let words = info.command_line().strip_prefix("linux ").and_then(|words| words.split_once(' '));
    let (initrd_size, arguments) = words.ok_or("the command line is not `linux SIZE ...`")?;
    let initrd_size: u32 = initrd_size.parse().map_err(|_| "the size of the initial RAM disk is no number")?;
    if u64::from(initrd_size) > MEMORY_END - INITRD {
        return Err("the initial RAM disk does not fit the guest's memory");
    }

    let mut parameters = [0; 4096];
    let header = &mut parameters[0x1f1..0x290];
    memory.read(KERNEL + 0x1f1, header).ok_or("no memory at the kernel")?;
    let setup_sectors = u32::from(header[0]);
    if &header[0x202 - 0x1f1..][..4] != b"HdrS" {
        return Err("the kernel is no bzImage");
    }
    // What lies behind the header in the file is code, and has to be zero here.
    let header_end = 0x202 + usize::from(header[0x201 - 0x1f1]).min(0x290 - 0x202);
    parameters[header_end..0x290].fill(0);

    let mut set = |offset: usize, value: &[u8]| parameters[offset..][..value.len()].copy_from_slice(value);
    set(0x070, &info.acpi_root_pointer.to_le_bytes());
    set(0x1fa, &0xffffu16.to_le_bytes()); // The video mode: as it is.
    set(0x210, &[0xff]); // The type of loader: unknown.
    set(0x218, &(INITRD as u32).to_le_bytes());
    set(0x21c, &initrd_size.to_le_bytes());
    set(0x228, &(COMMAND_LINE as u32).to_le_bytes());
    // The memory map: the guest's memory, and the firmware's tables as reserved.
    let own = memory.ranges().map(|(range, _)| (range.first().0, range.last().0 - range.first().0 + 1, MEMORY));
    let tables = firmware_tables(info).map(|entry| (entry.base, entry.size, entry.kind));
    let mut entries = 0;
    for ((base, size, kind), place) in own.chain(tables).zip((0x2d0..).step_by(20)) {
        set(place, &base.to_le_bytes());
        set(place + 8, &size.to_le_bytes());
        set(place + 16, &kind.to_le_bytes());
        entries += 1;
    }
    set(0x1e8, &[entries]);

    let end = COMMAND_LINE + ARGUMENTS.len() as u64;
    let written = memory
        .write(BOOT_PARAMETERS, &parameters)
        .and_then(|()| memory.write(COMMAND_LINE, ARGUMENTS.as_bytes()))
        .and_then(|()| memory.write(end, arguments.as_bytes()))
        .and_then(|()| memory.write(end + arguments.len() as u64, &[0]));
    written.ok_or("no memory for the kernel's parameters")?;
    Ok(KERNEL as u32 + (setup_sectors + 1) * 512)
}
