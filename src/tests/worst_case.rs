//! How much a change looks at and moves, how long a removal waits, and what an access finds while a change is half made.

use core::cell::Cell;
use std::format;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::vec::Vec;

use super::Named;
use crate::access::ReaderSite;
use crate::cost;
use crate::indices::SlotIndex;
use crate::{
    DeviceManager, GuestAddress, GuestUsize, InstanceId, IoError, IoRange, IoResource, IoType, MAX_WINDOW_DEPTH,
    Relocation, Storage, SystemAllocator,
};

const ALL_MEMORY: SystemAllocator = SystemAllocator::new(IoRange::ALL_MEMORY);

/// What a change looks at and moves is within the bounds.
fn check<T>(what: &str, [looks, moves]: [usize; 2], change: impl FnOnce() -> T) -> T {
    let (outcome, [looked, moved]) = cost::measure(change);
    assert!(looked <= looks, "{what}: {looked} looks, not {looks}");
    assert!(moved <= moves, "{what}: {moved} moves, not {moves}");
    outcome
}

/// The bounds that the documentation states, for ranges that lie in as many windows, one in the other.
fn check_within(windows: usize, most: usize) {
    let names: Vec<_> = (0..=most + windows).map(|n| format!("{n}")).collect();
    let devices: Vec<_> = names.iter().map(|name| Named(name)).collect();
    let storage = std::boxed::Box::new(Storage::<1030, 1030, 1>::new());
    let manager = DeviceManager::new(&storage, ALL_MEMORY);
    let register = |device: usize, bus: Option<InstanceId>, request: IoResource| -> InstanceId {
        manager.register_device(&devices[device], bus, &[request], &[]).unwrap()
    };
    let bus = (0..windows).fold(None, |bus, window| {
        let request = IoResource::mmio(window as u64, 0x10_0000 - 2 * window as u64).window();
        Some(register(most + 1 + window, bus, request))
    });
    let at = |place: usize| 0x100 * place as u64 + 0x10;
    let register = |device: usize, place: usize| register(device, bus, IoResource::mmio(at(place), 0x10));
    for n in windows..most {
        let levels = (n + 1).next_power_of_two().ilog2() as usize;
        let (shift, moved) = if windows == 0 { (3 * n + 1, 6 * n + 2) } else { (5 * n + 1, 10 * n + 2) };
        // The others have the odd places.
        let last = 2 * (n - windows);
        let places = [0, 2.min(last), (last / 2) & !1, last];
        for place in places {
            let what = format!("{n} others, {windows} windows, at {place}");
            let id = check(&what, [5 * levels + 30, shift], || register(most, place));
            for other in places {
                for to in [other, place] {
                    let step = Relocation::new(id, 0).to(at(to).into());
                    check(&what, [9 * levels + 48, moved], || manager.relocate(&mut [step]).unwrap());
                }
            }
            check(&what, [4 * levels + 32, shift], || manager.unregister_device(id).unwrap());
        }
        register(n, last + 1);
    }
}

/// C18.
#[test]
fn a_change_looks_at_and_moves_no_more_than_stated() {
    check_within(0, 1025);
    check_within(1, 260);
    check_within(3, 260);
}

/// The longest way to the range that has all of an access: its ends lie in two windows, each as deep as windows may nest.
#[test]
fn a_sweep_looks_at_the_waiting_ranges_and_not_at_each_for_each() {
    const EACH: usize = 16;
    let names: Vec<_> = (0..62).map(|n| format!("{n}")).collect();
    let devices: Vec<_> = names.iter().map(|name| Named(name)).collect();
    let storage = std::boxed::Box::new(Storage::<62, 1030, 1>::new());
    let manager = DeviceManager::new(&storage, ALL_MEMORY);
    let register = |device: usize, requests: &[IoResource]| -> InstanceId {
        manager.register_device(&devices[device], None, requests, &[]).unwrap()
    };
    register(60, &[IoResource::mmio(0x1000, 1)]);
    let large = register(61, &[IoResource::mmio(0x10_0000, 0x10_0000)]);
    // Half of the ranges wait for what is not given up, before the others, which wait for what is.
    for device in 0..60 {
        let place = |n: usize| if device < 30 { 0x1000 } else { 0x10_0000 + (EACH * device + n) as u64 };
        let requests: Vec<_> = (0..EACH).map(|n| IoResource::mmio(place(n), 1).waiting()).collect();
        register(device, &requests);
    }
    let waiting = 60 * EACH;
    let unplace = || manager.relocate(&mut [Relocation::new(large, 0).unplaced()]).unwrap();
    check("a sweep", [120 * waiting, usize::MAX], unplace);
    assert_eq!(manager.address_map(IoType::Mmio).count(), 1 + waiting / 2);
}

