//! Random histories of a manager against a model that compares everything with everything.
//!
//! The model keeps a plain list of devices and their ranges. It has no order, no tree of intervals and no index: it
//! answers each question by looking at every range, and places a range by trying every address. Both address spaces
//! are looked at where they end: 32 addresses at the bottom and 32 at the top.

mod observed;

use observed::{Observed, observe};
use proptest::prelude::*;
use spin::Mutex;
use vm_device::{
    Access, AccessSizes, Assigned, Device, DeviceManager, Dispatcher, Gsi, GuestAddress, GuestUsize, InstanceId,
    IoError, IoRange, IoResource, IoType, IrqResource, Owner, RangeRefusal, RegisterError, RelocateError, Relocation,
    SystemAllocator, UnregisterError,
};

const DEVICES: usize = 6;
const RANGES: usize = 10;
type Manager<'d> = DeviceManager<'d, DEVICES, RANGES, 1>;

/// Half the addresses looked at, at each end of a space.
const HALF: u64 = 32;
/// Where the device stands that makes nested accesses.
const RELAY: IoResource = IoResource::pio(0x8000, 1);

/// An address near one end of the space: numbers below [`HALF`] count from the bottom, the others up to the top.
fn address(io_type: IoType, cell: u64) -> u64 {
    if cell < HALF { cell } else { io_type.last_address().0 - (2 * HALF - 1) + cell }
}

/// A call that a device has had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Call {
    write: bool,
    range_index: usize,
    address: u64,
    base: u64,
    length: usize,
}

/// A device that answers byte `i` of an access with its own number and `i`, and keeps what it was called with.
struct Recorder {
    number: u8,
    calls: Mutex<Vec<Call>>,
    assigned: Mutex<Vec<Assigned>>,
}

impl Recorder {
    fn record(&self, write: bool, access: &Access<'_>, length: usize) {
        assert_eq!(access.offset(), access.address().0 - access.base().0);
        let (address, base) = (access.address().0, access.base().0);
        self.calls.lock().push(Call { write, range_index: access.range_index(), address, base, length });
    }
}

impl Device<'_> for Recorder {
    fn name(&self) -> &str {
        ["a", "b", "c"][self.number as usize % 3]
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        assert!(data.iter().all(|byte| *byte == 0xff), "the buffer comes with the open-bus value");
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = self.number * 16 + i as u8;
        }
        self.record(false, access, data.len());
    }
    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.record(true, access, data.len());
    }
    fn set_resources(&self, resources: &vm_device::Resources<'_, '_>) -> Result<(), vm_device::Rejected> {
        *self.assigned.lock() = resources.ranges().to_vec();
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Io {
    io_type: IoType,
    address: u64,
    write: bool,
    /// The element size of a string; 0 for a plain access.
    element: usize,
    length: usize,
}

/// A device that makes an access of its own when it is written to.
struct Relay<'d> {
    manager: &'d Manager<'d>,
    order: Mutex<Option<Io>>,
    outcome: Mutex<(Result<(), IoError>, Vec<u8>)>,
}

impl<'d> Device<'d> for Relay<'d> {
    fn name(&self) -> &str {
        "relay"
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, access: &Access<'_>, _: &[u8]) {
        let Some(io) = self.order.lock().take() else { return };
        let nested = self.manager.nested(access);
        let mut data = vec![0x55; io.length];
        let outcome = match (io.element, io.write) {
            (0, false) => nested.read(GuestAddress(io.address), &mut data, io.io_type),
            (0, true) => nested.write(GuestAddress(io.address), &data, io.io_type),
            (element, false) => nested.read_string(io.address as u16, element, &mut data),
            (element, true) => nested.write_string(io.address as u16, element, &data),
        };
        *self.outcome.lock() = (outcome, data);
    }
}

// The model.

#[derive(Clone, Copy, Debug)]
struct Place {
    io_type: IoType,
    first: u64,
    last: u64,
    window: bool,
    decoded: bool,
    sizes: AccessSizes,
}

impl Place {
    fn overlaps(&self, other: &Place) -> bool {
        self.io_type.same_space(other.io_type) && self.first <= other.last && other.first <= self.last
    }
    fn contains(&self, other: &Place) -> bool {
        self.io_type.same_space(other.io_type) && self.first <= other.first && other.last <= self.last
    }
}

#[derive(Clone, Debug)]
struct Instance {
    id: InstanceId,
    recorder: usize,
    parent: Option<InstanceId>,
    places: Vec<Place>,
    irq: Option<(Gsi, bool)>,
    deferred: bool,
}

/// What a registration gives: the ranges, and the line and whether it is shared.
type Given = (Vec<Place>, Option<(Gsi, bool)>);

#[derive(Clone, Debug, Default)]
struct Model {
    /// In the order of registration.
    instances: Vec<Instance>,
    reserved: Vec<Place>,
}

