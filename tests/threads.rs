//! vCPUs that access devices while a writer registers, moves and removes them.

mod fixture;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fixture::{Acting, manager};
use vm_device::{
    Access, Device, DeviceManager, GuestAddress, InstanceId, IoError, IoResource, IoType, IrqResource, Relocation,
};

const PLUGGED: u64 = 0x1000;
const MOVED: [u64; 2] = [0x2000, 0x2008];
const MOVED_SIZE: u64 = 16;
const SWAPPED: [u64; 2] = [0x3000, 0x4000];
const RELAY: u64 = 0x5000;

/// How long the threads go on.
fn time_is_up() -> impl Fn() -> bool + Sync {
    let start = Instant::now();
    let turns = AtomicUsize::new(0);
    move || {
        if cfg!(miri) {
            return turns.fetch_add(1, Ordering::Relaxed) > 20;
        }
        start.elapsed() > Duration::from_millis(1200)
    }
}

/// A device that knows whether it may be called, and answers with its number, the low byte of the base it was called
/// with, and the offset.
struct Watched {
    name: &'static str,
    number: u8,
    registered: AtomicBool,
    inside: AtomicUsize,
    calls: AtomicUsize,
    /// Calls that came while the device was not registered, or ended after its removal had returned.
    stale: AtomicUsize,
}

impl Watched {
    const fn new(name: &'static str, number: u8) -> Self {
        Self {
            name,
            number,
            registered: AtomicBool::new(false),
            inside: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
        }
    }

