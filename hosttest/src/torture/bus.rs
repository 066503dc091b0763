//! A bus whose window moves, changes its size and closes, with what is on it or without.

use vm_device::{GuestAddress, GuestUsize, InstanceId, IoResource, Relocation};

use super::counts::{Round, Violation};
use super::groups::Caller;
use super::oracle::Claim;
use super::world::World;
use crate::random::Random;

/// Two places for a bus window, with two children's ranges in it. The smaller size does not hold the second.
pub(super) const WINDOWS: [u64; 2] = [0xd020_0000, 0xd030_0000];
const LARGE: u64 = 0x3000;
const SMALL: u64 = 0x2000;
pub(super) const CHILDREN: [u64; 2] = [0x1000, 0x2000];
pub(super) const CHILD_SIZE: u64 = 0x100;

/// A bus with two devices on it, which comes and goes and moves.
pub(super) struct Bus {
    /// For each window: a part that no child claims, and the children's.
    places: [[usize; 3]; 2],
    /// The bus and its children.
    devices: [usize; 3],
    ids: [Option<InstanceId>; 3],
    layout: Layout,
}

/// Which of them are there, and where.
#[derive(Clone, Copy)]
struct Layout {
    present: [bool; 3],
    /// At which place the window lies, or lay before it closed.
    at: usize,
    is_open: bool,
    is_large: bool,
    /// In which window each child lies, or wants to lie.
    children_at: [usize; 2],
}

impl Layout {
    /// Whether a child is there and reached in the window `at`.
    fn holds(&self, child: usize, at: usize) -> bool {
        let is_held = self.is_large || CHILDREN[child] + CHILD_SIZE <= SMALL;
        self.present[child + 1] && self.has_window(at) && self.children_at[child] == at && is_held
    }

    fn has_window(&self, at: usize) -> bool {
        self.present[0] && self.is_open && self.at == at
    }
}

impl Bus {
    /// Nothing is there yet.
    pub(super) fn new(places: [[usize; 3]; 2], devices: [usize; 3]) -> Self {
        let layout = Layout { present: [false; 3], at: 0, is_open: false, is_large: true, children_at: [0; 2] };
        Self { places, devices, ids: [None; 3], layout }
    }

    /// What claims each place under a layout.
    fn claims(&self, layout: &Layout) -> [(usize, Claim); 6] {
        let [bus, a, b] = self.devices.map(|device| device as u8);
        let claims = [0, 1].map(|at| {
            let window = if layout.has_window(at) { Claim::of(bus, WINDOWS[at]) } else { Claim::NONE };
            let child = |child: usize, device| match layout.holds(child, at) {
                true => Claim::of(device, WINDOWS[at] + CHILDREN[child]),
                // The smaller window ends where the second child would begin.
                false if child == 1 && !layout.is_large => Claim::NONE,
                false => window,
            };
            [(self.places[at][0], window), (self.places[at][1], child(0, a)), (self.places[at][2], child(1, b))]
        });
        let [[a, b, c], [d, e, f]] = claims;
        [a, b, c, d, e, f]
    }

