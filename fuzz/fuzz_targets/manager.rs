//! Random registrations, removals, changes of ranges and accesses against plain rules: which range answers an access, where a
//! range may lie, and that what waits cannot have its place.

#![no_main]

#[path = "../../tests/fixture/mod.rs"]
mod fixture;

use arbitrary::Arbitrary;
use fixture::{Call, Recorder, manager, nth_name};
use libfuzzer_sys::fuzz_target;
use vm_device::{
    AccessSizes, DeviceManager, Dispatcher, GuestAddress, GuestUsize, InstanceId, IoError, IoRange, IoResource, IoType,
    IrqResource, RangeState, Relocation, SystemAllocator,
};

/// Each space is this large: the ports from 0 on, memory up to the last byte of the 64-bit space.
const SIZE: u64 = 64;
const DEVICES: usize = 6;

#[derive(Arbitrary, Debug)]
enum Act {
    Register { name: u8, parent: u8, requests: Vec<Request> },
    Unregister { victim: u8, subtree: bool, deferred: bool },
    Relocate { moves: Vec<Move> },
    Access { memory: bool, offset: u8, length: u8, write: bool },
    String { port: u8, element: u8, count: u8, write: bool },
}

#[derive(Arbitrary, Debug)]
struct Request {
    memory: bool,
    fixed: bool,
    offset: u8,
    size: u8,
    align: u8,
    window: bool,
    state: State,
    dwords: bool,
}

