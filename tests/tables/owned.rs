//! An owned manager is described as any other.

use std::sync::Arc;

use vm_device::owned::{Capacities, OwnedManager};
use vm_device::tables::{acpi, fdt};
use vm_device::{Gsi, GuestAddress, IoType, IrqResource, Placement};

use super::machine::{RAM, uart};
use super::{allocator, manager};

#[test]
fn an_owned_manager_gives_the_same_tables() {
    let capacities = Capacities { devices: 8, ranges: 16, vcpus: 1 };
    let owned = OwnedManager::new(capacities, allocator()).unwrap();
    let plain = manager();
    let (ours, theirs) = (Arc::new(uart("serial")), Box::leak(Box::new(uart("serial"))));
    let ports = theirs.ports(0x3f8);
    let irqs = [IrqResource::Fixed(Gsi(4))];
    owned.register_device(ours, None, &[ports], &irqs).unwrap();
    plain.register_device(theirs, None, &[ports], &irqs).unwrap();
    owned.reserve(IoType::Mmio, Placement::Fixed(RAM)).unwrap();
    plain.reserve(IoType::Mmio, Placement::Fixed(RAM)).unwrap();

    let mut buffers = [[0; 0x1000]; 2];
    let [first, second] = &mut buffers;
    let config = acpi::Config::new();
    let address = GuestAddress(0xe_0000);
    assert_eq!(acpi::write(&owned, &config, address, first), acpi::write(plain, &config, address, second));
    assert!(first == second && first[..4] != [0; 4]);
    let config = fdt::Config::new();
    assert_eq!(fdt::write(&owned, &config, first), fdt::write(plain, &config, second));
    assert!(first == second && first.windows(11).any(|bytes| bytes == b"serial@3f8\0"));

    // A window over RAM is refused here too.
    let root = vm_device::tables::PciRoot { memory: &[RAM], ..vm_device::tables::PciRoot::NOTHING };
    let config = fdt::Config { pci: &[root], ..fdt::Config::new() };
    assert_eq!(fdt::write(&owned, &config, first), fdt::write(plain, &config, second));
    assert!(fdt::write(&owned, &config, first).is_err());
}
