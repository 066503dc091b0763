//! The memory of managers that own their devices: how much there is, how much stays, and what happens where there is too
//! little.
#![cfg(feature = "alloc")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::thread;

use vm_device::owned::{BuildError, Builder, Capacities, OwnedManager};
use vm_device::{
    Device, Gsi, GuestAddress, InterruptController, InterruptError, IoRange, IoResource, IoType, IrqResource,
    SystemAllocator,
};

thread_local! {
    /// How many bytes this thread has allocated, less those that it has freed, and how many it may.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static LIMIT: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// The system's heap, which counts and limits what each thread has.
struct Counted;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.get() + layout.size() as isize;
        if live > LIMIT.get() {
            return std::ptr::null_mut();
        }
        LIVE.set(live);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static HEAP: Counted = Counted;

/// How many bytes of the heap `act` leaves in use.
fn left(act: impl FnOnce()) -> isize {
    let before = LIVE.get();
    act();
    LIVE.get() - before
}

/// Runs `act` with a heap of so many bytes.
fn with_heap<R>(bytes: isize, act: impl FnOnce() -> R) -> R {
    LIMIT.set(LIVE.get() + bytes);
    let result = act();
    LIMIT.set(isize::MAX);
    result
}

struct Silent(String);

impl Device<'_> for Silent {
    fn name(&self) -> &str {
        &self.0
    }
}

/// Takes everything and does nothing. Where it `unwinds`, it does so when it is dropped.
struct Deaf {
    unwinds: bool,
}

impl InterruptController for Deaf {
    fn set_level(&self, _: Gsi, _: bool) -> Result<(), InterruptError> {
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Ok(())
    }
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Ok(())
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        if self.unwinds {
            // Without the hook of panics, which allocates.
            std::panic::resume_unwind(Box::new(()));
        }
    }
}

const ZONE: Capacities = Capacities { devices: 64, ranges: 128, vcpus: 4 };

fn allocator() -> SystemAllocator {
    SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 63)
}

fn build(capacities: Capacities) -> Result<OwnedManager, BuildError> {
    Builder::new(capacities, allocator()).with_interrupt_controller(Arc::new(Deaf { unwinds: false })).build()
}

/// A machine that is made, runs, and is left: devices that come and go, errors, look-ups, a vCPU.
fn live_and_end(capacities: Capacities) {
    let manager = build(capacities).unwrap();
    let device = |name: &str| Arc::new(Silent(name.into()));
    let bus = manager.register_device(device("bus"), None, &[], &[]).unwrap();
    for number in 0..4 {
        let requests = [IoResource::mmio(number * 0x1000, 0x1000)];
        let name = format!("device {number}");
        let id = manager.register_device(device(&name), Some(bus), &requests, &[IrqResource::Any]).unwrap();
        assert!(manager.register_device(device("late"), None, &requests, &[]).is_err());
        match number {
            0 => drop(manager.unregister_device(id).unwrap()),
            1 => manager.unregister_device_deferred(id).unwrap(),
            2 => drop(manager.take("never", Some(bus), &[], &[IrqResource::Any]).unwrap()),
            _ => {}
        }
    }
    let mut vcpu = manager.dispatcher_with_hints::<16, 16>(0).unwrap();
    assert_eq!(vcpu.read(GuestAddress(0x3000), &mut [0], IoType::Mmio), Ok(()));
    assert!(manager.map().contains("device 3") && manager.walk().len() == 3);
    drop(manager);
}

#[test]
fn ten_thousand_machines_leave_as_much_as_one() {
    let rounds = if cfg!(miri) { 5 } else { 10_000 };
    // Of a size that no other test has: what stays is shared by all threads.
    let capacities = Capacities { devices: 32, ranges: 64, vcpus: 4 };
    // The first one leaves what is kept for the lines of its devices.
    assert!(left(|| live_and_end(capacities)) > 0);
    assert_eq!(left(|| (0..rounds).for_each(|_| live_and_end(capacities))), 0);
    // A smaller one takes that over, if it is rounded to the same size.
    assert_eq!(left(|| live_and_end(Capacities { devices: 17, ranges: 33, vcpus: 1 })), 0);
}

