//! The nodes of devices.

use super::super::pci::{DEVICES, PciInterrupts, PciRoot};
use super::super::registered::{Entry, Registered};
use super::super::survey::{Irq, Survey, each_host, ecam, ranges};
use super::blob::{Blob, size};
use super::{Config, ControllerKind, InterruptParent};
use crate::address::{IoRange, IoType};
use crate::description::{Description, Property, Role};
use crate::instance::InstanceId;

/// The nodes that devices stand in.
const SOC: &str = "soc";
const ISA: &str = "isa@0";

/// Where a device lies first.
fn place(registered: &dyn Registered, id: InstanceId) -> Option<(IoType, IoRange)> {
    ranges(registered, id, u16::MAX).next()
}

/// The console's path.
pub(super) fn console(blob: &mut Blob<'_>, registered: &dyn Registered, survey: &Survey) {
    let Some(console) = survey.console else { return };
    registered.each(&mut |entry| {
        if entry.id == console.id && has_node(entry) {
            let is_port = console.address.io_type == IoType::Pio;
            let buses: &[&str] = if is_port { &[SOC, ISA] } else { &[SOC] };
            blob.path("stdout-path", buses, entry.name, console.address.base);
        }
    });
}

/// Whether a device has names for a device tree.
fn has_node(entry: &Entry<'_>) -> bool {
    struct Names(bool);

    impl Description for Names {
        fn compatible(&mut self, _: &[&str]) {
            self.0 = true;
        }
    }

    let mut names = Names(false);
    (entry.describe)(&mut names);
    names.0
}

/// The devices in memory, and those that have ports.
pub(super) fn devices(blob: &mut Blob<'_>, registered: &dyn Registered, config: &Config<'_>, survey: &Survey) {
    let (mut in_memory, mut with_ports) = (false, false);
    registered.each(&mut |entry| {
        if let Some((io_type, _)) = place(registered, entry.id).filter(|_| has_node(entry)) {
            *(if io_type == IoType::Pio { &mut with_ports } else { &mut in_memory }) = true;
        }
    });
    if !in_memory && !with_ports {
        return;
    }
    let is_pc = config.interrupts.is_some_and(|parent| parent.kind == ControllerKind::IoApic);
    blob.node(SOC, |blob| {
        // On x86, Linux goes into this bus by its first name.
        let compatible: &[&str] = if is_pc { &["intel,ce4100-cp", "simple-bus"] } else { &["simple-bus"] };
        blob.property("compatible", Property::Texts(compatible));
        blob.cells("#address-cells", &[2]);
        blob.cells("#size-cells", &[2]);
        blob.property("ranges", Property::Empty);
        registered.each(&mut |entry| device(blob, registered, config, survey, entry, false));
        if with_ports {
            blob.node(ISA, |blob| {
                blob.property("compatible", Property::Text("isa"));
                blob.property("device_type", Property::Text("isa"));
                blob.cells("#address-cells", &[2]);
                blob.cells("#size-cells", &[1]);
                // Ports, from 0 on, are those of the processor: 64 KiB.
                blob.cells("ranges", &[PORTS_OF_ISA, 0, 0, 0, 0x1_0000]);
                registered.each(&mut |entry| device(blob, registered, config, survey, entry, true));
            });
        }
    });
}

/// In the first cell of an address on ISA: it is a port.
const PORTS_OF_ISA: u32 = 1;

/// The node of a device, if it is on this bus.
fn device(
    blob: &mut Blob<'_>,
    registered: &dyn Registered,
    config: &Config<'_>,
    survey: &Survey,
    entry: &Entry<'_>,
    has_ports: bool,
) {
    let Some((_, first)) = place(registered, entry.id)
        .filter(|(io_type, _)| (*io_type == IoType::Pio) == has_ports)
        .filter(|_| has_node(entry))
    else {
        return;
    };
    blob.node_at(entry.name, Some(first.first().0), |blob| {
        (entry.describe)(&mut Node { blob, parent: config.interrupts });
        blob.property_with("reg", |blob| {
            for (io_type, range) in ranges(registered, entry.id, u16::MAX) {
                match (has_ports, io_type == IoType::Pio) {
                    (true, true) => {
                        blob.put(&[PORTS_OF_ISA, range.first().0 as u32, size(range) as u32]);
                    }
                    (false, false) => {
                        blob.put_wide(&[range.first().0, size(range)]);
                    }
                    // Of the other space, this bus cannot tell.
                    _ => {}
                }
            }
        });
        let Some(parent) = config.interrupts else { return };
        if survey.irqs(registered, entry.id, u16::MAX).next().is_some() {
            blob.property_with("interrupts", |blob| {
                survey.irqs(registered, entry.id, u16::MAX).for_each(|irq| specifier(blob, parent.kind, irq));
            });
        }
    });
}

/// What a device says of itself.
struct Node<'w, 'b> {
    blob: &'w mut Blob<'b>,
    parent: Option<InterruptParent>,
}

