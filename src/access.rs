//! One access of a guest, as a device sees it, and the errors it can end with.

use core::fmt;
use core::marker::PhantomData;

use crate::address::{GuestAddress, IoType};
use crate::indices::{NodeIndex, RecordIndex};
use crate::instance::InstanceId;
use crate::sizes::AccessSizes;

/// How deep accesses may nest: a device that accesses another device, which accesses a third, and so on. The access
/// that would be one deeper is refused as [`IoError::TooDeep`].
pub const MAX_DEPTH: usize = 8;

/// One access that a guest, or another device, makes to a device: where it goes. The data is passed beside it.
///
/// It stays on the thread of the vCPU that makes it: it is not `Send`.
///
/// ```
/// use vm_device::{Access, GuestAddress, IoType};
///
/// // To 0x1004, in range number 1 of a device, which starts at 0x1000.
/// let access = Access::new(IoType::Mmio, GuestAddress(0x1004), GuestAddress(0x1000), 1);
/// assert_eq!((access.base(), access.offset(), access.range_index()), (GuestAddress(0x1000), 4, 1));
/// ```
#[derive(Clone, Copy)]
pub struct Access<'a> {
    pub(crate) address: u64,
    pub(crate) base: u64,
    pub(crate) target: Target,
    pub(crate) caller: &'a Caller<'a>,
    one_thread: PhantomData<*mut ()>,
}

/// Which range of which device an access goes to, in 8 bytes, which a dispatch copies at once.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The two parts of the device's id; `None` for an access that no manager makes.
    generation: u32,
    pub(crate) node: Option<NodeIndex>,
    range: RangeTag,
    limits: Limits,
}

const _: () = assert!(size_of::<Target>() == 8);

/// Which of the device's ranges, in the low bits, and whether it is one of ports.
#[derive(Clone, Copy)]
struct RangeTag(u8);

/// How the sizes of access that the range accepts differ from [`AccessSizes::ANY`]: so that it is 0 where there is nothing to
/// check, which a dispatch sees in the bytes that it copies, by one instruction.
#[derive(Clone, Copy)]
struct Limits(u8);

impl Target {
    /// Range number `range_index`, of 0 to 127, of a device.
    pub(crate) const fn new(id: Option<InstanceId>, range_index: u8, io_type: IoType, sizes: AccessSizes) -> Self {
        let (node, generation) = match id {
            Some(InstanceId { index, generation }) => (Some(index), generation),
            None => (None, 0),
        };
        let range = RangeTag(range_index << 1 | matches!(io_type, IoType::Pio) as u8);
        Self { generation, node, range, limits: Limits(sizes.bits() ^ AccessSizes::ANY.bits()) }
    }

    /// Whether the range accepts accesses of every size.
    #[inline(always)]
    pub(crate) fn accepts_all(self) -> bool {
        self.limits.0 == 0
    }

    /// The sizes of access that the range accepts.
    pub(crate) fn sizes(self) -> AccessSizes {
        AccessSizes::from_bits_retain(self.limits.0 ^ AccessSizes::ANY.bits())
    }

    /// The device.
    pub(crate) fn id(self) -> Option<InstanceId> {
        self.node.map(|index| InstanceId { index, generation: self.generation })
    }

    /// Which of its ranges.
    pub(crate) const fn range_index(self) -> usize {
        (self.range.0 >> 1) as usize
    }
}

/// Where an access protects its slot, and so where a removal finds it: at this depth of a vCPU's hazard record, or in a stripe.
#[derive(Clone, Copy)]
pub(crate) struct ReaderSite {
    pub(crate) record: Option<RecordIndex>,
    /// How many accesses this one is nested in.
    pub(crate) level: u8,
}

impl ReaderSite {
    /// An access without a handle, which may or may not be nested.
    pub(crate) const HANDLE_LESS: Self = Self { record: None, level: 0 };

    /// The site of an access that is made from within the callback of this one.
    pub(crate) fn deeper(self) -> Self {
        Self { level: self.level.saturating_add(1), ..self }
    }
}