    fn check(&self) {
        if !self.registered.load(Ordering::SeqCst) {
            self.stale.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Device<'_> for Watched {
    fn name(&self) -> &str {
        self.name
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.inside.fetch_add(1, Ordering::SeqCst);
        self.check();
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        for _ in 0..calls % 50 {
            std::hint::spin_loop();
        }
        let answer = [self.number, access.base().0 as u8, access.offset() as u8];
        data.iter_mut().zip(answer).for_each(|(to, from)| *to = from);
        self.check();
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

fn one_device<'d>(manager: &'d DeviceManager<'d>, device: &'d dyn Device<'d>, base: u64, size: u64) -> InstanceId {
    manager.register_device(device, None, &[IoResource::mmio(base, size)], &[]).unwrap()
}

/// What the writer has done with the plugged device, told in steps: absent, being registered, present, being removed.
struct Phase(AtomicUsize);

impl Phase {
    fn next(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// One reader's turn, by any of the ways to read. The number of reads.
fn look(read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), IoError>, phase: &Phase) -> usize {
    // The plugged device, where its presence is certain before and after.
    let before = phase.get();
    let mut data = [0];
    let outcome = read(PLUGGED, &mut data);
    if phase.get() == before {
        match before % 4 {
            0 => assert_eq!((outcome, data), (Err(IoError::Unclaimed), [0xff])),
            2 => assert_eq!((outcome, data), (Ok(()), [1])),
            _ => {}
        }
    }
    // The old and the new place overlap in the middle: there it is always found, at one of both.
    let middle = MOVED[1] + 3;
    let mut data = [0; 3];
    assert_eq!(read(middle, &mut data), Ok(()));
    let [number, base, offset] = data;
    assert_eq!(number, 2);
    let base = MOVED.into_iter().find(|place| *place as u8 == base).expect("the old place or the new one");
    assert_eq!(base + u64::from(offset), middle);
    // At the ends it is found or not.
    for (address, place) in [(MOVED[0], MOVED[0]), (MOVED[1] + MOVED_SIZE - 3, MOVED[1])] {
        match read(address, &mut data) {
            Ok(()) => assert_eq!((data[0], data[1]), (2, place as u8)),
            Err(error) => assert_eq!((error, data), (IoError::Unclaimed, [0xff; 3])),
        }
    }
    // Of two that change places, one is always there.
    for address in SWAPPED {
        assert_eq!(read(address, &mut data), Ok(()));
        assert!([3, 4].contains(&data[0]));
    }
    6
}

/// C5, C7, C16.
#[test]
fn readers_see_one_state_or_the_next_while_a_writer_changes_everything() {
    manager!(let manager, with_removal_spins(u32::MAX));
    let plugged = Watched::new("plugged", 1);
    let (moved, left, right) = (Watched::new("moved", 2), Watched::new("left", 3), Watched::new("right", 4));
    for always in [&moved, &left, &right] {
        always.registered.store(true, Ordering::SeqCst);
    }
    let mover = one_device(&manager, &moved, MOVED[0], MOVED_SIZE);
    let pair = [one_device(&manager, &left, SWAPPED[0], 4), one_device(&manager, &right, SWAPPED[1], 4)];
    // It reads the address that it was given as an offset.
    let relays = |access: &Access<'_>, data: &mut [u8]| {
        let _ = manager.nested(access).read(GuestAddress(access.offset()), data, IoType::Mmio);
    };
    let relay = Acting { name: "relay", act: &relays };
    one_device(&manager, &relay, RELAY, 0x1_0000);
    let phase = Phase(AtomicUsize::new(0));
    let up = time_is_up();
    let done = AtomicBool::new(false);
    let (reads, rounds) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut place = 0;
            while !up() {
                phase.next();
                plugged.registered.store(true, Ordering::SeqCst);
                let id = one_device(&manager, &plugged, PLUGGED, 4);
                phase.next();
                place ^= 1;
                let mut swap = [
                    Relocation::new(pair[0], 0).to(GuestAddress(SWAPPED[place])),
                    Relocation::new(pair[1], 0).to(GuestAddress(SWAPPED[place ^ 1])),
                ];
                manager.relocate(&mut [Relocation::new(mover, 0).to(GuestAddress(MOVED[place]))]).unwrap();
                manager.relocate(&mut swap).unwrap();
                phase.next();
                if rounds.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
                    manager.unregister_device(id).unwrap();
                } else {
                    manager.unregister_device_deferred(id).unwrap();
                    while manager.collect() != 0 {
                        std::hint::spin_loop();
                    }
                }
                plugged.registered.store(false, Ordering::SeqCst);
                assert_eq!(plugged.inside.load(Ordering::SeqCst), 0, "a callback outlives the removal");
                phase.next();
            }
            done.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            let mut vcpu = manager.dispatcher(0).unwrap();
            let mut read = |address, data: &mut [u8]| vcpu.read(GuestAddress(address), data, IoType::Mmio);
            while !done.load(Ordering::SeqCst) {
                reads.fetch_add(look(&mut read, &phase), Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let mut read = |address, data: &mut [u8]| manager.read(GuestAddress(address), data, IoType::Mmio);
            while !done.load(Ordering::SeqCst) {
                reads.fetch_add(look(&mut read, &phase), Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            // From within the relay, which passes on what it has read, and knows no more of the outcome than that.
            let mut vcpu = manager.dispatcher(0).unwrap();
            let mut read = |address, data: &mut [u8]| {
                vcpu.read(GuestAddress(RELAY + address), data, IoType::Mmio).unwrap();
                if data.iter().all(|byte| *byte == 0xff) { Err(IoError::Unclaimed) } else { Ok(()) }
            };
            while !done.load(Ordering::SeqCst) {
                reads.fetch_add(look(&mut read, &phase), Ordering::Relaxed);
            }
        });
    });
    for device in [&plugged, &moved, &left, &right] {
        assert_eq!(device.stale.load(Ordering::SeqCst), 0, "{}", device.name);
        assert_ne!(device.calls.load(Ordering::SeqCst), 0, "{}", device.name);
    }
    assert_ne!(rounds.load(Ordering::SeqCst), 0);
    println!("{reads:?} reads in {rounds:?} rounds");
}

/// C1, C18.
#[test]
fn writers_on_several_threads_do_not_get_in_each_others_way() {
    manager!(let manager);
    let up = time_is_up();
    let devices = [Watched::new("a", 1), Watched::new("b", 2), Watched::new("c", 3)];
    thread::scope(|scope| {
        for (device, bus) in devices.iter().zip([0x1000, 0x2000, 0x3000]) {
            let (manager, up) = (&manager, &up);
            scope.spawn(move || {
                while !up() {
                    let window = [IoResource::mmio(bus, 0x1000).window()];
                    let parent = manager.register_device(device, None, &window, &[IrqResource::Any]).unwrap();
                    device.registered.store(true, Ordering::SeqCst);
                    let requests = [IoResource::mmio(bus + 0x10, 4), IoResource::mmio(bus + 0x20, 4)];
                    let child = manager.register_device(device, Some(parent), &requests, &[IrqResource::Any]).unwrap();
                    let mut data = [0; 3];
                    manager.read(GuestAddress(bus + 0x10), &mut data, IoType::Mmio).unwrap();
                    assert_eq!(data, [device.number, 0x10, 0]);
                    let mut moves =
                        [0, 1].map(|i| Relocation::new(child, i).to(GuestAddress(bus + 0x24 - i as u64 * 8)));
                    manager.relocate(&mut moves).unwrap();
                    manager.read(GuestAddress(bus + 0x24), &mut data, IoType::Mmio).unwrap();
                    assert_eq!(data, [device.number, 0x24, 0]);
                    manager.unregister_subtree(parent).unwrap();
                    device.registered.store(false, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(manager.walk().count(), 0);
    assert!(devices.iter().all(|device| device.stale.load(Ordering::SeqCst) == 0));
}
