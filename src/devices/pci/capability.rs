//! The capabilities by which a function interrupts with messages: MSI and MSI-X. Their registers decide over the messages.

use super::bar::Bar;
use super::config::{Command, dword};
use crate::address::GuestAddress;
use crate::interrupt::{Control, Entry, IrqLine, Message, MessageList, Messages};

/// A place in what a base address register decodes, for the tables of MSI-X (PCI Local Bus 3.0, 6.8.2.4 and 6.8.2.5).
///
/// ```
/// use vm_device::devices::pci::InBar;
///
/// assert_eq!(InBar::new(4, 0x800), InBar { index: 4, offset: 0x800 });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InBar {
    /// The base address register, of 0 to 5: one of memory.
    pub index: u8,
    /// How many bytes behind its base: a multiple of 8.
    pub offset: u32,
}

impl InBar {
    /// The place `offset` bytes behind the base of base address register `index`.
    pub const fn new(index: u8, offset: u32) -> Self {
        Self { index, offset }
    }

    /// The register in a capability: the lowest three bits are the index.
    const fn bits(self) -> u32 {
        self.offset & !0b111 | self.index as u32 & 0b111
    }

    /// Whether `size` bytes are there.
    fn holds(self, size: u64, bars: &[Bar]) -> bool {
        let bar = bars.get(usize::from(self.index)).filter(|bar| bar.exists() && !bar.is_ports());
        self.offset.is_multiple_of(8)
            && bar.is_some_and(|bar| u64::from(self.offset).saturating_add(size) <= bar.size())
    }

    /// Whether the first bytes here and the first there meet.
    fn meets(self, size: u64, other: Self, other_size: u64) -> bool {
        let is_before =
            |one: Self, size: u64, other: Self| u64::from(one.offset).saturating_add(size) <= other.offset.into();
        self.index == other.index && !is_before(self, size, other) && !is_before(other, other_size, self)
    }
}

/// The capabilities of a function, each at most once.
pub(super) struct Capabilities<'d> {
    msi: Option<Msi<'d>>,
    msix: Option<Msix<'d>>,
    /// Where a second one of a kind was to be.
    second: Option<u8>,
    /// The message that stands for the pin.
    own: Messages<'d, 1>,
}

struct Msi<'d> {
    at: At,
    /// `None`: the one that stands for the pin.
    messages: Option<&'d MessageList<'d, [Entry]>>,
    count: usize,
}

struct Msix<'d> {
    at: At,
    messages: &'d MessageList<'d, [Entry]>,
    count: usize,
    table: InBar,
    pending: InBar,
}

/// Where a capability is, and where the next is; 0: nowhere.
#[derive(Clone, Copy)]
struct At {
    offset: u8,
    next: u8,
}

/// The sizes of the capabilities in dwords: with an address of 64 bits and masks, the one.
const MSI_DWORDS: usize = 6;
const MSIX_DWORDS: usize = 3;
/// The ids (PCI Local Bus 3.0, appendix H).
const MSI_ID: u32 = 0x05;
const MSIX_ID: u32 = 0x11;
/// How many messages there can be.
const MSI_MESSAGES: usize = 32;
const MSIX_MESSAGES: usize = 2048;

/// The message control of MSI, in the upper half of its dword (6.8.1.3).
const MSI_ENABLE: u32 = 1 << 16;
const MSI_ALLOCATED_SHIFT: u32 = 16 + 4;
const MSI_ALLOCATED: u32 = 0b111 << MSI_ALLOCATED_SHIFT;
const MSI_REQUESTED_SHIFT: u32 = 16 + 1;
const MSI_64_BIT: u32 = 1 << (16 + 7);
const MSI_MASKS: u32 = 1 << (16 + 8);
/// The bits of the data that can be written (6.8.1.6).
const MSI_DATA: u32 = 0xffff;

/// The message control of MSI-X (6.8.2.3).
const MSIX_ENABLE: u32 = 1 << (16 + 15);
const MSIX_MASK: u32 = 1 << (16 + 14);

impl At {
    /// Which of the capability's dwords this register is.
    fn dword(self, register: usize, dwords: usize) -> Option<usize> {
        register.checked_sub(usize::from(self.offset / 4)).filter(|number| *number < dwords)
    }

    /// The register that is the capability's dword of this number.
    fn register(self, number: usize) -> usize {
        usize::from(self.offset / 4).saturating_add(number)
    }

    /// The first dword: what the capability is, and where the next is.
    const fn header(self, id: u32) -> u32 {
        id | (self.next as u32) << 8
    }

    fn fits(self, dwords: usize) -> bool {
        let first = usize::from(self.offset / 4);
        self.offset.is_multiple_of(4) && first >= dword::OWN && first.saturating_add(dwords) <= super::config::DWORDS
    }
}