impl Model {
    fn instance(&self, id: InstanceId) -> &Instance {
        self.instances.iter().find(|instance| instance.id == id).unwrap()
    }

    fn above(&self, id: Option<InstanceId>) -> Vec<InstanceId> {
        let mut above = Vec::new();
        let mut next = id;
        while let Some(id) = next {
            above.push(id);
            next = self.instance(id).parent;
        }
        above
    }

    fn children(&self, parent: Option<InstanceId>) -> Vec<&Instance> {
        self.instances.iter().filter(|instance| instance.parent == parent).collect()
    }

    fn subtree(&self, id: InstanceId) -> Vec<InstanceId> {
        let mut all = vec![id];
        for child in self.children(Some(id)) {
            all.extend(self.subtree(child.id));
        }
        all
    }

    fn places(&self) -> impl Iterator<Item = (Option<InstanceId>, usize, &Place)> {
        let devices = self
            .instances
            .iter()
            .flat_map(|instance| instance.places.iter().enumerate().map(|(i, place)| (Some(instance.id), i, place)));
        devices.chain(self.reserved.iter().map(|place| (None, 0, place)))
    }

    /// Whether the space has room for one more range.
    fn has_room(&self, place: &Place) -> bool {
        let cost = |place: &Place| if place.window { 2 } else { 1 };
        let used: usize =
            self.places().filter(|(.., other)| other.io_type.same_space(place.io_type)).map(|(.., p)| cost(p)).sum();
        used + cost(place) <= RANGES
    }

    /// Whether a new range of a child of `parent` may lie there: outside of all others, the windows above it excepted.
    fn fits(&self, place: &Place, parent: Option<InstanceId>) -> bool {
        let above = self.above(parent);
        self.has_room(place)
            && self.places().all(|(owner, _, other)| {
                !other.overlaps(place)
                    || (other.window && other.contains(place) && owner.is_some_and(|owner| above.contains(&owner)))
            })
    }

    /// Every address from `from` to `to` that is near an end of the space or of those limits, upwards.
    fn candidates(io_type: IoType, from: u64, to: u64) -> Vec<u64> {
        let top = io_type.last_address().0;
        let ends = (0..=200).chain(top - 200..=top);
        ends.filter(|address| (from..=to).contains(address)).collect()
    }

