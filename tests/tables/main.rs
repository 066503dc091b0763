//! The tables that a guest finds: they say what is registered.
#![cfg(all(feature = "devices", feature = "tables"))]

mod acpi;
mod devices;
mod fdt;
mod machine;
#[cfg(feature = "alloc")]
mod owned;
mod tree;
mod windows;

use vm_device::tables::TableError;
use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};

type Manager = &'static DeviceManager<'static>;

/// A manager for a test of its own.
fn manager() -> Manager {
    let storage: &'static Storage<'static, 32, 64, 2> = Box::leak(Box::new(Storage::new()));
    Box::leak(Box::new(DeviceManager::new(storage, allocator())))
}

fn allocator() -> SystemAllocator {
    SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 255)
}

/// A manager with the devices of a PC.
fn pc() -> Manager {
    let manager = manager();
    Box::leak(Box::new(machine::Pc::new(manager))).register(manager);
    manager
}

/// What `write` needs of a buffer, by an empty one.
fn needed<T: std::fmt::Debug>(write: impl Fn(&mut [u8]) -> Result<T, TableError>) -> usize {
    match write(&mut []) {
        Err(TableError::TooSmall { needed }) => needed,
        other => panic!("{other:?}"),
    }
}

/// Tries every size of buffer that is too small, and the one that is not; nothing is written past its end.
fn try_every_size<T: std::fmt::Debug>(write: impl Fn(&mut [u8]) -> Result<T, TableError>) {
    let needed = needed(&write);
    let mut expected = vec![0; needed + 100];
    write(&mut expected).unwrap();
    for size in 0..needed {
        let mut buffer = vec![0x5a; size];
        assert_eq!(write(&mut buffer).unwrap_err(), TableError::TooSmall { needed });
    }
    let mut buffer = vec![0x5a; needed + 8];
    write(&mut buffer).unwrap();
    let (written, rest) = buffer.split_at(needed);
    assert!(written == &expected[..needed] && rest == [0x5a; 8]);
}
