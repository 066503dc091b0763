//! Linux takes a machine from the tables: QEMU's, whose devices are described here as if they were registered. What it says of
//! processors, lines, windows and timers is what the tables say, and it turns the machine off by them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hosttest::linux_guest::kernel::Kernel;
use hosttest::qemu::{Processor, initial_ramdisk, run};
use libtest_mimic::Failed;
use vm_device::devices::pci::HostBridge;
use vm_device::tables::{PciRoot, acpi};
use vm_device::{
    AcpiCommand, DeviceRegister, Gsi, GuestAddress, IoRange, IoResource, IoType, IrqResource, Part, Placement, Role,
};

use super::machine::{self, Sign, uart};
use super::{Manager, directory, manager};

/// Where the tables are in the machine's memory. The kernel is told on its command line.
const TABLES: u64 = 0x800_0000;
const RAM: IoRange = IoRange::of::<0, 0xfff_ffff>();
/// An emulated processor on a busy machine is slow.
const LIMIT: Duration = Duration::from_secs(300);

/// The devices of QEMU's machine `q35`, as SeaBIOS leaves them.
static BOARD: [Sign; 9] = [
    machine::PIC,
    Sign::new("pit", &[IoResource::pio(0x40, 4)], &[IrqResource::Fixed(Gsi(0))], |description| {
        description.acpi("PNP0100", Part::ALL);
    }),
    machine::RTC,
    machine::KEYBOARD,
    Sign::new("hpet", &[IoResource::mmio(0xfed0_0000, 0x400)], &[], |description| {
        description.acpi("PNP0103", Part { irqs: 0, ..Part::ALL });
        description.role(Role::Hpet { capabilities: 0x8086_a201, minimum_tick: 0 });
    }),
    Sign::new("ioapic", &[IoResource::mmio(0xfec0_0000, 0x1000)], &[], |description| {
        description.role(Role::IoApic { id: 0, first_gsi: 0 });
    }),
    Sign::new(
        "pm1",
        &[IoResource::pio(0x600, 6), IoResource::pio(0xb2, 1)],
        &[IrqResource::Shared(Gsi(9))],
        |description| {
            let register = |range_index, offset, size| DeviceRegister { range_index, offset, size };
            description.role(Role::Pm1 {
                event: register(0, 0, 4),
                control: register(0, 4, 2),
                command: Some(AcpiCommand { port: register(1, 0, 1), enable: 2, disable: 3 }),
                power_off: 0,
                has_power_button: true,
            });
        },
    ),
    machine::PM_TIMER,
    Sign::new("reset", &[IoResource::pio(0xcf9, 1)], &[], |description| {
        let register = DeviceRegister { range_index: 0, offset: 0, size: 1 };
        description.role(Role::Reset { register, value: 0xf });
    }),
];

/// What the kernel has to say.
const SAID: [&str; 17] = [
    "ACPI: RSDP 0x0000000008000000 000024 (v02 VMDEV )",
    "ACPI: PM-Timer IO Port: 0x608",
    "IOAPIC[0]: apic_id 0, version 32, address 0xfec00000, GSI 0-23",
    "ACPI: INT_SRC_OVR (bus 0 bus_irq 0 global_irq 2 dfl dfl)",
    "ACPI: INT_SRC_OVR (bus 0 bus_irq 9 global_irq 9 low level)",
    "ACPI: HPET id: 0x8086a201 base: 0xfed00000",
    "smp: Brought up 1 node, 2 CPUs",
    "PCI: MMCONFIG for domain 0000 [bus 00-ff] at [mem 0xb0000000-0xbfffffff]",
    "ACPI: PCI Root Bridge [PCI0] (domain 0000 [bus 00-ff])",
    "root bus resource [mem 0xc0000000-0xfebfffff window]",
    "[mem 0xb0000000-0xbfffffff] has been reserved",
    "ttyS0 at I/O 0x3f8 (irq = 4, base_baud = 115200) is a 16550A",
    "at 0x60,0x64 irq 1,12",
    "rtc_cmos 00:02: registered as rtc0",
    "ACPI: PM: Preparing to enter system sleep state S5",
    "init: hello from an unmodified kernel",
    "reboot: Power down",
];

fn register(manager: Manager) -> Result<(), Failed> {
    manager.reserve(IoType::Mmio, Placement::Fixed(RAM))?;
    let host = Box::leak(Box::new(HostBridge::new("pci", manager)));
    manager.register_device(host, None, &[HostBridge::ecam(0xb000_0000, 255)], &[])?;
    let serial = Box::leak(Box::new(uart("serial")));
    manager.register_device(serial, None, &[serial.ports(0x3f8)], &[IrqResource::Fixed(Gsi(4))])?;
    BOARD.iter().for_each(|device| device.register(manager));
    Ok(())
}

pub(crate) fn boot() -> Result<(), Failed> {
    let directory = directory("linux")?;
    let manager = manager();
    register(manager)?;
    let root = PciRoot { memory: &[IoRange::of::<0xc000_0000, 0xfebf_ffff>()], ..machine::ROOT };
    let config = acpi::Config { pci: &[root], ..machine::PC_ACPI };
    let mut tables = vec![0; 0x1_0000];
    let written = acpi::write(manager, &config, GuestAddress(TABLES), &mut tables)?;
    fs::write(directory.join("tables"), &tables[..written.length])?;
    fs::write(directory.join("initrd"), initial_ramdisk(Processor::X86))?;

    let append = format!("console=ttyS0 nokaslr acpi_rsdp={TABLES:#x} memmap=64K#{TABLES:#x} panic=-1");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35,smm=off", "-initrd", "initrd", "-append", &append, "-kernel"])
        .arg(Kernel::Cloud.find()?.canonicalize()?)
        .args(["-device", &format!("loader,force-raw=on,addr={TABLES:#x},file=tables")]);
    until_it_ends(qemu, &directory, &SAID)
}

/// Runs a machine of two processors and 256 MiB until it is turned off or reset, and looks for what its kernel has to say.
pub(crate) fn until_it_ends(mut qemu: Command, directory: &Path, expected: &[&str]) -> Result<(), Failed> {
    qemu.args(["-accel", "tcg", "-smp", "2", "-m", "256", "-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-serial", "stdio"])
        .current_dir(directory);
    let mut said = Vec::new();
    let ended = run(&mut qemu, LIMIT, &mut said);
    let said = String::from_utf8_lossy(&said);
    ended.map_err(|error| format!("{error}\n{said}"))?;
    match expected.iter().find(|line| !said.contains(**line)) {
        Some(line) => Err(format!("the kernel does not say '{line}':\n{said}").into()),
        None => Ok(()),
    }
}
