//! The locking of VMMs that have no crate for their buses, rebuilt here: a sorted map of reference-counted, locked devices.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock, Weak};

use super::layout::Layout;
use super::subject::{Register, Subject, of_kind};

trait BusDevice: Send {
    fn read(&mut self, offset: u64, data: &mut [u8]);
}

impl<const KIND: u64> BusDevice for Register<KIND> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.answer(offset, data);
    }
}

type Locked = Arc<Mutex<dyn BusDevice>>;
/// By first address: the last one, and the device.
type Map<D> = BTreeMap<u64, (u64, D)>;

fn locked<const KIND: u64>() -> Locked {
    Arc::new(Mutex::new(Register::<KIND>::new()))
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
        device.lock().expect("no holder panics").read(offset, data);
    }
}

/// A bus that does not keep its devices: the VMM has them.
struct WeakBus {
    bus: RwLock<Map<Weak<Mutex<dyn BusDevice>>>>,
    _devices: Map<Locked>,
}

impl WeakBus {
    fn of(devices: Map<Locked>) -> Self {
        let weak = devices.iter().map(|(first, (last, device))| (*first, (*last, Arc::downgrade(device)))).collect();
        Self { bus: RwLock::new(weak), _devices: devices }
    }
}

pub(super) const FIRECRACKER: &str = "Firecracker's scheme";
pub(super) const CLOUD_HYPERVISOR: &str = "Cloud Hypervisor's scheme";
pub(super) const CROSVM: &str = "crosvm's scheme";

pub(super) fn subjects(layout: &Layout) -> Vec<Subject> {
    let (firecracker, crosvm) = (Arc::new(RwLock::new(map(layout))), Arc::new(Mutex::new(map(layout))));
    let cloud_hypervisor = Arc::new(WeakBus::of(map(layout)));
    let (first, last) = layout.spare();
    vec![
        Subject::new(FIRECRACKER, &firecracker, |firecracker| {
            move |address, data| {
                let found = {
                    let map = firecracker.read().expect("no holder panics");
                    find(&map, address).map(|(offset, device)| (offset, Arc::clone(device)))
                };
                read(found, data);
            }
        })
        .with_change(move || {
            firecracker.write().expect("no holder panics").insert(first, (last, locked::<0>()));
            firecracker.write().expect("no holder panics").remove(&first);
        }),
        Subject::new(CLOUD_HYPERVISOR, &cloud_hypervisor, |cloud_hypervisor| {
            move |address, data| {
                let found = {
                    let map = cloud_hypervisor.bus.read().expect("no holder panics");
                    find(&map, address).and_then(|(offset, device)| Some((offset, device.upgrade()?)))
                };
                read(found, data);
            }
        })
        .with_change(move || {
            let device = locked::<0>();
            cloud_hypervisor.bus.write().expect("no holder panics").insert(first, (last, Arc::downgrade(&device)));
            cloud_hypervisor.bus.write().expect("no holder panics").remove(&first);
        }),
        Subject::new(CROSVM, &crosvm, |crosvm| {
            move |address, data| {
                let found = {
                    let map = crosvm.lock().expect("no holder panics");
                    find(&map, address).map(|(offset, device)| (offset, Arc::clone(device)))
                };
                read(found, data);
            }
        })
        .with_change(move || {
            crosvm.lock().expect("no holder panics").insert(first, (last, locked::<0>()));
            crosvm.lock().expect("no holder panics").remove(&first);
        }),
    ]
}