/// The origin of an access, as far as the manager can know.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// Which manager dispatches it: a number that no manager with another storage has; 0 for an access without a manager.
    pub(crate) manager: usize,
    pub(crate) site: ReaderSite,
    /// The vCPU's number, if it is made through a handle.
    pub(crate) vcpu: Option<u16>,
    /// The access that this one is nested in.
    pub(crate) outer: Option<&'a OuterAccess<'a>>,
}

/// An access, as the accesses nested in it know it.
#[derive(Clone, Copy)]
pub(crate) struct OuterAccess<'a> {
    /// The device that it goes to.
    pub(crate) node: Option<NodeIndex>,
    pub(crate) caller: &'a Caller<'a>,
}

impl Access<'static> {
    /// An access for a test of a device without a manager: to `address`, in the device's range number `range_index`
    /// (of 0 to 15), which starts at `base`.
    ///
    /// ```
    /// use spin::Mutex;
    /// use vm_device::{Access, Device, GuestAddress, IoType};
    ///
    /// /// Counts its reads.
    /// struct Reads(Mutex<u8>);
    ///
    /// impl Device<'_> for Reads {
    ///     fn name(&self) -> &str {
    ///         "reads"
    ///     }
    ///     fn read(&self, access: &Access<'_>, data: &mut [u8]) {
    ///         assert_eq!((access.offset(), access.range_index()), (4, 1));
    ///         *self.0.lock() += 1;
    ///         data.fill(*self.0.lock());
    ///     }
    ///     fn write(&self, _: &Access<'_>, _: &[u8]) {}
    /// }
    ///
    /// let device = Reads(Mutex::new(0));
    /// let mut data = [0; 2];
    /// device.read(&Access::new(IoType::Mmio, GuestAddress(0x1004), GuestAddress(0x1000), 1), &mut data);
    /// assert_eq!(data, [1, 1]);
    /// ```
    pub const fn new(io_type: IoType, address: GuestAddress, base: GuestAddress, range_index: usize) -> Self {
        let target = Target::new(None, range_index as u8, io_type, AccessSizes::ANY);
        const NO_CALLER: Caller<'_> = Caller { manager: 0, site: ReaderSite::HANDLE_LESS, vcpu: None, outer: None };
        Self::with_caller(address.0, base.0, target, &NO_CALLER)
    }
}

impl<'a> Access<'a> {
    pub(crate) const fn with_caller(address: u64, base: u64, target: Target, caller: &'a Caller<'a>) -> Self {
        Self { address, base, target, caller, one_thread: PhantomData }
    }

