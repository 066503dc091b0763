//! Devices of rust-vmm here, and devices of this crate there: the machine stays the same while its devices move.

use std::sync::{Arc, Mutex};

use hosttest::adapters::for_io_manager::{ForIoManager, RegisterError};
use hosttest::adapters::from_io_manager::FromIoManager;
use hosttest::adapters::io_manager_bus::IoManagerBus;
use hosttest::adapters::serial::Serial;
use hosttest::devices::scratch::{Call, Scratch};
use peer_vm_device::bus::{MmioAddress, MmioAddressOffset, MmioRange, PioAddress, PioAddressOffset, PioRange};
use peer_vm_device::device_manager::{IoManager, MmioManager, PioManager};
use peer_vm_device::{DevicePio, MutDeviceMmio, MutDevicePio};
use vm_device::owned::{Capacities, OwnedManager};
use vm_device::{
    Access, AccessSizes, Assigned, Device, DeviceManager, Failed, GuestAddress, GuestUsize, InterruptError, IoError,
    IoRange, IoResource, IoType, Rejected, Relocation, Resources, Storage, SystemAllocator,
};
use vm_superio::SerialState;

/// A device of the peer's with ports and memory, which notes each call with all that it is given, and answers with what depends on
/// its earlier calls.
#[derive(Default)]
struct Peer(Vec<(IoType, u64, u64, Vec<u8>)>);

impl Peer {
    fn read(&mut self, io_type: IoType, base: u64, offset: u64, data: &mut [u8]) {
        self.0.push((io_type, base, offset, data.to_vec()));
        let value = self.0.len() as u8;
        // Its last register answers nothing.
        for (at, byte) in (offset..).zip(data).filter(|(at, _)| *at != 6) {
            *byte = value.wrapping_mul(7) ^ at as u8;
        }
    }

    fn write(&mut self, io_type: IoType, base: u64, offset: u64, data: &[u8]) {
        self.0.push((io_type, base, offset, data.to_vec()));
    }
}

impl MutDevicePio for Peer {
    fn pio_read(&mut self, base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        self.read(IoType::Pio, base.0.into(), offset.into(), data);
    }
    fn pio_write(&mut self, base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        self.write(IoType::Pio, base.0.into(), offset.into(), data);
    }
}

impl MutDeviceMmio for Peer {
    fn mmio_read(&mut self, base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.read(IoType::Mmio, base.0, offset, data);
    }
    fn mmio_write(&mut self, base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.write(IoType::Mmio, base.0, offset, data);
    }
}

const PORT: u16 = 0x100;
const MEMORY: u64 = 0x1000;

/// The places of the peer's device: of each space 7, which are an odd number.
const PEER: [IoResource; 2] = [IoResource::pio(PORT, 7), IoResource::mmio(MEMORY, 7)];
/// The serial port has the next 8.
const SERIAL: [IoResource; 1] = [IoResource::pio(PORT + 7, 8)];
/// Behind a gap, and without one in memory, a device that does not accept every access.
const SCRATCH: [IoResource; 3] = [
    IoResource::pio(PORT + 0x10, 5).sizes(AccessSizes::WORD.union(AccessSizes::BYTE).union(AccessSizes::SPLIT)),
    IoResource::mmio(MEMORY + 7, 9).sizes(AccessSizes::DWORD.union(AccessSizes::ALIGNED)),
    IoResource::mmio(MEMORY + 0x10, 8),
];

/// The three devices, and what they are after the accesses.
struct Devices {
    peer: Arc<Mutex<Peer>>,
    serial: Arc<Serial<'static, Vec<u8>>>,
    scratch: Arc<Scratch<9>>,
}

/// What happened to the devices.
#[derive(PartialEq)]
struct Seen {
    reads: Vec<(Place, Vec<u8>)>,
    peer: Vec<(IoType, u64, u64, Vec<u8>)>,
    serial: (SerialState, Vec<u8>),
    scratch: (Vec<Call>, [u8; 9]),
}

type Place = (IoType, u64, usize);

