//! The memory of a case: where it lies, and what it is to the processor and to the guest of the crate.

use vm_device::GuestAddress;
use vm_device::exit::x86::{AddressSize, Mode, Segment, X86Guest};
use vm_device::exit::{Guest, MemoryAccessKind};

/// The size of a page.
pub(super) const PAGE: usize = 0x1000;
/// How many pages of data there are. One before and one after them is not mapped.
pub(super) const DATA_PAGES: usize = 3;
/// The page that cannot be written.
pub(super) const READ_ONLY: usize = 2;
/// The size of the data.
pub(super) const DATA: usize = DATA_PAGES * PAGE;
/// Where the pages of data lie in the guest physical memory: not one after the other.
const PHYSICAL: [u64; DATA_PAGES] = [0x7000, 0x3000, 0x9000];

/// The bases of the segments outside 64-bit mode. In 64-bit mode only GS has its base. All differ, so that a wrong segment is
/// a wrong address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bases {
    pub(super) cs: u64,
    pub(super) ds: u64,
    pub(super) es: u64,
    pub(super) ss: u64,
    pub(super) gs: u64,
}

impl Bases {
    /// Those that bring offsets of 16 bits to the data at this address; with CS to the code after it too.
    pub(super) const fn near(data: u64) -> Self {
        let page = PAGE as u64;
        Self { cs: data - 5 * page, ds: data - page, es: data - 2 * page, ss: data - 3 * page, gs: data - 4 * page }
    }

    /// Those with which the offsets of the data have 32 bits, and linear addresses wrap at 4 GiB. CS stays.
    pub(super) const fn far(data: u64) -> Self {
        Self { ds: 0, es: 0x1234_5000, ss: 0x8765_4000, gs: 0x2468_a000, ..Self::near(data) }
    }

    /// The base of a segment; `None` for FS, in which this program has its thread.
    pub(super) const fn of(&self, segment: Segment, mode: Mode) -> Option<u64> {
        match (segment, mode) {
            (Segment::Gs, _) => Some(self.gs),
            (Segment::Fs, _) => None,
            (_, Mode::Bits64) => Some(0),
            (Segment::Cs, _) => Some(self.cs),
            (Segment::Ds, _) => Some(self.ds),
            (Segment::Es, _) => Some(self.es),
            (Segment::Ss, _) => Some(self.ss),
        }
    }
}

/// Why an access of the guest is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The page fault at this address.
    Page(u64),
    /// The general-protection exception: a write to CS, or an address that is not canonical.
    Protection,
    /// What no access may be: one that leaves a page, is longer than 8 bytes, or goes to no memory that was translated.
    Wrong(&'static str),
}

/// The guest of the crate: a copy of what the processor has.
pub(super) struct Copy<'a> {
    pub(super) mode: Mode,
    pub(super) bases: Bases,
    /// Where the data lies.
    pub(super) start: u64,
    pub(super) data: &'a mut [u8; DATA],
    pub(super) vectors: [[u8; 32]; 16],
    /// A string stops after an element.
    pub(super) is_interrupted: bool,
}

impl Copy<'_> {
    /// The page of the data that a linear address is in.
    fn page(&self, linear: u64) -> Option<usize> {
        let page = usize::try_from(linear.checked_sub(self.start)?).ok()? / PAGE;
        (page < DATA_PAGES).then_some(page)
    }

    /// Where a linear address is in the guest physical memory, if anything is there.
    pub(super) fn physical(&self, linear: u64) -> Option<GuestAddress> {
        self.page(linear).map(|page| GuestAddress(PHYSICAL[page] + linear % PAGE as u64))
    }

    /// Whether an access is allowed by the page.
    pub(super) fn allows(&self, linear: u64, kind: MemoryAccessKind) -> bool {
        self.page(linear).is_some_and(|page| page != READ_ONLY || kind != MemoryAccessKind::Write)
    }

    fn bytes(&mut self, address: GuestAddress, length: usize, kind: MemoryAccessKind) -> Result<&mut [u8], Refusal> {
        let page = PHYSICAL.iter().position(|page| *page == address.0 & !(PAGE as u64 - 1));
        let page = page.ok_or(Refusal::Wrong("an access to no memory"))?;
        let offset = address.0 as usize % PAGE;
        if length == 0 || length > 8 || offset + length > PAGE {
            return Err(Refusal::Wrong("an access that leaves its page, or is longer than 8 bytes"));
        }
        if page == READ_ONLY && kind == MemoryAccessKind::Write {
            return Err(Refusal::Wrong("a write to a page that was translated to be read"));
        }
        Ok(&mut self.data[page * PAGE + offset..][..length])
    }
}

impl Guest for Copy<'_> {
    type Fault = Refusal;

    fn translate(&mut self, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, Refusal> {
        match self.physical(address) {
            Some(physical) if self.allows(address, kind) => Ok(physical),
            _ => Err(Refusal::Page(address)),
        }
    }

    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Refusal> {
        data.copy_from_slice(self.bytes(address, data.len(), MemoryAccessKind::Read)?);
        Ok(())
    }

    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Refusal> {
        self.bytes(address, data.len(), MemoryAccessKind::Write)?.copy_from_slice(data);
        Ok(())
    }

    fn vector(&mut self, number: u8) -> Option<[u8; 32]> {
        self.vectors.get(usize::from(number)).copied()
    }

    fn set_vector(&mut self, number: u8, value: [u8; 32]) {
        self.vectors[usize::from(number)] = value;
    }
}

impl X86Guest for Copy<'_> {
    fn linear(&mut self, segment: Segment, offset: u64, length: usize, kind: MemoryAccessKind) -> Result<u64, Refusal> {
        let base = self.bases.of(segment, self.mode).ok_or(Refusal::Wrong("FS, which was not to be used"))?;
        let linear = base.wrapping_add(offset);
        if self.mode != Mode::Bits64 {
            return match segment {
                Segment::Cs if kind == MemoryAccessKind::Write => Err(Refusal::Protection),
                _ => Ok(linear & 0xffff_ffff),
            };
        }
        let is_canonical = |address: u64| (address as i64) << 16 >> 16 == address as i64;
        let last = linear.wrapping_add(length as u64 - 1);
        if is_canonical(linear) && is_canonical(last) { Ok(linear) } else { Err(Refusal::Protection) }
    }

    fn stack_address_size(&mut self, mode: Mode) -> AddressSize {
        // SS is a segment of 32 bits in 16-bit code too.
        mode.address_size().max(AddressSize::Bits32)
    }

    fn input(&mut self, _port: u16, _data: &mut [u8]) -> Result<(), Refusal> {
        Err(Refusal::Wrong("a port"))
    }

    fn output(&mut self, _port: u16, _data: &[u8]) -> Result<(), Refusal> {
        Err(Refusal::Wrong("a port"))
    }

    fn is_interrupted(&mut self) -> bool {
        self.is_interrupted
    }
}
