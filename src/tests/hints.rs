//! Which hints lead to a slot, and when they are forgotten. A wrong hint costs only time, so that no other test shows it.

use super::Named;
use crate::indices::SlotIndex;
use crate::manager::Occupant;
use crate::quiescence::Reader;
use crate::{
    DeviceManager, GuestAddress, GuestUsize, InstanceId, IoRange, IoResource, IoType, Relocation, Storage,
    SystemAllocator,
};

static BUS: Named<'static> = Named("bus");
static CHILD: Named<'static> = Named("child");

const ALLOCATOR: SystemAllocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS);

/// The base of the range that an access of four bytes reaches by a hint to this slot.
fn leads<const HINTS: usize>(
    reader: &mut Reader<'_, Occupant<'_>, HINTS, HINTS>,
    io_type: IoType,
    address: u64,
) -> Option<u64> {
    reader.enter_by_hint(io_type.space(), address, 4).map(|(_, base)| base)
}

fn slot_of(manager: &DeviceManager<'_>, id: InstanceId) -> SlotIndex {
    let mut locked = manager.lock().unwrap();
    locked.state().ranges_of(id.index).next().map(|(slot, _)| slot).unwrap()
}

#[test]
fn a_reader_that_keeps_no_hints_has_none_left_and_says_so() {
    let storage = Storage::<4, 4, 1>::new();
    let manager = DeviceManager::new(&storage, ALLOCATOR);
    let (mut reader, _) = manager.slots.acquire_reader::<1, 1>().unwrap();
    let id = manager.register_device(&BUS, None, &[IoResource::mmio(0x100, 0x40)], &[]).unwrap();
    let found = manager.slots.slot(slot_of(&manager, id)).unwrap();
    assert!(reader.remember(IoType::Mmio.space(), 0x100, found));
    assert_eq!(leads(&mut reader, IoType::Mmio, 0x100), Some(0x100));
    reader.keep_no_hints();
    assert_eq!(leads(&mut reader, IoType::Mmio, 0x100), None);
    assert!(!reader.remember(IoType::Mmio.space(), 0x100, found));
    assert_eq!(leads(&mut reader, IoType::Mmio, 0x100), None);
}

#[test]
fn a_hint_is_right_as_long_as_the_range_is_where_it_is_and_none_lies_in_it() {
    for io_type in [IoType::Pio, IoType::Mmio] {
        let storage = Storage::<4, 4, 1>::new();
        let manager = DeviceManager::new(&storage, ALLOCATOR);
        let (mut reader, _) = manager.slots.acquire_reader::<1, 1>().unwrap();
        let mut leads = |id: InstanceId, address: u64| {
            let found = manager.slots.slot(slot_of(&manager, id)).unwrap();
            reader.remember(io_type.space(), address, found);
            leads(&mut reader, io_type, address)
        };
        let at = |base, size| IoResource::fixed(io_type, GuestAddress(base), GuestUsize(size));
        let bus = manager.register_device(&BUS, None, &[at(0x100, 0x40).window()], &[]).unwrap();
        assert_eq!([leads(bus, 0x100), leads(bus, 0x13c), leads(bus, 0x13d)], [Some(0x100), Some(0x100), None]);

        let child = manager.register_device(&CHILD, Some(bus), &[at(0x120, 4)], &[]).unwrap();
        assert_eq!([leads(bus, 0x100), leads(bus, 0x120), leads(child, 0x120)], [None, None, Some(0x120)]);
        let move_child = Relocation::new(child, 0).to(GuestAddress(0x130));
        manager.relocate(&mut [move_child]).unwrap();
        assert_eq!([leads(bus, 0x100), leads(child, 0x120), leads(child, 0x130)], [None, None, Some(0x130)]);
        let mut move_both =
            [Relocation::new(bus, 0).to(GuestAddress(0x200)), Relocation::new(child, 0).to(GuestAddress(0x220))];
        manager.relocate(&mut move_both).unwrap();
        assert_eq!([leads(bus, 0x200), leads(child, 0x130), leads(child, 0x220)], [None, None, Some(0x220)]);

        manager.relocate(&mut [Relocation::new(child, 0).reserved()]).unwrap();
        assert_eq!([leads(bus, 0x220), leads(child, 0x220)], [Some(0x200), None]);
        manager.relocate(&mut [Relocation::new(child, 0).decoded()]).unwrap();
        assert_eq!([leads(bus, 0x220), leads(child, 0x220)], [None, Some(0x220)]);
        manager.unregister_device(child).unwrap();
        assert_eq!(leads(bus, 0x220), Some(0x200));
    }
}

/// C13.
#[test]
fn a_hint_that_led_to_a_slot_that_is_closed_is_forgotten() {
    let storage = Storage::<1, 1, 2>::new();
    let manager = DeviceManager::new(&storage, ALLOCATOR);
    let register = || {
        let requests = [IoResource::mmio(0x100, 4)];
        manager.register_device(&CHILD, None, &requests, &[]).unwrap()
    };
    let id = register();
    let found = manager.slots.slot(slot_of(&manager, id)).unwrap();
    let [mut used, mut unused] = [0, 1].map(|_| {
        let (mut reader, _) = manager.slots.acquire_reader::<1, 1>().unwrap();
        reader.remember(IoType::Mmio.space(), 0x100, found);
        reader
    });
    assert_eq!(leads(&mut used, IoType::Mmio, 0x100), Some(0x100));
    manager.unregister_device(id).unwrap();
    assert_eq!(leads(&mut used, IoType::Mmio, 0x100), None);
    // The slot is at its first base again, and only the hint that has not failed leads there.
    register();
    assert_eq!([&mut used, &mut unused].map(|reader| leads(reader, IoType::Mmio, 0x100)), [None, Some(0x100)]);
}
