//! The topology and the address maps as text.

use core::fmt;

use crate::address::IoType;
use crate::error::Owner;
use crate::manager::device_manager::DeviceManager;
use crate::manager::inspect::{DeviceInfo, MappedRange};
use crate::resource::{Assigned, MAX_IRQS_PER_DEVICE, MAX_RANGES_PER_DEVICE, RangeState};

/// How far each level is indented.
const INDENT: usize = 2;

impl<'d> DeviceManager<'d> {
    /// The topology and the two address maps, to be displayed: for people, and as it is when it is displayed.
    ///
    /// Below each bus stand its devices: the part of the path that names a device among its siblings, its id, its interrupts,
    /// and its ranges in the order of its requests. A range that is not decoded is followed by its state. One that waits shows the
    /// addresses that it wants, and one that is unplaced how many it has. In the maps stand the ranges that have addresses, in
    /// their order, each indented below the windows around it, with their owners.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, Gsi, IoRange, IoResource, IoType, IrqResource, Placement, Storage, SystemAllocator};
    ///
    /// let (pci, serial) = (Constant("pci", 1), Constant("serial", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
    /// let manager = DeviceManager::new(&storage, allocator);
    /// manager.reserve(IoType::Mmio, Placement::Fixed(IoRange::of::<0, 0x9_ffff>())).unwrap();
    /// let window = IoResource::mmio(0xc000_0000, 0x1000_0000).window();
    /// let bus = manager.register_device(&pci, None, &[IoResource::pio(0xcf8, 8), window], &[]).unwrap();
    /// for port in [0x3f8, 0x2f8] {
    ///     manager.register_device(&serial, Some(bus), &[IoResource::pio(port, 8)], &[IrqResource::Any]).unwrap();
    /// }
    /// assert_eq!(
    ///     manager.map().to_string(),
    ///     "\
    /// devices
    ///   pci #0
    ///     pio [0xcf8, 0xcff]
    ///     mmio [0xc0000000, 0xcfffffff], window
    ///     serial@3f8 #1, GSI 0
    ///       pio [0x3f8, 0x3ff]
    ///     serial@2f8 #2, GSI 1
    ///       pio [0x2f8, 0x2ff]
    /// ports
    ///   [0x2f8, 0x2ff] serial@2f8 #2
    ///   [0x3f8, 0x3ff] serial@3f8 #1
    ///   [0xcf8, 0xcff] pci #0
    /// memory
    ///   [0x0, 0x9ffff] the VMM, reserved
    ///   [0xc0000000, 0xcfffffff] pci #0, window
    /// ",
    /// );
    /// ```
    pub fn map(&self) -> MapText<'_, 'd> {
        MapText { manager: self }
    }
}

/// The topology and the address maps, to be displayed; see [`DeviceManager::map`].
#[derive(Clone, Copy)]
pub struct MapText<'m, 'd> {
    manager: &'m DeviceManager<'d>,
}

/// Each step of an iteration takes the lock for itself, so that it is not held while anything is written.
impl fmt::Display for MapText<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("devices\n")?;
        for info in self.manager.walk() {
            self.device(f, &info)?;
        }
        for (title, io_type) in [("ports\n", IoType::Pio), ("memory\n", IoType::Mmio)] {
            f.write_str(title)?;
            for mapped in self.manager.address_map(io_type) {
                self.mapped(f, &mapped)?;
            }
        }
        Ok(())
    }
}

impl<'d> MapText<'_, 'd> {
    /// A device and its ranges.
    fn device(&self, f: &mut fmt::Formatter<'_>, info: &DeviceInfo<'d>) -> fmt::Result {
        let depth = info.depth.saturating_add(1);
        indent(f, depth)?;
        self.owner(f, &Owner::Device { id: info.id, name: info.name })?;
        for index in 0..MAX_IRQS_PER_DEVICE {
            let Some(irq) = self.manager.irq(info.id, index) else { break };
            write!(f, ", {irq}")?;
        }
        f.write_str("\n")?;
        for index in 0..MAX_RANGES_PER_DEVICE {
            let Some((assigned, is_window)) = self.manager.range_and_kind(info.id, index) else { break };
            indent(f, depth.saturating_add(1))?;
            range(f, &assigned)?;
            window(f, is_window)?;
            f.write_str("\n")?;
        }
        Ok(())
    }

    /// A range at its place in the address map.
    fn mapped(&self, f: &mut fmt::Formatter<'_>, mapped: &MappedRange<&'d str>) -> fmt::Result {
        indent(f, mapped.depth.saturating_add(1))?;
        let Assigned { io_type, range, state } = mapped.assigned;
        write!(f, "{range} ")?;
        self.owner(f, &mapped.owner)?;
        window(f, mapped.window)?;
        if io_type == IoType::PhysicalMmio {
            f.write_str(", physical")?;
        }
        if state != RangeState::Decoded {
            write!(f, ", {state}")?;
        }
        f.write_str("\n")
    }

    fn owner(&self, f: &mut fmt::Formatter<'_>, owner: &Owner<&'d str>) -> fmt::Result {
        match owner {
            Owner::Device { id, name } => {
                match self.manager.path_part(*id) {
                    Some(part) => write!(f, "{part}")?,
                    None => f.write_str(name)?,
                }
                write!(f, " {id}")
            }
            owner => write!(f, "{owner}"),
        }
    }
}

fn indent(f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    for _ in 0..depth.saturating_mul(INDENT) {
        f.write_str(" ")?;
    }
    Ok(())
}

/// A range of a device, with what it wants where it has no addresses.
fn range(f: &mut fmt::Formatter<'_>, assigned: &Assigned) -> fmt::Result {
    let Assigned { io_type, range, state } = *assigned;
    write!(f, "{io_type} ")?;
    match (state, range.size()) {
        (RangeState::Decoded, _) => write!(f, "{range}"),
        (RangeState::Unplaced, Some(size)) => write!(f, "{size} bytes, unplaced"),
        _ => write!(f, "{range}, {state}"),
    }
}

fn window(f: &mut fmt::Formatter<'_>, is_window: bool) -> fmt::Result {
    if is_window { f.write_str(", window") } else { Ok(()) }
}
