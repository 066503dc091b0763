//! ACPI tables, field by field.

use vm_device::tables::acpi::{self, Config, Cpus, IoApic, IrqOverride};
use vm_device::tables::{PciInterrupts, PciRoot, TableError};
use vm_device::{DeviceRegister, Gsi, GuestAddress, IoResource, IrqResource, Part, Relocation, Role, UartKind};

use super::machine::{PC_ACPI, ROOT, Sign, uart};
use super::{Manager, manager, pc, try_every_size};

const BASE: u64 = 0xe_0000;

/// Tables as a guest finds them.
struct Tables {
    bytes: Vec<u8>,
    base: u64,
}

/// Bytes from an offset on.
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn dword(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn qword(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

fn write(manager: Manager, config: &Config<'_>) -> Tables {
    write_at(manager, config, BASE)
}

fn write_at(manager: Manager, config: &Config<'_>, base: u64) -> Tables {
    let mut bytes = vec![0x5a; 0x1_0000];
    let written = acpi::write(manager, config, GuestAddress(base), &mut bytes).unwrap();
    assert_eq!(written.rsdp, GuestAddress(base));
    bytes.truncate(written.length);
    Tables { bytes, base }
}

impl Tables {
    fn at(&self, address: u64) -> &[u8] {
        let table = &self.bytes[(address - self.base) as usize..];
        let table = &table[..dword(table, 4) as usize];
        assert!(address.is_multiple_of(16) && (&table[..4] == b"FACS" || sum(table) == 0));
        table
    }

    /// Every table that the XSDT lists, by its signature.
    fn listed(&self) -> Vec<(&str, &[u8])> {
        assert_eq!(self.bytes[..8], *b"RSD PTR ");
        assert_eq!((self.bytes[15], dword(&self.bytes, 20)), (2, 36));
        assert_eq!((sum(&self.bytes[..20]), sum(&self.bytes[..36])), (0, 0));
        let xsdt = self.at(qword(&self.bytes, 24));
        assert_eq!(xsdt[..4], *b"XSDT");
        let tables = xsdt[36..].chunks(8).map(|entry| self.at(qword(entry, 0)));
        tables.map(|table| (std::str::from_utf8(&table[..4]).unwrap(), table)).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.listed().into_iter().map(|(name, _)| name).collect()
    }

    fn get(&self, name: &str) -> &[u8] {
        self.listed().into_iter().find(|(listed, _)| *listed == name).unwrap().1
    }

    fn dsdt(&self) -> &[u8] {
        self.at(qword(self.get("FACP"), 140))
    }

    /// The entries of the MADT, each with its kind and length.
    fn madt(&self) -> Vec<&[u8]> {
        let mut rest = &self.get("APIC")[44..];
        std::iter::from_fn(|| {
            let (entry, behind) = rest.split_at_checked(usize::from(*rest.get(1)?))?;
            rest = behind;
            Some(entry)
        })
        .collect()
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn the_tables_of_a_pc_are_found_from_the_root_pointer() {
    let tables = write(pc(), &PC_ACPI);
    assert_eq!(tables.names(), ["FACP", "APIC", "MCFG", "HPET", "SPCR"]);
    let lengths: Vec<_> = tables.listed().iter().map(|(_, table)| table.len()).collect();
    assert_eq!((lengths[0], lengths[2], lengths[3], lengths[4]), (276, 60, 56, 80));
    for (_, table) in tables.listed() {
        assert_eq!((&table[10..16], &table[16..24]), (&b"VMDEV "[..], &b"VMDEVICE"[..]));
    }
    assert_eq!(tables.dsdt()[..4], *b"DSDT");
    let facs = dword(tables.get("FACP"), 36);
    assert_eq!(qword(tables.get("FACP"), 132), 0);
    assert!(facs.is_multiple_of(64));
    assert_eq!(tables.at(facs.into())[..8], *b"FACS\x40\0\0\0");
}

#[test]
fn a_buffer_that_is_too_small_is_an_error_that_says_how_much_it_takes() {
    let manager = pc();
    // Pins take long, and are packages as others.
    let root = PciRoot { interrupts: PciInterrupts::None, ..ROOT };
    let config = Config { pci: &[root], ..PC_ACPI };
    try_every_size(|buffer| acpi::write(manager, &config, GuestAddress(BASE), buffer));
    let manager = super::manager();
    try_every_size(|buffer| acpi::write(manager, &Config::new(), GuestAddress(BASE), buffer));
}

#[test]
fn an_address_that_tables_cannot_have_is_an_error() {
    let manager = pc();
    let mut buffer = [0; 0x4000];
    for address in [BASE + 16, BASE + 32, 1, u64::MAX - 63] {
        let address = GuestAddress(address);
        let result = acpi::write(manager, &PC_ACPI, address, &mut buffer);
        assert_eq!(result, Err(TableError::BadAddress { address }));
    }
}

#[test]
fn the_fixed_hardware_is_where_it_is_registered() {
    let tables = write(pc(), &PC_ACPI);
    let fadt = tables.get("FACP");
    assert_eq!((fadt[8], fadt[131]), (6, 0));
    // SCI_INT, SMI_CMD and its values.
    assert_eq!((word(fadt, 46), dword(fadt, 48), fadt[52], fadt[53]), (9, 0xb2, 0xf1, 0xf0));
    // PM1a_EVT_BLK, PM1a_CNT_BLK, PM_TMR_BLK, with their lengths, and nothing else.
    let blocks: Vec<_> = (56..88).step_by(4).map(|at| dword(fadt, at)).collect();
    assert_eq!(blocks, [0x600, 0, 0x604, 0, 0, 0x608, 0, 0]);
    assert_eq!(fadt[88..96], [4, 2, 0, 4, 0, 0, 0, 0]);
    for (at, bits, access, address) in
        [(116, 8, 1, 0xcf9), (148, 32, 2, 0x600), (172, 16, 2, 0x604), (208, 32, 3, 0x608)]
    {
        assert_eq!((&fadt[at..at + 4], qword(fadt, at + 4)), (&[1, bits, 0, access][..], address), "{at}");
    }
    // The value that resets; the century.
    assert_eq!((fadt[128], fadt[108]), (6, 0x32));
    // Legacy devices, 8042, no VGA; the clock is there.
    assert_eq!(word(fadt, 109), 0b111);
    // WBINVD, C1, a fixed power button and no other button or alarm, a timer of 32 bits, a reset register.
    assert_eq!(dword(fadt, 112), 0b101_0110_0101);
    // Off by SLP_TYP 5.
    assert!(has(tables.dsdt(), b"_S5_\x12\x08\x04\x0a\x05\x0a\x05\0\0"));
}

#[test]
fn a_machine_without_fixed_hardware_says_that_it_is_reduced() {
    let manager = manager();
    let tables = write(manager, &Config { has_vga: true, has_rtc: true, ..Config::new() });
    assert_eq!(tables.names(), ["FACP", "APIC"]);
    let fadt = tables.get("FACP");
    assert_eq!((dword(fadt, 36), qword(fadt, 132)), (0, 0));
    assert_eq!(word(fadt, 109), 0);
    assert_eq!(dword(fadt, 112), 1 << 20 | 0b111_0101);
    assert!(fadt[116..129] == [0; 13] && fadt[148..276] == [0; 128]);
    assert!(!has(tables.dsdt(), b"_S5_"));
    // No VGA, and no clock.
    assert_eq!(word(write(manager, &Config::new()).get("FACP"), 109), 0b10_0100);
}

#[test]
fn tables_above_4_gib_are_named_by_the_fields_of_64_bits_alone() {
    let tables = write_at(pc(), &PC_ACPI, 1 << 33);
    let fadt = tables.get("FACP");
    assert_eq!((dword(fadt, 36), dword(fadt, 40)), (0, 0));
    assert_eq!(tables.at(qword(fadt, 132))[..4], *b"FACS");
    assert_eq!(tables.dsdt()[..4], *b"DSDT");
}

#[test]
fn the_madt_has_processors_ioapics_and_what_differs_from_isa() {
    let tables = write(pc(), &PC_ACPI);
    let madt = tables.get("APIC");
    assert_eq!((dword(madt, 36), dword(madt, 40)), (0xfee0_0000, 1));
    let expected: [&[u8]; 6] = [
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 1, 1, 0, 0, 0],
        &[1, 12, 2, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        // The timer, and the system control interrupt, which is level-triggered.
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 15, 0],
        &[4, 6, 0xff, 0, 0, 1],
    ];
    assert_eq!(tables.madt(), expected);
    assert!(has(tables.dsdt(), b"C001\x08_HID\x0dACPI0007\0\x08_UID\x01"));
}

#[test]
fn ids_beyond_eight_bits_are_those_of_an_x2apic() {
    let config = Config { cpus: Cpus::Listed(&[7, 254, 255, 0x1_0000]), local_apic: 1 << 32, ..Config::new() };
    let tables = write(manager(), &config);
    let expected: [&[u8]; 6] = [
        &[0, 8, 0, 7, 1, 0, 0, 0],
        &[0, 8, 1, 254, 1, 0, 0, 0],
        &[9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
        &[9, 16, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0],
        &[4, 6, 0xff, 0, 0, 1],
        &[5, 12, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
    ];
    assert_eq!(tables.madt(), expected);
    // The number of a processor has eight bits too.
    let tables = write(manager(), &Config { cpus: Cpus::Sequential(300), ..Config::new() });
    assert_eq!(tables.madt().iter().filter(|entry| entry[0] == 0).count(), 255);
    assert_eq!(tables.madt().iter().filter(|entry| entry[0] == 9).count(), 45);
}

#[test]
fn lines_that_are_shared_or_lead_from_pci_are_level_triggered() {
    let manager = manager();
    static SHARED: Sign =
        Sign::new("shared", &[], &[IrqResource::Shared(Gsi(5)), IrqResource::Shared(Gsi(21))], |_| ());
    static ALONE: Sign = Sign::new("alone", &[], &[IrqResource::Fixed(Gsi(6))], |_| ());
    SHARED.register(manager);
    ALONE.register(manager);
    let route = |device: u8, pin: u8| (device == 3 && pin == 2).then_some(Gsi(11));
    let root = PciRoot { interrupts: PciInterrupts::Routed(&route), ..PciRoot::NOTHING };
    let config = Config {
        io_apics: &[
            IoApic { id: 1, address: 0xfec0_0000, first_gsi: 0 },
            IoApic { id: 2, address: 0xfec1_0000, first_gsi: 24 },
        ],
        overrides: &[IrqOverride { irq: 5, gsi: 20 }],
        pci: &[root],
        ..Config::new()
    };
    let tables = write(manager, &config);
    let entries = tables.madt();
    assert_eq!(
        entries[1..3],
        [&[1, 12, 1, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0][..], &[1, 12, 2, 0, 0, 0, 0xc1, 0xfe, 24, 0, 0, 0]]
    );
    assert_eq!(entries[3..5], [&[2, 10, 0, 5, 20, 0, 0, 0, 15, 0][..], &[2, 10, 0, 11, 11, 0, 0, 0, 15, 0]]);
    assert_eq!(entries.len(), 6);
}

#[test]
fn a_timer_on_a_shared_line_is_edge_triggered_if_it_says_so() {
    let manager = manager();
    static TIMERS: [Sign; 3] = [
        Sign::new("pit", &[IoResource::pio(0x40, 4)], &[IrqResource::Shared(Gsi(0))], |description| {
            description.acpi("PNP0100", Part::ALL);
        }),
        Sign::new(
            "hpet",
            &[],
            &[IrqResource::Shared(Gsi(0)), IrqResource::Shared(Gsi(8)), IrqResource::Shared(Gsi(20))],
            |description| description.edge_triggered(0b111),
        ),
        Sign::new("other", &[], &[IrqResource::Shared(Gsi(5)), IrqResource::Shared(Gsi(20))], |description| {
            description.acpi("ACME0001", Part::ALL);
            description.edge_triggered(0b10);
        }),
    ];
    TIMERS.iter().for_each(|device| device.register(manager));
    let tables = write(manager, &Config { overrides: &[IrqOverride { irq: 0, gsi: 2 }], ..Config::new() });
    let expected: [&[u8]; 2] = [&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0], &[2, 10, 0, 5, 5, 0, 0, 0, 15, 0]];
    assert_eq!(tables.madt()[1..3], expected);
    assert_eq!(tables.madt().len(), 4);
    // Edge-triggered and shared; from 16 on, level-triggered all the same.
    assert!(has(tables.dsdt(), &[0x23, 1, 0, 0b1_0001, 0x79]));
    assert!(has(tables.dsdt(), &[0x89, 6, 0, 0b1101, 1, 5, 0, 0, 0, 0x89, 6, 0, 0b1101, 1, 20, 0, 0, 0, 0x79]));
}

#[test]
fn a_host_bridge_has_its_buses_its_windows_and_its_pins() {
    let tables = write(pc(), &PC_ACPI);
    let mcfg = tables.get("MCFG");
    assert_eq!((qword(mcfg, 44), word(mcfg, 52), mcfg[54], mcfg[55]), (0xe000_0000, 0, 0, 255));
    let dsdt = tables.dsdt();
    assert!(has(dsdt, b"PCI0\x08_HID\x0c\x41\xd0\x0a\x08\x08_UID\0\x08_CID\x0c\x41\xd0\x0a\x03"));
    // Buses 0 to 255.
    assert!(has(dsdt, &[0x88, 13, 0, 2, 12, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1]));
    // Ports 0xcf8 to 0xcff are the bridge's own, and the others are for those behind it.
    assert!(has(dsdt, &[0x47, 1, 0xf8, 0x0c, 0xf8, 0x0c, 1, 8]));
    assert!(has(dsdt, &[0x88, 13, 0, 1, 12, 3, 0, 0, 0, 0, 0xf7, 0x0c, 0, 0, 0xf8, 0x0c]));
    assert!(has(dsdt, &[0x88, 13, 0, 1, 12, 3, 0, 0, 0x00, 0x0d, 0xff, 0xff, 0, 0, 0x00, 0xf3]));
    let mut window = vec![0x87, 23, 0, 0, 12, 1];
    [0_u32, 0xc000_0000, 0xdfff_ffff, 0, 0x2000_0000].iter().for_each(|value| window.extend(value.to_le_bytes()));
    assert!(has(dsdt, &window));
    let mut window = vec![0x8a, 43, 0, 0, 12, 1];
    [0_u64, 0x10_0000_0000, 0x1f_ffff_ffff, 0, 0x10_0000_0000]
        .iter()
        .for_each(|value| window.extend(value.to_le_bytes()));
    assert!(has(dsdt, &window));
    // The configuration space is the motherboard's.
    assert!(has(dsdt, b"MCF0\x08_HID\x0c\x41\xd0\x0c\x02"));
    assert!(has(dsdt, &[0x86, 9, 0, 1, 0, 0, 0, 0xe0, 0, 0, 0, 0x10]));
    // INTC# of device 31.
    assert!(has(dsdt, &[0x12, 0x0c, 4, 0x0c, 0xff, 0xff, 0x1f, 0, 0x0a, 2, 0, 0x0a, 17]));
    assert!(has(dsdt, b"_PRT\x12"));
}

#[test]
fn a_host_bridge_that_has_only_ports_is_a_conventional_one() {
    let manager = manager();
    let host = Box::leak(Box::new(vm_device::devices::pci::HostBridge::new("pci", manager)));
    manager.register_device(host, None, &[vm_device::devices::pci::HostBridge::PORTS], &[]).unwrap();
    let tables = write(manager, &Config::new());
    assert_eq!(tables.names(), ["FACP", "APIC"]);
    assert!(has(tables.dsdt(), b"PCI0\x08_HID\x0c\x41\xd0\x0a\x03\x08_UID\0\x08_SEG"));
    // Without windows and pins, it has neither.
    assert!(!has(tables.dsdt(), b"_PRT") && !has(tables.dsdt(), &[0x88, 13, 0, 1]));
}

#[test]
fn a_timer_and_a_console_are_where_they_are_registered() {
    let tables = write(pc(), &PC_ACPI);
    let hpet = tables.get("HPET");
    assert_eq!((dword(hpet, 36), &hpet[40..44], qword(hpet, 44)), (0x8086_a201, &[0, 64, 0, 0][..], 0xfed0_0000));
    assert_eq!((hpet[52], word(hpet, 53), hpet[55]), (0, 0x80, 0));
    let spcr = tables.get("SPCR");
    assert_eq!((spcr[36], &spcr[40..44], qword(spcr, 44)), (0, &[1, 8, 0, 1][..], 0x3f8));
    assert_eq!((spcr[52], spcr[53], dword(spcr, 54), spcr[58]), (3, 4, 4, 7));
    assert_eq!(spcr[64..68], [0xff; 4]);
}

#[test]
fn a_console_in_memory_says_how_far_its_registers_are_apart() {
    for (shift, kind, bits, access) in [(0, 0, 8, 1), (1, 0x12, 16, 2), (2, 0x12, 32, 3), (3, 0x12, 64, 4)] {
        let manager = manager();
        let uart = Box::leak(Box::new(uart("serial").with_register_shift(shift)));
        manager.register_device(uart, None, &[uart.mmio(0xfe00_0000)], &[IrqResource::Fixed(Gsi(17))]).unwrap();
        let tables = write(manager, &Config::new());
        let spcr = tables.get("SPCR");
        assert_eq!((spcr[36], &spcr[40..44], qword(spcr, 44)), (kind, &[0, bits, 0, access][..], 0xfe00_0000));
        assert_eq!((spcr[52], spcr[53], dword(spcr, 54)), (2, 0, 17));
    }
    static PL011: Sign = Sign::new("pl011", &[IoResource::mmio(0x900_0000, 0x1000)], &[], |description| {
        description.role(Role::Uart { kind: UartKind::Pl011, shift: 2 });
    });
    let manager = manager();
    PL011.register(manager);
    let tables = write(manager, &Config::new());
    let spcr = tables.get("SPCR");
    assert_eq!((spcr[36], &spcr[40..44], spcr[52]), (3, &[0, 32, 0, 3][..], 0));
}

#[test]
fn a_device_has_what_the_manager_has_given_to_it() {
    let manager = manager();
    static DEVICES: [Sign; 5] = [
        Sign::new("a", &[IoResource::pio(0x100, 0xff), IoResource::pio(0x1000, 0x100)], &[], |description| {
            description.acpi("PNP0C02", Part::ALL);
        }),
        Sign::new(
            "b",
            &[IoResource::mmio(0xd000_0000, 0x1000), IoResource::mmio(0x1_0000_0000, 0x2000)],
            &[IrqResource::Shared(Gsi(10)), IrqResource::Fixed(Gsi(40))],
            |description| description.acpi("ACME0001", Part::ALL),
        ),
        // It has ports, but not as this.
        Sign::new("c", &[IoResource::mmio(0, 0x1000).unplaced(), IoResource::pio(0x2000, 1)], &[], |description| {
            description.acpi("ACME0002", Part { ranges: 0b01, irqs: 0 });
        }),
        Sign::new("d", &[IoResource::pio(0x3000, 1).reserved()], &[IrqResource::Unrouted], |description| {
            description.acpi("ACME0003", Part::ALL);
        }),
        Sign::new("e", &[IoResource::pio(0x4000, 1)], &[], |_| ()),
    ];
    DEVICES.iter().for_each(|device| device.register(manager));
    let tables = write(manager, &Config::new());
    let dsdt = tables.dsdt();
    let device = |number: u8, id: &[u8], uid: &[u8], resources: &[u8]| {
        let mut expected = [b"D00", &[b'0' + number][..], b"\x08_HID", id, b"\x08_UID", uid, b"\x08_CRS\x11"].concat();
        let size = resources.len() as u8 + 2;
        expected.extend([size + 3, 0x0a, size]);
        // Up to 0x3b bytes, the length of the buffer is one byte.
        assert!(size <= 0x3b);
        expected.extend(resources);
        expected.extend([0x79, 0]);
        assert!(has(dsdt, &expected), "{number}: {dsdt:x?}");
    };
    let ports = [0x47, 1, 0x00, 0x01, 0x00, 0x01, 1, 0xff];
    let many_ports = [0x88, 13, 0, 1, 13, 3, 0, 0, 0x00, 0x10, 0xff, 0x10, 0, 0, 0x00, 0x01];
    device(0, b"\x0c\x41\xd0\x0c\x02", b"\0", &[&ports[..], &many_ports].concat());
    device(2, b"\x0dACME0003\0", b"\x0a\x02", &[0x47, 1, 0, 0x30, 0, 0x30, 1, 1]);
    assert!(!has(dsdt, b"ACME0002") && !has(dsdt, b"D003"));
    assert!(has(dsdt, &[0x86, 9, 0, 1, 0, 0, 0, 0xd0, 0, 0x10, 0, 0]));
    let mut high = vec![0x8a, 43, 0, 0, 13, 1];
    [0_u64, 0x1_0000_0000, 0x1_0000_1fff, 0, 0x2000].iter().for_each(|value| high.extend(value.to_le_bytes()));
    assert!(has(dsdt, &high));
    // Shared, and alone; both are level-triggered and active low.
    assert!(has(dsdt, &[0x89, 6, 0, 0b1101, 1, 10, 0, 0, 0, 0x89, 6, 0, 0b0101, 1, 40, 0, 0, 0]));
}

#[test]
fn what_has_moved_is_told_where_it_is() {
    let manager = manager();
    static FDC: Sign = Sign::new("fdc", &[IoResource::pio(0x3f0, 6)], &[IrqResource::Fixed(Gsi(6))], |description| {
        description.acpi("PNP0700", Part::ALL);
    });
    FDC.register(manager);
    let id = manager.walk().next().unwrap().id;
    let edge = |line: u16| [&[0x22][..], &(1_u16 << line).to_le_bytes()].concat();
    let dsdt = |manager| write(manager, &Config::new()).dsdt().to_vec();
    let before = dsdt(manager);
    assert!(has(&before, &[0x47, 1, 0xf0, 3, 0xf0, 3, 1, 6]) && has(&before, &edge(6)));
    manager.relocate(&mut [Relocation::new(id, 0).to(GuestAddress(0x370))]).unwrap();
    manager.reroute(id, 0, Some(Gsi(7))).unwrap();
    let after = dsdt(manager);
    assert!(has(&after, &[0x47, 1, 0x70, 3, 0x70, 3, 1, 6]) && has(&after, &edge(7)));
    assert!(!has(&after, &[0x47, 1, 0xf0, 3, 0xf0, 3, 1, 6]) && !has(&after, &edge(6)));
}

#[test]
fn fixed_hardware_that_has_no_addresses_is_not_told() {
    let manager = manager();
    static HPET: Sign = Sign::new("hpet", &[IoResource::mmio(0xfed0_0000, 0x400).unplaced()], &[], |description| {
        description.role(Role::Hpet { capabilities: 1, minimum_tick: 1 });
    });
    static RESET: Sign = Sign::new("reset", &[], &[], |description| {
        description.role(Role::Reset { register: DeviceRegister { range_index: 3, offset: 0, size: 1 }, value: 6 });
    });
    // Without a line there is no system control interrupt.
    static PM1: Sign = Sign::new("pm1", &[IoResource::pio(0x600, 6)], &[], |description| {
        let register = |offset, size| DeviceRegister { range_index: 0, offset, size };
        let (event, control) = (register(0, 4), register(4, 2));
        description.role(Role::Pm1 { event, control, command: None, power_off: 0, has_power_button: true });
    });
    // The table has 32 bits for the address of an IOAPIC.
    static IOAPIC: Sign = Sign::new("ioapic", &[IoResource::mmio(0xfec0_0000, 0x400).unplaced()], &[], |description| {
        description.role(Role::IoApic { id: 0, first_gsi: 0 });
    });
    static HIGH: Sign = Sign::new("ioapic", &[IoResource::mmio(0x1_fec0_0000, 0x400)], &[], |description| {
        description.role(Role::IoApic { id: 1, first_gsi: 24 });
    });
    [&HPET, &RESET, &PM1, &IOAPIC, &HIGH].iter().for_each(|device| device.register(manager));
    let tables = write(manager, &Config::new());
    assert_eq!(tables.names(), ["FACP", "APIC"]);
    assert!(tables.madt().iter().all(|entry| entry[0] != 1));
    assert_eq!(dword(tables.get("FACP"), 112), 1 << 20 | 0b111_0101);
}

#[test]
fn several_host_bridges_have_segments_of_their_own() {
    use vm_device::devices::pci::HostBridge;
    let manager = manager();
    for base in [0xe000_0000, 0xd000_0000] {
        let host = Box::leak(Box::new(HostBridge::new("pcie", manager)));
        manager.register_device(host, None, &[HostBridge::ecam(base, 15)], &[]).unwrap();
    }
    let second = PciRoot { memory: &[vm_device::IoRange::of::<0xa000_0000, 0xafff_ffff>()], ..PciRoot::NOTHING };
    let tables = write(manager, &Config { pci: &[PciRoot { memory: &[], ..ROOT }, second], ..Config::new() });
    let mcfg = tables.get("MCFG");
    assert_eq!((qword(mcfg, 44), word(mcfg, 52), mcfg[55]), (0xe000_0000, 0, 15));
    assert_eq!((qword(mcfg, 60), word(mcfg, 68), mcfg[71]), (0xd000_0000, 1, 15));
    assert!(has(tables.dsdt(), b"_SEG\x01") && has(tables.dsdt(), b"PCI1"));
}
