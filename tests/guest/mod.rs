//! A guest of x86 to execute instructions of: pages of RAM, of devices, of nothing and unmapped ones, and a record of every access.

#![allow(dead_code, unreachable_pub, reason = "each test file that includes this uses a part of it")]

use std::collections::BTreeMap;

use vm_device::GuestAddress;
use vm_device::exit::x86::{MemoryAccess, MemoryAccessKind, Segment, Size, X86Guest};
use vm_device::exit::{Guest, PAGE};

/// Why an access of the guest is not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No page is mapped at this linear address.
    Page(u64, MemoryAccessKind),
    /// The limit of the segment forbids it.
    Limit(Segment, u64),
    /// What answers at this guest physical address has failed.
    Failed(u64),
    /// The port has failed.
    Port(u16),
}

/// What the guest was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Translate(u64, MemoryAccessKind),
    Read(u64, Vec<u8>),
    Write(u64, Vec<u8>),
    Input(u16, Size, Vec<u8>),
    Output(u16, Size, Vec<u8>),
}

/// What answers in a guest physical page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Page {
    Ram(Vec<u8>),
    Device(Vec<u8>),
    /// Reads as all ones, and forgets what is written.
    Nothing,
}

/// The guest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Linear pages, by number: the number of the guest physical page.
    pub mapped: BTreeMap<u64, u64>,
    /// A linear page that is not in the map is RAM at the same guest physical address.
    pub is_flat: bool,
    /// Guest physical pages, by number. What is not in it is RAM.
    pub pages: BTreeMap<u64, Page>,
    pub bases: [u64; 6],
    /// The last offset that each segment allows, if there is a limit.
    pub limit: Option<u64>,
    /// The width of linear addresses: 4 GiB outside 64-bit mode.
    pub last: u64,
    pub events: Vec<Event>,
    /// The guest physical address at which an access fails.
    pub failing: Option<u64>,
    pub port_fails: bool,
    /// A port that is read gives nothing.
    pub port_is_silent: bool,
    /// How many times the guest is asked for an interrupt before there is one.
    pub interrupt: Option<u32>,
    pub vectors: Option<[[u8; 32]; 16]>,
    /// The next byte that a port returns.
    pub port: u8,
}

impl Memory {
    /// All linear addresses are RAM at the same guest physical address, in 64-bit mode.
    pub fn flat() -> Self {
        Self { is_flat: true, last: u64::MAX, ..Self::default() }
    }

    /// Maps the linear page at `linear` to `page`, at a guest physical address of its own that is returned.
    pub fn map(&mut self, linear: u64, page: Page) -> u64 {
        let number = 0x10_0000 + 0x11 * self.mapped.len() as u64;
        self.mapped.insert(linear / PAGE, number);
        self.pages.insert(number, page);
        number * PAGE
    }

    pub fn page(&mut self, number: u64) -> &mut Page {
        self.pages.entry(number).or_insert_with(|| Page::Ram(vec![0; PAGE as usize]))
    }

    /// The byte at a linear address. `None` if none is mapped.
    pub fn byte(&mut self, linear: u64) -> Option<u8> {
        let number = self.physical(linear)? / PAGE;
        match self.page(number) {
            Page::Ram(bytes) | Page::Device(bytes) => Some(bytes[(linear % PAGE) as usize]),
            Page::Nothing => Some(0xff),
        }
    }

    /// Sets the byte at a linear address.
    pub fn set_byte(&mut self, linear: u64, byte: u8) {
        let number = self.physical(linear).expect("it is mapped") / PAGE;
        if let Page::Ram(bytes) | Page::Device(bytes) = self.page(number) {
            bytes[(linear % PAGE) as usize] = byte;
        }
    }

    fn physical(&self, linear: u64) -> Option<u64> {
        match self.mapped.get(&(linear / PAGE)) {
            Some(number) => Some(number * PAGE + linear % PAGE),
            None => self.is_flat.then_some(linear),
        }
    }

