//! The example of the 2019 design, as its VMM has it: a dummy device in an `Arc`, resources, any interrupt, and the loop, with the
//! VMM's devices in a struct.

use std::sync::{Arc, Mutex};

use vm_device::owned::{Capacities, OwnedManager};
use vm_device::{
    Access, Device, GuestUsize, InstanceId, IoError, IoRange, IoResource, IoType, IrqLine, IrqResource, RegisterError,
    Rejected, Resources, SystemAllocator,
};

/// A PCI host bridge that sets and returns its `config_address`.
#[derive(Debug)]
struct DummyHostBridge {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config_address: [u8; 4],
    resources: Vec<IoRange>,
    interrupt: IrqLine<'static>,
}

impl Device<'static> for DummyHostBridge {
    fn name(&self) -> &str {
        "dummy-host-bridge"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load(&self.state.lock().unwrap().config_address, data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        access.store(&mut self.state.lock().unwrap().config_address, data);
    }

    fn set_resources(&self, resources: &Resources<'_, 'static>) -> Result<(), Rejected> {
        let mut state = self.state.lock().unwrap();
        state.resources = resources.ranges().iter().map(|given| given.range).collect();
        state.interrupt = resources.irq(0);
        Ok(())
    }
}

enum VcpuExit<'a> {
    IoIn(u16, &'a mut [u8]),
    IoOut(u16, &'a [u8]),
    MmioRead(u64, &'a mut [u8]),
    MmioWrite(u64, &'a [u8]),
}

#[derive(Debug)]
struct Vmm {
    device_manager: OwnedManager,
    bridge: Arc<DummyHostBridge>,
}

impl Vmm {
    fn new() -> Result<Self, RegisterError<String>> {
        let allocator = SystemAllocator::new(IoRange::of::<0xc000_0000, 0xffff_ffff>())
            .with_ports(IoRange::ALL_PORTS)
            .with_irqs(5, 15);
        let capacities = Capacities { devices: 8, ranges: 16, vcpus: 1 };
        let device_manager = OwnedManager::new(capacities, allocator).expect("the capacities are small");
        let interrupt = IrqLine::DISCONNECTED;
        let state = State { config_address: [0; 4], resources: Vec::new(), interrupt };
        let bridge = Arc::new(DummyHostBridge { state: Mutex::new(state) });
        Ok(Self { device_manager, bridge })
    }

    fn add_bridge(&self) -> Result<InstanceId, RegisterError<String>> {
        let resources = [IoResource::pio(0xcf8, 8), IoResource::any(IoType::Mmio, GuestUsize(0x1000))];
        self.device_manager.register_device(self.bridge.clone(), None, &resources, &[IrqResource::Any])
    }

    fn handle(&self, exit: VcpuExit<'_>) -> Result<(), IoError> {
        match exit {
            VcpuExit::IoIn(port, data) => self.device_manager.read(port.into(), data, IoType::Pio),
            VcpuExit::IoOut(port, data) => self.device_manager.write(port.into(), data, IoType::Pio),
            VcpuExit::MmioRead(address, data) => self.device_manager.read(address.into(), data, IoType::Mmio),
            VcpuExit::MmioWrite(address, data) => self.device_manager.write(address.into(), data, IoType::Mmio),
        }
    }
}

#[test]
fn the_vmm_of_2019_owns_its_manager_and_its_devices() {
    let vmm = Vmm::new().unwrap();
    let id = vmm.add_bridge().unwrap();
    let (line, memory) = {
        let state = vmm.bridge.state.lock().unwrap();
        assert_eq!(
            (state.resources[0], state.interrupt.gsi().map(|gsi| gsi.0)),
            (IoRange::of::<0xcf8, 0xcff>(), Some(5))
        );
        (state.interrupt, state.resources[1].first().0)
    };

    assert!(format!("{vmm:?}").contains("OwnedManager"));

    // The struct moves, to another thread, with all that it has.
    let vmm = std::thread::spawn(move || {
        vmm.handle(VcpuExit::IoOut(0xcf8, &0x8000_0010_u32.to_le_bytes())).unwrap();
        vmm.handle(VcpuExit::MmioWrite(memory + 1, &[0xaa])).unwrap();
        vmm
    });
    let vmm = Box::new(vmm.join().unwrap());
    let (mut address, mut byte) = ([0; 4], [0; 1]);
    vmm.handle(VcpuExit::IoIn(0xcf8, &mut address)).unwrap();
    vmm.handle(VcpuExit::MmioRead(memory + 1, &mut byte)).unwrap();
    assert_eq!((u32::from_le_bytes(address), byte), (0x8000_aa10, [0xaa]));

    let bridge = vmm.device_manager.unregister_device(id).unwrap();
    assert_eq!(bridge.name(), "dummy-host-bridge");
    assert_eq!(vmm.handle(VcpuExit::IoIn(0xcf8, &mut address)), Err(IoError::Unclaimed));
    assert_eq!((address, line.gsi()), ([0xff; 4], None));
    drop((vmm, bridge));
    assert!(line.assert().is_err());
}
