//! The format (Devicetree Specification 0.4, chapter 5): a header, the reserved memory, the structure, and the names of properties.
//!
//! The structure refers to names by their offsets, and they come after it. The names that the writer itself uses are at known
//! offsets. The others are written on a second pass, which goes through everything once more and writes only them.

use super::super::TableError;
use super::super::writer::Writer;
use super::Clock;
use crate::address::IoRange;
use crate::description::Property;

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const LAST_COMPATIBLE_VERSION: u32 = 16;
const HEADER: usize = 40;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// The names at known offsets.
const NAMES: [&str; 29] = [
    "#address-cells",
    "#clock-cells",
    "#interrupt-cells",
    "#size-cells",
    "bootargs",
    "bus-range",
    "clock-frequency",
    "clock-names",
    "clocks",
    "compatible",
    "current-speed",
    "device_type",
    "interrupt-controller",
    "interrupt-map",
    "interrupt-map-mask",
    "interrupt-parent",
    "interrupts",
    "linux,initrd-end",
    "linux,initrd-start",
    "linux,pci-domain",
    "model",
    "phandle",
    "ranges",
    "reg",
    "reg-io-width",
    "reg-shift",
    "serial-number",
    "status",
    "stdout-path",
];

/// The length of [`NAMES`] with their ends.
const NAMES_LENGTH: u32 = {
    let (mut length, mut index) = (0, 0);
    while index < NAMES.len() {
        length += NAMES[index].len() as u32 + 1;
        index += 1;
    }
    length
};

/// The offset of a name, if it is one of [`NAMES`].
fn known(name: &str) -> Option<u32> {
    let mut offset = 0_u32;
    for known in NAMES {
        if known == name {
            return Some(offset);
        }
        offset = offset.saturating_add(known.len() as u32).saturating_add(1);
    }
    None
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Structure,
    Names,
}

/// The names of properties that are not in [`NAMES`], on one pass: how long they are together, and a digest of them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Others {
    length: u32,
    digest: u32,
}

impl Others {
    /// FNV-1a begins like this.
    const NONE: Self = Self { length: 0, digest: 0x811c_9dc5 };

