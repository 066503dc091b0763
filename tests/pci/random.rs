//! Writes at random to a tree of bridges and functions. After each, every range is where the registers say, or waits for a
//! reason that can be named; registers are looked at by a second reading of the specifications.

use std::thread;

use super::machine::*;

/// A linear congruential generator (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// One range: whose, which, in which space, and where the registers say that it lies.
struct Expected {
    id: InstanceId,
    index: usize,
    io_type: IoType,
    /// The bridge that it is behind.
    parent: Option<InstanceId>,
    place: Option<(u64, u64)>,
}

/// What the registers of a function with the header of type 0 say.
fn ranges_of_card(guest: Guest<'_>, bus: u32, device: u32) -> Vec<(IoType, Option<(u64, u64)>)> {
    let word = |register| u64::from(guest.config(bus, device, register));
    let on = |bit: u64, place| (word(COMMAND) & bit != 0).then_some(place);
    let (memory, ports, wide) = (word(0x10) & !0xfff, word(0x14) & !0x1f, word(0x1c) << 32 | word(0x18) & !0xfff);
    let ports = on(1, (ports, ports + 0x1f)).filter(|(_, last)| *last <= 0xffff);
    let memory = [memory, wide].map(|base| (IoType::Mmio, on(2, (base, base + 0xfff))));
    vec![memory[0], (IoType::Pio, ports), memory[1]]
}

/// What the registers of a bridge say.
fn ranges_of_bridge(guest: Guest<'_>, bus: u32, device: u32) -> Vec<(IoType, Option<(u64, u64)>)> {
    let word = |register| u64::from(guest.config(bus, device, register));
    let open = |bit: u64, base: u64, last: u64| (word(COMMAND) & bit != 0 && base <= last).then_some((base, last));
    let (ports, memory, wide) = (word(0x1c), word(0x20), word(0x24));
    vec![
        (IoType::Pio, open(1, (ports & 0xf0) << 8, (ports >> 8 & 0xf0) << 8 | 0xfff)),
        (IoType::Mmio, open(2, (memory & 0xfff0) << 16, memory & 0xfff0_0000 | 0xf_ffff)),
        (
            IoType::Mmio,
            open(2, word(0x28) << 32 | (wide & 0xfff0) << 16, word(0x2c) << 32 | wide & 0xfff0_0000 | 0xf_ffff),
        ),
    ]
}

/// Checks the state of every range. Those of `windows` hold what is behind the bridge that has them.
fn check(manager: &DeviceManager<'_>, expected: &[Expected], history: &[String]) {
    let assigned = |range: &Expected| manager.range(range.id, range.index).unwrap();
    let ends = |range: &Expected| assigned(range).place().map(|place| (place.first().0, place.last().0));
    for range in expected {
        let found = assigned(range);
        let wrong = |why: &str| panic!("range {} of {}, {found}: {why}, after {history:#?}", range.index, range.id);
        let Some((first, last)) = range.place else {
            if found.state != RangeState::Unplaced {
                wrong("it is not decoded");
            }
            continue;
        };
        if (found.range.first().0, found.range.last().0) != (first, last) {
            wrong("the registers say otherwise");
        }
        let windows =
            || expected.iter().filter(|window| Some(window.id) == range.parent && window.io_type == range.io_type);
        let holds = |window: &Expected| ends(window).is_some_and(|(from, to)| from <= first && last <= to);
        let fits = range.parent.is_none() || windows().any(holds);
        // What is beside it, or was put around it: not what it lies in, nor what lies in it.
        let is_beside =
            |other: &&Expected| other.parent == range.parent && (other.id, other.index) != (range.id, range.index);
        let overlaps = |other: &Expected| {
            other.io_type == range.io_type && ends(other).is_some_and(|(from, to)| from <= last && first <= to)
        };
        let is_reserved = range.io_type == IoType::Mmio && range.parent.is_none() && first <= RAM
            || range.io_type == IoType::Pio && range.parent.is_none() && first <= 0xcff && 0xcf8 <= last;
        let is_taken = is_reserved || expected.iter().filter(is_beside).any(overlaps);
        match found.state {
            RangeState::Decoded if !fits => wrong("no window holds it"),
            RangeState::Decoded if is_taken => wrong("something else is there"),
            RangeState::Waiting if fits && !is_taken => wrong("its place is free"),
            RangeState::Decoded | RangeState::Waiting => {}
            _ => wrong("it is to be decoded"),
        }
    }
}