impl Devices {
    fn new() -> Self {
        let (serial, scratch) = (Arc::new(Serial::new(Vec::new())), Arc::new(Scratch::new("scratch")));
        Self { peer: Arc::default(), serial, scratch }
    }

    fn add_peer(&self, manager: &mut IoManager) {
        manager.register_pio(PioRange::new(PioAddress(PORT), 7).unwrap(), self.peer.clone()).unwrap();
        manager.register_mmio(MmioRange::new(MmioAddress(MEMORY), 7).unwrap(), self.peer.clone()).unwrap();
    }

    /// Makes all accesses: what came of them, and of each whether a device was found.
    fn seen(
        self,
        read: impl Fn(Place, &mut [u8]) -> bool,
        write: impl Fn(Place, &[u8]) -> bool,
    ) -> (Seen, Vec<(Place, bool)>) {
        let (mut reads, mut reached, mut number) = (Vec::new(), Vec::new(), 0_u32);
        for place in places() {
            // Many of the accesses to the serial port leave it in loopback mode.
            self.serial.reset();
            self.serial.enqueue_raw_bytes(b"some of the input");
            let written: Vec<u8> = (0..place.2).map(|_| next(&mut number)).collect();
            reached.push((place, write(place, &written)));
            let mut data = vec![0xff; place.2];
            reached.push((place, read(place, &mut data)));
            reads.push((place, data));
        }
        let peer = std::mem::take(&mut self.peer.lock().unwrap().0);
        let serial = (self.serial.state(), self.serial.with_writer(|sent| sent.clone()));
        (Seen { reads, peer, serial, scratch: (self.scratch.take_calls(), self.scratch.bytes()) }, reached)
    }
}

/// A byte that looks like none before it.
fn next(number: &mut u32) -> u8 {
    *number = number.wrapping_mul(1_103_515_245).wrapping_add(12_345);
    (*number >> 16) as u8
}

/// Accesses of every length at every address of the devices, before them and behind; and at the ends of the spaces.
fn places() -> Vec<Place> {
    let around = |first: u64| (first - 10)..(first + 0x22);
    let ports = around(PORT.into()).chain([0, 0xfff8, 0xfffe, 0xffff]).map(|address| (IoType::Pio, address));
    let memory = around(MEMORY).chain([0, u64::MAX - 1, u64::MAX]).map(|address| (IoType::Mmio, address));
    ports
        .chain(memory)
        .flat_map(|(io_type, address)| (0..=9).chain([16]).map(move |length| (io_type, address, length)))
        .collect()
}

fn peer_read(manager: &IoManager, (io_type, address, _): Place, data: &mut [u8]) -> bool {
    match io_type {
        IoType::Pio => manager.pio_read(PioAddress(address as u16), data).is_ok(),
        _ => manager.mmio_read(MmioAddress(address), data).is_ok(),
    }
}

fn peer_write(manager: &IoManager, (io_type, address, _): Place, data: &[u8]) -> bool {
    match io_type {
        IoType::Pio => manager.pio_write(PioAddress(address as u16), data).is_ok(),
        _ => manager.mmio_write(MmioAddress(address), data).is_ok(),
    }
}

/// The peer's outcomes: it knows nothing of a device that refuses a size.
fn reached(outcome: Result<(), IoError>) -> bool {
    matches!(outcome, Ok(()) | Err(IoError::RefusedSize))
}

fn manager<'d>(storage: &'d Storage<'d, 8, 16, 2>) -> DeviceManager<'d> {
    DeviceManager::new(storage, everything())
}

fn everything() -> SystemAllocator {
    SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS)
}

/// Which devices have moved.
#[derive(Clone, Copy)]
struct Moved {
    peer: bool,
    serial: bool,
    scratch: bool,
}

