//! In tests, a count of what writers look at and move, for the worst case of a registration; in models, one of the searches
//! of an access. Otherwise nothing.

/// Counts a look at a range or at a segment.
#[cfg(any(not(test), vm_device_loom))]
#[inline(always)]
pub(crate) fn looked() {}

/// Counts elements of the order or of the index that change their places.
#[cfg(any(not(test), vm_device_loom))]
#[inline(always)]
pub(crate) fn moved(_: usize) {}

/// Counts one search on the slow path of an access.
#[cfg(not(all(test, vm_device_loom)))]
#[inline(always)]
pub(crate) fn searched() {}

#[cfg(all(test, vm_device_loom))]
pub(crate) use modelled::{count_searches, searched};

#[cfg(all(test, vm_device_loom))]
mod modelled {
    use core::cell::Cell;

    loom::thread_local! {
        static SEARCHES: Cell<Option<usize>> = Cell::new(None);
    }

    pub(crate) fn searched() {
        SEARCHES.with(|searches| {
            if let Some(count) = searches.get() {
                searches.set(Some(count + 1));
                // Others go on while the search is not yet compared, without a preemption that is counted.
                loom::thread::yield_now();
            }
        });
    }

    /// How many searches an access of this thread takes. Others have their turn after each.
    pub(crate) fn count_searches(access: impl FnOnce()) -> usize {
        SEARCHES.with(|searches| searches.set(Some(0)));
        access();
        SEARCHES.with(Cell::take).unwrap_or(0)
    }
}

/// Counts a turn of a loop that waits.
#[cfg(not(all(test, not(vm_device_loom))))]
#[inline(always)]
pub(crate) fn waited() {}

#[cfg(all(test, not(vm_device_loom)))]
pub(crate) use counted::{looked, moved, waited};

#[cfg(all(test, not(vm_device_loom)))]
mod counted {
    use core::cell::{Cell, RefCell};
    use std::boxed::Box;
    use std::format;
    use std::rc::Rc;
    use std::string::String;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;
    use std::vec::Vec;

    use crate::{
        Access, Device, DeviceManager, GuestAddress, InstanceId, IoError, IoRange, IoResource, IoType, IrqResource,
        Relocation, SystemAllocator,
    };

    /// An event, and the turn of a waiting loop at which it comes.
    type Event = (usize, Box<dyn FnOnce()>);