    /// The access as those nested in it know it.
    pub(crate) const fn as_outer(&self) -> OuterAccess<'a> {
        OuterAccess { node: self.target.node, caller: self.caller }
    }

    /// The space: [`IoType::Pio`] or [`IoType::Mmio`].
    pub const fn io_type(&self) -> IoType {
        if self.target.range.0 & 1 == 0 { IoType::Mmio } else { IoType::Pio }
    }

    /// The address of the first byte accessed.
    pub const fn address(&self) -> GuestAddress {
        GuestAddress(self.address)
    }

    /// The address at which the range started when this access found it; a relocation changes it for later accesses.
    pub const fn base(&self) -> GuestAddress {
        GuestAddress(self.base)
    }

    /// The offset of the first byte into the range, in bytes.
    pub const fn offset(&self) -> u64 {
        self.address.wrapping_sub(self.base)
    }

    /// Which of the device's ranges is accessed: the index of the request it was given for.
    pub const fn range_index(&self) -> usize {
        self.target.range_index()
    }

    /// The id of the device that is accessed: its own, as [`Resources::id`](crate::Resources::id) told it. `None` for an access
    /// that no manager makes.
    pub fn device(&self) -> Option<InstanceId> {
        self.target.id()
    }

    /// The number of the vCPU that makes the access: the one that its [`Dispatcher`](crate::Dispatcher) was made with. A nested
    /// access has the number of the guest's. `None` for an access that is made without a handle.
    ///
    /// ```
    /// use vm_device::{
    ///     Access, Device, DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// /// The id register of a local APIC: each processor finds its own at the same address.
    /// struct LocalApic;
    ///
    /// impl Device<'_> for LocalApic {
    ///     fn name(&self) -> &str {
    ///         "local-apic"
    ///     }
    ///     fn read(&self, access: &Access<'_>, data: &mut [u8]) {
    ///         if let Some(vcpu) = access.vcpu() {
    ///             access.load_at(0x20, &(u32::from(vcpu) << 24).to_le_bytes(), data);
    ///         }
    ///     }
    ///     fn write(&self, _: &Access<'_>, _: &[u8]) {}
    /// }
    ///
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// manager.register_device(&LocalApic, None, &[IoResource::mmio(0xfee0_0000, 0x1000)], &[]).unwrap();
    /// let mut id = [0; 4];
    /// for number in [0, 1] {
    ///     let mut vcpu = manager.dispatcher(number).unwrap();
    ///     vcpu.read(GuestAddress(0xfee0_0020), &mut id, IoType::Mmio).unwrap();
    ///     assert_eq!(id, [0, 0, 0, number as u8]);
    /// }
    /// ```
    pub const fn vcpu(&self) -> Option<u16> {
        self.caller.vcpu
    }

    /// Reads registers: `registers` holds the bytes of the range from its base on, a register's lowest byte first, and
    /// each byte of `data` gets the one at its own offset. A byte of `data` behind the last register stays as it is: at
    /// the open-bus value.
    ///
    /// It serves an access of any length at any offset: one byte of a register, half of it, several at once. For a
    /// register that is not at the base, see [`load_at`](Self::load_at).
    ///
    /// ```
    /// use vm_device::{Access, GuestAddress, IoType};
    ///
    /// // A guest reads 2 bytes at 0x1002, in a range of one 4-byte register from 0x1000 on.
    /// let access = Access::new(IoType::Mmio, GuestAddress(0x1002), GuestAddress(0x1000), 0);
    /// let mut register = 0x4433_2211_u32.to_le_bytes();
    /// let mut data = [0xff; 2];
    /// access.load(&register, &mut data);
    /// assert_eq!(data, [0x33, 0x44]);
    ///
    /// // It writes 4 bytes there, of which the last two are behind the register.
    /// access.store(&mut register, &[0xaa, 0xbb, 0xcc, 0xdd]);
    /// assert_eq!(u32::from_le_bytes(register), 0xbbaa_2211);
    /// ```
    pub fn load(&self, registers: &[u8], data: &mut [u8]) {
        self.load_at(0, registers, data);
    }

    /// As [`load`](Self::load), for registers that begin `offset` bytes into the range. A byte of `data` before the first
    /// of them stays as it is too.
    ///
    /// ```
    /// # use vm_device::{Access, GuestAddress, IoType};
    /// // A guest reads 8 bytes at the base: the register at offset 4 has the last four.
    /// let access = Access::new(IoType::Mmio, GuestAddress(0x1000), GuestAddress(0x1000), 0);
    /// let mut data = [0xff; 8];
    /// access.load_at(4, &[1, 2, 3, 4], &mut data);
    /// assert_eq!(data, [0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
    /// ```
    pub fn load_at(&self, offset: u64, registers: &[u8], data: &mut [u8]) {
        let (register, byte) = self.meet(offset);
        let registers = registers.get(register..).unwrap_or_default();
        let data = data.get_mut(byte..).unwrap_or_default();
        data.iter_mut().zip(registers).for_each(|(to, from)| *to = *from);
    }

    /// Writes registers: the other way of [`load`](Self::load). Bytes of `registers` that are not accessed keep their
    /// values, and what is written behind the last register is ignored.
    ///
    /// ```
    /// # use vm_device::{Access, GuestAddress, IoType};
    /// // The second byte of a register at the base, and a byte behind it.
    /// let access = Access::new(IoType::Mmio, GuestAddress(0x1001), GuestAddress(0x1000), 0);
    /// let mut register = [0x11, 0x22];
    /// access.store(&mut register, &[0xaa, 0xbb]);
    /// assert_eq!(register, [0x11, 0xaa]);
    /// ```
    pub fn store(&self, registers: &mut [u8], data: &[u8]) {
        self.store_at(0, registers, data);
    }

    /// As [`store`](Self::store), for registers that begin `offset` bytes into the range.
    ///
    /// ```
    /// # use vm_device::{Access, GuestAddress, IoType};
    /// // A guest writes 8 bytes at the base: the register at offset 4 gets the last four.
    /// let access = Access::new(IoType::Mmio, GuestAddress(0x1000), GuestAddress(0x1000), 0);
    /// let mut register = [0; 4];
    /// access.store_at(4, &mut register, &[1, 2, 3, 4, 5, 6, 7, 8]);
    /// assert_eq!(register, [5, 6, 7, 8]);
    /// ```
    pub fn store_at(&self, offset: u64, registers: &mut [u8], data: &[u8]) {
        let (register, byte) = self.meet(offset);
        let registers = registers.get_mut(register..).unwrap_or_default();
        let data = data.get(byte..).unwrap_or_default();
        registers.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    }

    /// Where in the range the registers begin that the access has bytes of, `length` in all: each is `SIZE` bytes long, a power of two.
    #[cfg(feature = "devices")]
    pub(crate) fn registers<const SIZE: usize>(&self, length: usize) -> impl Iterator<Item = u64> + use<SIZE> {
        const { assert!(SIZE.is_power_of_two()) };
        let end = self.offset().saturating_add(length as u64);
        (self.offset() & !(SIZE as u64 - 1)..end).step_by(SIZE)
    }

    /// The first byte that the data of the access has in common with registers that begin `offset` bytes into the range: its
    /// number among the registers, and in the data.
    fn meet(&self, offset: u64) -> (usize, usize) {
        // What does not fit is behind the end of everything.
        let distance = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        (distance(self.offset().saturating_sub(offset)), distance(offset.saturating_sub(self.offset())))
    }

    /// The same access `bytes` further on: an element of a string, a piece of a split access.
    pub(crate) const fn offset_by(&self, bytes: u64) -> Self {
        let mut next = *self;
        next.address = self.address.wrapping_add(bytes);
        next
    }
}

