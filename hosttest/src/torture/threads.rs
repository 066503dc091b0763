//! Torture by threads of this program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use vm_device::HeavyBarrier;

use super::Options;
use super::churn::World;
use super::probe::{Caller, Reader, Request};
use super::random::Random;
use super::report::Report;

/// Runs readers and writers against each other.
pub fn run(options: &Options, barrier: Option<HeavyBarrier>) -> Report {
    let world = World::new(barrier);
    let world = &world;
    world.start();
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let mut report = Report { title: title(options), ..Report::default() };
    thread::scope(|scope| {
        let stop = &stop;
        let readers: Vec<_> = (0..options.handles + options.anonymous)
            .map(|number| {
                let seed = options.seed;
                scope.spawn(move || {
                    let mut work = Work::new(seed, number as u64);
                    if number < options.handles {
                        let mut dispatcher = world.manager.dispatcher().expect("there is room for every reader");
                        work.until(stop, world, &mut dispatcher);
                    } else {
                        work.until(stop, world, &mut { &world.manager });
                    }
                    (work.reader.tally(), work.reader)
                })
            })
            .collect();
        let writers = options.writers as u64;
        for number in 0..writers {
            let mut random = Random::new(options.seed, u64::MAX - number);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    world.change(&mut random);
                }
            });
        }
        thread::sleep(options.time);
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            let (tally, reader) = reader.join().expect("a reader does not panic");
            report.add(tally, &reader);
        }
    });
    report.elapsed = start.elapsed();
    world.settle(&mut report);
    report
}

fn title(options: &Options) -> String {
    format!(
        "torture on threads: {} readers with a handle, {} without, {} writers, {} fence, seed {}",
        options.handles,
        options.anonymous,
        options.writers,
        if options.asymmetric { "asymmetric" } else { "portable" },
        options.seed
    )
}

/// How much memory a reader's other work writes to, in 8-byte words: more than the caches hold.
const OTHER_WORK: usize = 2 << 20;

/// What a reader does.
struct Work {
    random: Random,
    reader: Reader,
    other: Vec<u64>,
}

impl Work {
    fn new(seed: u64, number: u64) -> Self {
        Self { random: Random::new(seed, number), reader: Reader::new(seed, number), other: vec![0; OTHER_WORK] }
    }

    fn until(&mut self, stop: &AtomicBool, world: &World<'_>, caller: &mut impl Caller) {
        let mut place = &world.places[0];
        while !stop.load(Ordering::Relaxed) {
            let draw = self.random.next();
            // Runs of accesses to one place, as guests make them, so that the last hit is used.
            if draw & 3 == 0 {
                place = &world.places[self.random.below(world.places.len())];
            }
            // Stores that miss the caches keep the processor's store buffer full, and with it a store that announces an
            // access: without a fence it then comes late.
            if draw & 0x1c == 0 {
                for number in 0..8 {
                    let word = (draw >> 8).wrapping_add(number * 0x9_e377) as usize % OTHER_WORK;
                    self.other[word] = draw;
                }
            }
            let request = Request::draw_at(&mut self.random, place);
            let mut data = [0; 8];
            self.reader.access(world, caller, request, &mut data[..request.size]);
        }
    }
}
