//! The firmware configuration device of QEMU.

use spin::Mutex;

use crate::access::Access;
use crate::address::IoType;
use crate::description::{Description, Part};
use crate::device::{Device, Failed};
use crate::resource::IoResource;

/// One item that the guest finds: bytes, under a number or a name.
///
/// ```
/// use vm_device::devices::fw_cfg::Item;
///
/// // The number of processors has number 5.
/// static ITEMS: [Item<'static>; 2] = [Item::number(5, &[2, 0]), Item::file("etc/example", b"text").unwrap()];
/// assert!(Item::file("", b"a name is not empty").is_none());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Item<'d> {
    key: Key<'d>,
    data: &'d [u8],
}

#[derive(Clone, Copy, Debug)]
enum Key<'d> {
    Number(u16),
    File(&'d str),
}

impl<'d> Item<'d> {
    /// An item with a number of its own, as the firmware knows it. 0, 1 and 0x19 are the device's, the numbers from 0x20 on are those
    /// of files, and bit 14 of a number is no part of it: an item with such a number is not found.
    pub const fn number(number: u16, data: &'d [u8]) -> Self {
        Self { key: Key::Number(number), data }
    }

    /// A file, which the guest finds in the directory. `None`, unless its name is 1 to 55 bytes long and has no zero byte.
    pub const fn file(name: &'d str, data: &'d [u8]) -> Option<Self> {
        let mut rest = name.as_bytes();
        if rest.is_empty() || rest.len() >= NAME_SIZE {
            return None;
        }
        while let [first, others @ ..] = rest {
            if *first == 0 {
                return None;
            }
            rest = others;
        }
        Some(Self { key: Key::File(name), data })
    }

    const fn name(&self) -> Option<&'d str> {
        match self.key {
            Key::File(name) => Some(name),
            Key::Number(_) => None,
        }
    }
}

/// The firmware configuration device of QEMU (QEMU, "QEMU Firmware Configuration (fw_cfg) Device"), by which a VMM hands things to
/// firmware and kernel: a register that selects an item, and one that reads it from its first byte on. It has the signature, the
/// revision without DMA, the directory of files, and the embedder's items.
///
/// On ports, a write of 2 bytes at 0x510 selects, and each byte that is read at 0x511 is the next. In memory, a write of 2 bytes
/// at offset 8 selects, its highest byte first, and a read of 1 to 8 bytes at offsets 0 to 7 is the next ones. What is behind
/// the end of an item, and an item that is not there, reads as 0. Writes of data are ignored. `REP INSB` is one call.
///
/// Files are numbered in their order from 0x20 on, and stand so in the directory.
///
/// ```
/// use vm_device::devices::fw_cfg::{FwCfg, Item};
/// use vm_device::{DeviceManager, IoRange, IoType, Storage, SystemAllocator};
///
/// let items = [Item::file("etc/example", b"text").unwrap()];
/// let fw_cfg = FwCfg::new(&items);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// manager.register_device(&fw_cfg, None, &[fw_cfg.ports()], &[]).unwrap();
/// let select = |number: u16| manager.write(0x510_u16.into(), &number.to_le_bytes(), IoType::Pio).unwrap();
/// let mut data = [0; 4];
/// select(0);
/// manager.read_string(0x511, 1, &mut data).unwrap();
/// assert_eq!(&data, b"QEMU");
/// select(0x20);
/// manager.read_string(0x511, 1, &mut data).unwrap();
/// assert_eq!(&data, b"text");
/// ```
#[derive(Debug)]
pub struct FwCfg<'d> {
    items: &'d [Item<'d>],
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    selected: u16,
    /// How many bytes of the item have been read.
    position: usize,
}

/// The signature, the revision with its features, and the directory.
const SIGNATURE: u16 = 0;
const ID: u16 = 1;
const DIRECTORY: u16 = 0x19;
/// The number of the first file, and the numbers that files can have.
const FIRST_FILE: u16 = 0x20;
const LAST_FILE: u16 = 0x3fff;
/// In a number: the guest means to write.
const WRITES: u16 = 1 << 14;

/// In the directory: the length of a name with the zero byte at its end, of an entry, and of the number of entries before them.
const NAME_SIZE: usize = 56;
const ENTRY_SIZE: usize = 64;
const COUNT_SIZE: usize = 4;

/// On ports: the register of data.
const DATA_PORT: u64 = 1;
/// In memory: the register that selects, and the length of that of data, which begins at 0.
const SELECTOR: u64 = 8;

