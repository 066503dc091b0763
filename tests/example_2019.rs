//! The example of the 2019 design: a dummy PCI host bridge at port 0xcf8.

mod fixture;

use fixture::manager;
use spin::Mutex;
use vm_device::{Access, Device, GuestAddress, IoError, IoResource, IoType, IrqResource};

struct PciBridge {
    config_address: Mutex<u32>,
}

impl Device<'_> for PciBridge {
    fn name(&self) -> &str {
        "pci"
    }
    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        let address = self.config_address.lock().to_le_bytes();
        data.iter_mut().zip(address).for_each(|(to, from)| *to = from);
    }
    fn write(&self, _: &Access<'_>, data: &[u8]) {
        if let Ok(address) = data.try_into() {
            *self.config_address.lock() = u32::from_le_bytes(address);
        }
    }
}

static BRIDGE: PciBridge = PciBridge { config_address: Mutex::new(0) };
manager!(static MANAGER);

/// Remembers the length of each access.
struct Lengths(Mutex<Vec<usize>>);

impl Device<'_> for Lengths {
    fn name(&self) -> &str {
        "lengths"
    }
    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        self.0.lock().push(data.len());
    }
    fn write(&self, _: &Access<'_>, data: &[u8]) {
        self.0.lock().push(data.len());
    }
}

/// Of the 2019 loop, what a port has to change: the documentation of `read` says so.
#[test]
fn a_burst_is_one_access_through_read_and_one_for_each_element_through_read_string() {
    let device = Lengths(Mutex::new(Vec::new()));
    manager!(let manager);
    manager.register_device(&device, None, &[IoResource::pio(0x1f0, 4)], &[]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    let (port, mut data) = (0x1f0, [0; 3]);
    vcpu.read(port.into(), &mut data, IoType::Pio).unwrap();
    manager.write(port.into(), &data, IoType::Pio).unwrap();
    assert_eq!(device.0.lock().drain(..).collect::<Vec<_>>(), [3, 3]);
    vcpu.read_string(port, 1, &mut data).unwrap();
    manager.write_string(port, 1, &data).unwrap();
    assert_eq!(device.0.lock().drain(..).collect::<Vec<_>>(), [1; 6]);
}

#[test]
fn a_static_manager_dispatches_port_exits() {
    let bus = MANAGER.register_device(&BRIDGE, None, &[IoResource::pio(0xcf8, 8)], &[IrqResource::Any]).unwrap();
    let mut vcpu = MANAGER.dispatcher(0).unwrap();
    let port = GuestAddress(0xcf8);
    vcpu.write(port, &0x8000_0000_u32.to_le_bytes(), IoType::Pio).unwrap();
    let mut data = [0; 4];
    vcpu.read(port, &mut data, IoType::Pio).unwrap();
    assert_eq!(u32::from_le_bytes(data), 0x8000_0000);
    MANAGER.unregister_device(bus).unwrap();
    assert_eq!(vcpu.read(port, &mut data, IoType::Pio), Err(IoError::Unclaimed));
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn a_scoped_manager_borrows_its_devices() {
    manager!(let manager);
    let bridge = PciBridge { config_address: Mutex::new(7) };
    manager.register_device(&bridge, None, &[IoResource::pio(0xcf8, 8)], &[]).unwrap();
    let mut data = [0; 1];
    manager.read(GuestAddress(0xcff), &mut data, IoType::Pio).unwrap();
    assert_eq!(data, [7]);
}
