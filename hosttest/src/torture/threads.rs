//! Torture by threads of this program.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use vm_device::{Accesses, HeavyBarrier};

use super::access::{Field, Reader, Request, Room};
use super::churn::Churn;
use super::hang::watch;
use super::options::Options;
use super::probe::stay_for;
use super::report::Report;
use crate::random::Random;

/// Runs readers and writers against each other.
pub fn run(options: &Options, barrier: Option<HeavyBarrier>) -> Report {
    let room = Room::new();
    let churn = Churn::new(&room, barrier);
    let churn = &churn;
    churn.start();
    let (world, field) = (&churn.world, &churn.world.field);
    let (stop, contended) = (AtomicBool::new(false), Contended::new());
    let start = Instant::now();
    let mut report = Report { title: title(options), ..Report::default() };
    thread::scope(|scope| {
        let (stop, contended) = (&stop, &contended);
        let running = watch(scope, || world.progress());
        let readers: Vec<_> = (0..options.handles + options.anonymous)
            .map(|number| {
                let seed = options.seed;
                scope.spawn(move || {
                    let mut work = Work::new(seed, number as u64, contended);
                    if number < options.handles {
                        let mut dispatcher = field.manager.dispatcher(0).expect("there is room for every reader");
                        work.until(stop, field, &mut dispatcher, 8);
                    } else {
                        work.until(stop, field, &mut { &field.manager }, 8);
                    }
                    (work.reader.tally(), work.reader)
                })
            })
            .collect();
        let writers: Vec<_> = (0..options.writers as u64)
            .map(|number| {
                let mut random = Random::new(options.seed, u64::MAX - number);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        contended.store(8);
                        churn.change(&mut random);
                    }
                })
            })
            .collect();
        options.wait(&field.violations);
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            let (tally, reader) = reader.join().expect("a reader does not panic");
            report.add(tally, &reader);
        }
        writers.into_iter().for_each(|writer| writer.join().expect("a writer does not panic"));
        drop(running);
    });
    report.elapsed = start.elapsed();
    world.settle(&mut report);
    report
}

/// Runs one reader and one writer of one device against each other, each on a processor of its own if there are two: the
/// fewest instructions between an access and the removal that it meets.
pub fn run_pair(options: &Options, barrier: Option<HeavyBarrier>) -> Report {
    let room = Room::new();
    let churn = Churn::with_one_device(&room, barrier);
    let churn = &churn;
    churn.start();
    let (world, field) = (&churn.world, &churn.world.field);
    let (stop, contended) = (AtomicBool::new(false), Contended::new());
    let start = Instant::now();
    let fence = fence_name(options);
    let title = format!("torture on two threads: one device, {fence} fence, seed {}", options.seed);
    let mut report = Report { title, ..Report::default() };
    thread::scope(|scope| {
        let (stop, contended) = (&stop, &contended);
        let running = watch(scope, || world.progress());
        let reader = scope.spawn(move || {
            pin(0);
            let mut work = Work::new(options.seed, 0, contended);
            let mut dispatcher = field.manager.dispatcher(0).expect("there is room for one reader");
            work.until(stop, field, &mut dispatcher, 1);
            (work.reader.tally(), work.reader)
        });
        let writer = scope.spawn(move || {
            pin(1);
            let mut random = Random::new(options.seed, u64::MAX);
            while !stop.load(Ordering::Relaxed) {
                contended.store(random.below(64));
                churn.change(&mut random);
                // Now and then a moment, now and then long enough for many accesses.
                let longest = 1 << random.below(14);
                stay_for(random.below(longest) as u64);
            }
        });
        options.wait(&field.violations);
        stop.store(true, Ordering::Relaxed);
        let (tally, reader) = reader.join().expect("a reader does not panic");
        report.add(tally, &reader);
        writer.join().expect("a writer does not panic");
        drop(running);
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

/// Cache lines that all threads write.
struct Contended([Line; 64]);

#[repr(align(64))]
struct Line(AtomicU64);

impl Contended {
    const fn new() -> Self {
        Self([const { Line(AtomicU64::new(0)) }; 64])
    }

    fn store(&self, lines: usize) {
        for line in self.0.iter().take(lines) {
            line.0.store(lines as u64, Ordering::Relaxed);
        }
    }
}

/// How much memory of its own a thread writes, in 8-byte words: what a second-level TLB covers, and more than the caches
/// of one processor hold.
const MEMORY: usize = 2 << 20;

/// Stores that are slow to reach memory. They fill the processor's store buffer, and the store by which an access protects its
/// slot waits behind them: without a fence it then comes late. Which kind is slow enough differs between hosts.
struct SlowStores<'c> {
    contended: &'c Contended,
    memory: Vec<u64>,
}

impl<'c> SlowStores<'c> {
    fn new(contended: &'c Contended) -> Self {
        Self { contended, memory: vec![0; MEMORY] }
    }

    /// None, or up to 127 of one kind.
    fn make(&mut self, random: &mut Random) {
        let draw = random.next();
        let count = random.below(1 << (draw >> 8 & 7));
        match draw & 3 {
            0 => {}
            1 => self.contended.store(count),
            2 => (0..count).for_each(|_| self.memory[random.below(MEMORY)] = draw),
            _ => self.stream(count, draw),
        }
    }

    /// Stores past the caches.
    fn stream(&mut self, count: usize, value: u64) {
        for word in self.memory.iter_mut().step_by(8).take(count) {
            // SAFETY: the word is borrowed for writing, and aligned. Only this thread reads it, whose own stores it sees in
            // order, streamed or not.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                std::arch::x86_64::_mm_stream_si64(std::ptr::from_mut(word).cast(), value as i64);
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                *word = value;
            }
        }
    }
}

/// What a reader does.
struct Work<'c> {
    random: Random,
    reader: Reader,
    stores: SlowStores<'c>,
}

impl<'c> Work<'c> {
    fn new(seed: u64, number: u64, contended: &'c Contended) -> Self {
        Self {
            random: Random::new(seed, number),
            reader: Reader::new(seed, number),
            stores: SlowStores::new(contended),
        }
    }

    /// Accesses until it is told to stop; one of `every` after slow stores.
    fn until(&mut self, stop: &AtomicBool, field: &Field<'_>, caller: &mut impl Accesses, every: u64) {
        let mut place = &field.places[0];
        while !stop.load(Ordering::Relaxed) {
            let draw = self.random.next();
            // Runs of accesses to one place, as guests make them, so that hints are used.
            if draw & 3 == 0 {
                place = &field.places[self.random.below(field.places.len())];
            }
            let request = Request::draw_at(&mut self.random, place);
            if (draw >> 2).is_multiple_of(every) {
                self.stores.make(&mut self.random);
            }
            let mut data = [0; 8];
            self.reader.access(field, caller, request, &mut data[..request.size]);
            if draw >> 48 & 15 == 0 {
                field.split(caller, &mut self.random, place);
                self.reader.splits += 1;
            }
        }
    }
}