#[derive(Arbitrary, Debug)]
struct Move {
    device: u8,
    index: u8,
    to: Option<u8>,
    size: Option<u8>,
    state: Option<State>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum State {
    Decoded,
    Reserved,
    Unplaced,
    Waiting,
}

fn base(memory: bool) -> u64 {
    if memory { u64::MAX - (SIZE - 1) } else { 0 }
}

fn space(memory: bool) -> IoType {
    if memory { IoType::Mmio } else { IoType::Pio }
}

/// A registered device, as the model knows it.
struct Known {
    id: InstanceId,
    name: usize,
    parent: Option<InstanceId>,
    /// Which of its ranges are windows.
    windows: Vec<bool>,
    ranges: Vec<KnownRange>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct KnownRange {
    memory: bool,
    first: u64,
    last: u64,
    window: bool,
    state: RangeState,
    /// How many windows are around its place.
    depth: usize,
}

impl KnownRange {
    fn holds(&self, other: &Self) -> bool {
        self.memory == other.memory && self.first <= other.first && other.last <= self.last
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.memory == other.memory && self.first <= other.last && other.first <= self.last
    }
}

/// Which device and which of its ranges answers an access: of the decoded ranges that hold it, the innermost.
fn owner(known: &[Known], memory: bool, first: u64, last: u64) -> Option<(usize, usize)> {
    let mut found: Option<(usize, usize, usize)> = None;
    for (device, entry) in known.iter().enumerate() {
        for (index, range) in entry.ranges.iter().enumerate() {
            let is_reached = range.memory == memory && range.state == RangeState::Decoded;
            let holds = [first, last].iter().all(|address| (range.first..=range.last).contains(address));
            if is_reached && holds && found.is_none_or(|(_, _, depth)| depth < range.depth) {
                found = Some((device, index, range.depth));
            }
        }
    }
    found.map(|(device, index, _)| (device, index))
}

fuzz_target!(|acts: Vec<Act>| {
    let recorders: Vec<_> = (0..DEVICES).map(|number| Recorder::new(nth_name(number), 0)).collect();
    let pool = |memory| IoRange::with_size(GuestAddress(base(memory)), GuestUsize(SIZE)).unwrap();
    manager!(let manager: <5, 12, 1> = SystemAllocator::new(pool(true)).with_ports(pool(false)).with_irqs(0, 3));
    let mut vcpu = manager.dispatcher(0).unwrap();
    let mut known: Vec<Known> = Vec::new();
    // The ids that are gone.
    let mut stale: Vec<InstanceId> = Vec::new();

    for act in acts.into_iter().take(64) {
        match act {
            Act::Register { name, parent, requests } => {
                let number = name as usize % DEVICES;
                let parent = known.get(parent as usize % (known.len() + 1)).map(|parent| parent.id);
                let windows = requests.iter().take(4).map(|request| request.window).collect();
                let requests: Vec<_> = requests.iter().take(4).map(resource).collect();
                let result = manager.register_device(&recorders[number], parent, &requests, &[IrqResource::Any]);
                if let Ok(id) = result {
                    assert!(!known.iter().any(|known| known.id == id) && !stale.contains(&id), "an id came twice");
                    known.push(Known { id, name: number, parent, windows, ranges: Vec::new() });
                }
            }
            Act::Unregister { victim, subtree, deferred } => {
                if known.is_empty() {
                    continue;
                }
                let victim = victim as usize % known.len();
                let id = known[victim].id;
                let children = known.iter().any(|known| known.parent == Some(id));
                if subtree {
                    manager.unregister_subtree(id).unwrap();
                } else {
                    let result =
                        if deferred { manager.unregister_device_deferred(id) } else { manager.unregister_device(id) };
                    assert_eq!(result.is_ok(), !children);
                    if deferred {
                        assert_eq!(manager.collect(), 0, "no access is under way");
                    }
                    if children {
                        continue;
                    }
                }
                let mut gone = vec![id];
                while let Some(at) = known.iter().position(|known| {
                    gone.contains(&known.id) || known.parent.is_some_and(|parent| gone.contains(&parent))
                }) {
                    let removed = known.swap_remove(at);
                    gone.push(removed.id);
                    stale.push(removed.id);
                }
            }
            Act::Relocate { moves } => {
                if known.is_empty() {
                    continue;
                }
                let mut moves: Vec<_> = moves
                    .iter()
                    .take(4)
                    .map(|step| {
                        let device = &known[step.device as usize % known.len()];
                        let index = step.index as usize % (device.ranges.len() + 1);
                        let memory = device.ranges.get(index).is_some_and(|range| range.memory);
                        let mut relocation = Relocation::new(device.id, index);
                        if let Some(to) = step.to {
                            relocation = relocation.to(GuestAddress(base(memory).wrapping_add(to as u64 % (SIZE + 2))));
                        }
                        if let Some(size) = step.size {
                            relocation = relocation.resized(GuestUsize(size as u64 % 24));
                        }
                        match step.state {
                            None => relocation,
                            Some(State::Decoded) => relocation.decoded(),
                            Some(State::Reserved) => relocation.reserved(),
                            Some(State::Unplaced) => relocation.unplaced(),
                            Some(State::Waiting) => relocation.waiting(),
                        }
                    })
                    .collect();
                let before: Vec<_> = known.iter().map(|known| known.ranges.clone()).collect();
                let result = manager.relocate(&mut moves);
                refresh(&manager, &mut known);
                if result.is_err() {
                    assert!(
                        known.iter().map(|known| &known.ranges).eq(before.iter()),
                        "a refused move changed something"
                    );
                }
            }
            Act::Access { memory, offset, length, write } => {
                let address = base(memory).wrapping_add(offset as u64 % SIZE);
                access(&mut vcpu, &known, &recorders, memory, address, length as usize % 17, write);
            }
            Act::String { port, element, count, write } => {
                string(
                    &mut vcpu,
                    &known,
                    &recorders,
                    port as u64 % SIZE,
                    element as usize % 6,
                    count as usize % 9,
                    write,
                );
            }
        }
        refresh(&manager, &mut known);
        for id in &stale {
            assert!(manager.device(*id).is_none() && manager.unregister_device(*id).is_err(), "a stale id is alive");
        }
        check(&manager, &mut vcpu, &known, &recorders);
    }
});

fn resource(request: &Request) -> IoResource {
    let io_type = space(request.memory);
    let size = GuestUsize(request.size as u64 % 24);
    let mut resource = if request.fixed {
        let first = base(request.memory).wrapping_add(request.offset as u64 % (SIZE + 4));
        IoResource::fixed(io_type, GuestAddress(first), size)
    } else {
        IoResource::any(io_type, size).aligned(1 << (request.align % 5))
    };
    if request.align & 0x80 != 0 {
        resource = resource.last_fit();
    }
    if request.window {
        resource = resource.window();
    }
    resource = match request.state {
        State::Decoded => resource,
        State::Reserved => resource.reserved(),
        State::Unplaced => resource.unplaced(),
        State::Waiting => resource.waiting(),
    };
    if request.dwords {
        resource = resource.sizes(AccessSizes::DWORD);
    }
    resource
}

type Vcpu<'d> = Dispatcher<'d>;

/// Takes the ranges from the address map, and checks that they are disjoint or nested along the tree, that each lies where it
/// may, and that no range waits whose place is free.
fn refresh<'d>(manager: &DeviceManager<'d>, known: &mut [Known]) {
    for device in known.iter_mut() {
        device.ranges.clear();
        while let Some(assigned) = manager.range(device.id, device.ranges.len()) {
            device.ranges.push(KnownRange {
                memory: assigned.io_type == IoType::Mmio,
                first: assigned.range.first().0,
                last: assigned.range.last().0,
                window: device.windows[device.ranges.len()],
                state: assigned.state,
                depth: 0,
            });
        }
    }
    for memory in [false, true] {
        for mapped in manager.address_map(space(memory)) {
            let vm_device::Owner::Device { id, .. } = mapped.owner else { panic!("the VMM has reserved nothing") };
            let device = known.iter_mut().find(|known| known.id == id).expect("the map names a device that is gone");
            let range = &mut device.ranges[mapped.range_index];
            assert_eq!((range.first, range.last), (mapped.assigned.range.first().0, mapped.assigned.range.last().0));
            assert!(range.state.is_placed() && range.state == mapped.assigned.state && range.window == mapped.window);
            range.depth = mapped.depth;
        }
    }
    let maps: usize = [false, true].map(|memory| manager.address_map(space(memory)).count()).iter().sum();
    let all = known.iter().flat_map(|device| device.ranges.iter().map(move |range| (device, *range)));
    let flat: Vec<_> =
        all.clone().filter(|(_, range)| range.state.is_placed()).map(|(device, range)| (device.id, range)).collect();
    assert_eq!(flat.len(), maps, "a range that the map has is not placed, or the other way round");
    for (device, range) in all {
        let decoded = range.state != RangeState::Reserved;
        let windows = windows(known, device, &range, decoded);
        let is_in_window = windows.as_ref().is_none_or(|windows| windows.iter().any(|window| window.holds(&range)));
        match range.state {
            RangeState::Unplaced => assert_eq!(range.first, 0),
            // A range that waits to be reserved may wait for less than this one: a window that is decoded will do.
            RangeState::Waiting => assert!(
                !is_in_window || !is_in_pool(&range) || is_taken(known, device, &range),
                "{range:?} waits, and its place is free"
            ),
            _ => assert!(is_in_window && is_in_pool(&range), "{range:?} lies outside of the windows above it"),
        }
    }
    for (a, outer) in flat.iter().enumerate() {
        for (b, inner) in flat.iter().enumerate() {
            if a == b || !outer.1.overlaps(&inner.1) || outer.1.depth > inner.1.depth {
                continue;
            }
            assert!(outer.1.depth < inner.1.depth, "two ranges of one depth overlap");
            assert!(outer.1.window && outer.1.holds(&inner.1), "not nested");
            let mut at = known.iter().find(|known| known.id == inner.0).and_then(|known| known.parent);
            while at != Some(outer.0) {
                let id = at.expect("a range lies in the window of a bus that is not above it");
                at = known.iter().find(|known| known.id == id).and_then(|known| known.parent);
            }
        }
    }
}

fn is_in_pool(range: &KnownRange) -> bool {
    range.first >= base(range.memory) && range.last - base(range.memory) < SIZE
}

/// The devices above this one, the nearest first.
fn above<'k>(known: &'k [Known], device: &Known) -> Vec<&'k Known> {
    let find = |id: Option<InstanceId>| known.iter().find(|known| Some(known.id) == id);
    std::iter::successors(find(device.parent), |bus| find(bus.parent)).collect()
}