impl fmt::Debug for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("io_type", &self.io_type())
            .field("address", &self.address())
            .field("base", &self.base())
            .field("device", &self.device())
            .field("range_index", &self.range_index())
            .field("vcpu", &self.vcpu())
            .field("level", &self.caller.site.level)
            .finish_non_exhaustive()
    }
}

/// Why an access did not reach a device whole, or failed there. In each case but [`Partial`](Self::Partial) and
/// [`Failed`](Self::Failed) the buffer of a read holds the open-bus value, and nothing was written anywhere.
///
/// A VMM may ignore it, except for [`Failed`](Self::Failed): for the guest the access is complete. It is for logs and counters.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{
///     AccessSizes, DeviceManager, GuestAddress, IoError, IoRange, IoResource, IoType, Storage,
///     SystemAllocator,
/// };
///
/// let device = Constant("timer", 7);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let dwords = IoResource::mmio(0x1000, 8).sizes(AccessSizes::DWORD);
/// manager.register_device(&device, None, &[dwords], &[]).unwrap();
///
/// let read = |address, length| {
///     let mut data = [0; 4];
///     manager.read(GuestAddress(address), &mut data[..length], IoType::Mmio).map(|()| data)
/// };
/// assert_eq!(read(0x1000, 4), Ok([7; 4]));
/// assert_eq!(read(0x1000, 1), Err(IoError::RefusedSize));
/// assert_eq!(read(0x1006, 4), Err(IoError::Straddling));
/// assert_eq!(read(0x1008, 4), Err(IoError::Unclaimed));
/// assert_eq!(read(0x1000, 0), Err(IoError::InvalidLength));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IoError {
    /// No device claims the address.
    Unclaimed,
    /// No range holds the whole access: it runs over the end of a range, or over the end of the space. Where the policy of the
    /// space is [`Straddling::Split`], such an access ends otherwise.
    Straddling,
    /// No range holds the whole access, it was split as [`Straddling::Split`] says, and some of its bytes have reached no
    /// device. In the buffer of a read these hold the open-bus value.
    Partial {
        /// How many bytes have reached a device; of a string, in all of its elements.
        delivered: u32,
    },
    /// A device has failed ([`Failed`](crate::Failed)): the VMM stops the guest, or goes on as if the access were complete. Of an
    /// access that is several calls of devices, the calls after this one are not made. What no device has put into the buffer of a
    /// read holds the open-bus value.
    Failed {
        /// The device's code.
        code: u32,
    },
    /// The device does not accept an access of this size, or not at this alignment.
    RefusedSize,
    /// The access is 0 bytes long, or its length is no multiple of the element size.
    InvalidLength,
    /// Accesses are nested deeper than [`MAX_DEPTH`], or too many accesses without a [`Dispatcher`](crate::Dispatcher) are in
    /// ranges that others are in: see [`MAX_ANONYMOUS`](crate::MAX_ANONYMOUS).
    TooDeep,
    /// [`IoType::PhysicalMmio`] is backed by memory and never dispatched.
    NotDispatched,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IoError::Partial { delivered } => {
                return write!(
                    f,
                    "the access is not wholly inside one range, and {delivered} of its bytes reached a device"
                );
            }
            IoError::Failed { code } => return write!(f, "the device failed (code {code})"),
            IoError::Unclaimed => "no device claims the address",
            IoError::Straddling => "the access is not wholly inside one range",
            IoError::RefusedSize => "the device does not accept an access of this size and alignment",
            IoError::InvalidLength => "the length is 0 or no multiple of the element size",
            IoError::TooDeep => "accesses are nested too deeply",
            IoError::NotDispatched => "physically backed MMIO is never dispatched",
        })
    }
}

