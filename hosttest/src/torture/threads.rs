//! Torture by threads of this program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use vm_device::HeavyBarrier;

use super::Options;
use super::churn::World;
use super::probe::{Reader, Request, stay_for};
use super::random::Random;
use super::report::Report;
use crate::bridge::Accesses;

/// Runs readers and writers against each other.
pub fn run(options: &Options, barrier: Option<HeavyBarrier>) -> Report {
    let world = World::new(barrier);
    let world = &world;
    world.start();
    let stop = AtomicBool::new(false);
    let _watchdog = options.watch();
    let start = Instant::now();
    let mut report = Report { title: title(options), ..Report::default() };
    thread::scope(|scope| {
        let stop = &stop;
        let readers: Vec<_> = (0..options.handles + options.anonymous)
            .map(|number| {
                let seed = options.seed;
                scope.spawn(move || {
                    let mut work = Work::new(seed, number as u64);
                    let stores = |draw: u64| if draw & 7 == 0 { 8 } else { 0 };
                    if number < options.handles {
                        let mut dispatcher = world.manager.dispatcher().expect("there is room for every reader");
                        work.until(stop, world, &mut dispatcher, stores);
                    } else {
                        work.until(stop, world, &mut { &world.manager }, stores);
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
        options.wait(world);
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

/// Runs one reader and one writer of one device against each other, each on a processor of its own if there are two: the
/// fewest instructions between an access and the removal that it meets.
pub fn run_pair(options: &Options, barrier: Option<HeavyBarrier>) -> Report {
    let world = World::with_one_device(barrier);
    let world = &world;
    world.start();
    let stop = AtomicBool::new(false);
    let _watchdog = options.watch();
    let start = Instant::now();
    let fence = fence_name(options);
    let title = format!("torture on two threads: one device, {fence} fence, seed {}", options.seed);
    let mut report = Report { title, ..Report::default() };
    thread::scope(|scope| {
        let stop = &stop;
        let reader = scope.spawn(move || {
            pin(0);
            let mut work = Work::new(options.seed, 0);
            let mut dispatcher = world.manager.dispatcher().expect("there is room for one reader");
            work.until(stop, world, &mut dispatcher, |draw| draw as usize % 48);
            (work.reader.tally(), work.reader)
        });
        scope.spawn(move || {
            pin(1);
            let mut random = Random::new(options.seed, u64::MAX);
            while !stop.load(Ordering::Relaxed) {
                world.change(&mut random);
                stay_for(random.next() % 1024);
            }
        });
        options.wait(world);
        stop.store(true, Ordering::Relaxed);
        let (tally, reader) = reader.join().expect("a reader does not panic");
        report.add(tally, &reader);
    });
    report.elapsed = start.elapsed();
    world.settle(&mut report);
    report
}

/// Binds the calling thread to one processor, if the host lets it: it makes meetings likelier, and nothing depends on it.
fn pin(processor: usize) {
    // SAFETY: all zeros is the empty set, and both calls are given its right size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

fn fence_name(options: &Options) -> &'static str {
    if options.asymmetric { "asymmetric" } else { "portable" }
}

fn title(options: &Options) -> String {
    format!(
        "torture on threads: {} readers with a handle, {} without, {} writers, {} fence, seed {}",
        options.handles,
        options.anonymous,
        options.writers,
        fence_name(options),
        options.seed
    )
}

/// How much memory a reader's other work writes to, in 8-byte words: more than the caches hold.
const OTHER_WORK: usize = 8 << 20;

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

    /// Accesses until it is told to stop. Before each access, `stores` says how many stores of other work there are, given a
    /// random number.
    fn until(
        &mut self,
        stop: &AtomicBool,
        world: &World<'_>,
        caller: &mut impl Accesses,
        stores: impl Fn(u64) -> usize,
    ) {
        let mut place = &world.places[0];
        while !stop.load(Ordering::Relaxed) {
            let draw = self.random.next();
            // Runs of accesses to one place, as guests make them, so that the last hit is used.
            if draw & 3 == 0 {
                place = &world.places[self.random.below(world.places.len())];
            }
            let request = Request::draw_at(&mut self.random, place);
            self.do_other_work(draw >> 8, stores(draw >> 2));
            let mut data = [0; 8];
            self.reader.access(world, caller, request, &mut data[..request.size]);
        }
    }

    /// Stores that miss the caches keep the processor's store buffer full, and with it a store that announces an access:
    /// without a fence it then comes late.
    fn do_other_work(&mut self, draw: u64, stores: usize) {
        for number in 0..stores {
            let word = (draw as usize).wrapping_add(number * 0x9_e377) % OTHER_WORK;
            self.other[word] = draw;
        }
    }
}