/// The windows that a range of `device` has to lie in one of; `None` if no bus above has a window for the space.
fn windows<'k>(known: &'k [Known], device: &Known, range: &KnownRange, decoded: bool) -> Option<Vec<&'k KnownRange>> {
    let windows = |bus: &'k Known| bus.ranges.iter().filter(|window| window.window && window.memory == range.memory);
    let bus = above(known, device).into_iter().find(|bus| windows(bus).next().is_some())?;
    let serves = |window: &&KnownRange| window.state.is_placed() && (window.state == RangeState::Decoded || !decoded);
    Some(windows(bus).filter(serves).collect())
}

/// Whether anything but windows above it is in the way of a range.
fn is_taken(known: &[Known], device: &Known, wanted: &KnownRange) -> bool {
    let above = above(known, device);
    known.iter().any(|other| {
        let is_above = above.iter().any(|bus| bus.id == other.id);
        let placed = other.ranges.iter().filter(|range| range.state.is_placed() && range.overlaps(wanted));
        placed.into_iter().any(|range| !(is_above && range.window && range.holds(wanted)))
    })
}

fn check<'d>(manager: &'d DeviceManager<'d>, vcpu: &mut Vcpu<'d>, known: &[Known], recorders: &[Recorder]) {
    assert_eq!(manager.walk().count(), known.len());
    for memory in [false, true] {
        for offset in 0..SIZE {
            access(vcpu, known, recorders, memory, base(memory) + offset, 4, offset % 2 == 0);
        }
    }
}

