//! Devices that give up their places and wait for each other's, as base address registers of PCI do.

use vm_device::{GuestAddress, InstanceId, IoResource, RangeState, Relocation};

use super::counts::{Round, Violation};
use super::groups::Caller;
use super::oracle::{Claim, Place};
use super::world::World;
use crate::random::Random;

/// Three devices that want two places.
pub(super) struct Bars {
    pub(super) places: [usize; 2],
    pub(super) devices: [usize; 3],
    pub(super) states: [State; 3],
    /// Who waits, the longest first.
    pub(super) queue: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    Unplaced(InstanceId),
    At(InstanceId, usize),
    WaitsFor(InstanceId, usize),
}

impl State {
    /// The device, and the place that it has or waits for.
    fn parts(self) -> (Option<InstanceId>, Option<usize>) {
        match self {
            State::Absent => (None, None),
            State::Unplaced(id) => (Some(id), None),
            State::At(id, place) | State::WaitsFor(id, place) => (Some(id), Some(place)),
        }
    }
}

/// The change of the places that one range makes, by leaving one and wanting another.
struct Change {
    round: Round,
    claims: Vec<(usize, Claim)>,
    /// Who gets the place that is left.
    next: Option<usize>,
    /// Whether the wanted place is free.
    is_granted: bool,
}

impl Bars {
    pub(super) fn step<'d>(&mut self, world: &'d World<'d>, caller: Caller, random: &mut Random) {
        let (index, wanted) = (random.below(3), self.places[random.below(2)]);
        let (id, place) = self.states[index].parts();
        match (id, random.below(8)) {
            (None, _) => self.register(world, index, wanted),
            (Some(id), 0) if caller == Caller::Writer => self.remove(world, index, id),
            (Some(id), 0..=2) => self.relocate(world, index, id, None),
            (Some(id), _) if place != Some(wanted) => self.relocate(world, index, id, Some(wanted)),
            _ => {}
        }
        self.check(world);
    }

    fn claim(&self, world: &World<'_>, index: usize, place: usize) -> Claim {
        Claim::of(self.devices[index] as u8, world.field.places[place].base)
    }

    /// What becomes of the places when a range leaves its own, if it has one, and then wants one, if it does.
    fn change(&self, world: &World<'_>, index: usize, wanted: Option<usize>, otherwise: Round) -> Change {
        let left = if let State::At(_, place) = self.states[index] { Some(place) } else { None };
        let waits_for = |place| move |state: State| matches!(state, State::WaitsFor(_, for_it) if for_it == place);
        let next = left.and_then(|left| self.queue.iter().copied().find(|n| waits_for(left)(self.states[*n])));
        let has = |place| move |state: &State| matches!(state, State::At(_, at) if *at == place);
        let is_granted = wanted.is_some_and(|wanted| !self.states.iter().any(has(wanted)));
        let left = left.map(|left| (left, next.map_or(Claim::NONE, |next| self.claim(world, next, left))));
        let taken = wanted.filter(|_| is_granted).map(|wanted| (wanted, self.claim(world, index, wanted)));
        let round = match (next, wanted) {
            (Some(_), _) => Round::MadeWay,
            (None, Some(_)) if !is_granted => Round::Queued,
            _ => otherwise,
        };
        Change { round, claims: left.into_iter().chain(taken).collect(), next, is_granted }
    }

    /// The change was made: the states follow.
    fn follow(&mut self, index: usize, id: Option<InstanceId>, wanted: Option<usize>, change: &Change) {
        if let Some(next) = change.next
            && let State::WaitsFor(id, place) = self.states[next]
        {
            self.states[next] = State::At(id, place);
            self.queue.retain(|waiting| *waiting != next);
        }
        self.queue.retain(|waiting| *waiting != index);
        self.states[index] = match (id, wanted) {
            (None, _) => State::Absent,
            (Some(id), None) => State::Unplaced(id),
            (Some(id), Some(place)) if change.is_granted => State::At(id, place),
            (Some(id), Some(place)) => {
                self.queue.push(index);
                State::WaitsFor(id, place)
            }
        };
    }

    fn register<'d>(&mut self, world: &'d World<'d>, index: usize, wanted: usize) {
        let change = self.change(world, index, Some(wanted), Round::Registered);
        let Place { io_type, base, length, .. } = world.field.places[wanted];
        let request = IoResource::fixed(io_type, base.into(), length.into()).waiting();
        let mut id = None;
        if world.claim(change.round, &change.claims, || {
            id = world.register(self.devices[index], None, request);
            id.is_some() || world.refused()
        }) {
            self.follow(index, id, Some(wanted), &change);
        }
    }

    fn remove<'d>(&mut self, world: &'d World<'d>, index: usize, id: InstanceId) {
        let mut change = self.change(world, index, None, Round::Removed);
        // The next one gets the place when the last callback has ended, and nothing is there until then.
        change.claims.iter_mut().for_each(|(_, claim)| *claim = claim.after_a_gap());
        if world.claim(change.round, &change.claims, || {
            world.remove(&[self.devices[index]], || world.field.manager.unregister_device(id))
        }) {
            self.follow(index, None, None, &change);
        }
    }

    fn relocate<'d>(&mut self, world: &'d World<'d>, index: usize, id: InstanceId, wanted: Option<usize>) {
        let otherwise = if wanted.is_some() { Round::Moved } else { Round::Unplaced };
        let change = self.change(world, index, wanted, otherwise);
        let range = Relocation::new(id, 0);
        let range = match wanted {
            Some(place) => range.to(GuestAddress(world.field.places[place].base)).waiting(),
            None => range.unplaced(),
        };
        if world.claim(change.round, &change.claims, || world.relocate(&mut [range], false)) {
            self.follow(index, Some(id), wanted, &change);
        }
    }

    /// Compares the ranges with the states.
    fn check(&self, world: &World<'_>) {
        for state in self.states {
            let expected = match state {
                State::Absent => continue,
                State::Unplaced(_) => RangeState::Unplaced,
                State::At(..) => RangeState::Decoded,
                State::WaitsFor(..) => RangeState::Waiting,
            };
            let (id, place) = state.parts();
            let assigned = id.and_then(|id| world.field.manager.range(id, 0));
            let is_there = |base| assigned.is_some_and(|assigned| assigned.range.first() == base);
            let place = place.map(|place| GuestAddress(world.field.places[place].base));
            if assigned.map(|assigned| assigned.state) != Some(expected) || !place.is_none_or(is_there) {
                world.field.violations.note(Violation::State);
            }
        }
    }
}
