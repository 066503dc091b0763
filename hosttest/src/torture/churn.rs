//! The changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use vm_device::{
    GuestAddress, HeavyBarrier, InstanceId, IoRange, IoResource, IoType, IrqResource, Relocation, SystemAllocator,
    UnregisterError,
};

use super::Manager;
use super::oracle::{Claim, Place};
use super::probe::Probe;
use super::random::Random;
use super::report::{Report, Round, Rounds, Violation, Violations};
use super::waits::Waits;

/// Two places each for groups of three devices.
const HOT_PLUG_MEMORY: u64 = 0xd000_0000;
const HOT_PLUG_PORTS: u64 = 0x2000;
/// Groups in memory, and in ports.
const MEMORY_GROUPS: u64 = 4;
const PORT_GROUPS: u64 = 2;
/// The eject register, which is always there: as wide as the widest access.
const EJECT: u64 = 0x3000;
/// A range of 0x100 bytes that shifts to and fro by 0x40.
const SLIDER: u64 = 0xd010_0000;
const SLIDE: u64 = 0x40;
const SLIDER_SIZE: u64 = 0x100;
/// Two places for a bus window, with two children's ranges in it.
const WINDOWS: [u64; 2] = [0xd020_0000, 0xd030_0000];
const WINDOW_SIZE: u64 = 0x3000;
const CHILDREN: [u64; 2] = [0x1000, 0x2000];
const CHILD_SIZE: u64 = 0x100;

/// Everything that the threads of a run share.
pub(crate) struct World<'d> {
    pub(crate) manager: Manager<'d>,
    pub(crate) probes: Vec<Probe<'d>>,
    pub(crate) places: Vec<Place>,
    groups: Vec<Mutex<Group>>,
    /// How long most callbacks take at most: less than 2 to this power steps of [`stay_for`](super::probe::stay_for).
    pub(crate) stays: u64,
    pub(crate) violations: Violations,
    pub(crate) rounds: Rounds,
    pub(crate) gave_up: AtomicU64,
    pub(crate) removals: Mutex<Waits>,
}

/// Devices and places that change among themselves. One thread at a time does so.
enum Group {
    HotPlug(HotPlug),
    Slider(Slider),
    Bus(Bus),
    ComeAndGo(ComeAndGo),
}

/// Who changes the topology.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// A thread of its own.
    Writer,
    /// A callback, which must not wait for another.
    Callback,
}