/// The machine whose manager is the one of this crate, with the `IoManager` as a bus that has the devices that have not moved.
fn under_a_bus(moved: Moved) -> Seen {
    let devices = Devices::new();
    let mut peer = IoManager::new();
    if !moved.peer {
        devices.add_peer(&mut peer);
    }
    if !moved.serial {
        ForIoManager::register(devices.serial.clone(), &SERIAL, &mut peer).unwrap();
    }
    if !moved.scratch {
        ForIoManager::register(devices.scratch.clone(), &SCRATCH, &mut peer).unwrap();
    }
    let (serial, scratch) = (devices.serial.clone(), devices.scratch.clone());
    let from = FromIoManager::both("peer", devices.peer.clone());
    let manager = owned_manager();
    let bus = Arc::new(IoManagerBus::new(Arc::new(peer)));
    let bus = Some(manager.register_device(bus, None, &IoManagerBus::WINDOWS, &[]).unwrap());
    if moved.peer {
        manager.register_device(Arc::new(from), bus, &PEER, &[]).unwrap();
    }
    if moved.serial {
        manager.register_device(serial, bus, &SERIAL, &[]).unwrap();
    }
    if moved.scratch {
        manager.register_device(scratch, bus, &SCRATCH, &[]).unwrap();
    }
    through(&manager, devices).0
}

/// The serial port may keep its line for as long as it likes, so that it is for a manager that owns it.
fn owned_manager() -> OwnedManager {
    OwnedManager::new(Capacities { devices: 8, ranges: 16, vcpus: 2 }, everything()).unwrap()
}

fn through(manager: &OwnedManager, devices: Devices) -> (Seen, Vec<(Place, bool)>) {
    devices.seen(
        |(io_type, address, _), data| reached(manager.read(GuestAddress(address), data, io_type)),
        |(io_type, address, _), data| reached(manager.write(GuestAddress(address), data, io_type)),
    )
}

fn assert_same(before: &Seen, after: &Seen, when: &str) {
    before.reads.iter().zip(&after.reads).for_each(|(before, after)| assert_eq!(before, after, "a read, {when}"));
    before.peer.iter().zip(&after.peer).for_each(|(before, after)| assert_eq!(before, after, "{when}"));
    assert_eq!(before.serial, after.serial, "{when}");
    before.scratch.0.iter().zip(&after.scratch.0).for_each(|(before, after)| assert_eq!(before, after, "{when}"));
    assert!(before == after, "{when}");
}

#[test]
fn the_machine_is_the_same_whichever_devices_have_moved() {
    let devices = Devices::new();
    let mut peer = IoManager::new();
    devices.add_peer(&mut peer);
    ForIoManager::register(devices.serial.clone(), &SERIAL, &mut peer).unwrap();
    ForIoManager::register(devices.scratch.clone(), &SCRATCH, &mut peer).unwrap();
    let (before, reached_before) =
        devices.seen(|place, data| peer_read(&peer, place, data), |place, data| peer_write(&peer, place, data));
    // The accesses have come to all devices, in several ways.
    assert!([before.peer.len(), before.scratch.0.len()].iter().all(|calls| *calls > 100));
    assert!((0..3).all(|range| before.scratch.0.iter().any(|call| call.range_index == range)));
    assert!(before.serial.1.len() == 8, "{:?}", before.serial);

    for number in 0..8 {
        let moved = Moved { peer: number & 1 != 0, serial: number & 2 != 0, scratch: number & 4 != 0 };
        let seen = under_a_bus(moved);
        assert_same(&before, &seen, &format!("with the devices {number:#b} here"));
    }

    let devices = Devices::new();
    let from = FromIoManager::both("peer", devices.peer.clone());
    let manager = owned_manager();
    manager.register_device(Arc::new(from), None, &PEER, &[]).unwrap();
    manager.register_device(devices.serial.clone(), None, &SERIAL, &[]).unwrap();
    manager.register_device(devices.scratch.clone(), None, &SCRATCH, &[]).unwrap();
    let (after, reached_after) = through(&manager, devices);
    assert_same(&before, &after, "without an IoManager");
    reached_before.iter().zip(&reached_after).for_each(|(before, after)| assert_eq!(before, after));
}

