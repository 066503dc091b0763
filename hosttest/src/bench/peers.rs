//! Published peers, each used as its documentation shows.
//!
//! `axdevice` is not among them: the `axdevice_base` 0.7 it stands on asks for a nightly compiler
//! (`#![feature(trait_upcasting)]`).

use std::any::Any;
use std::sync::{Arc, RwLock};

use arc_swap::ArcSwap;
use dbs_device::device_manager::IoManager as DbsManager;
use dbs_device::resources::Resource;
use dbs_device::{DeviceIo, IoAddress, PioAddress as DbsPort};
use peer_vm_device::bus::{MmioAddress, MmioAddressOffset, MmioRange, PioAddress, PioAddressOffset, PioRange};
use peer_vm_device::device_manager::{IoManager, MmioManager, PioManager};
use peer_vm_device::{DeviceMmio, DevicePio};
use range_map_vec::RangeMap;
use vm_device::IoType;

use super::layout::Layout;
use super::subject::{Register, Subject, of_kind};

impl<const KIND: u64> DeviceMmio for Register<KIND> {
    fn mmio_read(&self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.answer(offset, data);
    }
    fn mmio_write(&self, _: MmioAddress, _: MmioAddressOffset, _: &[u8]) {}
}

impl<const KIND: u64> DevicePio for Register<KIND> {
    fn pio_read(&self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        self.answer(offset.into(), data);
    }
    fn pio_write(&self, _: PioAddress, _: PioAddressOffset, _: &[u8]) {}
}

impl<const KIND: u64> DeviceIo for Register<KIND> {
    fn read(&self, _: IoAddress, offset: IoAddress, data: &mut [u8]) {
        self.answer(offset.0, data);
    }
    fn pio_read(&self, _: DbsPort, offset: DbsPort, data: &mut [u8]) {
        self.answer(offset.0.into(), data);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// rust-vmm `vm-device` registers by space and type.
pub(super) fn add_to_vm_device(manager: &mut IoManager, io_type: IoType, (first, last): (u64, u64), kind: usize) {
    fn add<const KIND: u64>(manager: &mut IoManager, io_type: IoType, first: u64, size: u64) {
        let device = Arc::new(Register::<KIND>::new());
        match io_type {
            IoType::Pio => {
                let range = PioRange::new(PioAddress(first as u16), size as u16).expect("the range is valid");
                manager.register_pio(range, device)
            }
            _ => {
                let range = MmioRange::new(MmioAddress(first), size).expect("the range is valid");
                manager.register_mmio(range, device)
            }
        }
        .expect("the ranges are disjoint");
    }
    of_kind!(kind, add(manager, io_type, first, last - first + 1))
}

fn remove_from_vm_device(manager: &mut IoManager, io_type: IoType, first: u64) {
    match io_type {
        IoType::Pio => drop(manager.deregister_pio(PioAddress(first as u16))),
        _ => drop(manager.deregister_mmio(MmioAddress(first))),
    }
}

#[inline(always)]
fn read_from_vm_device(manager: &IoManager, io_type: IoType, address: u64, data: &mut [u8]) {
    let _ = match io_type {
        IoType::Pio => manager.pio_read(PioAddress(address as u16), data),
        _ => manager.mmio_read(MmioAddress(address), data),
    };
}

fn vm_device(layout: &Layout) -> IoManager {
    let mut manager = IoManager::new();
    for (i, range) in layout.ranges.iter().enumerate() {
        add_to_vm_device(&mut manager, layout.io_type, *range, i % layout.types);
    }
    manager
}

fn dbs_resource(io_type: IoType, (first, last): (u64, u64)) -> Resource {
    match io_type {
        IoType::Pio => Resource::PioAddressRange { base: first as u16, size: (last - first + 1) as u16 },
        _ => Resource::MmioAddressRange { base: first, size: last - first + 1 },
    }
}

fn dbs(layout: &Layout) -> DbsManager {
    fn device<const KIND: u64>() -> Arc<dyn DeviceIo> {
        Arc::new(Register::<KIND>::new())
    }
    let mut manager = DbsManager::new();
    for (i, range) in layout.ranges.iter().enumerate() {
        let resources = [dbs_resource(layout.io_type, *range)];
        manager.register_device_io(of_kind!(i % layout.types, device()), &resources).expect("the bases differ");
    }
    manager
}

#[inline(always)]
fn read_from_dbs(manager: &DbsManager, io_type: IoType, address: u64, data: &mut [u8]) {
    let _ = match io_type {
        IoType::Pio => manager.pio_read(address as u16, data),
        _ => manager.mmio_read(address, data),
    };
}

fn range_map(layout: &Layout) -> RangeMap<u64, Arc<dyn DeviceMmio + Send + Sync>> {
    fn device<const KIND: u64>() -> Arc<dyn DeviceMmio + Send + Sync> {
        Arc::new(Register::<KIND>::new())
    }
    let mut map = RangeMap::new();
    for (i, (first, last)) in layout.ranges.iter().enumerate() {
        map.insert(*first..=*last, of_kind!(i % layout.types, device()));
    }
    map
}

pub(super) const VM_DEVICE: &str = "vm-device 0.1";
pub(super) const VM_DEVICE_LOCKED: &str = "vm-device 0.1 in RwLock";
pub(super) const DBS_DEVICE_SWAPPED: &str = "dbs-device 0.2 in ArcSwap";

pub(super) fn subjects(layout: &Layout) -> Vec<Subject> {
    let io_type = layout.io_type;
    let spare = layout.spare();
    let (plain, locked) = (Arc::new(vm_device(layout)), Arc::new(RwLock::new(vm_device(layout))));
    let (dragonball, swapped) = (Arc::new(dbs(layout)), Arc::new(ArcSwap::from_pointee(dbs(layout))));
    let map = Arc::new(range_map(layout));
    vec![
        Subject::new(VM_DEVICE, &plain, move |plain| {
            move |address, data| read_from_vm_device(&plain, io_type, address, data)
        }),
        Subject::new(VM_DEVICE_LOCKED, &locked, move |locked| {
            move |address, data| {
                let manager = locked.read().expect("no holder panics");
                read_from_vm_device(&manager, io_type, address, data);
            }
        })
        .with_change(move || {
            add_to_vm_device(&mut locked.write().expect("no holder panics"), io_type, spare, 0);
            remove_from_vm_device(&mut locked.write().expect("no holder panics"), io_type, spare.0);
        }),
        Subject::new("dbs-device 0.2", &dragonball, move |dragonball| {
            move |address, data| read_from_dbs(&dragonball, io_type, address, data)
        }),
        Subject::new(DBS_DEVICE_SWAPPED, &swapped, move |swapped| {
            move |address, data| read_from_dbs(&swapped.load(), io_type, address, data)
        })
        .with_change(move || {
            let resources = [dbs_resource(io_type, spare)];
            let mut manager = DbsManager::clone(&swapped.load());
            let device = Arc::new(Register::<0>::new());
            manager.register_device_io(device, &resources).expect("the place is free");
            swapped.store(Arc::new(manager));
            let mut manager = DbsManager::clone(&swapped.load());
            manager.unregister_device_io(&resources).expect("the device is there");
            swapped.store(Arc::new(manager));
        }),
        Subject::new("range_map_vec 0.2", &map, |map| {
            move |address, data| {
                if let Some((first, last, device)) = map.get_entry(&address)
                    && address + 3 <= *last
                {
                    device.mmio_read(MmioAddress(*first), address - *first, data);
                }
            }
        }),
    ]
}