impl Description for Node<'_, '_> {
    fn compatible(&mut self, names: &[&str]) {
        self.blob.property("compatible", Property::Texts(names));
    }
    fn property(&mut self, name: &str, value: Property<'_>) {
        self.blob.property(name, value);
    }
    fn role(&mut self, role: Role) {
        if let (Role::IoApic { first_gsi: 0, .. }, Some(parent)) = (role, self.parent) {
            self.blob.property("interrupt-controller", Property::Empty);
            self.blob.cells("#interrupt-cells", &[2]);
            self.blob.cells("#address-cells", &[0]);
            self.blob.cells("phandle", &[parent.phandle]);
        }
    }
}

/// A line, as the controller counts it.
fn specifier(blob: &mut Blob<'_>, kind: ControllerKind, irq: Irq) {
    const SHARED_PERIPHERAL: u32 = 0;
    const FIRST_SHARED_PERIPHERAL: u32 = 32;
    const LEVEL_HIGH: u32 = 4;
    const IO_APIC_EDGE_HIGH: u32 = 0;
    const IO_APIC_LEVEL_LOW: u32 = 1;
    match kind {
        ControllerKind::Gic => {
            let number = irq.gsi.saturating_sub(FIRST_SHARED_PERIPHERAL);
            blob.put(&[SHARED_PERIPHERAL, number, LEVEL_HIGH]);
        }
        ControllerKind::Plic => blob.put(&[irq.gsi]),
        ControllerKind::IoApic => {
            let trigger = if irq.is_edge { IO_APIC_EDGE_HIGH } else { IO_APIC_LEVEL_LOW };
            blob.put(&[irq.gsi, trigger]);
        }
    }
}

/// The host bridges that have windows.
pub(super) fn host_bridges(blob: &mut Blob<'_>, registered: &dyn Registered, config: &Config<'_>) {
    each_host(registered, &mut |entry, number| {
        let root = config.pci.get(number as usize).filter(|root| !root.memory.is_empty() || !root.ports.is_empty());
        if let Some(root) = root {
            host_bridge(blob, registered, config, entry, root, number);
        }
    });
}

/// A host bridge (IEEE Std 1275-1994, PCI Bus Binding 2.1): the generic one where its configuration space is in memory.
fn host_bridge(
    blob: &mut Blob<'_>,
    registered: &dyn Registered,
    config: &Config<'_>,
    entry: &Entry<'_>,
    root: &PciRoot<'_>,
    number: u32,
) {
    let ecam = ecam(registered, entry.id);
    let name = if ecam.is_some() { "pcie" } else { "pci" };
    blob.node_at(name, ecam.map(|(range, _)| range.first().0), |blob| {
        let compatible: &[&str] =
            if ecam.is_some() { &["pci-host-ecam-generic"] } else { &["intel,ce4100-pci", "pci"] };
        blob.property("compatible", Property::Texts(compatible));
        blob.property("device_type", Property::Text("pci"));
        blob.cells("#address-cells", &[3]);
        blob.cells("#size-cells", &[2]);
        blob.cells("bus-range", &[0, ecam.map_or(u8::MAX, |(_, last_bus)| last_bus).into()]);
        blob.cells("linux,pci-domain", &[number]);
        if let Some((range, _)) = ecam {
            blob.property_with("reg", |blob| {
                blob.put_wide(&[range.first().0, size(range)]);
            });
        }
        blob.property_with("ranges", |blob| windows(blob, root));
        if let Some(parent) = config.interrupts {
            pins(blob, parent, root.interrupts);
        }
    });
}

/// The windows: the address on PCI, in three cells, the address of the processor, and the size.
fn windows(blob: &mut Blob<'_>, root: &PciRoot<'_>) {
    const PORTS: u32 = 0x0100_0000;
    const MEMORY: u32 = 0x0200_0000;
    const MEMORY_64: u32 = 0x0300_0000;
    let mut window = |space: u32, range: IoRange, at: u64| {
        blob.put(&[space]);
        blob.put_wide(&[range.first().0, range.first().0.saturating_add(at), size(range)]);
    };
    for range in root.ports {
        window(PORTS, *range, root.ports_at);
    }
    for range in root.memory {
        let is_low = u32::try_from(range.last().0).is_ok();
        window(if is_low { MEMORY } else { MEMORY_64 }, *range, 0);
    }
}

/// Where the pins lead: the device and the pin, the controller, and the line.
fn pins(blob: &mut Blob<'_>, parent: InterruptParent, interrupts: PciInterrupts<'_>) {
    // The number of the device is in bits 11 to 15. What is swizzled is the same for every fourth.
    let devices = match interrupts {
        PciInterrupts::None => return,
        PciInterrupts::Swizzled(_) => 4,
        PciInterrupts::Routed(_) => DEVICES,
    };
    let mask = u32::from(devices.saturating_sub(1)) << 11;
    blob.cells("#interrupt-cells", &[1]);
    blob.cells("interrupt-map-mask", &[mask, 0, 0, 7]);
    blob.property_with("interrupt-map", |blob| {
        interrupts.each(devices, &mut |device, pin, gsi| {
            blob.put(&[u32::from(device) << 11, 0, 0, pin.into(), parent.phandle]);
            specifier(blob, parent.kind, Irq { gsi: gsi.0, is_edge: false, is_shared: true });
        });
    });
}
