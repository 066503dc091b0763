//! The tables that a guest finds, in every size of buffer.

use core::hint::black_box;

use vm_device::tables::acpi::{self, Cpus};
use vm_device::tables::fdt::{self, Clock, ControllerKind, InterruptParent, Nodes};
use vm_device::tables::{PciInterrupts, PciRoot};
use vm_device::{
    AcpiCommand, Description, Device, DeviceRegister, Gsi, GuestAddress, IoRange, Part, Property, Role, UartKind,
};

use crate::Manager;

/// A device that says all that can be said.
struct Everything;

impl Device<'_> for Everything {
    fn name(&self) -> &str {
        black_box("everything")
    }
    fn describe(&self, description: &mut dyn Description) {
        description.acpi(black_box("PNP0501"), black_box(Part::ALL));
        description.compatible(black_box(&["ns16550a"]));
        description.edge_triggered(black_box(1));
        for value in [
            Property::Empty,
            Property::Cells(&[1]),
            Property::Text("text"),
            Property::Texts(&["text"]),
            Property::Bytes(&[1]),
            Property::Clocks(1),
        ] {
            description.property(black_box("property"), black_box(value));
        }
        let register = black_box(DeviceRegister { range_index: 0, offset: 0, size: 1 });
        let command = black_box(Some(AcpiCommand { port: register, enable: 1, disable: 0 }));
        for role in [
            Role::Uart { kind: UartKind::Ns16550, shift: 0 },
            Role::PciHost,
            Role::IoApic { id: 0, first_gsi: 0 },
            Role::Pic,
            Role::Rtc { century: 0 },
            Role::KeyboardController,
            Role::Hpet { capabilities: 0, minimum_tick: 0 },
            Role::PmTimer { is_wide: true },
            Role::Pm1 { event: register, control: register, command, power_off: 5, has_power_button: true },
            Role::Reset { register, value: 6 },
        ] {
            description.role(black_box(role));
        }
    }
}

/// A node with a property.
fn node(root: &mut Nodes<'_, '_>) {
    root.node(black_box("node"), |node| node.property(black_box("property"), black_box(Property::Empty)));
}

pub fn all(manager: &'static Manager, data: &mut [u8]) {
    let everything: &dyn Device<'static> = black_box(&Everything);
    manager.register_device(everything, None, &[], &[]).ok();
    let ranges = black_box([IoRange::ALL_PORTS]);
    let route = |device: u8, pin: u8| Some(Gsi(u32::from(device) + u32::from(pin)));
    for interrupts in [PciInterrupts::None, PciInterrupts::Swizzled([Gsi(16); 4]), PciInterrupts::Routed(&route)] {
        black_box(interrupts.gsi(black_box(0), black_box(1)));
        let pci =
            [PciRoot { ports: &ranges, ports_at: black_box(0), memory: &ranges, interrupts: black_box(interrupts) }];
        for cpus in black_box([Cpus::Sequential(1), Cpus::Listed(&[1])]) {
            black_box(cpus.count());
            let config = acpi::Config { cpus, pci: &pci, ..black_box(acpi::Config::new()) };
            black_box(acpi::write(manager, &config, black_box(GuestAddress(0)), data)).ok();
        }
        let kind = black_box(ControllerKind::Gic);
        let config = fdt::Config {
            interrupts: black_box(Some(InterruptParent { phandle: 1, kind })),
            memory: &ranges,
            reserved: &ranges,
            bootargs: black_box(Some("quiet")),
            initrd: black_box(Some(IoRange::ALL_MEMORY)),
            clock: black_box(Some(Clock { phandle: 2, hertz: 1 })),
            pci: &pci,
            nodes: Some(&node),
            ..black_box(fdt::Config::new())
        };
        black_box(fdt::write(manager, &config, data)).ok();
    }
    black_box((acpi::Config::default().cpus, fdt::Config::default().boot_cpu));
}
