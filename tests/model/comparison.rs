//! What can be seen of the manager, against the model: the topology, the maps, and every access.

use vm_device::{Accesses, GuestAddress, InstanceId, IoType, Owner};

use crate::fixture::Observed;
use crate::plain::{Instance, assigned};
use crate::platform::{HALF, address};
use crate::relay::Io;
use crate::steps::Run;

impl<V: Accesses> Run<'_, V> {
    /// The manager and the model agree in all that can be seen.
    pub(crate) fn compare(&mut self, seen: &Observed<'_>) {
        let mut walk = Vec::new();
        self.walk(None, "", &mut walk);
        assert_eq!(seen.devices.len(), walk.len());
        for (seen, (id, path)) in seen.devices.iter().zip(walk) {
            let instance = self.model.instance(id);
            assert_eq!((seen.id, &seen.path, seen.parent), (id, &path, instance.parent));
            assert_eq!(seen.irqs, instance.irqs);
            assert_eq!(seen.ranges, instance.places.iter().map(assigned).collect::<Vec<_>>(), "{:?}", self.model);
        }
        for (space, map) in [IoType::Pio, IoType::Mmio].into_iter().zip(&seen.maps) {
            let mut expected: Vec<_> = self
                .model
                .placed()
                .filter(|(.., place)| place.io_type.same_space(space))
                .map(|(owner, index, place)| {
                    let around = self.model.placed().filter(|(other, _, window)| {
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
                // Every length in its turn: from step to step, each address has them all.
                for turn in 0..3 {
                    let length = (self.accesses + turn) % 10;
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

    pub(crate) fn walk(&self, parent: Option<InstanceId>, above: &str, into: &mut Vec<(InstanceId, String)>) {
        for child in self.model.children(parent) {
            let path = format!("{above}/{}", self.path_part(child));
            into.push((child.id, path.clone()));
            self.walk(Some(child.id), &path, into);
        }
    }

    /// The name, and where a sibling has the same one, the first address if there is any.
    fn path_part(&self, instance: &Instance) -> String {
        let name = self.name(instance);
        let is_alone =
            self.model.children(instance.parent).iter().filter(|other| self.name(other) == name).count() == 1;
        match instance.places.iter().find(|place| place.state.is_placed()) {
            Some(place) if !is_alone => format!("{name}@{:x}", place.first),
            _ => name.into(),
        }
    }

    /// Makes an access in one of the three ways, and compares its outcome.
    pub(crate) fn make(&mut self, io: Io) {
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
                // Not always by the handle: the access takes one of its hints away.
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
            let had = recorder.take();
            let calls = called.iter().filter(|(recorder, _)| *recorder == number).flat_map(|(_, calls)| calls);
            assert!(had.iter().eq(calls), "{io:x?} reached {number} with {had:x?}");
            if !had.is_empty() {
                bytes = recorder.answers(&had);
            }
        }
        assert!(io.write || data == bytes, "{io:x?} gave {data:x?}, not {bytes:x?}");
    }
}