fn access(
    vcpu: &mut Vcpu<'_>,
    known: &[Known],
    recorders: &[Recorder],
    memory: bool,
    address: u64,
    length: usize,
    write: bool,
) {
    let mut data = vec![0; length];
    let result = if write {
        vcpu.write(GuestAddress(address), &data, space(memory))
    } else {
        vcpu.read(GuestAddress(address), &mut data, space(memory))
    };
    let expected = expect(known, memory, address, length);
    let read = if write { None } else { Some(&*data) };
    compare(known, recorders, Asked { memory, address, length, count: 1, read }, result, expected);
}

fn string(
    vcpu: &mut Vcpu<'_>,
    known: &[Known],
    recorders: &[Recorder],
    port: u64,
    element: usize,
    count: usize,
    write: bool,
) {
    let mut data = vec![0; element * count];
    let result = if write {
        vcpu.write_string(port as u16, element, &data)
    } else {
        vcpu.read_string(port as u16, element, &mut data)
    };
    let expected = if count == 0 { Err(IoError::InvalidLength) } else { expect(known, false, port, element) };
    let read = if write { None } else { Some(&*data) };
    compare(known, recorders, Asked { memory: false, address: port, length: element, count, read }, result, expected);
}

/// What is to come of an access to a device that accepts every size.
fn expect(known: &[Known], memory: bool, address: u64, length: usize) -> Result<(usize, usize), IoError> {
    if length == 0 {
        return Err(IoError::InvalidLength);
    }
    let top = if memory { u64::MAX } else { 0xffff };
    let Some(last) = address.checked_add(length as u64 - 1).filter(|last| *last <= top) else {
        return Err(IoError::Straddling);
    };
    let is_touched = (address..=last).any(|byte| owner(known, memory, byte, byte).is_some());
    owner(known, memory, address, last).ok_or(if is_touched { IoError::Straddling } else { IoError::Unclaimed })
}

/// What was asked of the manager: as many accesses as `count` says, of `length` bytes each, and what they read.
struct Asked<'a> {
    memory: bool,
    address: u64,
    length: usize,
    count: usize,
    read: Option<&'a [u8]>,
}

fn compare(
    known: &[Known],
    recorders: &[Recorder],
    asked: Asked<'_>,
    result: Result<(), IoError>,
    expected: Result<(usize, usize), IoError>,
) {
    let Asked { memory, address, length, count, read } = asked;
    let seen: Vec<_> = recorders.iter().map(Recorder::take).collect();
    let no_other_than =
        |number: usize| seen.iter().enumerate().all(|(other, calls)| other == number || calls.is_empty());
    match (result, expected) {
        (Ok(()), Ok((device, index))) => {
            let (name, range) = (known[device].name, known[device].ranges[index]);
            assert_eq!(range.memory, memory);
            let call = Call { write: read.is_none(), range_index: index, address, base: range.first, length };
            assert_eq!(seen[name], vec![call; count]);
            assert!(no_other_than(name), "another device was reached besides");
            assert!(read.is_none_or(|read| read == recorders[name].answers(&seen[name])));
        }
        // A device that accepts only some sizes is not in the model: its refusal shows as open bus.
        (Err(IoError::RefusedSize), Ok(_)) => assert!(length != 4 && no_other_than(usize::MAX)),
        (Err(error), Err(expected)) => {
            assert_eq!(error, expected);
            assert!(no_other_than(usize::MAX), "a failed access reached a device");
        }
        (result, expected) => panic!("{result:?} at {address:#x} for {length}, not {expected:?}"),
    }
    if let (Err(_), Some(read)) = (result, read) {
        assert!(read.iter().all(|byte| *byte == 0xff));
    }
}
