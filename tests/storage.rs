//! Managers and their storage: which manager has it, and what its capacities do not show in.

mod fixture;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use fixture::{Acting, Constant, at, manager, observe, range, read, read_both_ways, register, try_register};
use spin::Mutex;
use vm_device::{
    Access, Device, DeviceManager, DispatcherError, Gsi, InstanceId, IoError, IoResource, IoType, IrqError,
    IrqResource, RangeRefusal, RegisterError, RelocateError, Relocation, UnregisterError,
};

const FIRST: Constant = Constant { name: "first", value: 1 };
const SECOND: Constant = Constant { name: "second", value: 2 };

const WORDS: &str = "the manager's storage belongs to another manager, which used it first";

/// A manager refuses everything that it can be asked for, because its storage is another manager's.
fn is_refused<'d>(manager: &'d DeviceManager<'d>, id: InstanceId) {
    let error = try_register(manager, &SECOND, &[IoResource::mmio(0x100, 4)]).unwrap_err();
    assert_eq!(error, RegisterError::StorageInUse { device: "second" });
    assert_eq!(error.to_string(), format!("\"second\" cannot be registered: {WORDS}"));
    let error = manager.dispatcher(0).err().unwrap();
    assert_eq!((error, error.to_string()), (DispatcherError::StorageInUse, WORDS.into()));
    let error = manager.reserve(IoType::Mmio, range(0x200, 0x2ff)).unwrap_err();
    assert_eq!((error, error.to_string()), (RangeRefusal::StorageInUse, WORDS.into()));
    assert_eq!(manager.release(IoType::Mmio, range(0x200, 0x2ff)), Err(RangeRefusal::StorageInUse));
    let error = manager.reserve_irq(None).unwrap_err();
    assert_eq!((error, error.to_string()), (IrqError::StorageInUse, WORDS.into()));
    assert_eq!(manager.release_irq(Gsi(5)), Err(IrqError::StorageInUse));
    // It has no devices.
    let not_found = Err(UnregisterError::NotFound { id });
    assert_eq!(manager.unregister_device(id), not_found);
    assert_eq!(manager.unregister_subtree(id), not_found);
    assert_eq!(manager.unregister_device_deferred(id), not_found);
    let mut moves = [Relocation::new(id, 0).to(at(0x300))];
    assert_eq!(manager.relocate(&mut moves), Err(RelocateError::NotFound { id }));
    assert!(manager.device(id).is_none() && manager.range(id, 0).is_none());
    assert_eq!((manager.find_by_path("/first").ok(), manager.find_by_address(at(0), IoType::Mmio)), (None, None));
    assert_eq!((manager.walk().count(), manager.address_map(IoType::Mmio).count(), manager.collect()), (0, 0, 0));
    // A guest that it was given for reaches nothing.
    for io_type in [IoType::Pio, IoType::Mmio] {
        let mut data = [0; 4];
        assert_eq!(manager.read(at(0), &mut data, io_type), Err(IoError::Unclaimed));
        assert_eq!(data, [0xff; 4]);
        assert_eq!(manager.write(at(0), &data, io_type), Err(IoError::Unclaimed));
    }
    let mut data = [0; 4];
    assert_eq!(manager.read_string(0, 2, &mut data), Err(IoError::Unclaimed));
    assert_eq!(data, [0xff; 4]);
    assert_eq!(manager.write_string(0, 2, &data), Err(IoError::Unclaimed));
}

#[test]
fn a_second_manager_of_a_storage_is_refused_and_reaches_no_device_of_the_first() {
    manager!(let [first, second]);
    let requests = [IoResource::mmio(0, 4), IoResource::pio(0, 4)];
    let id = first.register_device(&FIRST, None, &requests, &[IrqResource::Any]).unwrap();
    let mut vcpu = first.dispatcher(0).unwrap();
    let before = observe(&first, &[]);
    is_refused(&second, id);
    assert_eq!(observe(&first, &[]), before);
    assert_eq!(vcpu.read(at(0), &mut [0], IoType::Mmio), Ok(()));
    assert_eq!(first.unregister_device(id), Ok(()));
    // It is so for good.
    is_refused(&second, id);
}

#[test]
fn a_callback_reaches_nothing_through_a_second_manager_of_its_storage() {
    manager!(let [first, second]);
    let act = |access: &Access<'_>, data: &mut [u8]| {
        let id = first.find_by_path("/acting").unwrap();
        assert_eq!(second.nested(access).read(at(8), data, IoType::Mmio), Err(IoError::Unclaimed));
        assert_eq!(second.nested(access).write(at(8), data, IoType::Mmio), Err(IoError::Unclaimed));
        assert_eq!(second.nested(access).unregister_device(id), Err(UnregisterError::NotFound { id }));
        assert_eq!(first.nested(access).read(at(8), data, IoType::Mmio), Ok(()));
    };
    let acting = Acting { name: "acting", act: &act };
    register(&first, &acting, 0);
    register(&first, &SECOND, 8);
    assert_eq!(read_both_ways(&first, 0), [Ok(2); 2]);
}