    /// The accesses to devices and to nothing since the last call, in order.
    pub fn accesses(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.events);
        events.retain(|event| match event {
            Event::Read(address, _) | Event::Write(address, _) => !matches!(self.page(address / PAGE), Page::Ram(_)),
            Event::Translate(..) => false,
            _ => true,
        });
        events
    }

    /// The guest without what was recorded.
    pub fn state(&self) -> Self {
        Self { events: Vec::new(), ..self.clone() }
    }

    fn of_page(&mut self, address: u64, length: usize) -> Result<(u64, usize), Fault> {
        assert!((1..=8).contains(&length), "{length} bytes at once");
        assert!(address % PAGE + length as u64 <= PAGE, "{length} bytes at {address:#x} cross a page");
        match self.failing {
            Some(failing) if (address..address + length as u64).contains(&failing) => Err(Fault::Failed(failing)),
            _ => Ok((address / PAGE, (address % PAGE) as usize)),
        }
    }
}

/// What an exit tells of an access at `address`.
pub fn access(address: u64, kind: MemoryAccessKind) -> MemoryAccess {
    MemoryAccess { address: GuestAddress(address), kind, mapped: false, page_walk: false }
}

impl Guest for Memory {
    type Fault = Fault;

    fn translate(&mut self, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, Fault> {
        self.events.push(Event::Translate(address, kind));
        self.physical(address).map(GuestAddress).ok_or(Fault::Page(address, kind))
    }

    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Fault> {
        let (number, at) = self.of_page(address.0, data.len())?;
        match self.page(number) {
            Page::Ram(bytes) | Page::Device(bytes) => data.copy_from_slice(&bytes[at..][..data.len()]),
            Page::Nothing => data.fill(0xff),
        }
        self.events.push(Event::Read(address.0, data.to_vec()));
        Ok(())
    }

    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Fault> {
        let (number, at) = self.of_page(address.0, data.len())?;
        if let Page::Ram(bytes) | Page::Device(bytes) = self.page(number) {
            bytes[at..][..data.len()].copy_from_slice(data);
        }
        self.events.push(Event::Write(address.0, data.to_vec()));
        Ok(())
    }

    fn vector(&mut self, number: u8) -> Option<[u8; 32]> {
        self.vectors.map(|vectors| vectors[usize::from(number)])
    }

    fn set_vector(&mut self, number: u8, value: [u8; 32]) {
        self.vectors.as_mut().expect("it was given")[usize::from(number)] = value;
    }
}

impl X86Guest for Memory {
    fn linear(&mut self, segment: Segment, offset: u64, length: usize, _: MemoryAccessKind) -> Result<u64, Fault> {
        if self.limit.is_some_and(|limit| offset.checked_add(length as u64 - 1).is_none_or(|end| end > limit)) {
            return Err(Fault::Limit(segment, offset));
        }
        Ok(self.bases[segment as usize].wrapping_add(offset) & self.last)
    }

    fn input(&mut self, port: u16, data: &mut [u8]) -> Result<(), Fault> {
        let size = Size::from_bytes(data.len()).expect("an access to a port is 1, 2 or 4 bytes long");
        self.input_string(port, size, data)
    }

    fn output(&mut self, port: u16, data: &[u8]) -> Result<(), Fault> {
        let size = Size::from_bytes(data.len()).expect("an access to a port is 1, 2 or 4 bytes long");
        self.output_string(port, size, data)
    }

    fn input_string(&mut self, port: u16, size: Size, data: &mut [u8]) -> Result<(), Fault> {
        if self.port_fails {
            return Err(Fault::Port(port));
        }
        for byte in data.iter_mut().filter(|_| !self.port_is_silent) {
            *byte = self.port;
            self.port = self.port.wrapping_mul(5).wrapping_add(7);
        }
        self.events.push(Event::Input(port, size, data.to_vec()));
        Ok(())
    }

    fn output_string(&mut self, port: u16, size: Size, data: &[u8]) -> Result<(), Fault> {
        if self.port_fails {
            return Err(Fault::Port(port));
        }
        self.events.push(Event::Output(port, size, data.to_vec()));
        Ok(())
    }

    fn is_interrupted(&mut self) -> bool {
        self.interrupt.as_mut().is_some_and(|left| match left.checked_sub(1) {
            Some(fewer) => {
                *left = fewer;
                false
            }
            None => true,
        })
    }
}
