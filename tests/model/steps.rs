//! Each step, made by the manager and by the model.

use vm_device::{
    AccessSizes, Accesses, Device, DeviceManager, Gsi, GuestAddress, InstanceId, IoRange, IoType, IrqRefusal,
    IrqResource, Owner, RangeRefusal, RangeState, RegisterError, UnregisterError,
};

use crate::fixture::{Observed, Recorder, observe};
use crate::history::{Ask, Step, Where};
use crate::plain::{Given, Instance, Model, Place, assigned};
use crate::platform::{HALF, address};
use crate::relay::Relay;

/// The manager and the model, side by side.
pub(crate) struct Run<'d, V> {
    pub(crate) manager: &'d DeviceManager<'d>,
    pub(crate) recorders: &'d [Recorder],
    pub(crate) relay: &'d Relay<'d>,
    pub(crate) vcpu: V,
    pub(crate) model: Model,
    pub(crate) stale: Vec<InstanceId>,
    pub(crate) accesses: usize,
}

impl<'d, V: Accesses> Run<'d, V> {
    pub(crate) fn pick(&self, number: usize) -> InstanceId {
        // The relay, which is the first, stays as it is; the last number is for an id that is no more.
        let all: Vec<_> =
            self.model.instances[1..].iter().map(|instance| instance.id).chain(self.stale.last().copied()).collect();
        if all.is_empty() { self.model.relay() } else { all[number % all.len()] }
    }

    pub(crate) fn is_live(&self, id: InstanceId) -> bool {
        self.model.instances.iter().any(|instance| instance.id == id && !instance.deferred)
    }

    pub(crate) fn step(&mut self, step: &Step) {
        self.model.time += 1;
        let before = self.observe();
        let failed = match step {
            Step::Register { parent, asks, irqs } => self.register(*parent, asks, irqs),
            Step::Unregister(pick) => self.unregister(*pick, false),
            Step::Subtree(pick) => self.unregister(*pick, true),
            Step::Deferred(pick) => self.defer(*pick),
            Step::Collect => {
                assert_eq!(self.manager.collect(), 0);
                self.collect();
                false
            }
            Step::Relocate(moves) => self.relocate(moves),
            Step::Reserve(io_type, first, size) => self.reserve(*io_type, *first, *size),
            Step::Release(pick) => self.release(*pick),
            Step::Reroute(pick, index, gsi) => self.reroute(*pick, *index, gsi.map(Gsi)),
        };
        let after = self.observe();
        if failed {
            assert_eq!(before, after, "an error has changed something: {step:?}");
        }
        self.compare(&after);
    }

