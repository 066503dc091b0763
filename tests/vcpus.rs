//! What a device is told of itself and of who accesses it: its id, and the number of the vCPU.

mod fixture;

use std::thread;

use spin::Mutex;
use vm_device::{
    Access, Device, DeviceManager, GuestAddress, InstanceId, IoResource, IoType, Rejected, Resources, UnregisterError,
};

use fixture::manager;

const APIC: u64 = 0xfee0_0000;
const ID: u64 = 0x20;
const TASK_PRIORITY: u64 = 0x80;

/// The id and the task priority register of the local APICs, of which each processor finds its own at the same address (Intel
/// SDM vol. 3A, 11.4.1).
struct LocalApics(Mutex<[[u8; 4]; 4]>);

impl Device<'_> for LocalApics {
    fn name(&self) -> &str {
        "local-apic"
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let Some(vcpu) = access.vcpu() else { return };
        access.load_at(ID, &(u32::from(vcpu) << 24).to_le_bytes(), data);
        if let Some(priority) = self.0.lock().get(usize::from(vcpu)) {
            access.load_at(TASK_PRIORITY, priority, data);
        }
    }
    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let Some(vcpu) = access.vcpu() else { return };
        if let Some(priority) = self.0.lock().get_mut(usize::from(vcpu)) {
            access.store_at(TASK_PRIORITY, priority, data);
        }
    }
}

#[test]
fn each_vcpu_has_a_local_apic_of_its_own_at_one_address() {
    let apics = LocalApics(Mutex::new([[0; 4]; 4]));
    manager!(let manager: <2, 2, 4>);
    manager.register_device(&apics, None, &[IoResource::mmio(APIC, 0x1000)], &[]).unwrap();
    thread::scope(|scope| {
        for number in [0, 1, 3] {
            let mut vcpu = manager.dispatcher(number).unwrap();
            scope.spawn(move || {
                let mut data = [0; 4];
                // By a search, and then by a hint.
                for round in 0..20 {
                    vcpu.read(GuestAddress(APIC + ID), &mut data, IoType::Mmio).unwrap();
                    assert_eq!(data, [0, 0, 0, number as u8]);
                    vcpu.write(GuestAddress(APIC + TASK_PRIORITY), &[number as u8, round], IoType::Mmio).unwrap();
                    vcpu.read(GuestAddress(APIC + TASK_PRIORITY), &mut data, IoType::Mmio).unwrap();
                    assert_eq!(data, [number as u8, round, 0, 0]);
                }
            });
        }
    });
    assert_eq!(*apics.0.lock(), [[0, 19, 0, 0], [1, 19, 0, 0], [0; 4], [3, 19, 0, 0]]);
    // Without a handle there is no vCPU.
    let mut data = [0; 4];
    manager.read(GuestAddress(APIC + ID), &mut data, IoType::Mmio).unwrap();
    assert_eq!(data, [0xff; 4]);
}

/// The device, the range and the vCPU of an access.
type Seen = (Option<InstanceId>, usize, Option<u16>);

/// Notes who accesses it, passes accesses on to a second place, and removes itself when it is told to.
struct Card<'d> {
    manager: &'d DeviceManager<'d>,
    told: Mutex<Option<InstanceId>>,
    seen: Mutex<Vec<Seen>>,
}

impl<'d> Card<'d> {
    fn new(manager: &'d DeviceManager<'d>) -> Self {
        Self { manager, told: Mutex::new(None), seen: Mutex::new(Vec::new()) }
    }

    fn note(&self, access: &Access<'_>) {
        self.seen.lock().push((access.device(), access.range_index(), access.vcpu()));
    }
}

impl<'d> Device<'d> for Card<'d> {
    fn name(&self) -> &str {
        "card"
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.note(access);
        if access.range_index() == 0 {
            let _ = self.manager.nested(access).read(GuestAddress(0x3000), data, IoType::Mmio);
        }
    }
    fn write(&self, access: &Access<'_>, _: &[u8]) {
        self.note(access);
        let id = (*self.told.lock()).unwrap();
        assert_eq!(access.device(), Some(id));
        let refused = self.manager.nested(access).unregister_device(id);
        assert_eq!(refused, Err(UnregisterError::InOwnCallback { device: "card" }));
        self.manager.unregister_device_deferred(id).unwrap();
    }
    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        *self.told.lock() = resources.id();
        Ok(())
    }
}

#[test]
fn a_device_knows_its_id_from_its_resources_and_from_each_access() {
    manager!(let manager: <2, 4, 2>);
    let card = Card::new(&manager);
    let ranges = [IoResource::mmio(0x1000, 8), IoResource::mmio(0x3000, 8)];
    let mut vcpu = manager.dispatcher(7).unwrap();
    // The second registration has the index of the first in another generation.
    for _ in 0..3 {
        let id = manager.register_device(&card, None, &ranges, &[]).unwrap();
        assert_eq!(*card.told.lock(), Some(id));
        for _ in 0..2 {
            vcpu.read(GuestAddress(0x1000), &mut [0; 4], IoType::Mmio).unwrap();
            // A nested access is the same vCPU's.
            let seen = std::mem::take(&mut *card.seen.lock());
            assert_eq!(seen, [(Some(id), 0, Some(7)), (Some(id), 1, Some(7))]);
        }
        manager.read(GuestAddress(0x1000), &mut [0; 4], IoType::Mmio).unwrap();
        let seen = std::mem::take(&mut *card.seen.lock());
        assert_eq!(seen, [(Some(id), 0, None), (Some(id), 1, None)]);
        vcpu.write(GuestAddress(0x1000), &[1], IoType::Mmio).unwrap();
        assert_eq!(manager.collect(), 0);
        card.seen.lock().clear();
    }
    let access = Access::new(IoType::Mmio, GuestAddress(0), GuestAddress(0), 0);
    assert_eq!((access.device(), access.vcpu()), (None, None), "no manager makes it");
}
