//! Devices that fail: the access ends there, and the caller that dispatched it is told the code.

mod fixture;

use std::fmt::Debug;

use fixture::{Acting, Constant, at, manager, try_register};
use spin::Mutex;
use vm_device::{
    Access, AccessSizes, Accesses, Device, DeviceManager, Failed, IoError, IoResource, IoType, Straddling,
};

const FAILED: Result<(), IoError> = Err(IoError::Failed { code: 7 });

/// Answers with the number of the call, from 1 on, and fails in one of them. Of a call it keeps the address and the length.
struct Failing {
    fails_in: usize,
    calls: Mutex<Vec<(u64, usize)>>,
}

impl Failing {
    const fn new(fails_in: usize) -> Self {
        Self { fails_in, calls: Mutex::new(Vec::new()) }
    }

    fn take(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut *self.calls.lock())
    }

    fn call(&self, access: &Access<'_>, length: usize) -> Result<u8, Failed> {
        let mut calls = self.calls.lock();
        calls.push((access.address().0, length));
        if calls.len() == self.fails_in { Err(Failed::new(7)) } else { Ok(calls.len() as u8) }
    }
}

impl Device<'_> for Failing {
    fn name(&self) -> &str {
        "failing"
    }
    fn try_read(&self, access: &Access<'_>, data: &mut [u8]) -> Result<(), Failed> {
        data.fill(self.call(access, data.len())?);
        Ok(())
    }
    fn try_write(&self, access: &Access<'_>, data: &[u8]) -> Result<(), Failed> {
        self.call(access, data.len()).map(drop)
    }
}

/// The data of an access, and the calls that it has led to.
type Answered = (Vec<u8>, Vec<(u64, usize)>);

/// The same without a handle, by a search and by a hint: with the same answers.
fn each_way<'d, T: PartialEq + Debug>(manager: &'d DeviceManager<'d>, ask: impl Fn(&mut dyn Accesses) -> T) -> T {
    let mut vcpu = manager.dispatcher(0).unwrap();
    let first = ask(&mut &*manager);
    for _ in 0..2 {
        assert_eq!(ask(&mut vcpu), first);
    }
    first
}

/// A read and a write of so many bytes of memory.
fn both(accesses: &mut dyn Accesses, device: &Failing, address: u64, length: usize) -> [Answered; 2] {
    let mut data = vec![0; length];
    assert_eq!(accesses.read(at(address), &mut data, IoType::Mmio), FAILED);
    let read = (data.clone(), device.take());
    assert_eq!(accesses.write(at(address), &data, IoType::Mmio), FAILED);
    [read, (vec![], device.take())]
}

/// The same for strings of elements at port 0.
fn strings(accesses: &mut dyn Accesses, device: &Failing, element: usize) -> [Answered; 2] {
    let mut data = vec![0; 4 * element];
    assert_eq!(accesses.read_string(0, element, &mut data), FAILED);
    let read = (data.clone(), device.take());
    assert_eq!(accesses.write_string(0, element, &data), FAILED);
    [read, (vec![], device.take())]
}

#[test]
fn a_failure_reaches_the_caller_by_each_way() {
    manager!(let manager, with_removal_spins(2000));
    let device = Failing::new(1);
    let id = try_register(&manager, &device, &[IoResource::mmio(0x10, 4)]).unwrap();
    let [read, written] = each_way(&manager, |accesses| both(accesses, &device, 0x12, 2));
    assert_eq!(read, (vec![0xff; 2], vec![(0x12, 2)]));
    assert_eq!(written, (vec![], vec![(0x12, 2)]));
    // The calls have ended: a removal finds none.
    assert_eq!(manager.unregister_device(id), Ok(()));
}

#[test]
fn a_string_ends_at_the_first_element_that_fails() {
    manager!(let manager);
    let device = Failing::new(3);
    try_register(&manager, &device, &[IoResource::pio(0, 4)]).unwrap();
    let [read, written] = each_way(&manager, |accesses| strings(accesses, &device, 2));
    assert_eq!(read, (vec![1, 1, 2, 2, 0xff, 0xff, 0xff, 0xff], vec![(0, 2); 3]));
    assert_eq!(written.1, vec![(0, 2); 3]);
}

#[test]
fn an_access_that_is_split_for_its_size_ends_at_the_first_piece_that_fails() {
    manager!(let manager);
    let device = Failing::new(3);
    let halves = AccessSizes::WORD | AccessSizes::SPLIT;
    let requests = [IoResource::mmio(0x10, 8).sizes(halves), IoResource::pio(0, 8).sizes(halves)];
    try_register(&manager, &device, &requests).unwrap();
    let [read, written] = each_way(&manager, |accesses| both(accesses, &device, 0x10, 8));
    assert_eq!(read, (vec![1, 1, 2, 2, 0xff, 0xff, 0xff, 0xff], vec![(0x10, 2), (0x12, 2), (0x14, 2)]));
    assert_eq!(written.1, read.1);
    // Of a string, in the second element.
    let [read, written] = each_way(&manager, |accesses| strings(accesses, &device, 4));
    assert_eq!((&read.0[..6], &read.0[6..]), (&[1, 1, 2, 2, 0xff, 0xff][..], &[0xff; 10][..]));
    assert_eq!(read.1, [(0, 2), (2, 2), (0, 2)]);
    assert_eq!(written.1, read.1);
}

