//! The changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use vm_device::{
    HeavyBarrier, InstanceId, IoRange, IoResource, IoType, IrqResource, Relocation, SystemAllocator, UnregisterError,
};

use super::Manager;
use super::groups::{Bus, ComeAndGo, HotPlug, Slider, State};
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
pub(super) const SLIDER: u64 = 0xd010_0000;
pub(super) const SLIDE: u64 = 0x40;
pub(super) const SLIDER_SIZE: u64 = 0x100;
/// Two places for a bus window, with two children's ranges in it.
pub(super) const WINDOWS: [u64; 2] = [0xd020_0000, 0xd030_0000];
pub(super) const WINDOW_SIZE: u64 = 0x3000;
pub(super) const CHILDREN: [u64; 2] = [0x1000, 0x2000];
pub(super) const CHILD_SIZE: u64 = 0x100;

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
pub(super) enum Caller {
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

    /// A number that grows with every access that reaches a device and with every change. Reading it orders nothing.
    pub(super) fn progress(&self) -> u64 {
        let calls: u64 = self.probes.iter().map(Probe::calls).sum();
        calls + self.rounds.total() + self.gave_up.load(Ordering::Relaxed)
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
    pub(super) fn claim(&self, round: Round, claims: &[(usize, Claim)], change: impl FnOnce() -> bool) -> bool {
        claims.iter().for_each(|(place, claim)| self.places[*place].begin(*claim));
        let done = change();
        claims.iter().for_each(|(place, _)| self.places[*place].end(done));
        if done {
            self.rounds.note(round);
        }
        done
    }

    pub(super) fn register(
        &'d self,
        device: usize,
        parent: Option<InstanceId>,
        request: IoResource,
    ) -> Option<InstanceId> {
        let probe = &self.probes[device];
        probe.next_generation();
        let id = self.manager.register_device(probe, parent, &[request], IrqResource::None);
        if id.is_err() {
            probe.next_generation();
        }
        id.ok()
    }

    /// Removes, and waits for it. Whether it was done, rather than given up.
    pub(super) fn remove(
        &'d self,
        devices: &[usize],
        remove: impl FnOnce() -> Result<(), UnregisterError<'d>>,
    ) -> bool {
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

    pub(super) fn relocate(&self, relocations: &[Relocation], may_fail: bool) -> bool {
        self.manager.relocate(relocations).is_ok() || !may_fail && self.refused()
    }

    pub(super) fn refused(&self) -> bool {
        self.violations.note(Violation::Refused);
        false
    }
}

/// Panics of other threads end the run; what they left is of no interest.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