impl core::error::Error for IoError {}

/// What a space does with a straddling access: one that no range holds whole, and that touches a range. See
/// [`DeviceManager::with_straddling`](crate::DeviceManager::with_straddling).
///
/// ```
/// use vm_device::Straddling;
///
/// assert_eq!(Straddling::default(), Straddling::OpenBus);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Straddling {
    /// It reaches no device: a read has the open-bus value, and the outcome is [`IoError::Straddling`].
    #[default]
    OpenBus,
    /// It is split, as a bus with narrower devices does it. From the lowest byte on, each piece is the largest power of two,
    /// naturally aligned, at most 4 ports or 8 bytes of memory, that one range holds whole or no range has any of.
    ///
    /// Each piece is an access of its own, in order. A piece that is nobody's or that is refused reads as open bus, and the
    /// later ones go on; the first one that fails in its device ends the access. Nothing wraps at the end of the space: bytes behind it are nobody's. Of a string, each element is split
    /// so. The outcome is `Ok` if all bytes have reached devices, and [`IoError::Partial`] otherwise.
    Split,
}

/// The value a read has where nothing answers, a byte at a time.
///
/// On hardware no device drives the bus then, and its lines float high. That is why firmware takes all ones for "nothing
/// there" (PCI Local Bus 3.0, 6.1: the host bridge returns all ones for a configuration read that no device claims).
///
/// ```
/// use vm_device::{DeviceManager, GuestAddress, IoRange, IoType, OpenBus, Storage, SystemAllocator};
///
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY))
///     .with_open_bus(IoType::Mmio, OpenBus(0));
/// let mut data = [1; 2];
/// let _ = manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio);
/// assert_eq!(data, [0, 0]);
/// let _ = manager.read(GuestAddress(0x60), &mut data, IoType::Pio);
/// assert_eq!(data, [0xff, 0xff]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenBus(pub u8);

impl OpenBus {
    /// Every bit set. The default of both spaces.
    pub const ALL_ONES: Self = Self(0xff);

    /// The value, four times: so that a fill is one store, or two.
    pub(crate) const fn bytes(self) -> [u8; 4] {
        [self.0; 4]
    }
}

