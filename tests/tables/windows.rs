//! What both formats say of PCI root bridges: windows that are free for base address registers, and whole buses.

use vm_device::devices::pci::HostBridge;
use vm_device::tables::{PciRoot, TableError, acpi, fdt};
use vm_device::{GuestAddress, IoRange, IoResource, IoType, Part, Placement};

use super::machine::Sign;
use super::{Manager, manager, tree};

const WINDOW: IoRange = IoRange::of::<0xc000_0000, 0xcfff_ffff>();
const ROOTS: [PciRoot<'static>; 1] = [PciRoot { memory: &[WINDOW], ..PciRoot::NOTHING }];

/// What both writers say.
fn write(manager: Manager) -> Option<TableError> {
    let mut buffer = [0; 0x1000];
    let config = acpi::Config { pci: &ROOTS, ..acpi::Config::new() };
    let acpi = acpi::write(manager, &config, GuestAddress(0), &mut buffer).err();
    let fdt = fdt::write(manager, &fdt::Config { pci: &ROOTS, ..fdt::Config::new() }, &mut buffer).err();
    assert_eq!(acpi, fdt);
    acpi
}

#[test]
fn what_the_vmm_has_reserved_is_in_the_way() {
    let manager = manager();
    let range = IoRange::of::<0xb000_0000, 0xc000_0000>();
    manager.reserve(IoType::Mmio, Placement::Fixed(range)).unwrap();
    let error = write(manager).unwrap();
    assert_eq!(error, TableError::WindowTaken { window: WINDOW, range, holder: None });
    assert_eq!(
        error.to_string(),
        "the window [0xc0000000, 0xcfffffff] of a PCI root bridge holds [0xb0000000, 0xc0000000], which the VMM has reserved"
    );
}

#[test]
fn a_device_that_says_what_it_is_is_in_the_way() {
    let manager = manager();
    static HPET: Sign = Sign::new("hpet", &[IoResource::mmio(0xcfff_f000, 0x400)], &[], |description| {
        description.acpi("PNP0103", Part::ALL);
    });
    HPET.register(manager);
    let holder = manager.walk().next().map(|info| info.id);
    let range = IoRange::of::<0xcfff_f000, 0xcfff_f3ff>();
    assert_eq!(write(manager), Some(TableError::WindowTaken { window: WINDOW, range, holder }));
}

#[test]
fn ports_of_a_host_bridge_are_in_the_way() {
    const PORTS: [PciRoot<'static>; 1] = [PciRoot { ports: &[IoRange::ALL_PORTS], ..PciRoot::NOTHING }];
    let manager = manager();
    let host = Box::leak(Box::new(HostBridge::new("pci", manager)));
    let holder = Some(manager.register_device(host, None, &[HostBridge::PORTS], &[]).unwrap());
    let config = fdt::Config { pci: &PORTS, ..fdt::Config::new() };
    let (window, range) = (IoRange::ALL_PORTS, IoRange::of::<0xcf8, 0xcff>());
    let result = fdt::write(manager, &config, &mut []);
    assert_eq!(result, Err(TableError::WindowTaken { window, range, holder }));
}

#[test]
fn a_base_address_register_is_not() {
    let manager = manager();
    static DISK: Sign = Sign::new("disk", &[IoResource::mmio(0xc000_0000, 0x1000)], &[], |_| ());
    static BUS: Sign = Sign::new("bus", &[IoResource::mmio(0xc800_0000, 0x10_0000).window()], &[], |description| {
        description.acpi("ACME0001", Part { ranges: 0, irqs: 0 });
    });
    static BEFORE: Sign = Sign::new("before", &[IoResource::mmio(0xbfff_f000, 0x1000)], &[], |description| {
        description.acpi("ACME0002", Part::ALL);
    });
    for device in [&DISK, &BUS, &BEFORE] {
        device.register(manager);
    }
    assert_eq!(write(manager), None);
}

#[test]
fn both_formats_say_the_buses_that_are_whole_in_configuration_space() {
    for (size, last_bus) in [(0x10_0000, 0), (0x28_0000, 1), (0x2f_ffff, 1), (0x30_0000, 2), (0x1000_0000, 0xff)] {
        let manager = manager();
        let host = Box::leak(Box::new(HostBridge::new("pcie", manager)));
        manager.register_device(host, None, &[IoResource::mmio(0xe000_0000, size)], &[]).unwrap();
        let mut buffer = [0; 0x1000];
        let config = acpi::Config { pci: &ROOTS, ..acpi::Config::new() };
        acpi::write(manager, &config, GuestAddress(0), &mut buffer).unwrap();
        let mcfg = buffer.windows(4).position(|bytes| bytes == b"MCFG").unwrap();
        assert_eq!(buffer[mcfg + 55], last_bus, "{size:#x}");
        let length = fdt::write(manager, &fdt::Config { pci: &ROOTS, ..fdt::Config::new() }, &mut buffer).unwrap();
        let tree = tree::read(&buffer[..length]);
        assert!(tree.contains(&format!("bus-range = <0 {last_bus:x}>")), "{size:#x}: {tree}");
    }
}
