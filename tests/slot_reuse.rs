//! Two devices that take turns in the only slot there is, while vCPUs access both: what a sanitizer is to look at.

mod fixture;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use vm_device::{GuestAddress, IoError, IoResource, IoType};

use fixture::{Constant, manager};

const PLACES: [u64; 2] = [0x10, 0x20];

/// Reads at both places: at each, its own device answers or none does.
fn look(mut read: impl FnMut(GuestAddress, &mut [u8]) -> Result<(), IoError>) {
    for (place, number) in PLACES.into_iter().zip(0..) {
        let mut data = [number];
        match read(GuestAddress(place), &mut data) {
            Ok(()) => assert_eq!(data, [number]),
            Err(error) => assert_eq!((error, data), (IoError::Unclaimed, [0xff])),
        }
    }
}

#[test]
fn two_devices_take_turns_in_one_slot() {
    manager!(let manager: <1, 1, 1>, with_removal_spins(u32::MAX));
    let devices = [Constant { name: "zero", value: 0 }, Constant { name: "one", value: 1 }];
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut vcpu = manager.dispatcher(0).unwrap();
            while !done.load(Ordering::Relaxed) {
                look(|address, data| vcpu.read(address, data, IoType::Mmio));
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                look(|address, data| manager.read(address, data, IoType::Mmio));
            }
        });
        for (device, place) in devices.iter().zip(PLACES).cycle().take(rounds) {
            let request = IoResource::mmio(place, 4);
            let id = manager.register_device(device, None, &[request], &[]).unwrap();
            thread::yield_now();
            manager.unregister_device(id).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}