impl<'d> FwCfg<'d> {
    /// A device with these items.
    pub const fn new(items: &'d [Item<'d>]) -> Self {
        Self { items, state: Mutex::new(State { selected: SIGNATURE, position: 0 }) }
    }

    /// The request for its ports on a PC: 0x510 and 0x511.
    pub const fn ports(&self) -> IoResource {
        IoResource::pio(0x510, 2)
    }

    /// The request for its registers in memory from `base` on, as on Arm and RISC-V: 10 bytes.
    pub const fn mmio(&self, base: u64) -> IoResource {
        IoResource::mmio(base, SELECTOR + 2)
    }

    fn files(&self) -> impl Iterator<Item = (u16, &'d str, &'d [u8])> {
        let files = self.items.iter().filter_map(|item| Some((item.name()?, item.data)));
        (FIRST_FILE..=LAST_FILE).zip(files).map(|(number, (name, data))| (number, name, data))
    }

    fn select(&self, number: u16) {
        *self.state.lock() = State { selected: number & !WRITES, position: 0 };
    }

    /// Reads the next bytes of the selected item.
    fn read_next(&self, data: &mut [u8]) {
        let mut state = self.state.lock();
        let position = state.position;
        state.position = position.saturating_add(data.len());
        let selected = state.selected;
        drop(state);
        match selected {
            SIGNATURE => read_at(b"QEMU", position, data),
            // The traditional interface alone.
            ID => read_at(&1_u32.to_le_bytes(), position, data),
            DIRECTORY => self.read_directory(position, data),
            _ => read_at(self.item(selected).unwrap_or_default(), position, data),
        }
    }

    fn item(&self, number: u16) -> Option<&'d [u8]> {
        if (FIRST_FILE..=LAST_FILE).contains(&number) {
            return self.files().nth(usize::from(number.checked_sub(FIRST_FILE)?)).map(|(.., data)| data);
        }
        let item = self.items.iter().find(|item| matches!(item.key, Key::Number(own) if own == number));
        item.map(|item| item.data)
    }

    fn read_directory(&self, position: usize, data: &mut [u8]) {
        let count = u32::try_from(self.files().count()).unwrap_or(u32::MAX);
        read_at(&count.to_be_bytes(), position, data);
        // Each entry fills what of it is among the bytes that are read.
        let mut first = COUNT_SIZE;
        for (number, name, bytes) in self.files() {
            let entry = entry(number, name, bytes.len());
            let (skipped, place) = (position.saturating_sub(first), first.saturating_sub(position));
            let (entry, data) = (entry.get(skipped..).unwrap_or_default(), data.get_mut(place..).unwrap_or_default());
            data.iter_mut().zip(entry).for_each(|(to, from)| *to = *from);
            first = first.saturating_add(ENTRY_SIZE);
        }
    }
}

/// An entry of the directory: size, number, two bytes that are 0, and the name. Numbers have their highest byte first.
fn entry(number: u16, name: &str, size: usize) -> [u8; ENTRY_SIZE] {
    let mut entry = [0; ENTRY_SIZE];
    let size = u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes();
    let fields = size.into_iter().chain(number.to_be_bytes()).chain([0; 2]).chain(name.bytes());
    entry.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    entry
}

/// Reads an item from a position on: behind its end is 0.
fn read_at(item: &[u8], position: usize, data: &mut [u8]) {
    data.fill(0);
    let item = item.get(position..).unwrap_or_default();
    data.iter_mut().zip(item).for_each(|(to, from)| *to = *from);
}

impl Device<'_> for FwCfg<'_> {
    fn name(&self) -> &str {
        "fw_cfg"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        data.fill(0);
        // The register of data: on ports one byte, in memory all that is before the one that selects.
        let register = match access.io_type() {
            IoType::Pio => DATA_PORT..DATA_PORT + 1,
            _ => 0..SELECTOR,
        };
        let read = |bound: u64| usize::try_from(bound.saturating_sub(access.offset())).unwrap_or(usize::MAX);
        let (first, end) = (read(register.start), read(register.end).min(data.len()));
        if let Some(data @ [_, ..]) = data.get_mut(first..end) {
            self.read_next(data);
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let Ok(number) = <[u8; 2]>::try_from(data) else { return };
        match (access.io_type(), access.offset()) {
            (IoType::Pio, 0) => self.select(u16::from_le_bytes(number)),
            (IoType::Mmio, SELECTOR) => self.select(u16::from_be_bytes(number)),
            _ => {}
        }
    }

    fn read_string(&self, access: &Access<'_>, element: usize, data: &mut [u8]) -> Result<(), Failed> {
        if element == 1 && access.offset() == DATA_PORT {
            self.read_next(data);
        } else {
            data.chunks_mut(element.max(1)).for_each(|item| self.read(access, item));
        }
        Ok(())
    }

    fn reset(&self) {
        self.select(SIGNATURE);
    }

    fn describe(&self, description: &mut dyn Description) {
        description.acpi("QEMU0002", Part::ALL);
        description.compatible(&["qemu,fw-cfg-mmio"]);
    }
}