#[test]
fn a_straddling_access_that_is_split_ends_at_the_first_piece_that_fails() {
    manager!(let manager, with_straddling(IoType::Mmio, Straddling::Split), with_straddling(IoType::Pio, Straddling::Split));
    let device = Failing::new(2);
    let after = Constant { name: "after", value: 0x55 };
    // Two ranges of the device, a hole, and another device.
    let requests = [(0x10, 2), (0x12, 2)].map(|(base, length)| IoResource::mmio(base, length));
    let ports = [IoResource::pio(0, 1), IoResource::pio(1, 1)];
    try_register(&manager, &device, &[requests, ports].concat()).unwrap();
    try_register(&manager, &after, &[IoResource::mmio(0x16, 2), IoResource::pio(2, 2)]).unwrap();
    let [read, written] = each_way(&manager, |accesses| both(accesses, &device, 0x10, 8));
    assert_eq!(read, (vec![1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], vec![(0x10, 2), (0x12, 2)]));
    assert_eq!(written.1, read.1);
    // Of a string the first element, and no other is begun.
    let [read, written] = each_way(&manager, |accesses| strings(accesses, &device, 4));
    assert_eq!((read.0[0], &read.0[1..]), (1, &[0xff; 15][..]));
    assert_eq!((&read.1, &written.1), (&vec![(0, 1), (1, 1)], &vec![(0, 1), (1, 1)]));
    // Each failure is that of its piece, whatever came before it.
    let mut data = [0; 8];
    assert_eq!(manager.read(at(0xe), &mut data, IoType::Mmio), FAILED);
    assert_eq!(data, [0xff, 0xff, 1, 1, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn a_failure_of_a_nested_access_is_passed_on_and_other_outcomes_are_not() {
    struct Mirror<'d>(&'d DeviceManager<'d>);
    impl<'d> Device<'d> for Mirror<'d> {
        fn name(&self) -> &str {
            "mirror"
        }
        fn try_read(&self, access: &Access<'_>, data: &mut [u8]) -> Result<(), Failed> {
            Failed::pass_on(self.0.nested(access).read(at(access.offset()), data, IoType::Mmio))
        }
        fn try_write(&self, access: &Access<'_>, data: &[u8]) -> Result<(), Failed> {
            Failed::pass_on(self.0.nested(access).write(at(access.offset()), data, IoType::Mmio))
        }
    }
    manager!(let manager);
    let (device, mirror) = (Failing::new(1), Mirror(&manager));
    try_register(&manager, &device, &[IoResource::mmio(0x10, 4)]).unwrap();
    try_register(&manager, &mirror, &[IoResource::mmio(0x100, 0x20)]).unwrap();
    let [read, written] = each_way(&manager, |accesses| both(accesses, &device, 0x110, 4));
    assert_eq!(read, (vec![0xff; 4], vec![(0x10, 4)]));
    assert_eq!(written.1, read.1);
    // Nobody has the address behind the mirror, and the range does not hold the access: for the guest both are complete.
    for address in [0x100, 0x112] {
        let mut data = [0; 4];
        each_way(&manager, |accesses| assert_eq!(accesses.write(at(address), &[0; 4], IoType::Mmio), Ok(())));
        assert_eq!(manager.read(at(address), &mut data, IoType::Mmio), Ok(()));
        assert_eq!(data, [0xff; 4]);
    }
    assert_eq!(device.take(), []);
}

#[test]
fn a_device_has_either_form_or_none() {
    struct Bus;
    impl Device<'_> for Bus {
        fn name(&self) -> &str {
            "bus"
        }
    }
    manager!(let manager);
    let plain = |_: &Access<'_>, data: &mut [u8]| data.fill(3);
    let plain = Acting { name: "plain", act: &plain };
    try_register(&manager, &Bus, &[IoResource::mmio(0, 4), IoResource::pio(0, 4)]).unwrap();
    try_register(&manager, &plain, &[IoResource::mmio(0x10, 4), IoResource::pio(4, 4)]).unwrap();
    for (address, value) in [(0, 0xff), (0x10, 3)] {
        let read = each_way(&manager, |accesses| {
            let mut data = [0; 4];
            assert_eq!(accesses.read(at(address), &mut data, IoType::Mmio), Ok(()));
            assert_eq!(accesses.write(at(address), &data, IoType::Mmio), Ok(()));
            data
        });
        assert_eq!(read, [value; 4]);
    }
    for (port, value) in [(0, 0xff), (4, 3)] {
        let read = each_way(&manager, |accesses| {
            let mut data = [0; 4];
            assert_eq!(accesses.read_string(port, 1, &mut data), Ok(()));
            assert_eq!(accesses.write_string(port, 1, &data), Ok(()));
            data
        });
        assert_eq!(read, [value; 4]);
    }
}

#[test]
fn a_failure_says_its_code() {
    let failed = Failed::new(7);
    assert_eq!((failed.code(), Err(IoError::from(failed))), (7, FAILED));
    assert_eq!(failed.to_string(), "the device failed (code 7)");
    assert_eq!(IoError::from(failed).to_string(), failed.to_string());
    assert_eq!(format!("{failed:?}"), "Failed { code: 7 }");
    assert_eq!(size_of::<Result<(), Failed>>(), size_of::<Result<(), IoError>>());
}