impl<'d> World<'d> {
    /// Without devices and places.
    fn empty(barrier: Option<HeavyBarrier>) -> Self {
        let manager = Manager::new(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
        Self {
            manager: match barrier {
                Some(barrier) => manager.with_asymmetric_fence(barrier),
                None => manager,
            },
            probes: Vec::new(),
            places: Vec::new(),
            groups: Vec::new(),
            stays: 9,
            violations: Violations::default(),
            rounds: Rounds::default(),
            gave_up: AtomicU64::new(0),
            removals: Mutex::default(),
        }
    }

    /// Groups of every kind.
    pub(crate) fn new(barrier: Option<HeavyBarrier>) -> Self {
        let mut world = Self::empty(barrier);
        for group in 0..MEMORY_GROUPS {
            let base = HOT_PLUG_MEMORY + group * 0x1_0000;
            world.add_hot_plug(IoType::Mmio, [base, base + 0x1000], 0x100);
        }
        for group in 0..PORT_GROUPS {
            let base = HOT_PLUG_PORTS + group * 0x100;
            world.add_hot_plug(IoType::Pio, [base, base + 0x10], 0x10);
        }
        world.add_slider();
        world.add_bus();
        world.add_eject();
        world
    }

    /// One device at one place, which comes and goes. Some of its callbacks take longer than a removal, so that
    /// one which does not wait returns before they do.
    pub(crate) fn with_one_device(barrier: Option<HeavyBarrier>) -> Self {
        let mut world = Self { stays: 14, ..Self::empty(barrier) };
        let place = world.add_place(Place::new(IoType::Mmio, HOT_PLUG_MEMORY, 0x100));
        let device = world.add_probe();
        world.groups.push(Mutex::new(Group::ComeAndGo(ComeAndGo { place, device, id: None, stays: false })));
        world
    }

    fn add_probe(&mut self) -> usize {
        self.probes.push(Probe::new(self.probes.len() as u8));
        self.probes.len() - 1
    }

    fn add_place(&mut self, place: Place) -> usize {
        self.places.push(place);
        self.places.len() - 1
    }

    fn add_hot_plug(&mut self, io_type: IoType, bases: [u64; 2], length: u64) {
        let places = bases.map(|base| self.add_place(Place::new(io_type, base, length)));
        let devices = [(); 3].map(|()| (self.add_probe(), State::Absent));
        self.groups.push(Mutex::new(Group::HotPlug(HotPlug { places, devices })));
    }

    fn add_slider(&mut self) {
        let [low, middle, high] = [(0, SLIDE), (SLIDE, SLIDER_SIZE), (SLIDER_SIZE, SLIDER_SIZE + SLIDE)]
            .map(|(first, end)| Place::new(IoType::Mmio, SLIDER + first, end - first));
        let places = [low.moving(), middle.moving(), high.moving()].map(|place| self.add_place(place));
        let device = self.add_probe();
        self.groups.push(Mutex::new(Group::Slider(Slider { places, device, id: None, base: SLIDER })));
    }

    fn add_bus(&mut self) {
        let places = WINDOWS.map(|window| {
            let [a, b] = CHILDREN;
            [(0, a), (a, CHILD_SIZE), (b, CHILD_SIZE)]
                .map(|(offset, length)| self.add_place(Place::new(IoType::Mmio, window + offset, length)))
        });
        let devices = [(); 3].map(|()| self.add_probe());
        self.groups.push(Mutex::new(Group::Bus(Bus { places, devices, ids: [None; 3], at: 0 })));
    }

    fn add_eject(&mut self) {
        let probe = Probe::new(self.probes.len() as u8).that_ejects();
        self.probes.push(probe);
        let place = self.add_place(Place::new(IoType::Pio, EJECT, 8));
        let device = self.probes.len() - 1;
        self.groups.push(Mutex::new(Group::ComeAndGo(ComeAndGo { place, device, id: None, stays: true })));
    }

    /// Tells the devices where they are.
    pub(crate) fn start(&'d self) {
        for probe in &self.probes {
            let _ = probe.world.set(self);
        }
    }

    /// Removes, deferred, a device that another processor may be using, unless somebody else is at it.
    pub(crate) fn eject(&'d self, random: &mut Random) {
        let group = random.below(self.groups.len());
        if let Ok(mut group) = self.groups[group].try_lock()
            && let Group::HotPlug(group) = &mut *group
            && let Some(device) = group.devices.iter().position(|(_, state)| matches!(state, State::Plugged { .. }))
        {
            group.defer(self, device, Round::Ejected);
        }
    }

    /// When all threads have ended: whether everything adds up, and the counts so far.
    pub(crate) fn settle(&'d self, report: &mut Report) {
        let calls: u64 = self.probes.iter().map(Probe::calls).sum();
        if calls != report.answered || report.accesses + report.nested != report.answered + report.refused {
            self.violations.note(Violation::Unaccounted);
        }
        if self.manager.collect() != 0 {
            self.refused();
        }
        report.rounds = self.rounds.copy();
        report.violations = self.violations.copy();
        report.gave_up = self.gave_up.load(Ordering::Relaxed);
        report.removal = lock(&self.removals).clone();
    }

    /// Makes one change from a thread of its own.
    pub(crate) fn change(&'d self, random: &mut Random) {
        let group = random.below(self.groups.len());
        self.step(&mut lock(&self.groups[group]), Caller::Writer, random);
    }

    /// Makes one change from within a callback, unless somebody else is at it.
    pub(crate) fn change_from_callback(&'d self, random: &mut Random) {
        let group = random.below(self.groups.len());
        if let Ok(mut group) = self.groups[group].try_lock() {
            self.step(&mut group, Caller::Callback, random);
        }
    }

    fn step(&'d self, group: &mut Group, caller: Caller, random: &mut Random) {
        match group {
            Group::HotPlug(group) => group.step(self, caller, random),
            Group::Slider(group) => group.step(self),
            Group::Bus(group) => group.step(self, caller, random),
            Group::ComeAndGo(group) if caller == Caller::Writer => group.step(self, random),
            Group::ComeAndGo(_) => {}
        }
    }

    /// Makes a change that gives places new claims. Whether it was made.
    fn claim(&self, round: Round, claims: &[(usize, Claim)], change: impl FnOnce() -> bool) -> bool {
        claims.iter().for_each(|(place, claim)| self.places[*place].begin(*claim));
        let done = change();
        claims.iter().for_each(|(place, _)| self.places[*place].end(done));
        if done {
            self.rounds.note(round);
        }
        done
    }

    fn register(&'d self, device: usize, parent: Option<InstanceId>, request: IoResource) -> Option<InstanceId> {
        let probe = &self.probes[device];
        probe.next_generation();
        let id = self.manager.register_device(probe, parent, &[request], IrqResource::None);
        if id.is_err() {
            probe.next_generation();
        }
        id.ok()
    }

    /// Removes, and waits for it. Whether it was done, rather than given up.
    fn remove(&'d self, devices: &[usize], remove: impl FnOnce() -> Result<(), UnregisterError<'d>>) -> bool {
        let start = Instant::now();
        let result = remove();
        let time = start.elapsed();
        match result {
            Ok(()) => {
                devices.iter().for_each(|device| self.probes[*device].next_generation());
                lock(&self.removals).note(time);
                true
            }
            Err(UnregisterError::InUse { .. }) => {
                self.gave_up.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(_) => self.refused(),
        }
    }

    fn relocate(&self, relocations: &[Relocation], may_fail: bool) -> bool {
        self.manager.relocate(relocations).is_ok() || !may_fail && self.refused()
    }

    fn refused(&self) -> bool {
        self.violations.note(Violation::Refused);
        false
    }
}

/// Panics of other threads end the run; what they left is of no interest.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Three devices that take turns at two places.
struct HotPlug {
    places: [usize; 2],
    devices: [(usize, State); 3],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Plugged {
        id: InstanceId,
        place: usize,
        decoded: bool,
    },
    /// Removed, but perhaps with callbacks running.
    Deferred {
        id: InstanceId,
        place: usize,
    },
}

impl State {
    fn is_plugged_at(self, place: usize) -> bool {
        matches!(self, State::Plugged { place: at, .. } if at == place)
    }

    /// Whether it may still take the place.
    fn lingers_at(self, place: usize) -> bool {
        matches!(self, State::Deferred { place: at, .. } if at == place)
    }
}

impl HotPlug {
    fn step<'d>(&mut self, world: &'d World<'d>, caller: Caller, random: &mut Random) {
        self.collect(world);
        let place = self.places[random.below(2)];
        match self.devices.iter().position(|(_, state)| state.is_plugged_at(place)) {
            Some(device) => self.change(world, caller, random, device),
            None => self.plug(world, random, place),
        }
    }

    /// Frees the devices whose deferred removal has ended.
    fn collect(&mut self, world: &World<'_>) {
        for (device, state) in &mut self.devices {
            if let State::Deferred { id, .. } = *state
                && world.manager.device(id).is_none()
            {
                world.probes[*device].next_generation();
                *state = State::Absent;
            }
        }
    }

    fn plug<'d>(&mut self, world: &'d World<'d>, random: &mut Random, place: usize) {
        let may_fail = self.devices.iter().any(|(_, state)| state.lingers_at(place));
        let first = random.below(3);
        let Some(index) = (0..3).map(|n| (first + n) % 3).find(|n| self.devices[*n].1 == State::Absent) else {
            return;
        };
        let (device, state) = &mut self.devices[index];
        let Place { io_type, base, length, .. } = world.places[place];
        let request = IoResource::fixed(io_type, base.into(), length.into());
        world.claim(Round::Registered, &[(place, Claim::of(*device as u8, base))], || {
            match world.register(*device, None, request) {
                Some(id) => *state = State::Plugged { id, place, decoded: true },
                None => return !may_fail && world.refused(),
            }
            true
        });
    }

