//! Single accesses, at the edges where one way of dispatch could differ from another.

mod observed;

use observed::Constant;
use vm_device::{
    DeviceManager, GuestAddress, IoError, IoRange, IoResource, IoType, IrqResource, OpenBus, SystemAllocator,
};

type Manager<'d> = DeviceManager<'d, 4, 8, 1>;

fn manager<'d>() -> Manager<'d> {
    DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS))
}

const DEVICE: Constant = Constant { name: "device", value: 0x5a };

#[test]
fn a_physical_access_is_not_dispatched_where_the_last_hit_was_mmio() {
    let manager = manager();
    manager.register_device(&DEVICE, None, &[IoResource::mmio(0x1000, 4)], IrqResource::None).unwrap();
    let mut vcpu = manager.dispatcher().unwrap();
    let (mut data, at) = ([0; 1], GuestAddress(0x1000));
    assert_eq!(vcpu.read(at, &mut data, IoType::Mmio), Ok(()));
    assert_eq!(vcpu.read(at, &mut data, IoType::PhysicalMmio), Err(IoError::NotDispatched));
    assert_eq!(data, [0xff]);
    assert_eq!(vcpu.write(at, &data, IoType::PhysicalMmio), Err(IoError::NotDispatched));
}

#[test]
fn each_space_has_its_own_open_bus_value() {
    let manager = manager().with_open_bus(IoType::Pio, OpenBus(0)).with_open_bus(IoType::PhysicalMmio, OpenBus(7));
    let mut vcpu = manager.dispatcher().unwrap();
    for (io_type, expected) in [(IoType::Pio, 0), (IoType::Mmio, 7), (IoType::PhysicalMmio, 7)] {
        for length in 0..40 {
            let mut data = vec![0x55; length];
            assert!(manager.read(GuestAddress(0), &mut data, io_type).is_err());
            assert!(data.iter().all(|byte| *byte == expected));
            data.fill(0x55);
            assert!(vcpu.read(GuestAddress(0), &mut data, io_type).is_err());
            assert!(data.iter().all(|byte| *byte == expected));
        }
    }
    let mut data = [0x55; 4];
    assert_eq!(manager.read_string(0, 2, &mut data), Err(IoError::Unclaimed));
    assert_eq!(data, [0; 4]);
}

#[test]
fn an_access_longer_than_eight_bytes_is_one_call() {
    let manager = manager();
    manager.register_device(&DEVICE, None, &[IoResource::mmio(0x1000, 0x1000)], IrqResource::None).unwrap();
    let mut data = vec![0; 0x1000];
    assert_eq!(manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio), Ok(()));
    assert!(data.iter().all(|byte| *byte == 0x5a));
    assert_eq!(manager.read(GuestAddress(0x1001), &mut data, IoType::Mmio), Err(IoError::Straddling));
    assert!(data.iter().all(|byte| *byte == 0xff));
}

#[test]
fn addresses_behind_the_last_port_are_unclaimed() {
    let manager = manager();
    manager.register_device(&DEVICE, None, &[IoResource::pio(0, 0x1_0000)], IrqResource::None).unwrap();
    let mut data = [0; 2];
    for address in [0x1_0000, 0x1_0001, 1 << 32, u64::MAX] {
        assert_eq!(manager.read(GuestAddress(address), &mut data[..1], IoType::Pio), Err(IoError::Unclaimed));
        assert_eq!(data, [0xff, 0]);
    }
    assert_eq!(manager.read(GuestAddress(0xffff), &mut data, IoType::Pio), Err(IoError::Straddling));
    assert_eq!(manager.read(GuestAddress(0xffff), &mut data[..1], IoType::Pio), Ok(()));
    assert_eq!(data, [0x5a, 0xff]);
}

#[test]
fn an_access_past_the_last_byte_of_memory_straddles() {
    let manager = manager();
    let top = IoResource::mmio(u64::MAX - 7, 8);
    manager.register_device(&DEVICE, None, &[top], IrqResource::None).unwrap();
    let mut vcpu = manager.dispatcher().unwrap();
    let mut data = [0; 8];
    assert_eq!(vcpu.read(GuestAddress(u64::MAX - 7), &mut data, IoType::Mmio), Ok(()));
    for offset in 0..7 {
        let outcome = vcpu.read(GuestAddress(u64::MAX - offset), &mut data, IoType::Mmio);
        assert_eq!((outcome, data), (Err(IoError::Straddling), [0xff; 8]));
    }
}
