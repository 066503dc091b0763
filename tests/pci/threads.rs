//! Several vCPUs at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;

use vm_device::{PlacedRange, RangeListener, Rejected};

use super::machine::*;

#[test]
fn a_function_is_removed_while_others_write_its_registers() {
    let storage = Storage::<16, 48, 4>::new();
    let manager = DeviceManager::new(&storage, everything());
    let (host, function, device) = (HostBridge::new("pci", &manager), Function::new(ALL_KINDS), Numbered("card"));
    let ranges = [HostBridge::PORTS, HostBridge::ecam(0xe000_0000, 0)];
    manager.register_device(&host, None, &ranges, &[]).unwrap();
    let stop = AtomicBool::new(false);
    let at = |register: u32| GuestAddress(u64::from(0xe000_0000 + (3 << 15) + register));
    thread::scope(|scope| {
        for base in [0xc000_0000_u32, 0xd000_0000] {
            let (manager, stop) = (&manager, &stop);
            scope.spawn(move || {
                let mut vcpu = manager.dispatcher(0).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    for (register, value) in [(BAR0, base), (COMMAND, MEMORY_ON), (COMMAND, 0)] {
                        vcpu.write(at(register), &value.to_le_bytes(), IoType::Mmio).unwrap();
                    }
                    let mut data = [0; 4];
                    vcpu.read(at(0), &mut data, IoType::Mmio).unwrap();
                    assert!([0x5678_1234, u32::MAX].contains(&u32::from_le_bytes(data)));
                }
            });
        }
        for _ in 0..200 {
            let card = manager.register_device(&device, None, &function.requests(), &[]).unwrap();
            host.bus().plug(&function, Slot::new(3, 0), card).unwrap();
            thread::yield_now();
            assert!(host.bus().unplug(&function));
            manager.unregister_device(card).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(manager.address_map(IoType::Mmio).count(), 1, "the memory of the mechanism alone");
}

#[test]
fn when_vcpus_write_one_register_at_once_the_map_ends_as_the_register_does() {
    let storage = Storage::<16, 48, 4>::new();
    let manager = DeviceManager::new(&storage, everything());
    let (host, function, device) = (HostBridge::new("pci", &manager), Function::new(ALL_KINDS), Numbered("card"));
    let ranges = [HostBridge::PORTS, HostBridge::ecam(0xe000_0000, 0)];
    manager.register_device(&host, None, &ranges, &[]).unwrap();
    let card = manager.register_device(&device, None, &function.requests(), &[]).unwrap();
    host.bus().plug(&function, Slot::new(3, 0), card).unwrap();
    let at = |register: u32| GuestAddress(u64::from(0xe000_0000 + (3 << 15) + register));
    for round in 0..500 {
        thread::scope(|scope| {
            for number in 0..3_u32 {
                let manager = &manager;
                scope.spawn(move || {
                    let write = |register, value: u32| {
                        manager.write(at(register), &value.to_le_bytes(), IoType::Mmio).unwrap();
                    };
                    write(BAR0, 0xc000_0000 + (number << 24));
                    write(COMMAND, if number == 1 { 0 } else { MEMORY_ON });
                    write(BAR0, 0xc800_0000 + (number << 24));
                });
            }
        });
        let base = function.register(BAR0 as usize);
        let expected = match function.command().contains(Command::MEMORY) {
            true => decoded(base.into()),
            false => UNPLACED,
        };
        assert_eq!(state(&manager, card, 0), expected, "round {round}");
    }
}

/// Writes a base address register when it is told that a range leaves, as another vCPU might meanwhile.
struct Meddling<'d> {
    host: &'d OnceLock<HostBridge<'d>>,
    writes: Mutex<Vec<u32>>,
}

impl RangeListener for Meddling<'_> {
    fn placed(&self, _: &PlacedRange<'_>) -> Result<(), Rejected> {
        Ok(())
    }
    fn leaving(&self, _: &PlacedRange<'_>) {
        for value in std::mem::take(&mut *self.writes.lock().unwrap()) {
            let at = GuestAddress(0xe000_0000 + (3 << 15) + u64::from(BAR0));
            let access = Access::new(IoType::Mmio, at, GuestAddress(0xe000_0000), 1);
            self.host.get().unwrap().write(&access, &value.to_le_bytes());
        }
    }
}

#[test]
fn what_is_written_while_a_listener_is_told_is_where_the_map_ends() {
    // The range that leaves is that of the register which is written meanwhile, or that of another.
    for device in [3, 4] {
        for writes in [vec![], vec![0xd000_0000], vec![0xd000_0000, 0xc000_0000], vec![0xd000_0000, 0xc400_0000]] {
            let (storage, cell) = (Storage::<16, 48, 4>::new(), OnceLock::new());
            let listener = Meddling { host: &cell, writes: Mutex::default() };
            let manager = DeviceManager::new(&storage, everything()).with_listener(&listener);
            let host = cell.get_or_init(|| HostBridge::new("pci", &manager));
            let config = Config::new(0x1234, 1).bar(0, Bar::memory(0x1000).physical());
            let functions = [(); 2].map(|()| Function::new(config));
            let devices = [Numbered("first"), Numbered("second")];
            manager.register_device(host, None, &[HostBridge::PORTS], &[]).unwrap();
            let register = |device, function: &Function<'_>| {
                manager.register_device(device, None, &function.requests(), &[]).unwrap()
            };
            let ids = [register(&devices[0], &functions[0]), register(&devices[1], &functions[1])];
            host.bus().plug(&functions[0], Slot::new(3, 0), ids[0]).unwrap();
            host.bus().plug(&functions[1], Slot::new(4, 0), ids[1]).unwrap();
            let guest = Guest(&manager);
            for (device, base) in [(3, 0xc000_0000), (4, 0x8000_0000)] {
                guest.set(0, device, BAR0, base);
                guest.set(0, device, COMMAND, MEMORY_ON);
            }
            *listener.writes.lock().unwrap() = writes.clone();
            guest.set(0, device, BAR0, 0xc800_0000);
            assert_eq!(*listener.writes.lock().unwrap(), [], "the listener was told");
            let found = [0, 1].map(|index| state(&manager, ids[index], 0));
            let said = [3, 4].map(|device| decoded(guest.config(0, device, BAR0).into()));
            assert_eq!(found, said, "{writes:x?} while the range of {device} leaves");
        }
    }
}
