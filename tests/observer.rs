//! What an observer is told: every access once, with its outcome.

mod fixture;

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, ThreadId};

use fixture::{Acting, Constant, at, manager, read, register, try_register, unwinds, within_limit};
use spin::Mutex;
use vm_device::AccessDirection::{self, Read, Write};
use vm_device::{
    Access, AccessObserver, AccessSizes, Accesses, Device, DeviceManager, Failed, InstanceId, IoError, IoResource,
    IoType, MAX_DEPTH, ObservedAccess, Relocation, Straddling,
};

/// What was told of an access, but for the time.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Told {
    outcome: Result<(), IoError>,
    range: Option<(InstanceId, usize)>,
    vcpu: Option<u16>,
    io_type: IoType,
    address: u64,
    direction: AccessDirection,
    element: usize,
    data: Vec<u8>,
    depth: usize,
    is_piece: bool,
}

impl Told {
    fn new(access: &ObservedAccess<'_>) -> Self {
        let ObservedAccess { outcome, device, range_index, vcpu, io_type, address, direction, .. } = *access;
        assert_eq!(device.is_some(), range_index.is_some());
        let range = device.zip(range_index);
        let ObservedAccess { element, depth, is_piece, .. } = *access;
        let data = access.data.to_vec();
        Self { outcome, range, vcpu, io_type, address: address.0, direction, element, data, depth, is_piece }
    }
}

/// Keeps all that it is told, with the thread. Its time is the number of its calls.
#[derive(Default)]
struct Trace {
    told: Mutex<Vec<(ThreadId, Told)>>,
    started: Mutex<Vec<Option<u64>>>,
    time: AtomicU64,
}

impl AccessObserver for Trace {
    fn observe(&self, access: &ObservedAccess<'_>) {
        self.told.lock().push((thread::current().id(), Told::new(access)));
        self.started.lock().push(access.started);
    }
    fn now(&self) -> Option<u64> {
        Some(self.time.fetch_add(1, SeqCst))
    }
}

impl Trace {
    fn take(&self) -> Vec<Told> {
        let told = std::mem::take(&mut *self.told.lock());
        assert!(told.iter().all(|(thread, _)| *thread == thread::current().id()));
        told.into_iter().map(|(_, told)| told).collect()
    }
}

/// Calls a function with what it is told.
struct Calling<F>(F);

impl<F: Fn(&ObservedAccess<'_>) + Sync> AccessObserver for Calling<F> {
    fn observe(&self, access: &ObservedAccess<'_>) {
        (self.0)(access);
    }
}

/// The same without a handle, and often through one: by a search, and by what would be a hint. With the vCPU's number.
fn each_way<'d>(manager: &'d DeviceManager<'d>, mut make: impl FnMut(&mut dyn Accesses, Option<u16>)) {
    make(&mut &*manager, None);
    let mut vcpu = manager.dispatcher(9).unwrap();
    for _ in 0..3 {
        make(&mut vcpu, Some(9));
    }
}

#[test]
fn every_outcome_of_an_access_is_told_by_each_way() {
    let trace = Trace::default();
    manager!(let manager, with_observer(&trace));
    struct Broken;
    impl Device<'_> for Broken {
        fn name(&self) -> &str {
            "broken"
        }
        fn try_read(&self, _: &Access<'_>, _: &mut [u8]) -> Result<(), Failed> {
            Err(Failed::new(3))
        }
        fn try_write(&self, _: &Access<'_>, _: &[u8]) -> Result<(), Failed> {
            Err(Failed::new(3))
        }
    }
    let device = Constant { name: "device", value: 5 };
    let dwords = |request: IoResource| request.sizes(AccessSizes::DWORD);
    let requests = [IoResource::mmio(0, 4), dwords(IoResource::mmio(8, 8)), IoResource::pio(0, 4)];
    let id = try_register(&manager, &device, &requests).unwrap();
    let broken = register(&manager, &Broken, 0x20);
    let accesses = [
        (0, 4, IoType::Mmio, Ok(()), Some((id, 0))),
        (2, 1, IoType::Mmio, Ok(()), Some((id, 0))),
        (8, 4, IoType::Mmio, Ok(()), Some((id, 1))),
        (1, 2, IoType::Pio, Ok(()), Some((id, 2))),
        (8, 2, IoType::Mmio, Err(IoError::RefusedSize), Some((id, 1))),
        (0x20, 4, IoType::Mmio, Err(IoError::Failed { code: 3 }), Some((broken, 0))),
        (2, 4, IoType::Mmio, Err(IoError::Straddling), None),
        (4, 4, IoType::Mmio, Err(IoError::Unclaimed), None),
        (0x1_0000, 1, IoType::Pio, Err(IoError::Unclaimed), None),
        (u64::MAX, 1, IoType::Mmio, Err(IoError::Unclaimed), None),
        (0, 0, IoType::Mmio, Err(IoError::InvalidLength), None),
        (0, 4, IoType::PhysicalMmio, Err(IoError::NotDispatched), None),
    ];
    for (address, length, io_type, outcome, range) in accesses {
        each_way(&manager, |accesses, vcpu| {
            let mut data = vec![0; length];
            assert_eq!(accesses.read(at(address), &mut data, io_type), outcome);
            let reached = outcome.is_ok();
            assert_eq!(data, vec![if reached { 5 } else { 0xff }; length]);
            let told = Told {
                outcome,
                range,
                vcpu,
                io_type,
                address,
                direction: Read,
                element: length,
                data,
                depth: 0,
                is_piece: false,
            };
            assert_eq!(trace.take(), std::slice::from_ref(&told));
            let data = vec![0x77; length];
            assert_eq!(accesses.write(at(address), &data, io_type), outcome);
            assert_eq!(trace.take(), [Told { direction: Write, data, ..told }]);
        });
    }
}