    /// Makes a change that leads to this layout. It is given the ids.
    fn change<'d>(
        &mut self,
        world: &'d World<'d>,
        round: Round,
        to: Layout,
        change: impl FnOnce(&mut [Option<InstanceId>; 3]) -> bool,
    ) {
        let before = self.claims(&self.layout);
        let new: Vec<_> =
            self.claims(&to).into_iter().zip(before).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a).collect();
        if world.claim(round, &new, || change(&mut self.ids)) {
            self.layout = to;
            self.check(world);
        }
    }

    /// Compares the ranges with the layout.
    fn check(&self, world: &World<'_>) {
        for (child, offset) in CHILDREN.into_iter().enumerate() {
            let Some(id) = self.ids[child + 1] else { continue };
            let at = self.layout.children_at[child];
            let place = world.field.manager.range(id, 0).and_then(|assigned| assigned.place());
            let expected = self.layout.holds(child, at).then_some(GuestAddress(WINDOWS[at] + offset));
            if place.map(|range| range.first()) != expected {
                world.field.violations.note(Violation::State);
            }
        }
    }

    pub(super) fn step<'d>(&mut self, world: &'d World<'d>, caller: Caller, random: &mut Random) {
        let layout = self.layout;
        let Some(bus) = self.ids[0] else { return self.plug_bus(world, random.below(2)) };
        let window = Relocation::new(bus, 0);
        match random.below(12) {
            0..=2 => self.come_or_go(world, caller, 1 + random.below(2)),
            3 if caller == Caller::Writer => self.remove_all(world, bus),
            4 | 5 => {
                let at = 1 - layout.at;
                let to = Layout { at, is_open: true, ..layout };
                self.change(world, Round::WindowMoved, to, |_| {
                    world.relocate(&mut [window.to(GuestAddress(WINDOWS[at]))], false)
                });
            }
            6 | 7 if layout.is_open => {
                let to = Layout { is_large: !layout.is_large, ..layout };
                let size = GuestUsize(if to.is_large { LARGE } else { SMALL });
                self.change(world, Round::WindowResized, to, |_| world.relocate(&mut [window.resized(size)], false));
            }
            8 | 9 => {
                let to = Layout { is_open: !layout.is_open, ..layout };
                let change = if to.is_open { window.to(GuestAddress(WINDOWS[to.at])) } else { window.unplaced() };
                self.change(world, Round::WindowClosed, to, |_| world.relocate(&mut [change], false));
            }
            _ => self.move_all(world),
        }
    }

    fn plug_bus<'d>(&mut self, world: &'d World<'d>, at: usize) {
        let to = Layout { present: [true, false, false], at, is_open: true, is_large: true, children_at: [at; 2] };
        let device = self.devices[0];
        self.change(world, Round::Registered, to, |ids| {
            ids[0] = world.register(device, None, IoResource::mmio(WINDOWS[at], LARGE).window());
            ids[0].is_some() || world.refused()
        });
    }

    /// Plugs a child in, whose range waits if the window does not hold it; or removes the one that is there.
    fn come_or_go<'d>(&mut self, world: &'d World<'d>, caller: Caller, child: usize) {
        let (device, mut to) = (self.devices[child], self.layout);
        match self.ids[child] {
            None => {
                let parent = self.ids[0];
                to.children_at[child - 1] = to.at;
                to.present[child] = true;
                let request = IoResource::mmio(WINDOWS[to.at] + CHILDREN[child - 1], CHILD_SIZE).waiting();
                self.change(world, Round::Registered, to, |ids| {
                    ids[child] = world.register(device, parent, request);
                    ids[child].is_some() || world.refused()
                });
            }
            Some(id) if caller == Caller::Writer => {
                to.present[child] = false;
                self.change(world, Round::Removed, to, |ids| {
                    let done = world.remove(&[device], || world.field.manager.unregister_device(id));
                    if done {
                        ids[child] = None;
                    }
                    done
                });
            }
            Some(_) => {}
        }
    }

    fn remove_all<'d>(&mut self, world: &'d World<'d>, bus: InstanceId) {
        let present = self.layout.present;
        let gone: Vec<usize> = (0..3).filter(|n| present[*n]).map(|n| self.devices[n]).collect();
        let to = Layout { present: [false; 3], ..self.layout };
        self.change(world, Round::SubtreeRemoved, to, |ids| {
            let done = world.remove(&gone, || world.field.manager.unregister_subtree(bus));
            if done {
                *ids = [None; 3];
            }
            done
        });
    }

    /// Moves the window, in its larger size, and the children in it.
    fn move_all<'d>(&mut self, world: &'d World<'d>) {
        let at = 1 - self.layout.at;
        let to = Layout { at, is_open: true, is_large: true, children_at: [at; 2], ..self.layout };
        let bases = [0, CHILDREN[0], CHILDREN[1]].map(|offset| GuestAddress(WINDOWS[at] + offset));
        let named = self.ids.iter().zip(bases).filter_map(|(id, base)| Some(Relocation::new((*id)?, 0).to(base)));
        let mut relocations: Vec<Relocation> = named.collect();
        relocations[0] = relocations[0].resized(GuestUsize(LARGE));
        self.change(world, Round::SubtreeMoved, to, |_| world.relocate(&mut relocations, false));
    }
}
