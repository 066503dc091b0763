//! Registers that are not addresses, and functions that are plugged in and unplugged.

use super::machine::*;

#[test]
fn bits_that_do_not_exist_read_0_and_errors_are_cleared_by_ones() {
    static OWN: [Register; 2] =
        [Register::new(0x40, 0x1234_5678, 0xff).clearable(0xf000_0000), Register::new(0x00, 0, !0)];
    let storage = Storage::<16, 48, 4>::new();
    let manager = DeviceManager::new(&storage, everything());
    let (host, device) = (HostBridge::new("pci", &manager), Numbered("card"));
    let config = Config::new(0x1234, 1).bar(0, Bar::memory(0x1000)).subsystem(0xabcd, 0xef01).interrupt_pin(1);
    let function = Function::new(config.registers(&OWN).capabilities(0x40));
    manager.register_device(&host, None, &[HostBridge::PORTS], &[]).unwrap();
    let card = manager.register_device(&device, None, &function.requests(), &[]).unwrap();
    host.bus().plug(&function, Slot::new(1, 0), card).unwrap();
    let guest = Guest(&manager);
    let ones = |register| {
        guest.set(0, 1, register, u32::MAX);
        guest.config(0, 1, register)
    };
    assert_eq!(ones(0), 0x0001_1234);
    // No ports, so no bit for them. Medium speed, and a list of capabilities.
    assert_eq!(ones(COMMAND), 0x0210_0546);
    assert_eq!([0x08, 0x14, 0x24, 0x28, 0x30, 0x38].map(ones), [0; 6]);
    assert_eq!([0x0c, 0x2c, 0x34, 0x3c].map(ones), [0xffff, 0xef01_abcd, 0x40, 0x01ff]);
    assert_eq!([0x40, 0x44].map(ones), [0x0234_56ff, 0]);
    assert_eq!(function.command(), Command::all() - Command::PORTS);
    // The device reports a parity error and an interrupt; the guest clears the one.
    function.set_register(4, 0x8008_0000, u32::MAX);
    assert_eq!(guest.config(0, 1, COMMAND) >> 16, 0x8218);
    guest.set(0, 1, COMMAND, 0x0000_0006);
    assert_eq!(guest.config(0, 1, COMMAND) >> 16, 0x8218, "zeros clear nothing");
    assert_eq!(ones(COMMAND) >> 16, 0x0218);
    function.set_register(0x40, 0xff00, 0);
    assert_eq!(guest.config(0, 1, 0x40), 0x0234_00ff);
    function.reset(&manager);
    assert_eq!((guest.config(0, 1, 0x40), guest.config(0, 1, COMMAND)), (0x1234_5678, 0x0210_0000));
    assert_eq!(state(&manager, card, 0), UNPLACED);
}

#[test]
fn a_device_of_several_functions_says_so_in_each() {
    let storage = Storage::<16, 48, 4>::new();
    let manager = DeviceManager::new(&storage, everything());
    let host = HostBridge::new("pci", &manager);
    let functions = [(); 3].map(|()| Function::new(Config::new(0x1234, 1)));
    let id = manager.register_device(&host, None, &[HostBridge::PORTS], &[]).unwrap();
    let guest = Guest(&manager);
    let header = |device| guest.config(0, device, 0x0c) >> 16;
    host.bus().plug(&functions[0], Slot::new(3, 0), id).unwrap();
    host.bus().plug(&functions[1], Slot::new(4, 0), id).unwrap();
    assert_eq!([header(3), header(4)], [0, 0]);
    host.bus().plug(&functions[2], Slot::new(3, 7), id).unwrap();
    assert_eq!([header(3), header(4)], [0x80, 0]);
    guest.select(0, 3, 0x70c);
    assert_eq!(u32::from_le_bytes(guest.inp(0xcfc)) >> 16, 0x80);
    assert!(host.bus().unplug(&functions[0]));
    assert_eq!([header(3), header(4)], [0xffff, 0]);
}