#[test]
fn the_manager_that_uses_a_storage_first_has_it() {
    fn use_first<'d>(manager: &'d DeviceManager<'d>, how: usize) {
        match how {
            0 => assert_eq!(manager.reserve(IoType::Mmio, range(0x200, 0x2ff)), Ok(range(0x200, 0x2ff))),
            1 => assert_eq!(manager.reserve_irq(None), Ok(Gsi(5))),
            2 => drop(manager.dispatcher(0).unwrap()),
            3 => assert_eq!(manager.unregister_device(register(manager, &FIRST, 0)), Ok(())),
            // Refusals and look-ups are uses too.
            4 => assert!(try_register(manager, &FIRST, &[IoResource::mmio(0, 0)]).is_err()),
            5 => assert_eq!(manager.release_irq(Gsi(5)), Err(IrqError::NotAllocated { gsi: Gsi(5) })),
            6 => assert_eq!(manager.walk().count(), 0),
            _ => assert_eq!(manager.collect(), 0),
        }
    }
    for how in 0..8 {
        manager!(let [late, early]);
        // An access is no use: there is nothing that it could reach.
        assert_eq!(read(&late, 0), Err(IoError::Unclaimed));
        use_first(&early, how);
        assert_eq!(late.dispatcher(0).err(), Some(DispatcherError::StorageInUse));
        let id = register(&early, &FIRST, 0);
        is_refused(&late, id);
    }
}

#[test]
fn of_two_threads_that_use_a_storage_at_once_one_has_it() {
    for _ in 0..if cfg!(miri) { 5 } else { 500 } {
        manager!(let [left, right]);
        let together = Barrier::new(2);
        let registered = AtomicUsize::new(0);
        thread::scope(|scope| {
            for (manager, device) in [(&left, &FIRST), (&right, &SECOND)] {
                let (together, registered) = (&together, &registered);
                scope.spawn(move || {
                    together.wait();
                    // Before, meanwhile and after: of the other manager's device nothing is seen.
                    let before = read(manager, 0);
                    assert_eq!(before, Err(IoError::Unclaimed));
                    match try_register(manager, device, &[IoResource::mmio(0, 4)]) {
                        Ok(_) => {
                            registered.fetch_add(1, SeqCst);
                            assert_eq!(read_both_ways(manager, 0), [Ok(device.value); 2]);
                        }
                        Err(error) => {
                            assert_eq!(error, RegisterError::StorageInUse { device: device.name });
                            assert_eq!(read(manager, 0), Err(IoError::Unclaimed));
                        }
                    }
                });
            }
        });
        assert_eq!(registered.load(SeqCst), 1);
        let answers = [&left, &right].map(|manager| read(manager, 0));
        assert!([[Ok(1), Err(IoError::Unclaimed)], [Err(IoError::Unclaimed), Ok(2)]].contains(&answers), "{answers:?}");
    }
}

#[test]
fn a_manager_may_be_moved_as_long_as_no_device_is_registered() {
    struct Machine<'d> {
        manager: DeviceManager<'d>,
    }
    manager!(let unused);
    manager!(let used);
    assert_eq!(used.reserve(IoType::Mmio, range(0x200, 0x2ff)), Ok(range(0x200, 0x2ff)));
    let machines = [unused, used].map(|manager| Box::new(Machine { manager }));
    for machine in &machines {
        let id = register(&machine.manager, &FIRST, 0);
        assert_eq!(read_both_ways(&machine.manager, 0), [Ok(1); 2]);
        assert_eq!(machine.manager.unregister_device(id), Ok(()));
    }
    let taken = try_register(&machines[1].manager, &FIRST, &[IoResource::mmio(0x2ff, 1)]);
    assert!(matches!(taken, Err(RegisterError::Range { .. })), "what was reserved before the move is reserved");
}

/// Passes on what it reads to the bus behind it, whatever the capacities of that, and plugs a device in on a write.
struct Bridge<'d> {
    behind: &'d DeviceManager<'d>,
    plugged: Mutex<Option<InstanceId>>,
}

impl<'d> Bridge<'d> {
    fn new(behind: &'d DeviceManager<'d>) -> Self {
        Self { behind, plugged: Mutex::new(None) }
    }
}

impl<'d> Device<'d> for Bridge<'d> {
    fn name(&self) -> &str {
        "bridge"
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        // All ones, if nothing is there.
        let _ = self.behind.nested(access).read(at(access.offset()), data, IoType::Mmio);
    }
    fn write(&self, access: &Access<'_>, _: &[u8]) {
        let mut plugged = self.plugged.lock();
        *plugged = match plugged.take() {
            None => Some(register(self.behind, &SECOND, 0)),
            Some(id) => {
                assert_eq!(self.behind.nested(access).unregister_device(id), Ok(()));
                None
            }
        };
    }
}

#[test]
fn one_bridge_works_with_storages_of_any_capacities() {
    manager!(let small: <1, 1, 1>);
    manager!(let large: <64, 256, 16>);
    manager!(let top);
    let bridges = [Bridge::new(&small), Bridge::new(&large)];
    let outer = Bridge::new(&top);
    let mut vcpu = top.dispatcher(0).unwrap();
    let mut seen = Vec::new();
    for bridge in &bridges {
        let id = register(&top, bridge, 0);
        for _ in 0..4 {
            vcpu.write(at(0), &[0], IoType::Mmio).unwrap();
            seen.push(read_both_ways(&top, 0));
        }
        assert_eq!(top.unregister_device(id), Ok(()));
    }
    assert_eq!(seen, [[Ok(2); 2], [Ok(0xff); 2]].repeat(4));
    // One behind the other.
    register(&top, &bridges[1], 0);
    register(&small, &outer, 0);
    vcpu.write(at(0), &[0], IoType::Mmio).unwrap();
    assert_eq!(read_both_ways(&small, 0), [Ok(2); 2]);
}