    fn defer<'d>(&mut self, world: &'d World<'d>, index: usize, round: Round) {
        let State::Plugged { id, place, .. } = self.devices[index].1 else { return };
        if world.claim(round, &[(place, Claim::NOBODY)], || {
            world.manager.unregister_device_deferred(id).is_ok() || world.refused()
        }) {
            self.devices[index].1 = State::Deferred { id, place };
        }
    }

    fn change<'d>(&mut self, world: &'d World<'d>, caller: Caller, random: &mut Random, index: usize) {
        let (device, state) = self.devices[index];
        let State::Plugged { id, place, decoded } = state else { return };
        let other = if place == self.places[0] { self.places[1] } else { self.places[0] };
        let claim_of = |device: usize, place: usize, decoded: bool| match decoded {
            true => Claim::of(device as u8, world.places[place].base),
            false => Claim::NOBODY,
        };
        let base = |place: usize| GuestAddress(world.places[place].base);
        let nobody = [(place, Claim::NOBODY)];
        match random.below(8) {
            0..=2 if caller == Caller::Writer => {
                if world
                    .claim(Round::Removed, &nobody, || world.remove(&[device], || world.manager.unregister_device(id)))
                {
                    self.devices[index].1 = State::Absent;
                }
            }
            0..=3 => {
                self.defer(world, index, Round::Deferred);
                world.manager.collect();
            }
            4 => {
                let claims = [(place, claim_of(device, place, !decoded))];
                if world.claim(Round::Decoding, &claims, || {
                    world.relocate(&[Relocation::new(id, 0).decoded(!decoded)], false)
                }) {
                    self.devices[index].1 = State::Plugged { id, place, decoded: !decoded };
                }
            }
            _ => match self.devices.iter().position(|(_, state)| state.is_plugged_at(other)) {
                None => {
                    let may_fail = self.devices.iter().any(|(_, state)| state.lingers_at(other));
                    let claims = [(place, Claim::NOBODY), (other, claim_of(device, other, decoded))];
                    if world.claim(Round::Moved, &claims, || {
                        world.relocate(&[Relocation::new(id, 0).to(base(other))], may_fail)
                    }) {
                        self.devices[index].1 = State::Plugged { id, place: other, decoded };
                    }
                }
                Some(partner) => {
                    let (its_device, State::Plugged { id: its_id, decoded: its_decoded, .. }) = self.devices[partner]
                    else {
                        return;
                    };
                    let claims =
                        [(place, claim_of(its_device, place, its_decoded)), (other, claim_of(device, other, decoded))];
                    let swap = [Relocation::new(id, 0).to(base(other)), Relocation::new(its_id, 0).to(base(place))];
                    if world.claim(Round::Swapped, &claims, || world.relocate(&swap, false)) {
                        self.devices[index].1 = State::Plugged { id, place: other, decoded };
                        self.devices[partner].1 = State::Plugged { id: its_id, place, decoded: its_decoded };
                    }
                }
            },
        }
    }
}