#[test]
fn an_access_looks_at_no_more_windows_than_stated() {
    const SIDES: usize = MAX_WINDOW_DEPTH;
    let names: Vec<_> = (0..2 * SIDES).map(|n| format!("{n}")).collect();
    let devices: Vec<_> = names.iter().map(|name| Named(name)).collect();
    let storage = Storage::<{ 2 * SIDES }, { 2 * SIDES }, 1>::new();
    let manager = DeviceManager::new(&storage, ALL_MEMORY);
    let register = |device: usize, bus: Option<InstanceId>, first: u64, size: u64| -> InstanceId {
        let request = IoResource::fixed(IoType::Mmio, GuestAddress(first), GuestUsize(size)).window();
        manager.register_device(&devices[device], bus, &[request], &[]).unwrap()
    };
    let outermost = register(0, None, 0, 0x200);
    // One nest ends where the other begins.
    let (mut low, mut high) = (outermost, outermost);
    for n in 1..SIDES as u64 {
        low = register(2 * n as usize - 1, Some(low), n, 0x100 - n);
        high = register(2 * n as usize, Some(high), 0x100, 0x100 - n);
    }
    register(2 * SIDES - 1, Some(high), 0x100, 1);
    let starts = 4 * SIDES;
    let search = starts.next_power_of_two().ilog2() as usize + 3;
    let access = || manager.read(GuestAddress(0xff), &mut [0; 2], IoType::Mmio);
    let (outcome, [looked, _]) = cost::measure(access);
    assert_eq!(outcome, Ok(()));
    assert!(looked <= 2 * search + 2 * MAX_WINDOW_DEPTH, "{looked} looks");
    assert!(looked > 2 * MAX_WINDOW_DEPTH, "{looked} looks");
}

/// A writer stops at any step of its change: an access still ends, and the device answers it or no device does.
/// C3.
#[test]
fn an_access_goes_on_while_a_writer_stands_still_half_way() {
    static STORAGE: Storage<2, 2, 1> = Storage::new();
    static MANAGER: DeviceManager<'static> = DeviceManager::new(&STORAGE, ALL_MEMORY);
    static DEVICES: [Named<'static>; 2] = [Named("first"), Named("second")];
    let requests = [0, 8].map(|base| [IoResource::mmio(base, 4)]);
    let first = MANAGER.register_device(&DEVICES[0], None, &requests[0], &[]).unwrap();
    let (ask, asked) = mpsc::channel();
    let (answer, answered) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut vcpu = MANAGER.dispatcher(0).unwrap();
        while let Ok(()) = asked.recv() {
            let read = |outcome: Result<(), IoError>| assert!(matches!(outcome, Ok(()) | Err(IoError::Unclaimed)));
            for address in [0, 8, 0x10].map(GuestAddress) {
                read(vcpu.read(address, &mut [0], IoType::Mmio));
                read(MANAGER.read(address, &mut [0], IoType::Mmio));
            }
            answer.send(()).unwrap();
        }
    });
    let steps = Rc::new(Cell::new(0));
    let count = steps.clone();
    let step = move || {
        count.set(count.get() + 1);
        ask.send(()).unwrap();
        answered.recv_timeout(Duration::from_secs(10)).expect("an access waits for the writer");
    };
    cost::meanwhile(step, || {
        let second = MANAGER.register_device(&DEVICES[1], None, &requests[1], &[]).unwrap();
        MANAGER.relocate(&mut [Relocation::new(first, 0).to(GuestAddress(0x10))]).unwrap();
        MANAGER.unregister_device(first).unwrap();
        MANAGER.unregister_device(second).unwrap();
    });
    reader.join().unwrap();
    assert!(steps.get() > 50, "{} steps", steps.get());
}