#[test]
fn a_string_is_told_as_one_access() {
    let trace = Trace::default();
    manager!(let manager, with_observer(&trace));
    let device = Constant { name: "device", value: 5 };
    let bytes = AccessSizes::BYTE | AccessSizes::SPLIT;
    let id = try_register(&manager, &device, &[IoResource::pio(0, 4), IoResource::pio(4, 4).sizes(bytes)]).unwrap();
    let strings = [
        (2, 2, 6, Ok(()), Some((id, 0))),
        // In pieces of bytes, which are no accesses of their own.
        (4, 2, 6, Ok(()), Some((id, 1))),
        (2, 4, 8, Err(IoError::Straddling), None),
        (9, 1, 3, Err(IoError::Unclaimed), None),
        (2, 2, 5, Err(IoError::InvalidLength), None),
        (2, 0, 4, Err(IoError::InvalidLength), None),
    ];
    for (port, element, length, outcome, range) in strings {
        each_way(&manager, |accesses, vcpu| {
            let mut data = vec![0; length];
            assert_eq!(accesses.read_string(port, element, &mut data), outcome);
            let address = port.into();
            let io_type = IoType::Pio;
            let (depth, is_piece) = (0, false);
            let told = Told { outcome, range, vcpu, io_type, address, direction: Read, element, data, depth, is_piece };
            assert_eq!(trace.take(), std::slice::from_ref(&told));
            let data = vec![0x77; length];
            assert_eq!(accesses.write_string(port, element, &data), outcome);
            assert_eq!(trace.take(), [Told { direction: Write, data, ..told }]);
        });
    }
}

#[test]
fn the_pieces_of_a_straddling_access_are_told_and_then_the_whole() {
    let trace = Trace::default();
    manager!(let manager, with_straddling(IoType::Mmio, Straddling::Split), with_observer(&trace));
    let [low, high] = [("low", 1), ("high", 2)].map(|(name, value)| Constant { name, value });
    let low = try_register(&manager, &low, &[IoResource::mmio(0, 2)]).unwrap();
    let high = try_register(&manager, &high, &[IoResource::mmio(4, 1)]).unwrap();
    each_way(&manager, |accesses, vcpu| {
        let mut data = [0; 8];
        let partial = Err(IoError::Partial { delivered: 3 });
        assert_eq!(accesses.read(at(0), &mut data, IoType::Mmio), partial);
        let told = trace.take();
        let pieces: Vec<_> =
            told.iter().map(|told| (told.address, told.data.as_slice(), told.range, told.is_piece)).collect();
        let whole = [1, 1, 0xff, 0xff, 2, 0xff, 0xff, 0xff];
        let expected = [
            (0, &whole[..2], Some((low, 0)), true),
            (2, &whole[2..4], None, true),
            (4, &whole[4..5], Some((high, 0)), true),
            (5, &whole[5..6], None, true),
            (6, &whole[6..], None, true),
            (0, &whole[..], None, false),
        ];
        assert_eq!(pieces, expected);
        assert_eq!(
            told.iter().map(|told| told.outcome.is_ok()).collect::<Vec<_>>(),
            [true, false, true, false, false, false]
        );
        assert!(told.iter().all(|told| told.vcpu == vcpu && told.element == told.data.len() && told.depth == 0));
        assert_eq!(told.last().map(|told| told.outcome), Some(partial));
    });
}