/// The last address of reserved memory.
const RAM: u64 = 0x0fff_ffff;

/// A write to a register of the functions of `bridged`: bus, device, register, value. There are few values, so that they meet.
fn any_write(random: &mut Random) -> (u32, u32, u32, u32) {
    let memory = random.of(&[0, 0x100, 0x101, 0x102, 0x103, 0xfff]) << 20 | random.of(&[0, 0x1000, 0xff_f000]);
    let ports = random.of(&[0, 0xcf8, 0x1000, 0x1020, 0x2000, 0xffff_ffe0]);
    let above = random.of(&[0, 1, 1]);
    let (bus, device) = random.of(&[(0, 2), (1, 5), (1, 6), (2, 7)]);
    let command = random.of(&[0, 1, 2, 3, 3, 3]);
    let (register, value) = if device == 2 || device == 6 {
        let (base, limit) = (random.of(&[0, 0x100, 0x100, 0x101, 0x102]), random.of(&[0x101, 0x102, 0x103, 0xfff]));
        let window = base << 4 | limit << 20;
        let ports = random.of(&[0x00, 0x10, 0x10, 0x20]) | random.of(&[0x00, 0x10, 0x20, 0xf0]) << 8;
        random.of(&[(4, command), (0x1c, ports), (0x20, window), (0x24, window), (0x28, above), (0x2c, above)])
    } else {
        let ones = random.of(&[memory, memory, u32::MAX]);
        random.of(&[(4, command), (0x10, ones), (0x14, ports), (0x18, memory), (0x1c, above)])
    };
    (bus, device, register, value)
}

/// What the registers of the functions of `bridged` say.
fn expected(
    guest: Guest<'_>,
    outer: InstanceId,
    near: InstanceId,
    inner: InstanceId,
    far: InstanceId,
) -> Vec<Expected> {
    let functions = [
        (outer, None, ranges_of_bridge(guest, 0, 2)),
        (near, Some(outer), ranges_of_card(guest, 1, 5)),
        (inner, Some(outer), ranges_of_bridge(guest, 1, 6)),
        (far, Some(inner), ranges_of_card(guest, 2, 7)),
    ];
    let ranges = functions.into_iter().flat_map(|(id, parent, ranges)| {
        let numbered = ranges.into_iter().enumerate();
        numbered.map(move |(index, (io_type, place))| Expected { id, index, io_type, parent, place })
    });
    ranges.collect()
}

#[test]
fn after_each_of_many_writes_every_range_is_where_the_registers_say_or_has_something_in_its_way() {
    let mut states = [0; 2];
    for seed in 0..20 {
        bridged!(manager, guest, outer, near, inner, far);
        manager.reserve(IoType::Mmio, Placement::Fixed(IoRange::of::<0, RAM>())).unwrap();
        number_buses(guest);
        let mut random = Random(seed);
        let mut history = Vec::new();
        for _ in 0..400 {
            let (bus, device, register, value) = any_write(&mut random);
            guest.set(bus, device, register, value);
            history.push(format!("{bus}:{device} {register:#x} = {value:#x}"));
            let ranges = expected(guest, outer, near, inner, far);
            check(&manager, &ranges, &history);
            for range in &ranges {
                match manager.range(range.id, range.index).unwrap().state {
                    RangeState::Decoded => states[0] += 1,
                    RangeState::Waiting => states[1] += 1,
                    _ => {}
                }
            }
        }
    }
    assert!(states.iter().all(|count| *count > 10_000), "decoded, waiting: {states:?}");
}

#[test]
fn after_vcpus_have_written_at_once_every_range_is_where_the_registers_say_or_has_something_in_its_way() {
    for seed in 0..100 {
        bridged!(manager, guest, outer, near, inner, far);
        manager.reserve(IoType::Mmio, Placement::Fixed(IoRange::of::<0, RAM>())).unwrap();
        number_buses(guest);
        thread::scope(|scope| {
            for vcpu in 0..3 {
                let (manager, mut random) = (&manager, Random(3 * seed + vcpu));
                scope.spawn(move || {
                    for _ in 0..50 {
                        let (bus, device, register, value) = any_write(&mut random);
                        let at = ECAM + u64::from(bus << 20 | device << 15 | register);
                        manager.write(GuestAddress(at), &value.to_le_bytes(), IoType::Mmio).unwrap();
                    }
                });
            }
        });
        check(&manager, &expected(guest, outer, near, inner, far), &[format!("seed {seed}")]);
    }
}