#[test]
fn what_stays_is_as_much_as_the_documentation_says() {
    for (devices, ranges) in [(128, 512), (1024, 256)] {
        let rounded = 14 * devices as isize + 4 * ranges as isize;
        let kept = left(|| live_and_end(Capacities { devices: devices - 1, ranges, vcpus: 1 }));
        assert!((rounded..=rounded + 200).contains(&kept), "{kept} bytes for {devices} devices and {ranges} ranges");
        // Two at a time leave twice as much, and not more, however often.
        let two = || {
            let first = build(Capacities { devices, ranges, vcpus: 1 }).unwrap();
            live_and_end(Capacities { devices, ranges, vcpus: 1 });
            drop(first);
        };
        let kept = left(two);
        assert!((rounded..=rounded + 200).contains(&kept), "{kept}");
        assert_eq!(left(|| (0..10).for_each(|_| two())), 0);
    }
}

#[test]
fn no_more_stays_where_the_controller_unwinds_when_it_is_dropped() {
    let round = || {
        let capacities = Capacities { devices: 2048, ranges: 16, vcpus: 1 };
        let builder = Builder::new(capacities, allocator()).with_interrupt_controller(Arc::new(Deaf { unwinds: true }));
        let manager = builder.build().unwrap();
        assert!(std::panic::catch_unwind(move || drop(manager)).is_err());
    };
    (0..3).for_each(|_| round());
    assert!(left(|| (0..5).for_each(|_| round())) < 2048);
}

#[test]
fn fifty_zones_are_made_and_destroyed_with_a_heap_of_1_mib() {
    with_heap(1 << 20, || {
        (0..50).for_each(|_| live_and_end(ZONE));
        // Some of them at a time.
        for _ in 0..10 {
            let zones: Vec<_> = (0..16).map(|_| build(ZONE).unwrap()).collect();
            live_and_end(ZONE);
            drop(zones);
        }
        // Or all fifty, of a smaller size.
        let small = Capacities { devices: 8, ranges: 16, vcpus: 2 };
        let zones: Vec<_> = (0..50).map(|_| build(small).unwrap()).collect();
        for zone in &zones {
            let requests = [IoResource::mmio(0x1000, 4)];
            zone.register_device(Arc::new(Silent("device".into())), None, &requests, &[IrqResource::Any]).unwrap();
        }
    });
}

#[test]
fn a_heap_without_room_is_an_error_that_leaves_nothing() {
    let most = Capacities { devices: 4000, ranges: 4000, vcpus: 100 };
    live_and_end(most);
    let mut refused = 0;
    for kilobytes in 0.. {
        let before = LIVE.get();
        // What does not grow with the capacities is not refused by an error.
        let outcome = with_heap(kilobytes * 16 * 1024 + 8192, || build(most).map(drop));
        assert_eq!(LIVE.get(), before);
        match outcome {
            Ok(()) => break,
            Err(BuildError::OutOfMemory { bytes }) => assert!(bytes > 100, "{bytes}"),
            Err(error) => panic!("{error}"),
        }
        refused += 1;
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_large_manager_needs_no_stack() {
    let largest = Capacities { devices: 65_534, ranges: 65_534, vcpus: 65_534 };
    let capacities = if cfg!(miri) { ZONE } else { largest };
    let thread = thread::Builder::new().stack_size(64 << 10).spawn(move || {
        let before = LIVE.get();
        let manager = build(capacities).unwrap();
        assert!(cfg!(miri) || LIVE.get() - before > 15 << 20);
        drop(manager);
    });
    thread.unwrap().join().unwrap();
}