#[test]
fn nested_accesses_are_told_from_the_innermost_one_with_their_depth() {
    let trace = Trace::default();
    manager!(let manager, with_observer(&trace));
    // It reads itself, as deep as it can.
    let act = |access: &Access<'_>, data: &mut [u8]| {
        let _ = manager.nested(access).read(access.address(), data, IoType::Mmio);
    };
    let device = Acting { name: "recursive", act: &act };
    let id = register(&manager, &device, 0);
    let mut vcpu = manager.dispatcher(4).unwrap();
    let _ = vcpu.read(at(0), &mut [0], IoType::Mmio);
    let told = trace.take();
    let depths: Vec<_> = told.iter().map(|told| (told.depth, told.outcome, told.range)).collect();
    let mut expected = vec![(MAX_DEPTH, Err(IoError::TooDeep), None)];
    expected.extend((0..MAX_DEPTH).rev().map(|depth| (depth, Ok(()), Some((id, 0)))));
    assert_eq!(depths, expected);
    assert!(told.iter().all(|told| told.vcpu == Some(4)));
}

/// A byte of memory.
fn byte(accesses: &mut dyn Accesses, address: u64) -> Result<u8, IoError> {
    let mut data = [0];
    accesses.read(at(address), &mut data, IoType::Mmio).map(|()| data[0])
}

#[test]
fn an_access_to_a_range_that_has_moved_is_told_with_the_device_that_has_it_now() {
    let trace = Trace::default();
    manager!(let manager, with_observer(&trace));
    let [first, second] = [("first", 1), ("second", 2)].map(|(name, value)| Constant { name, value });
    let ids = [register(&manager, &first, 0), register(&manager, &second, 8)];
    let mut vcpu = manager.dispatcher(0).unwrap();
    for places in [[0, 8], [8, 0], [0, 8]] {
        let mut steps = [0, 1].map(|number| Relocation::new(ids[number], 0).to(at(places[number])));
        manager.relocate(&mut steps).unwrap();
        for (number, place) in places.into_iter().enumerate() {
            for _ in 0..2 {
                assert_eq!(byte(&mut vcpu, place), Ok(number as u8 + 1));
                let told = trace.take();
                assert_eq!(told.iter().map(|told| told.range).collect::<Vec<_>>(), [Some((ids[number], 0))]);
            }
        }
    }
}

/// C31.
#[test]
fn the_device_of_an_access_that_is_told_can_be_removed() {
    static MANAGER: OnceLock<&'static DeviceManager<'static>> = OnceLock::new();
    static REMOVED: Mutex<Vec<InstanceId>> = Mutex::new(Vec::new());
    static OBSERVER: Calling<fn(&ObservedAccess<'_>)> = Calling(|access| {
        let (Some(manager), Some(device)) = (MANAGER.get(), access.device) else { return };
        // A removal that had to wait for the access would never end, and gives up.
        assert_eq!(manager.unregister_device(device), Ok(()));
        REMOVED.lock().push(device);
    });
    static DEVICE: Constant = Constant { name: "device", value: 1 };
    manager!(static OBSERVED = fixture::everything(), with_observer(&OBSERVER), with_removal_spins(100));
    MANAGER.get_or_init(|| &OBSERVED);
    let mut vcpu = OBSERVED.dispatcher(0).unwrap();
    let mut expected = vec![];
    for by_handle in [false, true, true] {
        expected.push(register(&OBSERVED, &DEVICE, 0));
        let outcome = match by_handle {
            true => vcpu.read(at(0), &mut [0], IoType::Mmio),
            false => OBSERVED.read(at(0), &mut [0], IoType::Mmio),
        };
        assert_eq!((outcome, &*REMOVED.lock()), (Ok(()), &expected));
    }
}

