//! The firmware configuration device, as a guest sees it.
#![cfg(feature = "devices")]

mod fixture;

use vm_device::devices::fw_cfg::{FwCfg, Item};
use vm_device::{DeviceManager, GuestAddress, IoType};

use fixture::{at, manager};

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const MEMORY: u64 = 0x902_0000;

fn select(manager: &DeviceManager<'_>, number: u16) {
    manager.write(SELECTOR.into(), &number.to_le_bytes(), IoType::Pio).unwrap();
}

fn byte(manager: &DeviceManager<'_>) -> u8 {
    let mut data = [0xff];
    manager.read(DATA.into(), &mut data, IoType::Pio).unwrap();
    data[0]
}

fn bytes(manager: &DeviceManager<'_>, count: usize) -> Vec<u8> {
    (0..count).map(|_| byte(manager)).collect()
}

/// Two files between items with numbers.
const NAME: &str = "etc/a-name-of-fifty-five-bytes-which-is-all-there-is-aa";
const ITEMS: [Item<'static>; 4] = [
    Item::number(5, &[2, 0]),
    Item::file("etc/first", b"The first.").unwrap(),
    Item::number(0x8003, b"of the architecture"),
    Item::file(NAME, &[7; 300]).unwrap(),
];

/// Runs a test with the device at its ports.
fn on_ports(items: &[Item<'_>], test: impl FnOnce(&DeviceManager<'_>)) {
    let fw_cfg = FwCfg::new(items);
    manager!(let manager);
    manager.register_device(&fw_cfg, None, &[fw_cfg.ports()], &[]).unwrap();
    test(&manager);
}

#[test]
fn the_signature_is_selected_at_first_and_after_a_reset() {
    on_ports(&[], |manager| {
        assert_eq!(bytes(manager, 6), b"QEMU\0\0");
        select(manager, 1);
        assert_eq!(bytes(manager, 5), [1, 0, 0, 0, 0]);
        manager.reset().unwrap();
        assert_eq!(bytes(manager, 4), b"QEMU");
        // A directory of no files.
        select(manager, 0x19);
        assert_eq!(bytes(manager, 70), [0; 70]);
    });
}

#[test]
fn items_are_read_from_their_first_byte_and_end_in_zeros() {
    on_ports(&ITEMS, |manager| {
        for _ in 0..2 {
            select(manager, 5);
            assert_eq!(bytes(manager, 4), [2, 0, 0, 0]);
            select(manager, 0x20);
            assert_eq!(bytes(manager, 12), b"The first.\0\0");
        }
        select(manager, 0x21);
        assert_eq!(bytes(manager, 301), [&[7; 300][..], &[0]].concat());
        select(manager, 0x8003);
        assert_eq!(bytes(manager, 2), b"of");
        // The bit by which a guest means to write is no part of the number.
        select(manager, 0x4005);
        assert_eq!(byte(manager), 2);
        for absent in [2, 6, 0x22, 0x3fff, 0x8005, 0xffff] {
            select(manager, absent);
            assert_eq!(bytes(manager, 3), [0; 3], "{absent:#x}");
        }
    });
}

#[test]
fn the_directory_has_size_number_and_name_of_each_file() {
    let mut expected = vec![0, 0, 0, 2];
    for (size, number, name) in [([0, 0, 0, 10], 0x20, "etc/first"), ([0, 0, 1, 44], 0x21, NAME)] {
        expected.extend(size);
        expected.extend([0, number, 0, 0]);
        expected.extend(name.bytes().chain([0; 56]).take(56));
    }
    on_ports(&ITEMS, |manager| {
        select(manager, 0x19);
        assert_eq!(bytes(manager, expected.len()), expected);
        assert_eq!(bytes(manager, 2), [0, 0]);
        // In one piece, and in pieces that do not end where entries do.
        for length in [expected.len(), 37, 4, 64, 200] {
            select(manager, 0x19);
            let mut data = vec![0xff; expected.len()];
            for piece in data.chunks_mut(length) {
                manager.read_string(DATA, 1, piece).unwrap();
            }
            assert_eq!(data, expected, "{length}");
        }
    });
}

