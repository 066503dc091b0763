//! Which groups of devices a run has, and how it changes them.

use std::sync::Mutex;

use vm_device::{HeavyBarrier, IoType};

use super::access::Room;
use super::bars::{self, Bars};
use super::bus::{Bus, CHILD_SIZE, CHILDREN, WINDOWS};
use super::counts::Round;
use super::groups::{Caller, ComeAndGo, HotPlug, SLIDE, SLIDER, SLIDER_SIZE, Slider, State};
use super::oracle::Place;
use super::probe::{Changes, Probe, Surroundings};
use super::world::{World, lock};
use crate::random::Random;

/// Two places each for groups of three devices.
const HOT_PLUG_MEMORY: u64 = 0xd000_0000;
const HOT_PLUG_PORTS: u64 = 0x2000;
/// Groups in memory, and in ports.
const MEMORY_GROUPS: u64 = 4;
const PORT_GROUPS: u64 = 2;
/// The eject register, which is always there: as wide as the widest access.
const EJECT: u64 = 0x3000;
/// Two places for devices that wait for each other's, in memory and in ports.
const BARS_IN_MEMORY: [u64; 2] = [0xd040_0000, 0xd040_1000];
const BARS_IN_PORTS: [u64; 2] = [0x4000, 0x4010];

/// A world, and what changes in it.
pub(crate) struct Churn<'d> {
    pub(crate) world: World<'d>,
    groups: Vec<Mutex<Group>>,
    /// How long most callbacks take at most: see [`Surroundings`].
    stays: u64,
}

/// Devices and places that change among themselves. One thread at a time does so.
enum Group {
    HotPlug(HotPlug),
    Slider(Slider),
    Bus(Bus),
    Bars(Bars),
    ComeAndGo(ComeAndGo),
}

impl<'d> Churn<'d> {
    /// Nothing that changes.
    fn empty(room: &'d Room<'d>, barrier: Option<HeavyBarrier>) -> Self {
        Self { world: World::new(room, barrier), groups: Vec::new(), stays: 9 }
    }

    /// Groups of every kind.
    pub(crate) fn new(room: &'d Room<'d>, barrier: Option<HeavyBarrier>) -> Self {
        let mut churn = Self::empty(room, barrier);
        for group in 0..MEMORY_GROUPS {
            let base = HOT_PLUG_MEMORY + group * 0x1_0000;
            churn.add_hot_plug(IoType::Mmio, [base, base + 0x1000], 0x100);
        }
        for group in 0..PORT_GROUPS {
            let base = HOT_PLUG_PORTS + group * 0x100;
            churn.add_hot_plug(IoType::Pio, [base, base + 0x10], 0x10);
        }
        churn.add_slider();
        churn.add_bus();
        churn.add_bars(IoType::Mmio, BARS_IN_MEMORY, 0x100);
        churn.add_bars(IoType::Pio, BARS_IN_PORTS, 0x10);
        churn.add_eject();
        churn
    }

    /// One device at one place, which comes and goes. Some of its callbacks take longer than a removal, so that
    /// one which does not wait returns before they do.
    pub(crate) fn with_one_device(room: &'d Room<'d>, barrier: Option<HeavyBarrier>) -> Self {
        let mut churn = Self { stays: 14, ..Self::empty(room, barrier) };
        let place = churn.world.add_place(Place::new(IoType::Mmio, HOT_PLUG_MEMORY, 0x100));
        let device = churn.world.add_probe();
        churn.groups.push(Mutex::new(Group::ComeAndGo(ComeAndGo { place, device, id: None, stays: false })));
        churn
    }

    fn add_hot_plug(&mut self, io_type: IoType, bases: [u64; 2], length: u64) {
        let places = bases.map(|base| self.world.add_place(Place::new(io_type, base, length)));
        let devices = [(); 3].map(|()| (self.world.add_probe(), State::Absent));
        self.groups.push(Mutex::new(Group::HotPlug(HotPlug { places, devices })));
    }

    fn add_slider(&mut self) {
        let [low, middle, high] = [(0, SLIDE), (SLIDE, SLIDER_SIZE), (SLIDER_SIZE, SLIDER_SIZE + SLIDE)]
            .map(|(first, end)| Place::new(IoType::Mmio, SLIDER + first, end - first));
        let places = [low.moving(), middle.moving(), high.moving()].map(|place| self.world.add_place(place));
        let device = self.world.add_probe();
        self.groups.push(Mutex::new(Group::Slider(Slider { places, device, id: None, base: SLIDER })));
    }

    fn add_bus(&mut self) {
        let places = WINDOWS.map(|window| {
            let [a, b] = CHILDREN;
            [(0, a), (a, CHILD_SIZE), (b, CHILD_SIZE)]
                .map(|(offset, length)| self.world.add_place(Place::new(IoType::Mmio, window + offset, length)))
        });
        let devices = [(); 3].map(|()| self.world.add_probe());
        self.groups.push(Mutex::new(Group::Bus(Bus::new(places, devices))));
    }

    fn add_bars(&mut self, io_type: IoType, bases: [u64; 2], length: u64) {
        let places = bases.map(|base| self.world.add_place(Place::new(io_type, base, length)));
        let devices = [(); 3].map(|()| self.world.add_probe());
        let states = [bars::State::Absent; 3];
        self.groups.push(Mutex::new(Group::Bars(Bars { places, devices, states, queue: Vec::new() })));
    }

    fn add_eject(&mut self) {
        let device = self.world.add(|number| Probe::new(number).that_ejects());
        let place = self.world.add_place(Place::new(IoType::Pio, EJECT, 8));
        self.groups.push(Mutex::new(Group::ComeAndGo(ComeAndGo { place, device, id: None, stays: true })));
    }

    /// Tells the devices where they are.
    pub(crate) fn start(&'d self) {
        let surroundings = Surroundings { field: &self.world.field, stays: self.stays, changes: self };
        self.world.probes.iter().for_each(|probe| probe.put_into(surroundings));
    }

    /// Makes one change from a thread of its own.
    pub(crate) fn change(&'d self, random: &mut Random) {
        let group = random.below(self.groups.len());
        self.step(&mut lock(&self.groups[group]), Caller::Writer, random);
    }

    fn step(&'d self, group: &mut Group, caller: Caller, random: &mut Random) {
        match group {
            Group::HotPlug(group) => group.step(&self.world, caller, random),
            Group::Slider(group) => group.step(&self.world),
            Group::Bus(group) => group.step(&self.world, caller, random),
            Group::Bars(group) => group.step(&self.world, caller, random),
            Group::ComeAndGo(group) if caller == Caller::Writer => group.step(&self.world, random),
            Group::ComeAndGo(_) => {}
        }
    }
}

impl<'d> Changes<'d> for Churn<'d> {
    fn eject(&'d self, random: &mut Random) {
        let group = random.below(self.groups.len());
        if let Ok(mut group) = self.groups[group].try_lock()
            && let Group::HotPlug(group) = &mut *group
            && let Some(device) = group.devices.iter().position(|(_, state)| matches!(state, State::Plugged { .. }))
        {
            group.defer(&self.world, device, Round::Ejected);
        }
    }

    fn change_from_callback(&'d self, random: &mut Random) {
        let group = random.below(self.groups.len());
        if let Ok(mut group) = self.groups[group].try_lock() {
            self.step(&mut group, Caller::Callback, random);
        }
    }
}
