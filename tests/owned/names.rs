//! Names in what calls return are whole, whatever is removed meanwhile.

use std::sync::Arc;
use std::thread;

use vm_device::owned::OwnedManager;
use vm_device::{IoResource, IoType, Owner, RangeRefusal, RegisterError};

use super::{Counted, manager};

/// The name of a device in round `round`: long, on the heap, and never the same again.
fn name(round: usize) -> String {
    format!("device-{round}-{}", "x".repeat(round % 50))
}

fn is_whole(seen: &str) -> bool {
    let round = seen.split('-').nth(1).and_then(|round| round.parse().ok());
    seen == "other" || round.is_some_and(|round| name(round) == seen)
}

/// Registers a device where the other thread does too, and removes it. Who is in the way has a whole name.
fn come_and_go(manager: &OwnedManager, name: &str) {
    let device = Counted::new(name, &Arc::default());
    match manager.register_device(device, None, &[IoResource::mmio(0x1000, 4)], &[]) {
        Ok(id) => drop(manager.unregister_device(id).unwrap()),
        Err(RegisterError::Range { refusal: RangeRefusal::Overlap { owner, .. }, .. }) => {
            assert!(matches!(&owner, Owner::Device { name, .. } if is_whole(name)), "{owner}");
        }
        Err(error) => panic!("{error}"),
    }
}

/// C42.
#[test]
fn names_are_whole_while_their_devices_come_and_go() {
    let (manager, rounds) = (manager(), if cfg!(miri) { 20 } else { 2000 });
    thread::scope(|scope| {
        let first = scope.spawn(|| (0..rounds).for_each(|round| come_and_go(&manager, &name(round))));
        while !first.is_finished() {
            come_and_go(&manager, "other");
            assert!(manager.walk().iter().all(|info| is_whole(&info.name)));
            for range in manager.address_map(IoType::Mmio) {
                assert!(matches!(range.owner, Owner::Device { name, .. } if is_whole(&name)));
            }
            assert!(manager.map().len() < 1000);
        }
    });
}