    std::thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
        static MOVES: Cell<usize> = const { Cell::new(0) };
        static TURNS: Cell<usize> = const { Cell::new(0) };
        static EVENT: RefCell<Option<Event>> = const { RefCell::new(None) };
        /// What happens at each step of a change.
        static MEANWHILE: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
    }

    pub(crate) fn looked() {
        LOOKS.set(LOOKS.get() + 1);
        MEANWHILE.with_borrow_mut(|meanwhile| meanwhile.iter_mut().for_each(|meanwhile| meanwhile()));
    }

    pub(crate) fn moved(count: usize) {
        MOVES.set(MOVES.get() + count);
        MEANWHILE.with_borrow_mut(|meanwhile| meanwhile.iter_mut().for_each(|meanwhile| meanwhile()));
    }

    pub(crate) fn waited() {
        let turns = TURNS.get() + 1;
        TURNS.set(turns);
        if let Some((_, event)) = EVENT.with_borrow_mut(|event| event.take_if(|(turn, _)| *turn == turns)) {
            event();
        }
    }

    struct Named(String);

    impl Device<'_> for Named {
        fn name(&self) -> &str {
            &self.0
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }

    /// What a change looks at and moves is within the bounds.
    fn check<T>(what: &str, [looks, moves]: [usize; 2], change: impl FnOnce() -> T) -> T {
        LOOKS.set(0);
        MOVES.set(0);
        let outcome = change();
        assert!(LOOKS.get() <= looks, "{what}: {} looks, not {looks}", LOOKS.get());
        assert!(MOVES.get() <= moves, "{what}: {} moves, not {moves}", MOVES.get());
        outcome
    }

    /// The bounds that the crate's documentation states, for ranges that lie in as many windows, one in the other.
    fn check_within(windows: usize, most: usize) {
        let devices: Vec<_> = (0..=most + windows).map(|n| Named(format!("{n}"))).collect();
        let manager: DeviceManager<'_, 1030, 1030, 1> = DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY));
        let register = |device: usize, bus: Option<InstanceId>, request: IoResource| -> InstanceId {
            manager.register_device(&devices[device], bus, &[request], IrqResource::None).unwrap()
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
                        check(&what, [9 * levels + 45, moved], || manager.relocate(&[step]).unwrap());
                    }
                }
                check(&what, [4 * levels + 32, shift], || manager.unregister_device(id).unwrap());
            }
            register(n, last + 1);
        }
    }

    struct Occupied(&'static str);

    impl Device<'_> for Occupied {
        fn name(&self) -> &str {
            self.0
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }

    /// Whatever a writer has done so far of its change, and though it does no more, an access ends, and the device answers
    /// or nobody does.
    /// C3.
    #[test]
    fn an_access_goes_on_while_a_writer_stands_still_half_way() {
        static MANAGER: DeviceManager<'static, 2, 2, 1> = DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY));
        static DEVICES: [Occupied; 2] = [Occupied("first"), Occupied("second")];
        let requests = [0, 8].map(|base| [IoResource::mmio(base, 4)]);
        let first = MANAGER.register_device(&DEVICES[0], None, &requests[0], IrqResource::None).unwrap();
        let (ask, asked) = mpsc::channel();
        let (answer, answered) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut vcpu = MANAGER.dispatcher().unwrap();
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
        MEANWHILE.set(Some(Box::new(move || {
            count.set(count.get() + 1);
            ask.send(()).unwrap();
            answered.recv_timeout(Duration::from_secs(10)).expect("an access waits for the writer");
        })));
        let second = MANAGER.register_device(&DEVICES[1], None, &requests[1], IrqResource::None).unwrap();
        MANAGER.relocate(&[Relocation::new(first, 0).to(GuestAddress(0x10))]).unwrap();
        MANAGER.unregister_device(first).unwrap();
        MANAGER.unregister_device(second).unwrap();
        MEANWHILE.take();
        reader.join().unwrap();
        assert!(steps.get() > 50, "{} steps", steps.get());
    }

    /// A vCPU is in each of two slots, and leaves the first one late. How many turns a removal with a patience of 1000 waits.
    fn turns_of_a_removal(
        manager: &'static DeviceManager<'static, 2, 2, 2>,
        devices: [InstanceId; 2],
        remove: impl FnOnce() -> bool,
    ) -> usize {
        let claims = [0, 1].map(|_| manager.slots.claim_line().unwrap());
        let slots: Vec<u16> = {
            let state = manager.state();
            devices.iter().flat_map(|id| state.slots_of(id.index)).collect()
        };
        let enter = |n: usize| manager.slots.announce(claims[n].top(), manager.slots.slot(slots[n]).unwrap()).unwrap();
        let (first, _second) = (enter(0), enter(1));
        TURNS.set(0);
        EVENT.set(Some((900, Box::new(move || drop(first)))));
        assert!(!remove());
        assert!(EVENT.take().is_none(), "it has waited for the first");
        TURNS.get()
    }

    /// C10.
    #[test]
    fn the_ranges_of_a_device_share_one_patience() {
        static MANAGER: DeviceManager<'static, 2, 2, 2> =
            DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY)).with_patience(1000);
        static DEVICE: Occupied = Occupied("occupied");
        let requests = [0, 8].map(|base| IoResource::mmio(base, 4));
        let id = MANAGER.register_device(&DEVICE, None, &requests, IrqResource::None).unwrap();
        assert_eq!(turns_of_a_removal(&MANAGER, [id; 2], || MANAGER.unregister_device(id).is_ok()), 1000);
    }

    /// C10.
    #[test]
    fn the_devices_of_a_subtree_share_one_patience() {
        static MANAGER: DeviceManager<'static, 2, 2, 2> =
            DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY)).with_patience(1000);
        static DEVICES: [Occupied; 2] = [Occupied("bus"), Occupied("child")];
        let requests = [0, 8].map(|base| [IoResource::mmio(base, 4)]);
        let bus = MANAGER.register_device(&DEVICES[0], None, &requests[0], IrqResource::None).unwrap();
        let child = MANAGER.register_device(&DEVICES[1], Some(bus), &requests[1], IrqResource::None).unwrap();
        assert_eq!(turns_of_a_removal(&MANAGER, [bus, child], || MANAGER.unregister_subtree(bus).is_ok()), 1000);
    }

    /// C18.
    #[test]
    fn a_change_looks_at_and_moves_no_more_than_stated() {
        check_within(0, 1025);
        check_within(1, 260);
        check_within(3, 260);
    }
}
