//! A guest on Arm: pages, bytes, vector registers, and a record of what was asked of it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;

use vm_device::GuestAddress;
use vm_device::exit::arm64::{Cause, DataAbort, Exit, Mode, Stage2Fault, Transfer, data_abort};
use vm_device::exit::{Guest, MemoryAccessKind};

/// One call of the guest's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Translate(u64, MemoryAccessKind),
    Read(u64, usize),
    Write(u64, Vec<u8>),
}

/// Why the machine refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Nothing is mapped at the virtual address.
    Unmapped(u64),
    /// The physical address is one that stops the guest.
    Stop(u64),
}

#[derive(Default)]
pub(crate) struct Machine {
    /// Physical pages by virtual ones, both by their first addresses.
    pub(crate) pages: BTreeMap<u64, u64>,
    pub(crate) memory: BTreeMap<u64, u8>,
    pub(crate) vectors: Option<[[u8; 32]; 32]>,
    /// The number of a vector register that is not held.
    pub(crate) lacks: Option<u8>,
    /// Accesses to the page that starts here stop the guest.
    pub(crate) stops: Option<u64>,
    pub(crate) events: Vec<Event>,
}

impl Machine {
    pub(crate) fn with_pages(pages: &[(u64, u64)]) -> Self {
        Self { pages: pages.iter().copied().collect(), ..Self::default() }
    }

    pub(crate) fn fill(&mut self, address: u64, bytes: &[u8]) {
        self.memory.extend(bytes.iter().enumerate().map(|(at, byte)| (address + at as u64, *byte)));
    }

    pub(crate) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        (0..length as u64).map(|at| self.memory.get(&(address + at)).copied().unwrap_or(0)).collect()
    }

    /// The reads and writes, without the translations.
    pub(crate) fn accesses(&self) -> Vec<Event> {
        self.events.iter().filter(|event| !matches!(event, Event::Translate(..))).cloned().collect()
    }

    pub(crate) fn translations(&self) -> Vec<u64> {
        let translated = |event: &Event| if let Event::Translate(address, _) = event { Some(*address) } else { None };
        self.events.iter().filter_map(translated).collect()
    }

    fn may(&self, address: u64, length: usize) -> Result<(), Refusal> {
        assert!((1..=8).contains(&length), "an access of {length} bytes");
        assert!(address % 0x1000 + length as u64 <= 0x1000, "an access across a page");
        if self.stops == Some(address & !0xfff) { Err(Refusal::Stop(address)) } else { Ok(()) }
    }
}

impl Guest for Machine {
    type Fault = Refusal;

    fn translate(&mut self, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, Refusal> {
        self.events.push(Event::Translate(address, kind));
        let page = self.pages.get(&(address & !0xfff)).ok_or(Refusal::Unmapped(address))?;
        Ok(GuestAddress(page | address & 0xfff))
    }

    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Refusal> {
        self.may(address.0, data.len())?;
        self.events.push(Event::Read(address.0, data.len()));
        data.copy_from_slice(&self.bytes(address.0, data.len()));
        Ok(())
    }

    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Refusal> {
        self.may(address.0, data.len())?;
        self.events.push(Event::Write(address.0, data.to_vec()));
        self.fill(address.0, data);
        Ok(())
    }

    fn vector(&mut self, number: u8) -> Option<[u8; 32]> {
        self.vectors.filter(|_| self.lacks != Some(number)).map(|vectors| vectors[usize::from(number)])
    }

    fn set_vector(&mut self, number: u8, value: [u8; 32]) {
        self.vectors.as_mut().expect("vector registers are held")[usize::from(number)] = value;
    }
}

/// EL1 with its own stack pointer.
pub(crate) const EL1H: u64 = 5;
/// SCTLR_EL1.EE.
pub(crate) const EE: u64 = 1 << 25;
/// SCTLR_EL1.E0E.
pub(crate) const E0E: u64 = 1 << 24;

pub(crate) fn little() -> Mode {
    Mode::new(EL1H, 0)
}

pub(crate) fn big() -> Mode {
    Mode::new(EL1H, EE)
}

/// The syndrome of a translation fault of level 3, with a 32-bit instruction, and these bits besides.
pub(crate) const fn syndrome(bits: u64) -> u64 {
    0x24 << 26 | 1 << 25 | 0x07 | bits
}

/// The syndrome of an access that it describes: ISV, SAS, SRT, and these bits besides.
pub(crate) const fn described(size: u64, register: u64, bits: u64) -> u64 {
    syndrome(1 << 24 | size << 22 | register << 16 | bits)
}

pub(crate) const SSE: u64 = 1 << 21;
pub(crate) const SF: u64 = 1 << 15;
pub(crate) const AR: u64 = 1 << 14;
pub(crate) const FNV: u64 = 1 << 10;
pub(crate) const EA: u64 = 1 << 9;
pub(crate) const CM: u64 = 1 << 8;
pub(crate) const S1PTW: u64 = 1 << 7;
pub(crate) const WNR: u64 = 1 << 6;

/// The transfer of a syndrome, at a virtual address, of the page of a physical one.
pub(crate) fn transfer(esr: u64, far: u64, page: u64) -> Transfer {
    match data_abort(Exit { esr, far, hpfar: page >> 8 }) {
        Ok(DataAbort::Transfer(transfer)) => transfer,
        other => panic!("{other:?}"),
    }
}

/// The fault of an instruction that the syndrome does not describe.
pub(crate) fn fault(kind: MemoryAccessKind, virtual_address: u64, address: u64) -> Stage2Fault {
    Stage2Fault { address: Some(GuestAddress(address)), virtual_address, kind, cause: Cause::Translation, length: 4 }
}
