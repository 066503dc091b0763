//! Devices and places that change among themselves.

use vm_device::{GuestAddress, InstanceId, IoResource, Relocation};

use super::counts::Round;
use super::oracle::{Claim, Place};
use super::world::World;
use crate::random::Random;

/// A range of 0x100 bytes that shifts to and fro by 0x40.
pub(super) const SLIDER: u64 = 0xd010_0000;
pub(super) const SLIDE: u64 = 0x40;
pub(super) const SLIDER_SIZE: u64 = 0x100;

/// From where the topology is changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// A thread of its own.
    Writer,
    /// A callback, which must not wait for another.
    Callback,
}

/// Three devices that take turns at two places.
pub(super) struct HotPlug {
    pub(super) places: [usize; 2],
    pub(super) devices: [(usize, State); 3],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
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
    pub(super) fn step<'d>(&mut self, world: &'d World<'d>, caller: Caller, random: &mut Random) {
        self.collect(world);
        let place = self.places[random.below(2)];
        match self.devices.iter().position(|(_, state)| state.is_plugged_at(place)) {
            Some(device) => self.change(world, caller, random, device),
            None => self.plug(world, random, place),
        }
    }

    /// Frees the devices that were removed deferred, once the removal has ended.
    fn collect(&mut self, world: &World<'_>) {
        for (device, state) in &mut self.devices {
            if let State::Deferred { id, .. } = *state
                && world.field.manager.device(id).is_none()
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
        let Place { io_type, base, length, .. } = world.field.places[place];
        let request = IoResource::fixed(io_type, base.into(), length.into());
        world.claim(Round::Registered, &[(place, Claim::of(*device as u8, base))], || {
            match world.register(*device, None, request) {
                Some(id) => *state = State::Plugged { id, place, decoded: true },
                None => return !may_fail && world.refused(),
            }
            true
        });
    }

    pub(super) fn defer<'d>(&mut self, world: &'d World<'d>, index: usize, round: Round) {
        let State::Plugged { id, place, .. } = self.devices[index].1 else { return };
        if world.claim(round, &[(place, Claim::NONE)], || {
            world.field.manager.unregister_device_deferred(id).is_ok() || world.refused()
        }) {
            self.devices[index].1 = State::Deferred { id, place };
        }
    }

    fn change<'d>(&mut self, world: &'d World<'d>, caller: Caller, random: &mut Random, index: usize) {
        let (device, state) = self.devices[index];
        let State::Plugged { id, place, decoded } = state else { return };
        let other = if place == self.places[0] { self.places[1] } else { self.places[0] };
        let claim_of = |device: usize, place: usize, decoded: bool| match decoded {
            true => Claim::of(device as u8, world.field.places[place].base),
            false => Claim::NONE,
        };
        let base = |place: usize| GuestAddress(world.field.places[place].base);
        let unclaimed = [(place, Claim::NONE)];
        match random.below(8) {
            0..=2 if caller == Caller::Writer => {
                if world.claim(Round::Removed, &unclaimed, || {
                    world.remove(&[device], || world.field.manager.unregister_device(id))
                }) {
                    self.devices[index].1 = State::Absent;
                }
            }
            0..=3 => {
                self.defer(world, index, Round::Deferred);
                world.field.manager.collect();
            }
            4 => {
                let claims = [(place, claim_of(device, place, !decoded))];
                if world.claim(Round::Decoding, &claims, || {
                    let range = Relocation::new(id, 0);
                    world.relocate(&mut [if decoded { range.reserved() } else { range.decoded() }], false)
                }) {
                    self.devices[index].1 = State::Plugged { id, place, decoded: !decoded };
                }
            }
            _ => match self.devices.iter().position(|(_, state)| state.is_plugged_at(other)) {
                None => {
                    let may_fail = self.devices.iter().any(|(_, state)| state.lingers_at(other));
                    let claims = [(place, Claim::NONE), (other, claim_of(device, other, decoded))];
                    if world.claim(Round::Moved, &claims, || {
                        world.relocate(&mut [Relocation::new(id, 0).to(base(other))], may_fail)
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
                    let mut swap = [Relocation::new(id, 0).to(base(other)), Relocation::new(its_id, 0).to(base(place))];
                    if world.claim(Round::Swapped, &claims, || world.relocate(&mut swap, false)) {
                        self.devices[index].1 = State::Plugged { id, place: other, decoded };
                        self.devices[partner].1 = State::Plugged { id: its_id, place, decoded: its_decoded };
                    }
                }
            },
        }
    }
}

/// A device that is registered and removed, in both ways, and nothing else.
pub(super) struct ComeAndGo {
    pub(super) place: usize,
    pub(super) device: usize,
    pub(super) id: Option<InstanceId>,
    /// It only comes.
    pub(super) stays: bool,
}

impl ComeAndGo {
    pub(super) fn step<'d>(&mut self, world: &'d World<'d>, random: &mut Random) {
        let Place { io_type, base, length, .. } = world.field.places[self.place];
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
        let unclaimed = [(self.place, Claim::NONE)];
        let gone = if random.below(2) == 0 {
            world.claim(Round::Removed, &unclaimed, || {
                world.remove(&[self.device], || world.field.manager.unregister_device(id))
            })
        } else {
            world.claim(Round::Deferred, &unclaimed, || {
                world.remove(&[self.device], || {
                    world.field.manager.unregister_device_deferred(id)?;
                    while world.field.manager.collect() != 0 {
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
pub(super) struct Slider {
    /// What only the lower place holds, what both hold, and what only the upper one holds.
    pub(super) places: [usize; 3],
    pub(super) device: usize,
    pub(super) id: Option<InstanceId>,
    pub(super) base: u64,
}

impl Slider {
    pub(super) fn step<'d>(&mut self, world: &'d World<'d>) {
        let base = if self.base == SLIDER && self.id.is_some() { SLIDER + SLIDE } else { SLIDER };
        let claim = Claim::of(self.device as u8, base);
        let [low, middle, high] = self.places;
        let ends = if base == SLIDER { [claim, Claim::NONE] } else { [Claim::NONE, claim] };
        let claims = [(low, ends[0]), (middle, claim), (high, ends[1])];
        let Some(id) = self.id else {
            world.claim(Round::Registered, &claims, || {
                self.id = world.register(self.device, None, IoResource::mmio(base, SLIDER_SIZE));
                self.id.is_some() || world.refused()
            });
            return;
        };
        if world.claim(Round::Shifted, &claims, || {
            world.relocate(&mut [Relocation::new(id, 0).to(GuestAddress(base))], false)
        }) {
            self.base = base;
        }
    }
}
