//! The locking of VMMs whose buses are no crates, written anew: a sorted map of reference-counted, locked devices; and
//! the floor, a bare call.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use super::layout::Layout;
use super::subject::{Register, Subject, forever, of_kind};

trait BusDevice: Send {
    fn read(&mut self, offset: u64, data: &mut [u8]);
}

impl<const KIND: u64> BusDevice for Register<KIND> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.answer(offset, data);
    }
}

trait Bare: Sync {
    fn read(&self, offset: u64, data: &mut [u8]);
}

impl<const KIND: u64> Bare for Register<KIND> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.answer(offset, data);
    }
}

type Locked = Arc<Mutex<dyn BusDevice>>;
/// By first address: the last one, and the device.
type Map<D> = BTreeMap<u64, (u64, D)>;

fn locked<const KIND: u64>() -> Locked {
    Arc::new(Mutex::new(Register::<KIND>::new()))
}

fn bare<const KIND: u64>() -> &'static dyn Bare {
    forever(Register::<KIND>::new())
}

fn map(layout: &Layout) -> Map<Locked> {
    let entry = |(i, range): (usize, &(u64, u64))| (range.0, (range.1, of_kind!(i % layout.types, locked())));
    layout.ranges.iter().enumerate().map(entry).collect()
}

/// The range that has the whole access.
#[inline(always)]
fn find<D>(map: &Map<D>, address: u64) -> Option<(u64, &D)> {
    let (first, (last, device)) = map.range(..=address).next_back()?;
    (address + 3 <= *last).then_some((address - first, device))
}

fn read(found: Option<(u64, Locked)>, data: &mut [u8]) {
    if let Some((offset, device)) = found {
        device.lock().expect("nobody panics").read(offset, data);
    }
}

pub(super) const FLOOR: &str = "a bare dyn call";
pub(super) const ANNOUNCED_FLOOR: &str = "a bare dyn call, announced";
pub(super) const SEARCHED_FLOOR: &str = "a search and a bare dyn call";
pub(super) const FIRECRACKER: &str = "Firecracker's scheme";

pub(super) fn subjects(layout: &Layout) -> Vec<Subject> {
    let firecracker = forever(RwLock::new(map(layout)));
    let crosvm = forever(Mutex::new(map(layout)));
    let owned = map(layout);
    let weak: Map<Weak<Mutex<dyn BusDevice>>> =
        owned.iter().map(|(first, (last, device))| (*first, (*last, Arc::downgrade(device)))).collect();
    // The devices stay, as those of a VMM do.
    forever(owned);
    let cloud_hypervisor = forever(RwLock::new(weak));
    let (first, last) = layout.spare();
    vec![
        Subject::new(FIRECRACKER, move || {
            move |address, data| {
                let found = {
                    let map = firecracker.read().expect("nobody panics");
                    find(&map, address).map(|(offset, device)| (offset, Arc::clone(device)))
                };
                read(found, data);
            }
        })
        .with_change(move || {
            firecracker.write().expect("nobody panics").insert(first, (last, locked::<0>()));
            firecracker.write().expect("nobody panics").remove(&first);
        }),
        Subject::new("Cloud Hypervisor's scheme", move || {
            move |address, data| {
                let found = {
                    let map = cloud_hypervisor.read().expect("nobody panics");
                    find(&map, address).and_then(|(offset, device)| Some((offset, device.upgrade()?)))
                };
                read(found, data);
            }
        })
        .with_change(move || {
            let device = locked::<0>();
            cloud_hypervisor.write().expect("nobody panics").insert(first, (last, Arc::downgrade(&device)));
            cloud_hypervisor.write().expect("nobody panics").remove(&first);
        }),
        Subject::new("crosvm's scheme", move || {
            move |address, data| {
                let found = {
                    let map = crosvm.lock().expect("nobody panics");
                    find(&map, address).map(|(offset, device)| (offset, Arc::clone(device)))
                };
                read(found, data);
            }
        })
        .with_change(move || {
            crosvm.lock().expect("nobody panics").insert(first, (last, locked::<0>()));
            crosvm.lock().expect("nobody panics").remove(&first);
        }),
    ]
}

fn bare_devices(layout: &Layout) -> &'static [&'static dyn Bare] {
    forever((0..layout.ranges.len()).map(|i| of_kind!(i % layout.types, bare())).collect::<Vec<_>>())
}

/// A bare call of the right device, which is known beforehand: what any dispatch has to add to.
pub(super) fn floor(layout: &Layout) -> Subject {
    let devices = bare_devices(layout);
    Subject::new(FLOOR, move || {
        move |number, data| {
            if let Some(device) = devices.get(number as usize) {
                device.read(number, data);
            }
        }
    })
    .knowing_ranges()
}

/// The same call, announced as a removal that waits for readers needs it: a word written and ordered before two looks at
/// what a writer changes, and taken back afterwards. What any dispatch with the guarantee has to add to.
pub(super) fn announced_floor(layout: &Layout) -> Subject {
    #[repr(align(64))]
    struct Line(AtomicU32);
    let devices = bare_devices(layout);
    let version: &'static AtomicU64 = forever(AtomicU64::new(1));
    let states: &'static [AtomicU32] = forever(devices.iter().map(|_| AtomicU32::new(1)).collect::<Vec<_>>());
    Subject::new(ANNOUNCED_FLOOR, move || {
        let line = forever(Line(AtomicU32::new(0)));
        move |number, data| {
            if let (Some(device), Some(state)) = (devices.get(number as usize), states.get(number as usize)) {
                line.0.swap(number as u32 + 1, Ordering::SeqCst);
                if version.load(Ordering::SeqCst) == 1 && state.load(Ordering::SeqCst) == 1 {
                    device.read(number, data);
                }
                line.0.store(0, Ordering::Release);
            }
        }
    })
    .knowing_ranges()
}

/// A search of a sorted array, and the bare call: what any dispatch that finds its device by address has to add to.
pub(super) fn searched_floor(layout: &Layout) -> Subject {
    let devices = bare_devices(layout);
    let starts: &'static [u64] = forever(layout.ranges.iter().map(|(first, _)| *first).collect::<Vec<_>>());
    let ranges: &'static [(u64, u64, &'static dyn Bare)] = forever(
        layout.ranges.iter().zip(devices).map(|((first, last), device)| (*first, *last, *device)).collect::<Vec<_>>(),
    );
    Subject::new(SEARCHED_FLOOR, move || {
        move |address: u64, data| {
            let behind = starts.partition_point(|start| *start <= address);
            if let Some((first, last, device)) = ranges.get(behind.wrapping_sub(1))
                && address + 3 <= *last
            {
                device.read(address - first, data);
            }
        }
    })
}