#[test]
fn a_device_of_the_peers_learns_its_new_base() {
    let device = Arc::new(Mutex::new(Peer::default()));
    let (from, storage) = (FromIoManager::mmio("peer", device.clone()), Storage::new());
    let manager = manager(&storage);
    let id = manager.register_device(&from, None, &[IoResource::mmio(MEMORY, 7)], &[]).unwrap();
    manager.write(GuestAddress(MEMORY + 2), &[1], IoType::Mmio).unwrap();
    manager.relocate(&mut [Relocation::new(id, 0).to(GuestAddress(0x9000))]).unwrap();
    manager.write(GuestAddress(0x9003), &[2], IoType::Mmio).unwrap();
    let calls = [(IoType::Mmio, MEMORY, 2, vec![1]), (IoType::Mmio, 0x9000, 3, vec![2])];
    assert_eq!(device.lock().unwrap().0, calls);
}

#[test]
fn a_device_of_the_peers_refuses_a_space_that_it_does_not_serve() {
    let device = Arc::new(Mutex::new(Peer::default()));
    let (ports, memory) = (FromIoManager::pio("ports", device.clone()), FromIoManager::mmio("memory", device.clone()));
    let storage = Storage::new();
    let manager = manager(&storage);
    let code = libc::EINVAL as u32;
    for (device, name, ranges) in [(&ports, "ports", &PEER[..]), (&memory, "memory", &PEER[..1])] {
        let refused = manager.register_device(device, None, ranges, &[]);
        assert_eq!(refused, Err(vm_device::RegisterError::Rejected { device: name, code }));
    }
    manager.register_device(&ports, None, &PEER[..1], &[]).unwrap();
    manager.register_device(&memory, None, &PEER[1..], &[]).unwrap();
    // And is not called if there is such an access all the same.
    let access = Access::new(IoType::Mmio, GuestAddress(MEMORY), GuestAddress(MEMORY), 0);
    let mut data = [0xff];
    ports.read(&access, &mut data);
    ports.write(&access, &data);
    assert_eq!((data, device.lock().unwrap().0.len()), ([0xff], 0));
}

/// A device that keeps what it was told, and fails where it is told to.
#[derive(Default)]
struct Told(Mutex<Vec<Vec<Assigned>>>, Option<Rejected>);

impl Device<'static> for Told {
    fn name(&self) -> &str {
        "told"
    }
    fn try_read(&self, access: &Access<'_>, data: &mut [u8]) -> Result<(), Failed> {
        match access.offset() {
            2 => Err(Failed::new(28)),
            _ => {
                // It leaves what is behind its first byte.
                data[0] = access.range_index() as u8;
                Ok(())
            }
        }
    }
    fn try_write(&self, access: &Access<'_>, _: &[u8]) -> Result<(), Failed> {
        Err(Failed::new(access.offset() as u32))
    }
    fn set_resources(&self, resources: &Resources<'_, 'static>) -> Result<(), Rejected> {
        assert_eq!((resources.id(), resources.irq(0).assert()), (None, Err(InterruptError::Removed)));
        self.0.lock().unwrap().push(resources.ranges().to_vec());
        self.1.map_or(Ok(()), Err)
    }
}

#[test]
fn a_device_in_an_io_manager_is_told_its_ranges_once() {
    let (mut manager, device) = (IoManager::new(), Arc::new(Told::default()));
    ForIoManager::register(device.clone(), &PEER, &mut manager).unwrap();
    let assigned = |io_type, first, last| {
        let range = IoRange::new(GuestAddress(first), GuestAddress(last)).unwrap();
        Assigned { io_type, range, state: vm_device::RangeState::Decoded }
    };
    let ranges = vec![assigned(IoType::Pio, 0x100, 0x106), assigned(IoType::Mmio, 0x1000, 0x1006)];
    assert_eq!(*device.0.lock().unwrap(), [ranges]);
    // It knows them apart, and reads are filled with ones.
    let mut data = [0; 3];
    manager.pio_read(PioAddress(PORT + 1), &mut data).unwrap();
    assert_eq!(data, [0, 0xff, 0xff]);
    manager.mmio_read(MmioAddress(MEMORY + 1), &mut data).unwrap();
    assert_eq!(data, [1, 0xff, 0xff]);
}