/// A device that is registered and removed, in both ways, and nothing else.
struct ComeAndGo {
    place: usize,
    device: usize,
    id: Option<InstanceId>,
    /// It only comes.
    stays: bool,
}

impl ComeAndGo {
    fn step<'d>(&mut self, world: &'d World<'d>, random: &mut Random) {
        let Place { io_type, base, length, .. } = world.places[self.place];
        let Some(id) = self.id else {
            let claims = [(self.place, Claim::of(self.device as u8, base))];
            world.claim(Round::Registered, &claims, || {
                self.id = world.register(self.device, None, IoResource::fixed(io_type, base.into(), length.into()));
                self.id.is_some() || world.refused()
            });
            return;
        };
        if self.stays {
            return;
        }
        let nobody = [(self.place, Claim::NOBODY)];
        let gone = if random.below(2) == 0 {
            world
                .claim(Round::Removed, &nobody, || world.remove(&[self.device], || world.manager.unregister_device(id)))
        } else {
            world.claim(Round::Deferred, &nobody, || {
                world.remove(&[self.device], || {
                    world.manager.unregister_device_deferred(id)?;
                    while world.manager.collect() != 0 {
                        std::hint::spin_loop();
                    }
                    Ok(())
                })
            })
        };
        if gone {
            self.id = None;
        }
    }
}

/// A device that is always there, at one of two places that overlap.
struct Slider {
    /// What only the lower place holds, what both hold, and what only the upper one holds.
    places: [usize; 3],
    device: usize,
    id: Option<InstanceId>,
    base: u64,
}