impl Msi<'_> {
    /// How many messages the function asks for: a power of two.
    fn requested(&self) -> u32 {
        self.count.clamp(1, MSI_MESSAGES).next_power_of_two() as u32
    }

    /// Which of the messages that the guest has allocated stands for message `number`, by the message control. Where the guest
    /// has allocated fewer than the function asks for, one stands for several.
    fn vector(&self, control: u32, number: u32) -> u32 {
        let allocated = 1 << ((control & MSI_ALLOCATED) >> MSI_ALLOCATED_SHIFT);
        number & u32::min(allocated, self.requested()).wrapping_sub(1)
    }

    fn reset_value(&self, number: usize) -> u32 {
        let control = MSI_64_BIT | MSI_MASKS | self.requested().trailing_zeros() << MSI_REQUESTED_SHIFT;
        if number == 0 { self.at.header(MSI_ID) | control } else { 0 }
    }

    fn writable(&self, number: usize) -> u32 {
        match number {
            0 => MSI_ENABLE | MSI_ALLOCATED,
            1 => !0b11,
            2 => u32::MAX,
            3 => MSI_DATA,
            // A bit for each message that it asks for.
            4 => u32::MAX >> u32::BITS.saturating_sub(self.requested()),
            _ => 0,
        }
    }

    fn pending(&self, messages: &MessageList<'_, [Entry]>, control: u32) -> u32 {
        let mut bytes = [0; 4];
        messages.load_pending(0, &mut bytes);
        let bits = u32::from_le_bytes(bytes);
        let pending = (0..u32::BITS).filter(|number| bits >> number & 1 != 0);
        pending.fold(0, |bits, number| bits | 1 << self.vector(control, number))
    }

    fn follow(&self, messages: &MessageList<'_, [Entry]>, held: bool, value: &impl Fn(usize) -> u32) {
        let [control, low, high, data, mask] = [0, 1, 2, 3, 4].map(|number| value(self.at.register(number)));
        let address = GuestAddress(u64::from(high) << 32 | u64::from(low));
        for (index, number) in (0..self.count).zip(0..) {
            let vector = self.vector(control, number);
            // The lowest bits of the data are the number of the message (6.8.1.3).
            let data = data & !self.vector(control, u32::MAX) | vector;
            messages.set(index, Message { address, data, masked: mask >> vector & 1 != 0 });
        }
        let enabled = control & MSI_ENABLE != 0;
        messages.change_control(|now| *now = Control { enabled, masked: false, held });
    }
}

impl Msix<'_> {
    fn reset_value(&self, number: usize) -> u32 {
        match number {
            0 => self.at.header(MSIX_ID) | (self.count.saturating_sub(1) as u32 & 0x7ff) << 16,
            1 => self.table.bits(),
            _ => self.pending.bits(),
        }
    }

    const fn writable(number: usize) -> u32 {
        if number == 0 { MSIX_ENABLE | MSIX_MASK } else { 0 }
    }

    fn follow(&self, held: bool, value: &impl Fn(usize) -> u32) {
        let control = value(self.at.register(0));
        let (enabled, masked) = (control & MSIX_ENABLE != 0, control & MSIX_MASK != 0);
        self.messages.change_control(|now| *now = Control { enabled, masked, held });
    }

    /// Whether the table and the pending bits lie in memory of the function, apart from each other.
    fn has_places(&self, bars: &[Bar]) -> bool {
        let (table, pending) = (16 * self.count as u64, 8 * self.count.div_ceil(64) as u64);
        self.table.holds(table, bars)
            && self.pending.holds(pending, bars)
            && !self.table.meets(table, self.pending, pending)
    }
}

impl<'d> Capabilities<'d> {
    /// No capabilities.
    pub(super) const fn new() -> Self {
        Self { msi: None, msix: None, second: None, own: Messages::new() }
    }

    /// Adds MSI at `offset`, in front of the capability at `next`.
    pub(super) const fn add_msi<const N: usize>(&mut self, offset: u8, next: u8, messages: &'d Messages<'d, N>) {
        self.set_msi(Msi { at: At { offset, next }, messages: Some(messages.list()), count: N });
    }

    /// Adds MSI with the message that stands for the pin.
    pub(super) const fn add_own(&mut self, offset: u8, next: u8) {
        self.set_msi(Msi { at: At { offset, next }, messages: None, count: 1 });
    }

    const fn set_msi(&mut self, msi: Msi<'d>) {
        if self.msi.is_some() {
            self.second = Some(msi.at.offset);
        }
        self.msi = Some(msi);
    }

