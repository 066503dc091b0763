//! Defects that systems of this kind have had in single accesses and strings, each under the name of the system and of its
//! report.

mod fixture;

use fixture::{Recorder, at, manager, try_register};
use vm_device::{Access, AccessSizes, Device, GuestUsize, IoError, IoResource, IoType};

/// The calls that a device with 8 registers has had since it was last asked: whether it was written to, where, and how
/// many bytes.
fn calls(device: &Recorder) -> Vec<(bool, u64, usize)> {
    let calls = device.take();
    let calls = calls.iter().map(|call| (call.write, call.address - call.base, call.length));
    calls.inspect(|(_, offset, length)| assert!(offset + *length as u64 <= 8, "past the device's registers")).collect()
}

#[test]
fn firecracker_6207_1822_6183_straddling_and_odd_accesses_do_not_reach_past_a_device() {
    let device = Recorder::new("calls", 0);
    manager!(let manager);
    try_register(&manager, &device, &[IoResource::mmio(0x1000, 8)]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    for address in 0xff0..0x1018 {
        for length in 1..=16 {
            let mut data = vec![0x55; length];
            let (first, last) = (address, address + length as u64 - 1);
            let inside = first >= 0x1000 && last <= 0x1007;
            let outside = last < 0x1000 || first > 0x1007;
            let expected = match (inside, outside) {
                (true, _) => Ok(()),
                (_, true) => Err(IoError::Unclaimed),
                _ => Err(IoError::Straddling),
            };
            assert_eq!(manager.read(at(address), &mut data, IoType::Mmio), expected);
            assert!(inside || data.iter().all(|byte| *byte == 0xff));
            assert_eq!(manager.write(at(address), &data, IoType::Mmio), expected);
            assert_eq!(vcpu.read(at(address), &mut data, IoType::Mmio), expected);
            assert_eq!(calls(&device).len(), if inside { 3 } else { 0 });
        }
    }
}

#[test]
fn firecracker_1822_a_device_is_spared_the_sizes_it_does_not_know() {
    let device = Recorder::new("calls", 0);
    manager!(let manager);
    let dwords = IoResource::mmio(0, 8).sizes(AccessSizes::DWORD | AccessSizes::ALIGNED);
    try_register(&manager, &device, &[dwords]).unwrap();
    for offset in 0..8 {
        for length in 1..=8 - offset as usize {
            let mut data = vec![0x55; length];
            let accepted = length == 4 && offset % 4 == 0;
            let expected = if accepted { Ok(()) } else { Err(IoError::RefusedSize) };
            assert_eq!(manager.read(at(offset), &mut data, IoType::Mmio), expected);
            assert!(accepted || data.iter().all(|byte| *byte == 0xff));
            assert_eq!(manager.write(at(offset), &data, IoType::Mmio), expected);
        }
    }
    assert!(calls(&device).iter().all(|(_, offset, length)| *length == 4 && offset % 4 == 0));
}

#[test]
fn cloud_hypervisor_7415_8237_8817_every_failed_read_is_all_ones() {
    let device = Recorder::new("calls", 0);
    manager!(let manager);
    let words = IoResource::pio(0x10, 4).sizes(AccessSizes::WORD);
    let physical = IoResource::fixed(IoType::PhysicalMmio, at(0x1000), GuestUsize(0x1000));
    let off = IoResource::mmio(0x3000, 0x100).reserved();
    try_register(&manager, &device, &[words, physical, off]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    for (io_type, address, error) in [
        (IoType::Pio, 0x9, IoError::Unclaimed),
        (IoType::Pio, 0xf, IoError::Straddling),
        (IoType::Pio, 0x10, IoError::RefusedSize),
        (IoType::Pio, 0xffff, IoError::Straddling),
        (IoType::Pio, 0x1_0000, IoError::Unclaimed),
        (IoType::Mmio, 0x1000, IoError::Unclaimed),
        (IoType::PhysicalMmio, 0x1000, IoError::NotDispatched),
        (IoType::Mmio, 0x3000, IoError::Unclaimed),
        (IoType::Mmio, u64::MAX, IoError::Straddling),
    ] {
        // Neither what was in the buffer nor zeros.
        for stale in [0, 0x55] {
            let mut data = [stale; 4];
            assert_eq!(manager.read(at(address), &mut data, io_type), Err(error), "{address:#x}");
            assert_eq!(data, [0xff; 4]);
            data.fill(stale);
            assert_eq!(vcpu.read(at(address), &mut data, io_type), Err(error));
            assert_eq!(data, [0xff; 4]);
        }
    }
    assert_eq!(calls(&device), []);
}

#[test]
fn cloud_hypervisor_8817_a_device_that_answers_a_part_leaves_the_rest_all_ones() {
    struct Lazy;
    impl Device<'_> for Lazy {
        fn name(&self) -> &str {
            "lazy"
        }
        fn read(&self, _: &Access<'_>, data: &mut [u8]) {
            data[0] = 0;
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }
    manager!(let manager);
    try_register(&manager, &Lazy, &[IoResource::pio(0, 8)]).unwrap();
    let mut data = [0x55; 4];
    assert_eq!(manager.read(at(0), &mut data, IoType::Pio), Ok(()));
    assert_eq!(data, [0, 0xff, 0xff, 0xff]);
    assert_eq!(manager.read_string(0, 2, &mut data), Ok(()));
    assert_eq!(data, [0, 0xff, 0, 0xff]);
}

// String I/O.

#[test]
fn rust_vmm_kvm_371_an_element_and_a_count_are_not_one_size() {
    let device = Recorder::new("calls", 0);
    manager!(let manager);
    try_register(&manager, &device, &[IoResource::pio(0x20, 8)]).unwrap();
    let mut data = [0; 4];
    // `in eax`, `rep insb` of 4, `rep insw` of 2 and `rep insd` of 1 all carry 4 bytes.
    manager.read(at(0x20), &mut data, IoType::Pio).unwrap();
    assert_eq!(calls(&device), [(false, 0, 4)]);
    for element in [1, 2, 4] {
        manager.read_string(0x20, element, &mut data).unwrap();
        assert_eq!(calls(&device), vec![(false, 0, element); 4 / element]);
        assert_eq!(data, [0, 1, 2, 3], "the elements lie in the order in which they were read");
        manager.write_string(0x20, element, &data).unwrap();
        assert_eq!(calls(&device), vec![(true, 0, element); 4 / element]);
    }
}

#[test]
fn cloud_hypervisor_8102_rep_ins_is_checked_per_element() {
    let device = Recorder::new("calls", 0);
    manager!(let manager);
    // Like the data port of fw_cfg: two ports, of which the second takes bytes. A burst is far longer than both.
    try_register(&manager, &device, &[IoResource::pio(0x510, 2).sizes(AccessSizes::BYTE | AccessSizes::WORD)]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    let mut data = [0; 64];
    for _ in 0..2 {
        assert_eq!(vcpu.read_string(0x511, 1, &mut data), Ok(()));
        assert_eq!(calls(&device), vec![(false, 1, 1); 64]);
        assert_eq!(vcpu.write_string(0x511, 1, &data), Ok(()));
        assert_eq!(calls(&device), vec![(true, 1, 1); 64]);
    }
    // What one element could not do, no burst can.
    assert_eq!(vcpu.read_string(0x511, 2, &mut data), Err(IoError::Straddling));
    assert_eq!(data, [0xff; 64]);
    assert_eq!(vcpu.write_string(0x50f, 2, &data), Err(IoError::Straddling));
    assert_eq!(vcpu.read_string(0xffff, 2, &mut data), Err(IoError::Straddling));
    assert_eq!(vcpu.read_string(0x512, 1, &mut data), Err(IoError::Unclaimed));
    assert_eq!(vcpu.read_string(0x510, 3, &mut data[..6]), Err(IoError::Straddling));
    for (element, length) in [(0, 4), (4, 0), (4, 6), (1, 0), (usize::MAX, 4)] {
        assert_eq!(vcpu.read_string(0x510, element, &mut data[..length]), Err(IoError::InvalidLength));
        assert_eq!(vcpu.write_string(0x510, element, &data[..length]), Err(IoError::InvalidLength));
    }
    assert_eq!(calls(&device), []);
}