#[test]
fn a_failure_in_an_io_manager_is_kept_for_the_vmm() {
    let (mut manager, device) = (IoManager::new(), Arc::new(Told::default()));
    let bytes = IoResource::mmio(MEMORY, 8).sizes(AccessSizes::BYTE | AccessSizes::SPLIT);
    let registered = ForIoManager::register(device, &[bytes], &mut manager).unwrap();
    assert_eq!(registered.take_failure(), None);
    let mut data = [0xee; 4];
    manager.mmio_read(MmioAddress(MEMORY), &mut data).unwrap();
    // The two bytes before the one that fails are read.
    assert_eq!((data, registered.take_failure()), ([0, 0, 0xff, 0xff], Some(Failed::new(28))));
    assert_eq!(registered.take_failure(), None);
    manager.mmio_write(MmioAddress(MEMORY + 3), &[0, 0]).unwrap();
    assert_eq!(registered.take_failure(), Some(Failed::new(3)));
}

#[test]
fn what_an_io_manager_cannot_have_is_refused_whole() {
    let mut manager = IoManager::new();
    let mut register = |device: Told, requests: &[IoResource]| {
        ForIoManager::register(Arc::new(device), requests, &mut manager).map(drop)
    };
    let range = IoResource::mmio(0x8000, 1);
    let unsupported = [
        IoResource::any(IoType::Mmio, GuestUsize(1)),
        IoResource::mmio(0x9000, 0),
        range.window(),
        range.reserved(),
        range.unplaced(),
        range.waiting(),
        IoResource::at(IoType::Pio, IoRange::ALL_PORTS),
        IoResource::at(IoType::Mmio, IoRange::ALL_MEMORY),
        IoResource::fixed(IoType::PhysicalMmio, GuestAddress(0x8000), GuestUsize(1)),
    ];
    for (number, request) in unsupported.into_iter().enumerate() {
        let outcome = register(Told::default(), &[IoResource::mmio(0x9000, 1), request]);
        assert_eq!(outcome, Err(RegisterError::Unsupported { index: 1 }), "request {number}");
    }
    let many: Vec<_> = (0..17).map(|number| IoResource::mmio(0x9000 + number, 1)).collect();
    assert_eq!(register(Told::default(), &many), Err(RegisterError::Unsupported { index: 16 }));
    let rejected = Rejected::new(5);
    assert_eq!(register(Told(Mutex::default(), Some(rejected)), &PEER), Err(RegisterError::Rejected(rejected)));
    let overlap = [IoResource::pio(0x9000, 1), IoResource::mmio(0x9000, 4), IoResource::mmio(0x9003, 1)];
    assert_eq!(register(Told::default(), &overlap), Err(RegisterError::Overlap { index: 2 }));
    // Nothing of all this has a place: there is room for everything.
    assert_eq!(register(Told::default(), &many[..16]), Ok(()));
    assert_eq!(register(Told::default(), &[overlap[0]]), Ok(()));
    assert_eq!(register(Told::default(), &PEER), Ok(()));
}

#[test]
fn an_access_to_a_place_that_the_device_does_not_know_reaches_nothing() {
    let scratch = Arc::new(Scratch::<9>::new("scratch"));
    let registered = ForIoManager::register(scratch.clone(), &SCRATCH, &mut IoManager::new()).unwrap();
    let mut data = [0; 2];
    // The base of a range in memory, as one of ports; and no base.
    for base in [0x1010, PORT] {
        registered.pio_read(PioAddress(base), 0, &mut data);
        registered.pio_write(PioAddress(base), 0, &data);
    }
    registered.pio_read(PioAddress(PORT + 0x10), 0, &mut []);
    assert_eq!((data, scratch.take_calls().len()), ([0xff; 2], 0));
    registered.pio_read(PioAddress(PORT + 0x10), 0, &mut data);
    assert_eq!(scratch.take_calls(), [Call::read(0, 2).port()]);
}