    /// The first place that serves, by trying all.
    fn anywhere(&self, ask: &Ask, parent: Option<InstanceId>, like: Place) -> Option<Place> {
        let Where::Any { size, align, limits, last_fit } = ask.place else { unreachable!() };
        let windows = self.above(parent).into_iter().find_map(|bus| {
            let windows = self.instance(bus).places.iter().filter(|w| w.window && w.io_type.same_space(like.io_type));
            let windows: Vec<_> = windows.map(|window| (bus, *window)).collect();
            (!windows.is_empty()).then_some(windows)
        });
        let top = like.io_type.last_address().0;
        let whole = Place { first: 0, last: top, ..like };
        let containers = windows.unwrap_or_else(|| vec![(InstanceId::clone(&self.relay()), whole)]);
        let rooted = containers.len() == 1 && containers[0].0 == self.relay();
        for (bus, container) in containers {
            let (low, high) =
                limits.map_or((0, top), |(low, high)| (address(like.io_type, low), address(like.io_type, high)));
            let (from, to) = (low.max(container.first), high.min(container.last));
            let mut firsts = Self::candidates(like.io_type, from, to);
            if last_fit {
                firsts.reverse();
            }
            let above = self.above(Some(bus));
            let found = firsts.into_iter().find_map(|first| {
                let last = first.checked_add(size - 1).filter(|last| *last <= to)?;
                let place = Place { first, last, ..like };
                let free = self.has_room(&place)
                    && self.places().all(|(owner, _, other)| {
                        let around = !rooted
                            && other.window
                            && other.contains(&container)
                            && owner.is_some_and(|owner| above.contains(&owner));
                        !other.overlaps(&place) || around
                    });
                (first % align == 0 && free).then_some(place)
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The relay is the first instance and owns no window.
    fn relay(&self) -> InstanceId {
        self.instances[0].id
    }

    /// Which range answers at an address: of all that have it, the one of the device furthest down the tree.
    fn dispatched(&self, io_type: IoType, address: u64) -> Option<(&Instance, usize, &Place)> {
        let all = self.instances.iter().flat_map(|instance| {
            instance.places.iter().enumerate().map(move |(index, place)| (instance, index, place))
        });
        all.filter(|(instance, _, place)| {
            !instance.deferred
                && place.decoded
                && place.io_type != IoType::PhysicalMmio
                && place.io_type.same_space(io_type)
                && (place.first..=place.last).contains(&address)
        })
        .max_by_key(|(instance, ..)| self.above(Some(instance.id)).len())
    }

    fn owner(&self, io_type: IoType, address: u64) -> Option<(InstanceId, usize)> {
        let all = self.places().filter_map(|(owner, index, place)| Some((owner?, index, place)));
        all.filter(|(.., place)| place.io_type.same_space(io_type) && (place.first..=place.last).contains(&address))
            .max_by_key(|(owner, ..)| self.above(Some(*owner)).len())
            .map(|(owner, index, _)| (owner, index))
    }

    /// What becomes of an access: the device and its calls, or why not.
    fn access(&self, io: Io) -> Result<(usize, Vec<Call>), IoError> {
        let Io { io_type, address, write, element, length } = io;
        let unit = if element == 0 { length } else { element };
        if length == 0 || length % unit != 0 {
            return Err(IoError::InvalidLength);
        }
        let top = io_type.last_address().0;
        if address > top {
            return Err(IoError::Unclaimed);
        }
        if unit as u64 - 1 > top - address {
            return Err(IoError::Straddling);
        }
        if io_type == IoType::PhysicalMmio {
            return Err(IoError::NotDispatched);
        }
        let owner = |offset| self.dispatched(io_type, address + offset).map(|(i, index, _)| (i.id, index));
        if (1..unit as u64).any(|offset| owner(offset) != owner(0)) {
            return Err(IoError::Straddling);
        }
        let Some((instance, range_index, place)) = self.dispatched(io_type, address) else {
            return Err(IoError::Unclaimed);
        };
        let base = place.first;
        let call = |offset, length| Call { write, range_index, address: address + offset, base, length };
        let power = unit.is_power_of_two();
        let known = match unit {
            1 => AccessSizes::BYTE,
            2 => AccessSizes::WORD,
            4 => AccessSizes::DWORD,
            8 => AccessSizes::QWORD,
            _ => AccessSizes::OTHER,
        };
        let aligned = !place.sizes.contains(AccessSizes::ALIGNED) || !power || (address - base) % unit as u64 == 0;
        let each: Vec<Call> = if place.sizes.contains(known) && aligned {
            vec![call(0, unit)]
        } else if place.sizes.contains(AccessSizes::SPLIT) {
            (0..unit as u64).map(|offset| call(offset, 1)).collect()
        } else {
            return Err(IoError::RefusedSize);
        };
        let count = length / unit;
        Ok((instance.recorder, (0..count).flat_map(|_| each.iter().copied()).collect()))
    }

    fn remove(&mut self, ids: &[InstanceId]) {
        self.instances.retain(|instance| !ids.contains(&instance.id));
    }

    fn collect(&mut self) {
        self.instances.retain(|instance| !instance.deferred);
    }
}

// The steps.

#[derive(Clone, Copy, Debug)]
enum Where {
    Fixed { first: u64, size: u64 },
    Wide { first: u64, last: u64 },
    Any { size: u64, align: u64, limits: Option<(u64, u64)>, last_fit: bool },
}

#[derive(Clone, Copy, Debug)]
struct Ask {
    io_type: IoType,
    place: Where,
    window: bool,
    decoded: bool,
    sizes: AccessSizes,
}

impl Ask {
    fn resource(&self) -> IoResource {
        let mut resource = match self.place {
            Where::Fixed { first, size } => {
                IoResource::fixed(self.io_type, GuestAddress(address(self.io_type, first)), GuestUsize(size))
            }
            Where::Wide { first, last } => {
                let (first, last) = (address(self.io_type, first), address(self.io_type, last));
                IoResource::at(self.io_type, IoRange::new(GuestAddress(first), GuestAddress(last)).unwrap())
            }
            Where::Any { size, align, limits, last_fit } => {
                let mut resource = IoResource::any(self.io_type, GuestUsize(size)).aligned(align);
                if let Some((low, high)) = limits {
                    let ends = [low, high].map(|cell| GuestAddress(address(self.io_type, cell)));
                    resource = resource.within(IoRange::new(ends[0], ends[1]).unwrap());
                }
                if last_fit { resource.last_fit() } else { resource }
            }
        };
        resource = resource.sizes(self.sizes);
        if self.window {
            resource = resource.window();
        }
        if self.decoded { resource } else { resource.not_decoded() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Move {
    /// Which device, and which range of it, by any number.
    device: usize,
    range: usize,
    to: Option<u64>,
    /// Takes the place of the range of the move before it.
    swap: bool,
    /// Takes along everything that lies in it.
    with_contents: bool,
    decoded: Option<bool>,
}

#[derive(Clone, Debug)]
enum Step {
    Register { parent: usize, asks: Vec<Ask>, irq: IrqResource },
    Unregister(usize),
    Subtree(usize),
    Deferred(usize),
    Collect,
    Relocate(Vec<Move>),
    Reserve(IoType, u64, u64),
    Release(usize),
}

fn io_type() -> impl Strategy<Value = IoType> {
    prop_oneof![3 => Just(IoType::Pio), 3 => Just(IoType::Mmio), 1 => Just(IoType::PhysicalMmio)]
}

fn ask() -> impl Strategy<Value = Ask> {
    let limits = prop_oneof![
        1 => Just(None),
        2 => (0..HALF, 0..HALF).prop_map(|(a, b)| Some((a.min(b), a.max(b)))),
        2 => (HALF..2 * HALF, HALF..2 * HALF).prop_map(|(a, b)| Some((a.min(b), a.max(b)))),
    ];
    let place = prop_oneof![
        6 => (0..2 * HALF, 0..17_u64).prop_map(|(first, size)| Where::Fixed { first, size }),
        1 => (0..HALF, HALF..2 * HALF).prop_map(|(first, last)| Where::Wide { first, last }),
        4 => (1..9_u64, 0..4_u32, limits, any::<bool>())
            .prop_map(|(size, align, limits, last_fit)| Where::Any { size, align: 1 << align, limits, last_fit }),
    ];
    let sizes = prop_oneof![
        6 => Just(AccessSizes::ANY),
        1 => Just(AccessSizes::BYTE | AccessSizes::SPLIT),
        1 => Just(AccessSizes::WORD | AccessSizes::DWORD),
        1 => Just(AccessSizes::ANY | AccessSizes::ALIGNED),
    ];
    let flags = (prop::bool::weighted(0.4), prop::bool::weighted(0.85));
    (io_type(), place, flags, sizes).prop_map(|(io_type, place, (window, decoded), sizes)| Ask {
        io_type,
        place,
        window,
        decoded,
        sizes,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let irq = prop_oneof![
        3 => Just(IrqResource::None),
        1 => Just(IrqResource::Any),
        1 => (4..8_u32).prop_map(|gsi| IrqResource::Fixed(Gsi(gsi))),
        2 => (4..8_u32).prop_map(|gsi| IrqResource::Shared(Gsi(gsi))),
    ];
    let relocation = (
        any::<[u8; 2]>(),
        prop::option::weighted(0.8, 0..2 * HALF),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.5),
        prop::option::weighted(0.3, any::<bool>()),
    );
    let relocation = relocation.prop_map(|([device, range], to, swap, with_contents, decoded)| Move {
        device: device.into(),
        range: range.into(),
        to,
        swap,
        with_contents,
        decoded,
    });
    prop_oneof![
        8 => (any::<u8>(), prop::collection::vec(ask(), 0..4), irq)
            .prop_map(|(parent, asks, irq)| Step::Register { parent: parent.into(), asks, irq }),
        2 => any::<u8>().prop_map(|pick| Step::Unregister(pick.into())),
        1 => any::<u8>().prop_map(|pick| Step::Subtree(pick.into())),
        1 => any::<u8>().prop_map(|pick| Step::Deferred(pick.into())),
        1 => Just(Step::Collect),
        6 => prop::collection::vec(relocation, 1..4).prop_map(Step::Relocate),
        1 => (io_type(), 0..2 * HALF, 1..6_u64).prop_map(|(io_type, first, size)| Step::Reserve(io_type, first, size)),
        1 => any::<u8>().prop_map(|pick| Step::Release(pick.into())),
    ]
}

/// The manager and the model, side by side.
struct Run<'d> {
    manager: &'d Manager<'d>,
    recorders: &'d [Recorder],
    relay: &'d Relay<'d>,
    vcpu: Dispatcher<'d, DEVICES, RANGES, 1>,
    model: Model,
    stale: Vec<InstanceId>,
    accesses: usize,
}

impl<'d> Run<'d> {
    fn pick(&self, number: usize) -> InstanceId {
        // The relay, which is the first, stays as it is; the last number is for an id that is no more.
        let all: Vec<_> =
            self.model.instances[1..].iter().map(|instance| instance.id).chain(self.stale.last().copied()).collect();
        if all.is_empty() { self.model.relay() } else { all[number % all.len()] }
    }

    fn is_live(&self, id: InstanceId) -> bool {
        self.model.instances.iter().any(|instance| instance.id == id && !instance.deferred)
    }

    fn step(&mut self, step: &Step) {
        let before = observe(self.manager, &[]);
        let failed = match step {
            Step::Register { parent, asks, irq } => self.register(*parent, asks, *irq),
            Step::Unregister(pick) => self.unregister(*pick, false),
            Step::Subtree(pick) => self.unregister(*pick, true),
            Step::Deferred(pick) => self.defer(*pick),
            Step::Collect => {
                assert_eq!(self.manager.collect(), 0);
                self.model.collect();
                false
            }
            Step::Relocate(moves) => self.relocate(moves),
            Step::Reserve(io_type, first, size) => self.reserve(*io_type, *first, *size),
            Step::Release(pick) => self.release(*pick),
        };
        let after = observe(self.manager, &[]);
        if failed {
            assert_eq!(before, after, "an error has changed something: {step:?}");
        }
        // The observation has read from them.
        self.recorders.iter().for_each(|recorder| recorder.calls.lock().clear());
        self.compare(&after);
    }

    fn register(&mut self, parent: usize, asks: &[Ask], irq: IrqResource) -> bool {
        let pending = self.model.instances.iter().any(|instance| instance.deferred);
        self.model.collect();
        let Some(recorder) =
            (0..self.recorders.len()).find(|n| self.model.instances.iter().all(|instance| instance.recorder != *n))
        else {
            return false;
        };
        let parent = if parent.is_multiple_of(3) { None } else { Some(self.pick(parent)) };
        let expected = self.expect(recorder, parent, asks, irq);
        let requests: Vec<_> = asks.iter().map(Ask::resource).collect();
        let device = &self.recorders[recorder];
        match (self.manager.register_device(device, parent, &requests, irq), expected) {
            (Ok(id), Some((places, irq))) => {
                assert!(!self.stale.contains(&id) && self.model.instances.iter().all(|instance| instance.id != id));
                let told = places.iter().map(assigned).collect::<Vec<_>>();
                assert_eq!(*device.assigned.lock(), told);
                self.model.instances.push(Instance { id, recorder, parent, places, irq, deferred: false });
                false
            }
            (Err(error), None) => {
                self.check_refusal(&error, parent);
                !pending
            }
            (got, expected) => panic!("{got:?} where the model has {expected:?}"),
        }
    }

    /// What the registration is to give.
    fn expect(&self, recorder: usize, parent: Option<InstanceId>, asks: &[Ask], irq: IrqResource) -> Option<Given> {
        let name = self.recorders[recorder].name();
        if parent.is_some_and(|parent| !self.is_live(parent)) || self.model.instances.len() == DEVICES {
            return None;
        }
        if self.model.children(parent).iter().any(|other| self.name(other) == name) {
            return None;
        }
        // The ranges one after the other, each with the ones before it in place, under an id that is nobody's parent.
        let mut model = self.model.clone();
        let mut places = Vec::new();
        let slots: usize = model.instances.iter().map(|instance| instance.places.len()).sum();
        if slots + asks.len() > RANGES {
            return None;
        }
        for ask in asks {
            let top = ask.io_type.last_address().0;
            let like = Place {
                io_type: ask.io_type,
                first: 0,
                last: 0,
                window: ask.window,
                decoded: ask.decoded,
                sizes: ask.sizes,
            };
            let place = match ask.place {
                Where::Fixed { first, size } => {
                    let first = address(ask.io_type, first);
                    let last = first.checked_add(size.checked_sub(1)?).filter(|last| *last <= top);
                    Some(Place { first, last: last?, ..like }).filter(|place| model.fits(place, parent))
                }
                Where::Wide { first, last } => {
                    let (first, last) = (address(ask.io_type, first), address(ask.io_type, last));
                    Some(Place { first, last, ..like }).filter(|place| model.fits(place, parent))
                }
                Where::Any { .. } => model.anywhere(ask, parent, like),
            }?;
            // What the device itself has taken so far is in the way as anybody else's, its windows too.
            model.reserved.push(place);
            places.push(place);
        }
        let taken: Vec<_> = self.model.instances.iter().filter_map(|instance| instance.irq).collect();
        let irq = match irq {
            IrqResource::None => None,
            IrqResource::Any => {
                let free = (5..=7).map(Gsi).find(|gsi| taken.iter().all(|(other, _)| other != gsi));
                Some((free?, false))
            }
            IrqResource::Fixed(gsi) | IrqResource::Shared(gsi) => {
                let shared = matches!(irq, IrqResource::Shared(_));
                let others: Vec<_> = taken.iter().filter(|(other, _)| *other == gsi).collect();
                let free = (5..=7).contains(&gsi.0) && others.iter().all(|(_, other)| shared && *other);
                if !free {
                    return None;
                }
                Some((gsi, shared))
            }
        };
        Some((places, irq))
    }

    fn name(&self, instance: &Instance) -> &'d str {
        if instance.recorder == usize::MAX { "relay" } else { self.recorders[instance.recorder].name() }
    }

    /// Whoever a refusal names is there.
    fn check_refusal(&self, error: &RegisterError<'_>, parent: Option<InstanceId>) {
        match *error {
            RegisterError::Range { refusal, .. } => self.check_range(refusal),
            RegisterError::IrqTaken { gsi, owner: Owner::Device { id, .. }, .. } => {
                assert_eq!(self.model.instance(id).irq.unwrap().0, gsi);
            }
            RegisterError::NameTaken { device, holder } => {
                let holder = self.model.instance(holder);
                assert_eq!((self.name(holder), holder.parent), (device, parent));
            }
            RegisterError::NoSuchParent { parent, .. } => assert!(!self.is_live(parent)),
            _ => {}
        }
    }

    fn check_range(&self, refusal: RangeRefusal<'_>) {
        let held = |range: IoRange, owner: Owner<'_>| {
            let id = if let Owner::Device { id, .. } = owner { Some(id) } else { None };
            let mut places = self.model.places();
            places
                .any(|(owner, _, place)| owner == id && (place.first, place.last) == (range.first().0, range.last().0))
        };
        match refusal {
            RangeRefusal::Overlap { wanted, taken, owner } => {
                assert!(wanted.overlaps(taken));
                // A registration may stand in its own way; then its place is nobody's in the model.
                assert!(held(taken, owner) || matches!(owner, Owner::Vmm | Owner::Device { .. }));
            }
            RangeRefusal::WindowInUse { inside, owner } => assert!(held(inside, owner)),
            _ => {}
        }
    }

    fn unregister(&mut self, pick: usize, subtree: bool) -> bool {
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
                self.model.remove(&ids);
            }
            Err(UnregisterError::NotFound { .. }) => assert!(!known),
            Err(UnregisterError::HasChildren { .. }) => assert!(!subtree && ids.len() > 1),
            Err(UnregisterError::Busy { .. }) => assert!(!live),
            Err(error) => panic!("{error}"),
        }
        got.is_err()
    }

    fn defer(&mut self, pick: usize) -> bool {
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

    fn relocate(&mut self, moves: &[Move]) -> bool {
        let mut relocations = Vec::new();
        // Which range, where to, and whether it is decoded then.
        let mut changes: Vec<(InstanceId, usize, Option<u64>, Option<bool>)> = Vec::new();
        for step in moves {
            let id = self.pick(step.device);
            if id == self.model.relay() {
                continue;
            }
            let Some(instance) = self.model.instances.iter().find(|instance| instance.id == id) else {
                changes.push((id, step.range, None, None));
                continue;
            };
            let index = if instance.places.is_empty() { 0 } else { step.range % (instance.places.len() + 1) };
            let Some(place) = instance.places.get(index) else {
                changes.push((id, index, None, None));
                continue;
            };
            let to = step.to.map(|cell| address(place.io_type, cell));
            if let (true, Some((other, other_index, _, _))) = (step.swap, changes.last().copied())
                && let Some(other_place) = self.place(other, other_index)
            {
                changes.last_mut().unwrap().2 = Some(place.first);
                changes.push((id, index, Some(other_place.first), step.decoded));
                continue;
            }
            changes.push((id, index, to, step.decoded));
            if let (true, true, Some(to)) = (step.with_contents, place.window, to) {
                for below in self.model.subtree(id) {
                    for (index, inside) in self.model.instance(below).places.iter().enumerate() {
                        if below != id && place.contains(inside) {
                            let offset = inside.first - place.first;
                            // The contents first, so that the order of the list is put to the test.
                            changes.insert(0, (below, index, Some(to.wrapping_add(offset)), None));
                        }
                    }
                }
            }
        }
        for (id, index, to, decoded) in &changes {
            let mut relocation = Relocation::new(*id, *index);
            if let Some(to) = to {
                relocation = relocation.to(GuestAddress(*to));
            }
            if let Some(decoded) = decoded {
                relocation = relocation.decoded(*decoded);
            }
            relocations.push(relocation);
        }
        let moved = self.moved(&changes);
        match (self.manager.relocate(&relocations), moved) {
            (Ok(()), Some(model)) => {
                self.model = model;
                false
            }
            (Err(error), None) => {
                if let RelocateError::Range { refusal: refusal @ RangeRefusal::WindowInUse { .. }, .. } = error {
                    self.check_range(refusal);
                }
                true
            }
            (got, model) => panic!("{got:?} for {changes:?}, where the model has {model:?} after {:?}", self.model),
        }
    }

    fn place(&self, id: InstanceId, index: usize) -> Option<&Place> {
        self.model.instances.iter().find(|instance| instance.id == id)?.places.get(index)
    }

    /// The model after the moves, if they are possible.
    fn moved(&self, changes: &[(InstanceId, usize, Option<u64>, Option<bool>)]) -> Option<Model> {
        let mut after = self.model.clone();
        let mut moved = Vec::new();
        for (position, (id, index, to, decoded)) in changes.iter().enumerate() {
            if !self.is_live(*id) || changes[..position].iter().any(|(a, b, ..)| (a, b) == (id, index)) {
                return None;
            }
            let instance = after.instances.iter_mut().find(|instance| instance.id == *id)?;
            let place = instance.places.get_mut(*index)?;
            place.decoded = decoded.unwrap_or(place.decoded);
            let to = to.unwrap_or(place.first);
            if to != place.first {
                moved.push((*id, *index));
            }
            let top = place.io_type.last_address().0;
            place.last = to.checked_add(place.last - place.first).filter(|last| *last <= top)?;
            place.first = to;
        }
        for (id, index) in &moved {
            let old = self.place(*id, *index)?;
            let new = after.instance(*id).places[*index];
            let above = after.above(after.instance(*id).parent);
            for (owner, other_index, other) in after.places() {
                let too = owner.is_some_and(|owner| moved.contains(&(owner, other_index)));
                if (owner, other_index) == (Some(*id), *index) {
                    continue;
                }
                let below = owner.is_some_and(|owner| owner != *id && after.above(Some(owner)).contains(id));
                // What stays while a window moves away from around it.
                if !too && old.window && below && old.contains(other) {
                    return None;
                }
                let outer = owner.is_some_and(|owner| above.contains(&owner)) && other.window && other.contains(&new);
                let inner = below && new.window && new.contains(other) && too;
                if new.overlaps(other) && !outer && !inner {
                    return None;
                }
            }
        }
        Some(after)
    }

    fn reserve(&mut self, io_type: IoType, first: u64, size: u64) -> bool {
        let first = address(io_type, first);
        let Some(last) = first.checked_add(size - 1) else { return false };
        let place = Place { io_type, first, last, window: false, decoded: false, sizes: AccessSizes::ANY };
        let possible = last <= io_type.last_address().0 && self.model.fits(&place, None);
        let got = self.manager.reserve(io_type, IoRange::new(GuestAddress(first), GuestAddress(last)).unwrap());
        assert_eq!(got.is_ok(), possible, "{got:?}");
        if possible {
            self.model.reserved.push(place);
        }
        !possible
    }

    fn release(&mut self, pick: usize) -> bool {
        // Sometimes what is a device's.
        let all: Vec<_> = self.model.places().map(|(owner, _, place)| (owner, *place)).collect();
        let (owner, place) = all[pick % all.len()];
        let range = IoRange::new(GuestAddress(place.first), GuestAddress(place.last)).unwrap();
        let got = self.manager.release(place.io_type, range);
        if owner.is_some() {
            let also = |other: &&Place| (other.first, other.last) == (place.first, place.last);
            let same_space = |other: &&Place| other.io_type.same_space(place.io_type);
            assert!(got.is_err() || self.model.reserved.iter().filter(same_space).any(|other| also(&other)));
            return true;
        }
        assert_eq!(got, Ok(()));
        let at = self.model.reserved.iter().position(|other| {
            other.io_type.same_space(place.io_type) && (other.first, other.last) == (place.first, place.last)
        });
        self.model.reserved.remove(at.unwrap());
        false
    }

    /// The manager and the model agree in all that can be seen.
    fn compare(&mut self, seen: &Observed<'_>) {
        let mut walk = Vec::new();
        self.walk(None, "", &mut walk);
        assert_eq!(seen.devices.len(), walk.len());
        for (seen, (id, path)) in seen.devices.iter().zip(walk) {
            let instance = self.model.instance(id);
            assert_eq!((seen.id, &seen.path, seen.parent), (id, &path, instance.parent));
            assert_eq!(seen.gsi, instance.irq.map(|(gsi, _)| gsi));
            assert_eq!(seen.ranges, instance.places.iter().map(assigned).collect::<Vec<_>>());
        }
        for (space, map) in [IoType::Pio, IoType::Mmio].into_iter().zip(&seen.maps) {
            let mut expected: Vec<_> = self
                .model
                .places()
                .filter(|(.., place)| place.io_type.same_space(space))
                .map(|(owner, index, place)| {
                    let around = self.model.places().filter(|(other, _, window)| {
                        let above = owner.map_or(vec![], |owner| self.model.above(self.model.instance(owner).parent));
                        window.window && window.contains(place) && other.is_some_and(|other| above.contains(&other))
                    });
                    (place.first, around.count(), owner, index, place.last, place.window)
                })
                .collect();
            expected.sort_unstable_by_key(|(first, depth, ..)| (*first, *depth));
            let got: Vec<_> = map
                .iter()
                .map(|mapped| {
                    let owner = if let Owner::Device { id, .. } = mapped.owner { Some(id) } else { None };
                    let range = mapped.assigned.range;
                    (range.first().0, mapped.depth, owner, mapped.range_index, range.last().0, mapped.window)
                })
                .collect();
            assert_eq!(got, expected);
        }
        for io_type in [IoType::Pio, IoType::Mmio, IoType::PhysicalMmio] {
            for cell in 0..2 * HALF + 2 {
                // Behind the last port there are addresses too; behind the last byte of memory there are none.
                if cell >= 2 * HALF && io_type != IoType::Pio {
                    continue;
                }
                let address = address(io_type, cell);
                let owner = self.model.owner(io_type, address);
                assert_eq!(self.manager.find_by_address(GuestAddress(address), io_type), owner, "{address:#x}");
                for length in 0..=9 {
                    self.accesses += 1;
                    let write = self.accesses.is_multiple_of(5);
                    let io = Io { io_type, address, write, element: 0, length };
                    self.make(io);
                    if io_type == IoType::Pio && length == 4 && address <= 0xffff {
                        for element in [1, 2, 4, 3] {
                            self.make(Io { element, length: 12, ..io });
                            self.make(Io { element, length: 7, ..io });
                        }
                    }
                }
            }
        }
    }

    fn walk(&self, parent: Option<InstanceId>, above: &str, into: &mut Vec<(InstanceId, String)>) {
        for child in self.model.children(parent) {
            let path = format!("{above}/{}", self.name(child));
            into.push((child.id, path.clone()));
            self.walk(Some(child.id), &path, into);
        }
    }

    /// Makes an access in one of the three ways, and compares what becomes of it.
    fn make(&mut self, io: Io) {
        let expected = self.model.access(io);
        let target = GuestAddress(io.address);
        let mut data = vec![0x55; io.length];
        let outcome = match self.accesses % 3 {
            0 => match (io.element, io.write) {
                (0, false) => self.manager.read(target, &mut data, io.io_type),
                (0, true) => self.manager.write(target, &data, io.io_type),
                (element, false) => self.manager.read_string(io.address as u16, element, &mut data),
                (element, true) => self.manager.write_string(io.address as u16, element, &data),
            },
            1 => match (io.element, io.write) {
                (0, false) => self.vcpu.read(target, &mut data, io.io_type),
                (0, true) => self.vcpu.write(target, &data, io.io_type),
                (element, false) => self.vcpu.read_string(io.address as u16, element, &mut data),
                (element, true) => self.vcpu.write_string(io.address as u16, element, &data),
            },
            _ => {
                *self.relay.order.lock() = Some(io);
                // Not always by the handle, whose last hit the access takes away.
                match self.accesses % 4 {
                    0 => self.vcpu.write(GuestAddress(0x8000), &[0], IoType::Pio).unwrap(),
                    _ => self.manager.write(GuestAddress(0x8000), &[0], IoType::Pio).unwrap(),
                }
                let (outcome, seen) = self.relay.outcome.lock().clone();
                data = seen;
                outcome
            }
        };
        let (outcome_expected, called) = match expected {
            Ok((recorder, calls)) => (Ok(()), Some((recorder, calls))),
            Err(error) => (Err(error), None),
        };
        assert_eq!(outcome, outcome_expected, "{io:x?}");
        let mut bytes = vec![0xff; io.length];
        for (number, recorder) in self.recorders.iter().enumerate() {
            let had = std::mem::take(&mut *recorder.calls.lock());
            let calls = called.iter().filter(|(recorder, _)| *recorder == number).flat_map(|(_, calls)| calls);
            assert!(had.iter().eq(calls), "{io:x?} reached {number} with {had:x?}");
            if !had.is_empty() {
                bytes = had.iter().flat_map(|call| (0..call.length as u8).map(|i| number as u8 * 16 + i)).collect();
            }
        }
        assert!(io.write || data == bytes, "{io:x?} gave {data:x?}, not {bytes:x?}");
    }
}

fn assigned(place: &Place) -> Assigned {
    let range = IoRange::new(GuestAddress(place.first), GuestAddress(place.last)).unwrap();
    Assigned { io_type: place.io_type, range, decoded: place.decoded }
}

fn run(steps: &[Step]) {
    let manager: Manager<'_> =
        DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 7));
    let recorders: Vec<Recorder> = (0..DEVICES as u8)
        .map(|number| Recorder { number, calls: Mutex::default(), assigned: Mutex::default() })
        .collect();
    let relay = Relay { manager: &manager, order: Mutex::new(None), outcome: Mutex::new((Ok(()), Vec::new())) };
    let id = manager.register_device(&relay, None, &[RELAY], IrqResource::None).unwrap();
    let place = Place {
        io_type: IoType::Pio,
        first: 0x8000,
        last: 0x8000,
        window: false,
        decoded: true,
        sizes: AccessSizes::ANY,
    };
    let instance = Instance { id, recorder: usize::MAX, parent: None, places: vec![place], irq: None, deferred: false };
    let mut run = Run {
        manager: &manager,
        recorders: &recorders,
        relay: &relay,
        vcpu: manager.dispatcher().unwrap(),
        model: Model { instances: vec![instance], reserved: vec![] },
        stale: vec![],
        accesses: 0,
    };
    for step in steps {
        run.step(step);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_manager_does_what_the_model_does(steps in prop::collection::vec(step(), 1..24)) {
        run(&steps);
    }
}