    fn observe(&self) -> Observed<'d> {
        let seen = observe(self.manager, &[]);
        // It has read from them.
        self.recorders.iter().for_each(|recorder| drop(recorder.take()));
        seen
    }

    /// Whether the manager has placed a range.
    pub(crate) fn is_placed(&self) -> impl Fn(InstanceId, usize) -> bool + use<'d, V> {
        let manager = self.manager;
        move |id, index| manager.range(id, index).is_some_and(|assigned| assigned.state.is_placed())
    }

    /// The manager has removed what was deferred, in any order: one of them leads to what it has placed.
    fn collect(&mut self) {
        let deferred = self.model.instances.iter().filter(|instance| instance.deferred);
        let deferred: Vec<_> = deferred.map(|instance| instance.id).collect();
        let is_placed = self.is_placed();
        let mut after = orders(&deferred).into_iter().map(|order| {
            let mut model = self.model.clone();
            model.remove(&order, &is_placed);
            model
        });
        let agrees = |model: &Model| {
            model.places().all(|(owner, index, place)| {
                owner.is_none_or(|id| self.manager.range(id, index).is_some_and(|got| got.state == place.state))
            })
        };
        self.model = after.find(agrees).expect("the manager has placed others than it may");
    }

    pub(crate) fn register(&mut self, parent: usize, asks: &[Ask], irqs: &[IrqResource]) -> bool {
        let pending = self.model.instances.iter().any(|instance| instance.deferred);
        let Some(recorder) =
            (0..self.recorders.len()).find(|n| self.model.instances.iter().all(|instance| instance.recorder != *n))
        else {
            return false;
        };
        // Every fourth at the root, every fourth anywhere, the others on a bus that has a window.
        let with_window = |instance: &&Instance| instance.places.iter().any(|place| place.window);
        let buses: Vec<_> = self.model.instances.iter().filter(with_window).map(|instance| instance.id).collect();
        let parent = match parent % 4 {
            0 => None,
            1 => Some(self.pick(parent / 4)),
            _ if buses.is_empty() => None,
            _ => Some(buses[parent / 4 % buses.len()]),
        };
        let asks: Vec<_> = asks.iter().map(|ask| self.resolve(*ask, parent)).collect();
        let requests: Vec<_> = asks.iter().map(Ask::resource).collect();
        let device = &self.recorders[recorder];
        let got = self.manager.register_device(device, parent, &requests, irqs);
        // It has collected what was deferred before all else.
        self.collect();
        match (got, self.expect(parent, &asks, irqs)) {
            (Ok(id), Some((places, irqs))) => {
                assert!(!self.stale.contains(&id) && self.model.instances.iter().all(|instance| instance.id != id));
                let told = places.iter().map(assigned).collect::<Vec<_>>();
                assert_eq!(device.assigned(), told);
                self.model.time += places.len();
                self.model.instances.push(Instance { id, recorder, parent, places, irqs, deferred: false });
                false
            }
            (Err(error), None) => {
                self.check_refusal(&error);
                !pending
            }
            (got, expected) => panic!("{got:?} where the model has {expected:?}"),
        }
    }

    /// A range in a window of the parent becomes one at an address, in the space of that window.
    fn resolve(&self, ask: Ask, parent: Option<InstanceId>) -> Ask {
        let Where::Inside { offset, size } = ask.place else { return ask };
        let parent = self.model.instances.iter().find(|instance| Some(instance.id) == parent);
        let windows = || parent.iter().flat_map(|parent| parent.places.iter()).filter(|place| place.window);
        let window = windows().find(|window| window.state.is_placed()).or(windows().next());
        let Some(window) = window else { return Ask { place: Where::At { first: offset, size }, ..ask } };
        // Near either end of the window, and sometimes past it.
        let offset = offset % HALF;
        let first =
            if size % 2 == 0 { window.first.saturating_add(offset) } else { window.last.saturating_sub(offset) };
        Ask { io_type: window.io_type, place: Where::At { first, size }, ..ask }
    }

    /// What the registration is to give.
    pub(crate) fn expect(&self, parent: Option<InstanceId>, asks: &[Ask], irqs: &[IrqResource]) -> Option<Given> {
        if parent.is_some_and(|parent| !self.is_live(parent)) || self.model.instances.len() == self.model.devices {
            return None;
        }
        // The ranges one after the other, each with the ones before it in place, under an id that is no device's parent.
        let mut model = self.model.clone();
        let mut places = Vec::new();
        for ask in asks {
            let top = ask.io_type.last_address().0;
            let like = Place {
                io_type: ask.io_type,
                first: 0,
                last: 0,
                window: ask.window,
                state: ask.state,
                decoded: ask.state != RangeState::Reserved,
                since: 0,
                align: if let Where::Any { align, .. } = ask.place { align } else { 1 },
                sizes: ask.sizes,
            };
            let fixed = match ask.place {
                Where::Fixed { first, size } => {
                    let first = address(ask.io_type, first);
                    Some((first, first.checked_add(size.checked_sub(1)?)?))
                }
                Where::At { first, size } | Where::Inside { offset: first, size } => {
                    Some((first, first.checked_add(size - 1)?))
                }
                Where::Wide { first, last } => Some((address(ask.io_type, first), address(ask.io_type, last))),
                Where::Any { .. } => None,
            };
            let fixed = fixed.map(|(first, last)| Place { first, last, ..like });
            if !model.has_room() || !model.is_shallow(ask.io_type, parent) {
                return None;
            }
            let mut place = match (ask.state, fixed, ask.place) {
                // It has a size, and that is all.
                (RangeState::Unplaced, Some(fixed), _) => Place { first: 0, last: fixed.last - fixed.first, ..like },
                (RangeState::Unplaced, None, Where::Any { size, .. }) => Place { first: 0, last: size - 1, ..like },
                (_, Some(fixed), _) => fixed,
                (RangeState::Waiting, None, _) => return None,
                (_, None, _) => model.anywhere(ask, parent, like)?,
            };
            if place.last > top {
                return None;
            }
            if ask.state == RangeState::Waiting {
                if model.fits(&place, parent) {
                    place.put();
                }
                // Each range of a device begins to wait after the ones before it.
                model.time += 1;
                place.since = model.time;
            } else if ask.state.is_placed() && !model.fits(&place, parent) {
                return None;
            }
            // The device's own ranges so far are in the way as those of others are, its windows too.
            model.reserved.push(place);
            places.push(place);
        }
        Some((places, self.model.give_all(irqs)?))
    }

    pub(crate) fn name(&self, instance: &Instance) -> &'d str {
        if instance.recorder == usize::MAX { "relay" } else { self.recorders[instance.recorder].name() }
    }

    /// What a refusal names exists.
    pub(crate) fn check_refusal(&self, error: &RegisterError<&str>) {
        match *error {
            RegisterError::Range { refusal, .. } => self.check_range(refusal),
            RegisterError::Irq { refusal: IrqRefusal::Taken { gsi, owner: Owner::Device { id, .. } }, .. } => {
                assert!(self.model.instance(id).irqs.iter().any(|irq| irq.gsi == Some(gsi)));
            }
            RegisterError::NoSuchParent { parent, .. } => assert!(!self.is_live(parent)),
            _ => {}
        }
    }

    pub(crate) fn check_range(&self, refusal: RangeRefusal<Owner<&str>>) {
        let held = |range: IoRange, owner: Owner<&str>| {
            let id = if let Owner::Device { id, .. } = owner { Some(id) } else { None };
            let mut places = self.model.placed();
            places
                .any(|(owner, _, place)| owner == id && (place.first, place.last) == (range.first().0, range.last().0))
        };
        match refusal {
            RangeRefusal::Overlap { wanted, taken, owner } => {
                assert!(wanted.overlaps(taken));
                assert!(held(taken, owner));
            }
            RangeRefusal::NotInWindow { wanted, taken, bus } => {
                assert!(wanted.overlaps(taken));
                assert!(held(taken, bus));
            }
            RangeRefusal::OutsideWindow { wanted, window, owner } => {
                assert!(!window.contains_range(wanted));
                assert!(held(window, owner));
            }
            RangeRefusal::NoDecodedWindow { bus: Owner::Device { id, .. } } => {
                assert!(self.model.instance(id).places.iter().any(|place| place.window));
            }
            _ => {}
        }
    }

    pub(crate) fn unregister(&mut self, pick: usize, subtree: bool) -> bool {
        let id = self.pick(pick);
        if id == self.model.relay() {
            return false;
        }
        let known = self.model.instances.iter().any(|instance| instance.id == id);
        let ids = if known { self.model.subtree(id) } else { vec![] };
        let live = ids.iter().all(|id| self.is_live(*id));
        let got = if subtree { self.manager.unregister_subtree(id) } else { self.manager.unregister_device(id) };
        match got {
            Ok(()) => {
                assert!(live && known && (subtree || ids.len() == 1), "removed against the model");
                self.stale.extend(&ids);
                self.model.remove(&ids, &self.is_placed());
            }
            Err(UnregisterError::NotFound { .. }) => assert!(!known),
            Err(UnregisterError::HasChildren { .. }) => assert!(!subtree && ids.len() > 1),
            Err(UnregisterError::Busy { .. }) => assert!(!live),
            Err(error) => panic!("{error}"),
        }
        got.is_err()
    }

    pub(crate) fn defer(&mut self, pick: usize) -> bool {
        let id = self.pick(pick);
        if id == self.model.relay() {
            return false;
        }
        let possible = self.is_live(id) && self.model.children(Some(id)).is_empty();
        let got = self.manager.unregister_device_deferred(id);
        assert_eq!(got.is_ok(), possible, "{got:?}");
        if possible {
            self.stale.push(id);
            self.model.instances.iter_mut().find(|instance| instance.id == id).unwrap().deferred = true;
        }
        !possible
    }

    pub(crate) fn reserve(&mut self, io_type: IoType, first: u64, size: u64) -> bool {
        let first = address(io_type, first);
        let Some(last) = first.checked_add(size - 1) else { return false };
        let (state, sizes) = (RangeState::Reserved, AccessSizes::ANY);
        let place = Place { io_type, first, last, window: false, state, decoded: false, since: 0, align: 1, sizes };
        let fits = self.model.has_room() && self.model.fits(&place, None);
        let possible = last <= io_type.last_address().0 && fits;
        let got = self.manager.reserve(io_type, IoRange::new(GuestAddress(first), GuestAddress(last)).unwrap());
        assert_eq!(got.is_ok(), possible, "{got:?}");
        if possible {
            self.model.reserved.push(place);
        }
        !possible
    }

    pub(crate) fn release(&mut self, pick: usize) -> bool {
        // Sometimes what is a device's.
        let all: Vec<_> = self.model.places().map(|(owner, _, place)| (owner, *place)).collect();
        let (owner, place) = all[pick % all.len()];
        let range = IoRange::new(GuestAddress(place.first), GuestAddress(place.last)).unwrap();
        let got = self.manager.release(place.io_type, range);
        if owner.is_some() && got.is_err() {
            let also = |other: &&Place| (other.first, other.last) == (place.first, place.last);
            let same_space = |other: &&Place| other.io_type.same_space(place.io_type);
            assert!(!self.model.reserved.iter().filter(same_space).any(|other| also(&other)));
            return true;
        }
        assert_eq!(got, Ok(()));
        let at = self.model.reserved.iter().position(|other| {
            other.io_type.same_space(place.io_type) && (other.first, other.last) == (place.first, place.last)
        });
        self.model.reserved.remove(at.unwrap());
        self.model.sweep(&self.is_placed());
        false
    }
}

/// Every order of these.
fn orders(ids: &[InstanceId]) -> Vec<Vec<InstanceId>> {
    let Some((last, others)) = ids.split_last() else { return vec![vec![]] };
    let with = |order: Vec<InstanceId>| {
        (0..=order.len()).map(move |at| {
            let mut order = order.clone();
            order.insert(at, *last);
            order
        })
    };
    orders(others).into_iter().flat_map(with).collect()
}