    /// Adds MSI-X at `offset`, in front of the capability at `next`.
    pub(super) const fn add_msix<const N: usize>(
        &mut self,
        offset: u8,
        next: u8,
        messages: &'d Messages<'d, N>,
        [table, pending]: [InBar; 2],
    ) {
        if self.msix.is_some() {
            self.second = Some(offset);
        }
        self.msix = Some(Msix { at: At { offset, next }, messages: messages.list(), count: N, table, pending });
    }

    fn msi(&self, register: usize) -> Option<(&Msi<'d>, usize)> {
        let msi = self.msi.as_ref()?;
        Some((msi, msi.at.dword(register, MSI_DWORDS)?))
    }

    fn msix(&self, register: usize) -> Option<(&Msix<'d>, usize)> {
        let msix = self.msix.as_ref()?;
        Some((msix, msix.at.dword(register, MSIX_DWORDS)?))
    }

    /// The value of a dword after reset, if it is a capability's.
    pub(super) fn reset_value(&self, register: usize) -> Option<u32> {
        let msi = || self.msi(register).map(|(msi, number)| msi.reset_value(number));
        msi().or_else(|| self.msix(register).map(|(msix, number)| msix.reset_value(number)))
    }

    /// The bits of a dword that a guest can write, if it is a capability's.
    pub(super) fn writable(&self, register: usize) -> Option<u32> {
        let msi = || self.msi(register).map(|(msi, number)| msi.writable(number));
        msi().or_else(|| self.msix(register).map(|(_, number)| Msix::writable(number)))
    }

    /// The value of a dword that is not stored: the pending bits of MSI.
    pub(super) fn pending(&self, register: usize, value: impl Fn(usize) -> u32) -> Option<u32> {
        let (msi, number) = self.msi(register)?;
        (number == MSI_DWORDS - 1).then(|| msi.pending(self.list(msi), value(msi.at.register(0))))
    }

    /// The messages follow the registers. Nothing is sent yet: [`settle`](Self::settle) does.
    pub(super) fn follow(&self, value: impl Fn(usize) -> u32) {
        let held = value(dword::COMMAND) & u32::from(Command::BUS_MASTER.bits()) == 0;
        if let Some(msi) = &self.msi {
            msi.follow(self.list(msi), held, &value);
        }
        if let Some(msix) = &self.msix {
            msix.follow(held, &value);
        }
    }

    /// No message is sent, until they follow the registers again.
    pub(super) fn hold(&self) {
        self.each().for_each(|messages| messages.change_control(|now| now.held = true));
    }

    /// The messages of MSI.
    fn list(&self, msi: &Msi<'d>) -> &MessageList<'d, [Entry]> {
        msi.messages.unwrap_or(self.own.list())
    }

    fn each(&self) -> impl Iterator<Item = &MessageList<'d, [Entry]>> {
        let msi = self.msi.as_ref().map(|msi| self.list(msi));
        msi.into_iter().chain(self.msix.as_ref().map(|msix| msix.messages))
    }

    /// The message that stands for the pin goes out through this handle.
    pub(super) fn connect_own(&self, irq: IrqLine<'d>) {
        self.own.connect(irq);
    }

    /// There is a reason for the message that stands for the pin, or none any more. Nothing is sent yet: [`settle`](Self::settle)
    /// does.
    pub(super) fn mark_own(&self, asserted: bool) {
        match asserted {
            true => self.own.list().mark(0),
            false => self.own.withdraw(0),
        }
    }

    /// Sends what the registers allow to send now.
    pub(super) fn settle(&self) {
        self.each().for_each(MessageList::settle);
    }

    pub(super) fn reset(&self) {
        self.each().for_each(MessageList::reset);
    }

    /// Whether one of them is enabled.
    pub(super) fn is_enabled(&self) -> bool {
        self.each().any(|messages| messages.control().enabled)
    }

    /// The offset of a capability that there cannot be. `is_own` says whether a dword is a register of the function's own.
    pub(super) fn bad(&self, bars: &[Bar], is_own: impl Fn(usize) -> bool) -> Option<u8> {
        let is_free = |at: At, dwords| at.fits(dwords) && !(0..dwords).any(|number| is_own(at.register(number)));
        let bad_msi = self.msi.as_ref().filter(|msi| {
            let overlaps = (0..MSI_DWORDS).any(|number| self.msix(msi.at.register(number)).is_some());
            overlaps || !(1..=MSI_MESSAGES).contains(&msi.count) || !is_free(msi.at, MSI_DWORDS)
        });
        let bad_msix = self.msix.as_ref().filter(|msix| {
            let has_messages = (1..=MSIX_MESSAGES).contains(&msix.count) && msix.has_places(bars);
            !has_messages || !is_free(msix.at, MSIX_DWORDS)
        });
        self.second.or(bad_msi.map(|msi| msi.at.offset)).or(bad_msix.map(|msix| msix.at.offset))
    }
}
