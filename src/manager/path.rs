//! Paths of devices: `/pci/serial@3f8`.

use core::fmt;

use crate::address::GuestAddress;
use crate::error::PathError;
use crate::indices::NodeIndex;
use crate::instance::InstanceId;
use crate::manager::device_manager::DeviceManager;
use crate::manager::state::State;
use crate::manager::tree::Node;

impl<'d> DeviceManager<'d> {
    /// The device at a path from the root: `/pci/serial`, `/isa/serial@3f8`.
    ///
    /// Each part of it is the name of a device, or the name and an address, as the node names of the Devicetree Specification
    /// are (v0.4, 2.2.1): the first address of the first of the device's ranges that has a place, in hexadecimal, with lower-case
    /// letters, without a prefix and without leading zeros. The name alone is enough where one sibling has it. A device that is
    /// being registered or removed is a sibling too.
    ///
    /// The address is that of the moment: the path of a device that moves changes where it has an address. To keep hold of a
    /// device there is its [`InstanceId`].
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, IoRange, IoResource, PathError, Storage, SystemAllocator};
    ///
    /// let (isa, serial) = (Constant("isa", 1), Constant("serial", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager =
    ///     DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
    /// let bus = manager.register_device(&isa, None, &[], &[]).unwrap();
    /// let com1 = manager.register_device(&serial, Some(bus), &[IoResource::pio(0x3f8, 8)], &[]).unwrap();
    /// assert_eq!(manager.find_by_path("/isa/serial"), Ok(com1));
    /// assert_eq!(manager.find_by_path("/serial"), Err(PathError::NotFound));
    ///
    /// let com2 = manager.register_device(&serial, Some(bus), &[IoResource::pio(0x2f8, 8)], &[]).unwrap();
    /// assert_eq!(manager.find_by_path("/isa/serial"), Err(PathError::Ambiguous));
    /// assert_eq!(manager.find_by_path("/isa/serial@2f8"), Ok(com2));
    /// ```
    ///
    /// # Errors
    /// [`PathError`] where no device has this path, or more than one.
    pub fn find_by_path(&self, path: &str) -> Result<InstanceId, PathError> {
        self.with_state(|state| {
            let mut parent = None;
            let mut rest = path.strip_prefix('/').ok_or(PathError::NotFound)?;
            loop {
                let (part, more) = split(rest, b'/');
                let node = state.find_child(parent, part)?;
                match more {
                    Some(more) => (parent, rest) = (Some(node.index()), more),
                    None => return Ok(state.tree.id(node.index())),
                }
            }
        })
        .unwrap_or(Err(PathError::NotFound))
    }

    /// The shortest path by which [`find_by_path`](Self::find_by_path) finds a device: it has an address where the device has a
    /// sibling of the same name. It displays as the path is when it is displayed, and as the id where no device has that id.
    ///
    /// A device that has no range with a place, and a sibling of its name, is not found by its path, which is the name. Nor are
    /// siblings of one name whose first addresses are the same, one a port and the other in memory.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, IoRange, IoResource, Storage, SystemAllocator};
    ///
    /// let serial = Constant("serial", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager =
    ///     DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
    /// let com1 = manager.register_device(&serial, None, &[IoResource::pio(0x3f8, 8)], &[]).unwrap();
    /// assert_eq!(manager.path(com1).to_string(), "/serial");
    /// let com2 = manager.register_device(&serial, None, &[IoResource::pio(0x2f8, 8)], &[]).unwrap();
    /// assert_eq!(manager.path(com1).to_string(), "/serial@3f8");
    /// manager.unregister_device(com1).unwrap();
    /// assert_eq!(manager.path(com1).to_string(), "#0");
    /// assert_eq!(manager.path(com2).to_string(), "/serial");
    /// ```
    pub fn path(&self, id: InstanceId) -> DevicePath<'_, 'd> {
        DevicePath { manager: self, id }
    }

    /// The last part of the path of a device.
    pub(super) fn path_part(&self, id: InstanceId) -> Option<PathPart<'d>> {
        self.with_state(|state| Some(state.path_part(state.tree.get(id)?)))?
    }
}