#[test]
fn a_function_that_cannot_be_plugged_in_is_refused_and_leaves_the_bus_as_it_was() {
    let storage = Storage::<16, 48, 4>::new();
    let manager = DeviceManager::new(&storage, everything());
    let host = HostBridge::new("pci", &manager);
    let id = manager.register_device(&host, None, &[HostBridge::PORTS], &[]).unwrap();
    let (there, other) = (Function::new(ALL_KINDS), Function::new(ALL_KINDS));
    let (bus, slot) = (host.bus(), Slot::new(3, 0));
    bus.plug(&there, slot, id).unwrap();
    let refused = |function, slot, error: PlugError, words: &str| {
        assert_eq!(bus.plug(function, slot, id), Err(error));
        assert_eq!(error.to_string(), words);
        assert_eq!(Guest(&manager).config(0, 3, 0), 0x5678_1234);
        assert_eq!(Guest(&manager).config(0, 4, 0), u32::MAX);
    };
    let words = format!("a function of {id} is in slot 03.0");
    refused(&other, slot, PlugError::SlotTaken { slot, holder: id }, &words);
    let words = "the function is plugged in already, into slot 03.0 of a bus";
    refused(&there, Slot::new(4, 0), PlugError::PluggedIn { slot }, words);
    for slot in [Slot::new(32, 0), Slot::new(4, 8)] {
        let words = format!("a bus has no slot {slot}: its slots are 00.0 to 1f.7");
        refused(&other, slot, PlugError::NoSuchSlot { slot }, &words);
    }
    let config = Config::new(0x1234, 1);
    let bad = [
        (Function::new(config.bar(6, Bar::memory(0x1000))), 6),
        (Function::new(config.bar(1, Bar::memory(0x1001))), 1),
        (Function::new(config.bar(5, Bar::memory64(0x1000))), 5),
        (Function::new(config.bar(2, Bar::memory64(0x1000)).bar(3, Bar::ports(4))), 3),
        (Function::new(config.rom(0x400)), 6),
    ];
    for (function, index) in &bad {
        let words = format!("there can be no base address register {index} of this size and kind");
        refused(function, Slot::new(4, 0), PlugError::BadBar { index: *index }, &words);
    }
}

#[test]
fn a_function_that_is_plugged_in_again_is_as_after_reset() {
    machine!(manager, guest, host);
    let (function, device) = (Function::new(ALL_KINDS), Numbered("card"));
    for turn in 0..3 {
        let card = manager.register_device(&device, None, &function.requests(), &[]).unwrap();
        host.bus().plug(&function, Slot::new(3, 0), card).unwrap();
        assert_eq!((guest.config(0, 3, BAR0), state(&manager, card, 0)), (0, UNPLACED), "turn {turn}");
        guest.set(0, 3, BAR0, 0xc000_0000);
        guest.set(0, 3, COMMAND, MEMORY_ON);
        assert_eq!(state(&manager, card, 0), decoded(0xc000_0000));
        assert!(host.bus().unplug(&function));
        assert_eq!(guest.config(0, 3, 0), u32::MAX);
        manager.unregister_device(card).unwrap();
        assert_eq!(guest.memory(0xc000_0000), None);
    }
}

#[test]
fn functions_are_unplugged_from_any_place_of_a_bus() {
    let storage = Storage::<16, 48, 4>::new();
    let manager = DeviceManager::new(&storage, everything());
    let host = HostBridge::new("pci", &manager);
    let id = manager.register_device(&host, None, &[HostBridge::PORTS], &[]).unwrap();
    let functions = [(); 4].map(|()| Function::new(ALL_KINDS));
    let guest = Guest(&manager);
    for order in orders(&[0_u8, 1, 2, 3]) {
        (0..)
            .zip(&functions)
            .for_each(|(number, function)| host.bus().plug(function, Slot::new(number, 0), id).unwrap());
        let mut there = [true; 4];
        for number in order {
            assert!(host.bus().unplug(&functions[usize::from(number)]));
            assert!(!host.bus().unplug(&functions[usize::from(number)]));
            there[usize::from(number)] = false;
            assert_eq!([0, 1, 2, 3].map(|number| guest.config(0, number, 0) != u32::MAX), there);
        }
    }
}