/// C31.
#[test]
fn each_thread_is_told_of_its_own_accesses() {
    let trace = Trace::default();
    manager!(let manager: <4, 4, 4> = fixture::everything(), with_observer(&trace));
    let device = Constant { name: "device", value: 1 };
    register(&manager, &device, 0);
    let threads = thread::scope(|scope| {
        let threads = [0_u16, 1].map(|number| {
            let (manager, trace) = (&manager, &trace);
            scope.spawn(move || {
                let mut vcpu = manager.dispatcher(number).unwrap();
                for access in 1..=100 {
                    vcpu.write(at(0), &[number as u8], IoType::Mmio).unwrap();
                    // It was told before the access returned.
                    let told = trace.told.lock();
                    assert_eq!(told.iter().filter(|(thread, _)| *thread == thread::current().id()).count(), access);
                }
                thread::current().id()
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    for (number, thread) in threads.into_iter().enumerate() {
        let told = trace.told.lock();
        let mine: Vec<_> = told.iter().filter(|(by, _)| *by == thread).map(|(_, told)| told).collect();
        assert_eq!(mine.len(), 100);
        assert!(mine.iter().all(|told| told.vcpu == Some(number as u16) && told.data == [number as u8]));
    }
}

#[test]
fn an_observer_is_told_by_its_own_manager_alone() {
    let [first, second] = [Trace::default(), Trace::default()];
    manager!(let one, with_observer(&first));
    manager!(let other, with_observer(&second));
    manager!(let unobserved);
    let device = Constant { name: "device", value: 1 };
    for manager in [&one, &other, &unobserved] {
        register(manager, &device, 0);
        each_way(manager, |accesses, _| accesses.write(at(0), &[1], IoType::Mmio).unwrap());
        let told = [first.take().len(), second.take().len()];
        let expected = [(&one, [4, 0]), (&other, [0, 4]), (&unobserved, [0, 0])];
        assert!(expected.iter().any(|(of, counts)| std::ptr::eq(*of, manager) && *counts == told), "{told:?}");
    }
}

#[test]
fn the_time_is_asked_once_for_each_access_before_it_is_made() {
    let trace = Trace::default();
    manager!(let manager, with_observer(&trace));
    let act = |access: &Access<'_>, data: &mut [u8]| {
        let _ = manager.nested(access).read(at(8), data, IoType::Mmio);
    };
    let outer = Acting { name: "outer", act: &act };
    register(&manager, &outer, 0);
    each_way(&manager, |accesses, _| {
        let first = trace.time.load(SeqCst);
        accesses.read(at(0), &mut [0], IoType::Mmio).unwrap();
        // The inner access began later, and ended earlier.
        assert_eq!(std::mem::take(&mut *trace.started.lock()), [Some(first + 1), Some(first)]);
        trace.take();
    });
    let silent = Calling(|access: &ObservedAccess<'_>| assert_eq!(access.started, None));
    manager!(let silent, with_observer(&silent));
    assert_eq!(read(&silent, 0), Err(IoError::Unclaimed));
}

/// C32.
#[test]
fn an_observer_may_access_devices_and_is_told_of_that() {
    static MANAGER: OnceLock<&'static DeviceManager<'static>> = OnceLock::new();
    static TOLD: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    static OBSERVER: Calling<fn(&ObservedAccess<'_>)> = Calling(|access| {
        TOLD.lock().push(access.address.0);
        if access.address == at(0) {
            let manager = *MANAGER.get().unwrap();
            assert_eq!((manager.walk().count(), read(manager, 8)), (1, Ok(1)));
        }
    });
    static DEVICE: Constant = Constant { name: "device", value: 1 };
    manager!(static OBSERVED = fixture::everything(), with_observer(&OBSERVER));
    MANAGER.get_or_init(|| &OBSERVED);
    try_register(&OBSERVED, &DEVICE, &[IoResource::mmio(0, 4), IoResource::mmio(8, 4)]).unwrap();
    // With the lock held, it would wait for itself.
    within_limit(|| {
        each_way(&OBSERVED, |accesses, _| {
            accesses.write(at(0), &[1], IoType::Mmio).unwrap();
            assert_eq!(std::mem::take(&mut *TOLD.lock()), [0, 8]);
        });
    });
}

/// C32.
#[test]
fn an_access_whose_device_panics_is_not_told_and_an_observer_that_panics_leaves_nothing_stuck() {
    let trace = Trace::default();
    let observer = Calling(|access: &ObservedAccess<'_>| {
        trace.observe(access);
        assert_ne!(access.address, at(8), "a defect of the observer");
    });
    manager!(let manager, with_observer(&observer), with_removal_spins(2000));
    let act = |access: &Access<'_>, _: &mut [u8]| assert_eq!(access.address(), at(8), "a defect of the device");
    let device = Acting { name: "device", act: &act };
    let id = try_register(&manager, &device, &[IoResource::mmio(0, 4), IoResource::mmio(8, 4)]).unwrap();
    each_way(&manager, |accesses, _| {
        assert!(unwinds(|| accesses.read(at(0), &mut [0], IoType::Mmio)));
        assert_eq!(trace.take(), []);
        assert!(unwinds(|| accesses.read(at(8), &mut [0], IoType::Mmio)));
        assert_eq!(trace.take().iter().map(|told| told.outcome).collect::<Vec<_>>(), [Ok(())]);
    });
    assert_eq!(manager.unregister_device(id), Ok(()));
}