#[test]
fn names_that_the_directory_cannot_hold_are_refused() {
    let name = "x".repeat(56);
    assert!(Item::file(&name, &[]).is_none());
    assert!(Item::file(&name[..55], &[]).is_some());
    assert!(Item::file("", &[]).is_none());
    assert!(Item::file("a\0", &[]).is_none());
}

#[test]
fn a_string_is_read_in_one_call_and_accesses_of_other_sizes_are_those_of_the_registers_they_have() {
    on_ports(&ITEMS, |manager| {
        select(manager, 0x20);
        let mut data = [0xff; 12];
        manager.read_string(DATA, 1, &mut data).unwrap();
        assert_eq!(&data, b"The first.\0\0");
        // The register that selects is written only, in 2 bytes; data is read only.
        select(manager, 0x20);
        manager.write(SELECTOR.into(), &[5], IoType::Pio).unwrap();
        manager.write(DATA.into(), &[5], IoType::Pio).unwrap();
        let mut word = [0xff; 2];
        manager.read(SELECTOR.into(), &mut word, IoType::Pio).unwrap();
        assert_eq!((word, byte(manager)), ([0, b'T'], b'h'));
        let mut one = [0xff];
        manager.read(SELECTOR.into(), &mut one, IoType::Pio).unwrap();
        assert_eq!((one, byte(manager)), ([0], b'e'));
        let mut words = [0xff; 4];
        manager.read_string(SELECTOR, 2, &mut words).unwrap();
        assert_eq!(words, [0, b' ', 0, b'f']);
    });
}

#[test]
fn in_memory_the_numbers_have_their_highest_byte_first_and_up_to_eight_bytes_are_read_at_once() {
    let fw_cfg = FwCfg::new(&ITEMS);
    manager!(let manager);
    manager.register_device(&fw_cfg, None, &[fw_cfg.mmio(MEMORY)], &[]).unwrap();
    let select = |number: u16| manager.write(at(MEMORY + 8), &number.to_be_bytes(), IoType::Mmio).unwrap();
    let read = |offset: u64, size: usize| {
        let mut data = vec![0xff; size];
        manager.read(GuestAddress(MEMORY + offset), &mut data, IoType::Mmio).unwrap();
        data
    };
    assert_eq!(read(0, 4), b"QEMU");
    select(0x20);
    assert_eq!((read(0, 1), read(0, 2), read(0, 8)), (b"T".to_vec(), b"he".to_vec(), b" first.\0".to_vec()));
    select(0x20);
    assert_eq!((read(8, 2), read(7, 3), read(3, 4)), (vec![0; 2], vec![b'T', 0, 0], b"he f".to_vec()));
    // Nothing but 2 bytes at the register that selects does so.
    for (offset, data) in [(8, vec![0]), (9, vec![5]), (0, vec![0, 5]), (6, vec![0, 0, 0, 5])] {
        manager.write(GuestAddress(MEMORY + offset), &data, IoType::Mmio).unwrap();
    }
    assert_eq!(read(0, 2), b"ir");
}

#[test]
fn more_files_than_a_byte_can_count() {
    let names: Vec<String> = (0..300).map(|number| format!("opt/{number}")).collect();
    let items: Vec<Item<'_>> = names.iter().map(|name| Item::file(name, name.as_bytes()).unwrap()).collect();
    on_ports(&items, |manager| {
        select(manager, 0x19);
        let mut data = vec![0; 4 + 300 * 64];
        manager.read_string(DATA, 1, &mut data).unwrap();
        assert_eq!(data[..4], 300_u32.to_be_bytes());
        let last = &data[4 + 299 * 64..];
        assert_eq!((&last[4..6], &last[8..16]), (&(0x20_u16 + 299).to_be_bytes()[..], &b"opt/299\0"[..]));
        select(manager, 0x20 + 299);
        assert_eq!(bytes(manager, 7), b"opt/299");
    });
}