impl Slider {
    fn step<'d>(&mut self, world: &'d World<'d>) {
        let base = if self.base == SLIDER && self.id.is_some() { SLIDER + SLIDE } else { SLIDER };
        let claim = Claim::of(self.device as u8, base);
        let [low, middle, high] = self.places;
        let ends = if base == SLIDER { [claim, Claim::NOBODY] } else { [Claim::NOBODY, claim] };
        let claims = [(low, ends[0]), (middle, claim), (high, ends[1])];
        let Some(id) = self.id else {
            world.claim(Round::Registered, &claims, || {
                self.id = world.register(self.device, None, IoResource::mmio(base, SLIDER_SIZE));
                self.id.is_some() || world.refused()
            });
            return;
        };
        if world
            .claim(Round::Shifted, &claims, || world.relocate(&[Relocation::new(id, 0).to(GuestAddress(base))], false))
        {
            self.base = base;
        }
    }
}

/// A bus with two devices on it, which comes and goes and moves as a whole.
struct Bus {
    /// For each window: a part that no child claims, and the children's.
    places: [[usize; 3]; 2],
    /// The bus and its children.
    devices: [usize; 3],
    ids: [Option<InstanceId>; 3],
    at: usize,
}

impl Bus {
    /// Who claims the places of the window at `at`, if it is there, with the given children present.
    fn claims(&self, at: usize, present: [bool; 3]) -> [(usize, Claim); 3] {
        let [bus, a, b] = self.devices.map(|device| device as u8);
        let window = if present[0] { Claim::of(bus, WINDOWS[at]) } else { Claim::NOBODY };
        let child = |present, device, offset| if present { Claim::of(device, WINDOWS[at] + offset) } else { window };
        let [hole, first, second] = self.places[at];
        [(hole, window), (first, child(present[1], a, CHILDREN[0])), (second, child(present[2], b, CHILDREN[1]))]
    }

    fn step<'d>(&mut self, world: &'d World<'d>, caller: Caller, random: &mut Random) {
        let present = self.ids.map(|id| id.is_some());
        let Some(bus) = self.ids[0] else {
            self.at = random.below(2);
            let request = IoResource::mmio(WINDOWS[self.at], WINDOW_SIZE).window();
            return self.plug(world, 0, None, request);
        };
        let child = 1 + random.below(2);
        match random.below(8) {
            0..=2 => match self.ids[child] {
                None => {
                    let request = IoResource::mmio(WINDOWS[self.at] + CHILDREN[child - 1], CHILD_SIZE);
                    self.plug(world, child, Some(bus), request);
                }
                Some(id) if caller == Caller::Writer => {
                    let mut after = present;
                    after[child] = false;
                    if world.claim(Round::Removed, &self.claims(self.at, after), || {
                        world.remove(&[self.devices[child]], || world.manager.unregister_device(id))
                    }) {
                        self.ids[child] = None;
                    }
                }
                Some(_) => {}
            },
            3 if caller == Caller::Writer => {
                let gone: Vec<usize> = (0..3).filter(|n| present[*n]).map(|n| self.devices[n]).collect();
                if world.claim(Round::SubtreeRemoved, &self.claims(self.at, [false; 3]), || {
                    world.remove(&gone, || world.manager.unregister_subtree(bus))
                }) {
                    self.ids = [None; 3];
                }
            }
            _ => self.move_all(world, present),
        }
    }

    fn plug<'d>(&mut self, world: &'d World<'d>, index: usize, parent: Option<InstanceId>, request: IoResource) {
        let mut present = self.ids.map(|id| id.is_some());
        present[index] = true;
        world.claim(Round::Registered, &self.claims(self.at, present), || {
            self.ids[index] = world.register(self.devices[index], parent, request);
            self.ids[index].is_some() || world.refused()
        });
    }

    fn move_all<'d>(&mut self, world: &'d World<'d>, present: [bool; 3]) {
        let to = 1 - self.at;
        let bases = [0, CHILDREN[0], CHILDREN[1]].map(|offset| GuestAddress(WINDOWS[to] + offset));
        let relocations: Vec<Relocation> =
            self.ids.iter().zip(bases).filter_map(|(id, base)| Some(Relocation::new((*id)?, 0).to(base))).collect();
        let claims = [self.claims(self.at, [false; 3]), self.claims(to, present)].concat();
        if world.claim(Round::SubtreeMoved, &claims, || world.relocate(&relocations, false)) {
            self.at = to;
        }
    }
}