/// The writer stops while it holds the lock: before the change, half-way in either replica of the index, and after the change.
/// C3.
#[test]
fn an_access_finds_the_old_index_until_the_new_one_is_published() {
    let storage = Storage::<2, 2, 2>::new();
    let manager = DeviceManager::new(&storage, ALL_MEMORY);
    let devices = [Named("leaving"), Named("staying")];
    let [leaving, _] = [(&devices[0], 0), (&devices[1], 8)]
        .map(|(device, base)| manager.register_device(device, None, &[IoResource::mmio(base, 4)], &[]).unwrap());
    let (tell, told) = mpsc::channel();
    let (reply, replied) = mpsc::channel();
    thread::scope(|scope| {
        let manager = &manager;
        scope.spawn(move || {
            let mut vcpu = manager.dispatcher_with_hints::<0, 0>(0).unwrap();
            while let Ok(leaving_answers) = told.recv() {
                for (address, answer) in [(0, leaving_answers), (8, Ok(()))] {
                    assert_eq!(vcpu.read(GuestAddress(address), &mut [0], IoType::Mmio), answer);
                    assert_eq!(manager.read(GuestAddress(address), &mut [0], IoType::Mmio), answer);
                }
                reply.send(()).unwrap();
            }
        });
        let reader_goes_on = |answer: Result<(), IoError>| {
            tell.send(answer).unwrap();
            replied.recv().unwrap();
        };
        // The handle is made first: that takes the lock, too.
        reader_goes_on(Ok(()));
        let mut locked = manager.lock().unwrap();
        let state = locked.state();
        manager.publish(|pass| {
            let unclaimed = Err(IoError::Unclaimed);
            reader_goes_on(if pass.is_published { unclaimed } else { Ok(()) });
            for (slot, range) in state.ranges_of(leaving.index) {
                manager.index_remove(pass, slot, range, &state);
            }
            reader_goes_on(if pass.is_published { unclaimed } else { Ok(()) });
        });
        reader_goes_on(Err(IoError::Unclaimed));
        drop(tell);
    });
}

/// How many turns a removal with a spin limit of 1000 waits, where a vCPU is in each of two slots and leaves the first one
/// late.
fn turns_of_a_removal(
    manager: &'static DeviceManager<'static>,
    devices: [InstanceId; 2],
    remove: impl FnOnce() -> bool,
) -> usize {
    let slots: Vec<SlotIndex> = {
        let mut locked = manager.lock().unwrap();
        let state = locked.state();
        devices.iter().flat_map(|id| state.slots_of(id.index)).collect()
    };
    let enter = |n: usize| {
        let site = ReaderSite { record: None, level: 0 };
        manager.slots.protect(site, manager.slots.slot(slots[n]).unwrap()).unwrap()
    };
    let (first, _second) = (enter(0), enter(1));
    cost::at_turn(900, move || drop(first));
    assert!(!remove());
    cost::in_turns().expect("it has waited for the first")
}

/// C10.
#[test]
fn the_ranges_of_a_device_share_one_spin_limit() {
    static STORAGE: Storage<2, 2, 2> = Storage::new();
    static MANAGER: DeviceManager<'static> = DeviceManager::new(&STORAGE, ALL_MEMORY).with_removal_spins(1000);
    static DEVICE: Named<'static> = Named("occupied");
    let requests = [0, 8].map(|base| IoResource::mmio(base, 4));
    let id = MANAGER.register_device(&DEVICE, None, &requests, &[]).unwrap();
    assert_eq!(turns_of_a_removal(&MANAGER, [id; 2], || MANAGER.unregister_device(id).is_ok()), 1000);
}

/// C10.
#[test]
fn the_devices_of_a_subtree_share_one_spin_limit() {
    static STORAGE: Storage<2, 2, 2> = Storage::new();
    static MANAGER: DeviceManager<'static> = DeviceManager::new(&STORAGE, ALL_MEMORY).with_removal_spins(1000);
    static DEVICES: [Named<'static>; 2] = [Named("bus"), Named("child")];
    let requests = [0, 8].map(|base| [IoResource::mmio(base, 4)]);
    let bus = MANAGER.register_device(&DEVICES[0], None, &requests[0], &[]).unwrap();
    let child = MANAGER.register_device(&DEVICES[1], Some(bus), &requests[1], &[]).unwrap();
    assert_eq!(turns_of_a_removal(&MANAGER, [bus, child], || MANAGER.unregister_subtree(bus).is_ok()), 1000);
}