/// Gives every byte of `data` its open-bus value.
#[inline(always)]
pub(crate) fn fill(data: &mut [u8], open_bus: [u8; 4]) {
    // The lengths that guests use become single stores; the general case would be a call of memset.
    let [x0, x1, ..] = open_bus;
    match data {
        [a] => *a = x0,
        [a, b] => [*a, *b] = [x0, x1],
        [a, b, c, d] => [*a, *b, *c, *d] = open_bus,
        [a, b, c, d, e, f, g, h] => ([*a, *b, *c, *d], [*e, *f, *g, *h]) = (open_bus, open_bus),
        other => other.fill(x0),
    }
}

impl Default for OpenBus {
    fn default() -> Self {
        Self::ALL_ONES
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn open_bus_defines_every_byte() {
        for length in 0..40 {
            let mut data = [0; 40];
            fill(&mut data[..length], OpenBus::ALL_ONES.bytes());
            assert!(data[..length].iter().all(|byte| *byte == 0xff));
            assert!(data[length..].iter().all(|byte| *byte == 0));
        }
    }

    /// Registers of 1 to 8 bytes at each offset up to 8, and accesses of 1 to 16 bytes at each offset up to 16.
    #[test]
    fn registers_are_read_and_written_byte_by_byte() {
        // An interpreter has no time for all of them.
        let most: u64 = if cfg!(miri) { 2 } else { 8 };
        for (at, length) in (0..=most).flat_map(|at| (1..=most as u8).map(move |length| (at, length))) {
            let registers: Vec<u8> = (0..length).map(|byte| 0x80 | byte).collect();
            for (first, size) in (0..=2 * most).flat_map(|first| (1..=2 * most as u8).map(move |size| (first, size))) {
                let access = Access::new(IoType::Mmio, GuestAddress(0x1000 + first), GuestAddress(0x1000), 0);
                let register_of = |byte: u64| (first + byte).checked_sub(at).filter(|index| *index < u64::from(length));

                let mut data: Vec<u8> = (0..size).map(|byte| 0xf0 - byte).collect();
                let before = data.clone();
                access.load_at(at, &registers, &mut data);
                for (byte, (data, before)) in (0..).zip(data.iter().zip(&before)) {
                    let expected = register_of(byte).map_or(*before, |index| registers[index as usize]);
                    assert_eq!(*data, expected, "byte {byte} of {size} at {first}, {length} at {at}");
                }

                let mut expected = registers.clone();
                for (byte, value) in (0..).zip(&before) {
                    if let Some(index) = register_of(byte) {
                        expected[index as usize] = *value;
                    }
                }
                let mut stored = registers.clone();
                access.store_at(at, &mut stored, &before);
                assert_eq!(stored, expected, "{size} bytes at {first}, {length} at {at}");
                if at == 0 {
                    let (mut same_data, mut same_registers) = (before.clone(), registers.clone());
                    access.load(&registers, &mut same_data);
                    access.store(&mut same_registers, &before);
                    assert_eq!((same_data, same_registers), (data, stored));
                }
            }
        }
    }

    #[test]
    fn registers_at_the_end_of_the_largest_range_are_not_passed() {
        for offset in [0, 1, u64::MAX - 1, u64::MAX] {
            let access = Access::new(IoType::Mmio, GuestAddress(offset), GuestAddress(0), 0);
            for at in [0, 1, u64::MAX - 1, u64::MAX] {
                let (mut data, mut registers) = ([0xff; 1], [1; 1]);
                access.load_at(at, &registers, &mut data);
                access.store_at(at, &mut registers, &[2]);
                let expected = if offset == at { ([1], [2]) } else { ([0xff], [1]) };
                assert_eq!((data, registers), expected, "{offset:#x}, {at:#x}");
            }
        }
    }

    #[test]
    fn an_access_knows_its_offset_at_the_top_of_the_space() {
        let access = Access::new(IoType::Mmio, GuestAddress(u64::MAX), GuestAddress(u64::MAX - 7), 3);
        assert_eq!(access.offset(), 7);
        assert_eq!(access.range_index(), 3);
    }
}