/// The path of a device, to be displayed; see [`DeviceManager::path`].
#[derive(Clone, Copy)]
pub struct DevicePath<'m, 'd> {
    manager: &'m DeviceManager<'d>,
    id: InstanceId,
}

impl fmt::Display for DevicePath<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(mut above) = self.manager.device(self.id).map(|info| info.depth) else {
            return write!(f, "{}", self.id);
        };
        loop {
            // The ancestors of a device stay as long as it does. The lock is not held while one of them is displayed.
            let part = self.manager.with_state(|state| {
                let node = state.tree.get(self.id)?;
                let ancestor = match above.checked_sub(1) {
                    Some(skipped) => state.tree.node(state.tree.ancestors(node.index()).nth(skipped)?)?,
                    None => node,
                };
                Some(state.path_part(ancestor))
            });
            let Some(Some(part)) = part else { return Ok(()) };
            write!(f, "/{part}")?;
            match above.checked_sub(1) {
                Some(next) => above = next,
                None => return Ok(()),
            }
        }
    }
}

impl fmt::Debug for DevicePath<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What names a device among its siblings.
#[derive(Clone, Copy)]
pub(super) struct PathPart<'d> {
    name: &'d str,
    /// Where it is needed and there is one.
    address: Option<GuestAddress>,
}

impl fmt::Display for PathPart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.address {
            Some(GuestAddress(address)) => write!(f, "@{address:x}"),
            None => Ok(()),
        }
    }
}

impl<'d> State<'_, 'd> {
    /// The child of `parent`, or the root, that this part of a path names.
    fn find_child(&self, parent: Option<NodeIndex>, part: &str) -> Result<&Node<'d>, PathError> {
        let (name, address) = split(part, b'@');
        let is_named = |node: &&Node<'_>| {
            is_same(node.name, name)
                && address.is_none_or(|text| self.unit_address(node).is_some_and(|address| is_number(text, address.0)))
        };
        let mut found = self.tree.children(parent).filter(is_named);
        let node = found.next().ok_or(PathError::NotFound)?;
        match found.next() {
            Some(_) => Err(PathError::Ambiguous),
            None => Ok(node),
        }
    }

    fn path_part(&self, node: &Node<'d>) -> PathPart<'d> {
        let of_this_name = self.tree.children(node.parent).filter(|other| is_same(other.name, node.name));
        let is_alone = of_this_name.take(2).count() < 2;
        PathPart { name: node.name, address: self.unit_address(node).filter(|_| !is_alone) }
    }

    /// The first address of the first range that has a place.
    fn unit_address(&self, node: &Node<'_>) -> Option<GuestAddress> {
        self.ranges_of(node.index()).find(|(_, range)| range.is_placed()).map(|(_, range)| range.range.first())
    }
}

/// What stands before the first of these ASCII characters, and behind it if there is one.
fn split(text: &str, at: u8) -> (&str, Option<&str>) {
    // Byte by byte: the code of `str`'s search for a character is longer than this whole function.
    let end = text.bytes().position(|byte| byte == at).unwrap_or(text.len());
    let (before, behind) = text.split_at_checked(end).unwrap_or((text, ""));
    (before, behind.get(1..))
}

/// Byte by byte: names are short, and `memcmp` is more code than a loop.
fn is_same(one: &str, other: &str) -> bool {
    one.bytes().eq(other.bytes())
}

/// Whether a text is this number in hexadecimal, as a path has it.
fn is_number(text: &str, number: u64) -> bool {
    let mut rest = number;
    let mut digits = text.bytes().rev();
    loop {
        let digit = (rest & 0xf) as u8;
        let expected = if digit < 10 { b'0'.wrapping_add(digit) } else { b'a'.wrapping_sub(10).wrapping_add(digit) };
        if digits.next() != Some(expected) {
            return false;
        }
        rest >>= 4;
        if rest == 0 {
            return digits.next().is_none();
        }
    }
}
