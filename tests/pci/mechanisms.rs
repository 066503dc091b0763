//! How a guest reaches configuration spaces: by ports and by memory.

use super::machine::*;

#[test]
fn only_a_dword_reaches_the_address_register() {
    machine!(manager, guest, host, card: ALL_KINDS => 3);
    guest.out(0xcf8, &0xffff_ffff_u32.to_le_bytes());
    assert_eq!(u32::from_le_bytes(guest.inp(0xcf8)), 0x80ff_fffc, "reserved bits read 0");
    guest.select(0, 3, 0);
    for (port, data) in [(0xcf8, &[1, 2][..]), (0xcf8, &[3]), (0xcf9, &[4]), (0xcfa, &[5, 6]), (0xcfb, &[7])] {
        guest.out(port, data);
        assert_eq!(u32::from_le_bytes(guest.inp(0xcf8)), 0x8000_1800, "{port:#x}: {data:?}");
    }
    assert_eq!((guest.inp(0xcf8), guest.inp(0xcfa), guest.inp(0xcfb)), ([0xff; 1], [0xff; 2], [0xff; 1]));
    let _ = card;
}

#[test]
fn the_data_register_takes_bytes_words_and_dwords_of_the_register_that_is_selected() {
    machine!(manager, guest, host, card: ALL_KINDS => 3);
    guest.select(0, 3, 0);
    assert_eq!(guest.inp(0xcfc), [0x34, 0x12, 0x78, 0x56]);
    assert_eq!((guest.inp(0xcfc), guest.inp(0xcfe), guest.inp(0xcfd)), ([0x34, 0x12], [0x78, 0x56], [0x12, 0x78]));
    assert_eq!([0xcfc, 0xcfd, 0xcfe, 0xcff].map(|port| guest.inp(port)), [[0x34], [0x12], [0x78], [0x56]]);
    // The interrupt line is a byte of its dword; the pin beside it stays.
    guest.select(0, 3, 0x3c);
    guest.out(0xcfc, &[0xaa]);
    guest.out(0xcfd, &[0xbb]);
    assert_eq!(guest.config(0, 3, 0x3c), 0x0000_00aa);
    // A base address register, byte by byte.
    guest.select(0, 3, BAR0);
    (0xcfc..).zip([0xff, 0xff, 0x11, 0xc0]).for_each(|(port, byte)| guest.out(port, &[byte]));
    assert_eq!(guest.config(0, 3, BAR0), 0xc011_f000);
    // An access to both registers reaches the part that is data.
    guest.select(0, 3, 0);
    assert_eq!(guest.inp(0xcfa), [0xff, 0xff, 0x34, 0x12]);
    // Without the enable bit they are ports that nobody has.
    guest.out(0xcf8, &0x1800_u32.to_le_bytes());
    assert_eq!(guest.inp(0xcfc), [0xff; 4]);
    let _ = card;
}

#[test]
fn a_byte_register_lies_inside_the_address_register() {
    let storage = Storage::<16, 48, 4>::new();
    let manager = DeviceManager::new(&storage, everything());
    let (host, card, reset) = (HostBridge::new("pci", &manager), Function::new(ALL_KINDS), Constant("reset", 6));
    let id = manager.register_device(&host, None, &[HostBridge::PORTS], &[]).unwrap();
    manager.register_device(&reset, Some(id), &[IoResource::pio(0xcf9, 1)], &[]).unwrap();
    host.bus().plug(&card, Slot::new(3, 0), id).unwrap();
    let guest = Guest(&manager);
    assert_eq!(guest.config(0, 3, 0), 0x5678_1234);
    assert_eq!(u32::from_le_bytes(guest.inp(0xcf8)), 0x8000_1800);
    assert_eq!(guest.inp(0xcf9), [6]);
    guest.out(0xcf9, &[0xff]);
    assert_eq!(u32::from_le_bytes(guest.inp(0xcf8)), 0x8000_1800);
}

#[test]
fn nothing_reads_all_ones_whatever_the_open_bus_reads() {
    let storage = Storage::<16, 48, 4>::new();
    let manager = DeviceManager::new(&storage, everything()).with_open_bus(IoType::Pio, OpenBus(0));
    let host = HostBridge::new("pci", &manager);
    let ranges = [HostBridge::PORTS, HostBridge::ecam(0xe000_0000, 1)];
    manager.register_device(&host, None, &ranges, &[]).unwrap();
    let guest = Guest(&manager);
    for (bus, device) in [(0, 0), (0, 31), (1, 0), (255, 31)] {
        guest.set(bus, device, 0, 0);
        assert_eq!(guest.config(bus, device, 0), u32::MAX);
    }
    assert_eq!((guest.memory(0xe000_0000), guest.memory(0xe01f_ffff)), (Some(0xff), Some(0xff)));
    assert_eq!(guest.memory(0xe020_0000), None);
}

#[test]
fn the_memory_mapped_mechanism_reaches_the_same_registers() {
    let storage = Storage::<16, 48, 4>::new();
    let manager = DeviceManager::new(&storage, everything());
    let (host, function, device) = (HostBridge::new("pci", &manager), Function::new(ALL_KINDS), Numbered("card"));
    let ranges = [HostBridge::ecam(0xe000_0000, 255)];
    manager.register_device(&host, None, &ranges, &[]).unwrap();
    let card = manager.register_device(&device, None, &function.requests(), &[]).unwrap();
    host.bus().plug(&function, Slot::new(3, 2), card).unwrap();
    let at = |register: u32| GuestAddress(u64::from(0xe000_0000 + (3 << 15) + (2 << 12) + register));
    let write = |register, data: &[u8]| manager.write(at(register), data, IoType::Mmio).unwrap();
    let read = |register| {
        let mut data = [0; 8];
        manager.read(at(register), &mut data, IoType::Mmio).unwrap();
        u64::from_le_bytes(data)
    };
    assert_eq!(read(0), 0x0200_0000_5678_1234);
    write(COMMAND, &[MEMORY_ON as u8]);
    // Both halves of a register at once.
    write(0x18, &0x20_0000_0000_u64.to_le_bytes());
    assert_eq!((state(&manager, card, 2), read(0x18)), (decoded(0x20_0000_0000), 0x20_0000_000c));
    // There are 256 bytes, and an access across their end has what there is of them.
    assert_eq!((read(0xfc), read(0x100), read(0xff8)), (0xffff_ffff_0000_0000, u64::MAX, u64::MAX));
    write(0x100, &[0; 8]);
    assert_eq!(read(0x100), u64::MAX);
}
