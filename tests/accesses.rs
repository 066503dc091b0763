//! `Accesses` is one trait for all that makes accesses: a vCPU's handle, the manager, and a callback.

mod fixture;

use fixture::{Acting, Recorder, at, manager, try_register};
use spin::Mutex;
use vm_device::{Access, AccessSizes, Accesses, DeviceManager, GuestAddress, IoError, IoResource, IoType};

/// What an access was answered with, and what data it left behind.
type Answer = (Result<(), IoError>, Vec<u8>);

/// Accesses of every kind: they reach a device, nothing, a part of one, and one that refuses them. A trait object, as a
/// VMM may have it.
fn make_accesses(accesses: &mut dyn Accesses) -> Vec<Answer> {
    let mut answers = Vec::new();
    for io_type in [IoType::Pio, IoType::Mmio, IoType::PhysicalMmio] {
        for address in [0x10, 0x17, 0x18, 0x20, 0x40] {
            for length in [0, 1, 2, 4, 16] {
                let mut data = vec![0x55; length];
                answers.push((accesses.read(at(address), &mut data, io_type), data.clone()));
                answers.push((accesses.write(at(address), &data, io_type), data));
            }
        }
    }
    for port in [0x10, 0x17, 0x20, 0x40] {
        for element in [0, 1, 2, 3, 4] {
            let mut data = vec![0x55; 12];
            answers.push((accesses.read_string(port, element, &mut data), data.clone()));
            answers.push((accesses.write_string(port, element, &data), data));
        }
    }
    answers
}

/// The manager's own methods.
struct Own<'d>(&'d DeviceManager<'d>);

impl Accesses for Own<'_> {
    fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        DeviceManager::read(self.0, address, data, io_type)
    }
    fn write(&mut self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        DeviceManager::write(self.0, address, data, io_type)
    }
    fn read_string(&mut self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        DeviceManager::read_string(self.0, port, element, data)
    }
    fn write_string(&mut self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        DeviceManager::write_string(self.0, port, element, data)
    }
}

#[test]
fn an_access_is_answered_alike_by_a_handle_by_the_manager_and_from_within_a_callback() {
    manager!(let manager);
    let device = Recorder::new("device", 0);
    let words = AccessSizes::WORD;
    let requests = [
        IoResource::pio(0x10, 8),
        IoResource::mmio(0x10, 8),
        IoResource::pio(0x20, 4).sizes(words),
        IoResource::mmio(0x20, 4).sizes(words),
    ];
    try_register(&manager, &device, &requests).unwrap();
    let inside = Mutex::new(Vec::new());
    let act = |access: &Access<'_>, _: &mut [u8]| *inside.lock() = make_accesses(&mut manager.nested(access));
    let acting = Acting { name: "acting", act: &act };
    try_register(&manager, &acting, &[IoResource::mmio(0x1000, 1)]).unwrap();

    let (answers, calls) = (make_accesses(&mut Own(&manager)), device.take());
    let mut vcpu = manager.dispatcher(0).unwrap();
    for _ in 0..2 {
        assert!((make_accesses(&mut vcpu), device.take()) == (answers.clone(), calls.clone()), "by the handle");
    }
    assert!((make_accesses(&mut &manager), device.take()) == (answers.clone(), calls.clone()), "by the manager");
    for by_handle in [false, true] {
        let outer: &mut dyn Accesses = if by_handle { &mut vcpu } else { &mut &manager };
        outer.read(at(0x1000), &mut [0], IoType::Mmio).unwrap();
        assert!((inside.lock().split_off(0), device.take()) == (answers.clone(), calls.clone()), "from within");
    }
    for outcome in [
        Ok(()),
        Err(IoError::Unclaimed),
        Err(IoError::Straddling),
        Err(IoError::RefusedSize),
        Err(IoError::InvalidLength),
        Err(IoError::NotDispatched),
    ] {
        assert!(answers.iter().any(|(other, _)| *other == outcome), "{outcome:?} is not among them");
    }
    assert!(calls.iter().any(|call| call.write) && calls.iter().any(|call| !call.write));
}