    /// The offset of the name behind [`NAMES`].
    fn add(&mut self, name: &str) -> u32 {
        let offset = self.length;
        self.length = offset.saturating_add(name.len() as u32).saturating_add(1);
        self.digest = name
            .bytes()
            .chain([0])
            .fold(self.digest, |digest, byte| (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        offset
    }
}

pub(super) struct Blob<'b> {
    w: Writer<'b>,
    pass: Pass,
    others: Others,
    clock: Option<Clock>,
}

impl<'b> Blob<'b> {
    /// Writes a tree whose root `fill` fills in: twice the same.
    pub(super) fn write(
        buffer: &'b mut [u8],
        reserved: &[IoRange],
        boot_cpu: u32,
        clock: Option<Clock>,
        mut fill: impl FnMut(&mut Blob<'b>),
    ) -> Result<usize, TableError> {
        let mut blob = Self { w: Writer::new(buffer), pass: Pass::Structure, others: Others::NONE, clock };
        blob.w.zeros(HEADER);
        for range in reserved {
            blob.put_wide(&[range.first().0, size(*range)]);
        }
        blob.w.zeros(16);
        let structure = blob.w.position();
        blob.node("", &mut fill);
        blob.cell(END);
        let names = blob.w.position();
        for name in NAMES {
            blob.text(name);
        }
        let others = core::mem::replace(&mut blob.others, Others::NONE);
        blob.pass = Pass::Names;
        blob.node("", &mut fill);
        if blob.others != others {
            return Err(TableError::Changed);
        }
        let total = blob.w.finish()?;
        let header = [
            MAGIC,
            total as u32,
            structure as u32,
            names as u32,
            HEADER as u32,
            VERSION,
            LAST_COMPATIBLE_VERSION,
            boot_cpu,
            total.saturating_sub(names) as u32,
            names.saturating_sub(structure) as u32,
        ];
        for (index, field) in header.into_iter().enumerate() {
            blob.w.patch(index.saturating_mul(4), &field.to_be_bytes());
        }
        Ok(total)
    }

    pub(super) fn node(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.node_at(name, None, fill);
    }

    /// A node with a unit address.
    pub(super) fn node_at(&mut self, name: &str, address: Option<u64>, fill: impl FnOnce(&mut Self)) {
        self.begin_node(name, address);
        fill(self);
        self.end_node();
    }

    fn begin_node(&mut self, name: &str, address: Option<u64>) {
        if self.pass == Pass::Structure {
            self.cell(BEGIN_NODE);
            self.node_name(name, address);
            self.w.byte(0);
            self.w.align(4);
        }
    }

    fn end_node(&mut self) {
        if self.pass == Pass::Structure {
            self.cell(END_NODE);
        }
    }

    /// A name and a unit address. A letter that no name has becomes a dash (2.2.1).
    fn node_name(&mut self, name: &str, address: Option<u64>) {
        for letter in name.bytes() {
            let is_one = letter.is_ascii_alphanumeric() || b",._+-@".contains(&letter);
            self.w.byte(if is_one { letter } else { b'-' });
        }
        if let Some(address) = address {
            self.w.byte(b'@');
            let digits = u64::BITS.saturating_sub(address.leading_zeros()).div_ceil(4).max(1);
            for place in (0..digits).rev() {
                let digit = address.checked_shr(place.saturating_mul(4)).unwrap_or(0) as u32 & 0xf;
                self.w.byte(char::from_digit(digit, 16).map_or(0, |digit| digit as u8));
            }
        }
    }

    pub(super) fn property(&mut self, name: &str, value: Property<'_>) {
        match (value, self.clock) {
            (Property::Empty, _) => self.property_with(name, |_| ()),
            (Property::Cells(cells), _) => self.cells(name, cells),
            (Property::Text(text), _) => self.property_with(name, |blob| blob.text(text)),
            (Property::Texts(texts), _) => {
                self.property_with(name, |blob| texts.iter().for_each(|text| blob.text(text)));
            }
            (Property::Bytes(bytes), _) => self.property_with(name, |blob| blob.w.bytes(bytes)),
            (Property::Clocks(count), Some(Clock { phandle, .. })) => {
                self.property_with(name, |blob| (0..count).for_each(|_| blob.cell(phandle)));
            }
            (Property::Clocks(_), None) => {}
        }
    }

    pub(super) fn cells(&mut self, name: &str, cells: &[u32]) {
        self.property_with(name, |blob| blob.put(cells));
    }

    /// The path of a node on a bus, which is named from the root on.
    pub(super) fn path(&mut self, property: &str, buses: &[&str], name: &str, address: u64) {
        self.property_with(property, |blob| {
            for bus in buses {
                blob.w.byte(b'/');
                blob.node_name(bus, None);
            }
            blob.w.byte(b'/');
            blob.node_name(name, Some(address));
            blob.w.byte(0);
        });
    }

    /// A property whose value `fill` writes.
    pub(super) fn property_with(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        if let Some(start) = self.begin_property(name) {
            fill(self);
            self.end_property(start);
        }
    }

    /// Returns where the value begins, on the pass that writes it.
    fn begin_property(&mut self, name: &str) -> Option<usize> {
        let known = known(name);
        let offset = known.unwrap_or_else(|| NAMES_LENGTH.saturating_add(self.others.add(name)));
        if self.pass == Pass::Names {
            if known.is_none() {
                self.text(name);
            }
            return None;
        }
        self.put(&[PROPERTY, 0, offset]);
        Some(self.w.position())
    }

    fn end_property(&mut self, start: usize) {
        let length = self.w.position().saturating_sub(start) as u32;
        // It stands before the offset of the name.
        self.w.patch(start.saturating_sub(8), &length.to_be_bytes());
        self.w.align(4);
    }

    fn cell(&mut self, value: u32) {
        self.w.bytes(&value.to_be_bytes());
    }

    /// Cells.
    pub(super) fn put(&mut self, cells: &[u32]) {
        cells.iter().for_each(|cell| self.cell(*cell));
    }

    /// Values of two cells each.
    pub(super) fn put_wide(&mut self, values: &[u64]) {
        values.iter().for_each(|value| self.w.bytes(&value.to_be_bytes()));
    }

    fn text(&mut self, text: &str) {
        self.w.bytes(text.as_bytes());
        self.w.byte(0);
    }
}

/// The size of a range, as far as 64 bits hold it.
pub(super) fn size(range: IoRange) -> u64 {
    range.size().map_or(u64::MAX, |size| size.0)
}
