//! The interrupt controllers of the machine, which a kernel has but for what would take the processor from the hypervisor: a reset
//! (INIT, start-up) or system management (SMI), by whatever register they are asked for.

use vm_device::{Access, AccessSizes, Device, IoResource, PowerControl};

use crate::power::POWER;

/// Registers of 32 bits that are mapped at this address, one in 16 bytes.
#[derive(Clone, Copy)]
struct Registers(usize);

impl Registers {
    fn read(self, offset: u64) -> u32 {
        // SAFETY: the page of the controller is mapped at its address, and the offset is in it. Reading a register changes nothing of
        // the hypervisor's.
        unsafe { self.at(offset).read_volatile() }
    }

    fn write(self, offset: u64, value: u32) {
        // SAFETY: as for `read`. What would change the processor that the hypervisor runs on is not written.
        unsafe { self.at(offset).write_volatile(value) }
    }

    const fn at(self, offset: u64) -> *mut u32 {
        (self.0 + (offset as usize & 0xffc)) as *mut u32
    }

    fn load(self, access: &Access<'_>, data: &mut [u8]) {
        if let Some(data) = data.first_chunk_mut() {
            *data = self.read(access.offset()).to_le_bytes();
        }
    }

    /// Its range.
    fn range(self) -> IoResource {
        IoResource::mmio(self.0 as u64, 0x1000).sizes(AccessSizes::DWORD)
    }
}

/// The delivery mode of an interrupt, in bits 10:8 of each register that has one (Intel SDM vol. 3A, figures 11-8 and 11-12; 82093AA
/// IOAPIC datasheet, 3.2.4).
const fn delivery_mode(value: u32) -> u32 {
    value >> 8 & 7
}
const SMI: u32 = 2;
const INIT: u32 = 5;
const START_UP: u32 = 6;

const fn takes_the_processor(value: u32) -> bool {
    matches!(delivery_mode(value), SMI | INIT | START_UP)
}

/// The local APIC.
pub struct LocalApic;

impl LocalApic {
    const REGISTERS: Registers = Registers(0xfee0_0000);
    /// The low half of the interrupt command register.
    const COMMAND: u64 = 0x300;

    pub fn range(&self) -> IoResource {
        Self::REGISTERS.range()
    }
}

impl Device<'_> for LocalApic {
    fn name(&self) -> &str {
        "local apic"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        Self::REGISTERS.load(access, data);
    }

    /// A guest that resets its processor ends. The end of a reset (INIT without the level) is nothing to a processor of today.
    fn write(&self, access: &Access<'_>, data: &[u8]) {
        const ASSERT: u32 = 1 << 14;
        let Some(data) = data.first_chunk() else { return };
        let value = u32::from_le_bytes(*data);
        match access.offset() {
            Self::COMMAND if delivery_mode(value) == INIT && value & ASSERT != 0 => POWER.reset(),
            // The command, and the local vector table.
            Self::COMMAND | 0x2f0 | 0x320..0x380 if takes_the_processor(value) => {}
            offset => Self::REGISTERS.write(offset, value),
        }
    }
}

/// The IOAPIC.
pub struct Ioapic;

impl Ioapic {
    const REGISTERS: Registers = Registers(0xfec0_0000);
    const SELECT: u64 = 0;
    const WINDOW: u64 = 0x10;
    /// The first register of the redirection table, which has two for each line.
    const TABLE: u32 = 0x10;

    pub fn range(&self) -> IoResource {
        Self::REGISTERS.range()
    }

    /// The low half of a line's entry in the redirection table. The guest finds the selection as it left it.
    pub fn entry(&self, line: u32) -> u32 {
        let selected = Self::REGISTERS.read(Self::SELECT);
        Self::REGISTERS.write(Self::SELECT, Self::TABLE + 2 * line);
        let entry = Self::REGISTERS.read(Self::WINDOW);
        Self::REGISTERS.write(Self::SELECT, selected);
        entry
    }
}

impl Device<'_> for Ioapic {
    fn name(&self) -> &str {
        "ioapic"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        Self::REGISTERS.load(access, data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let Some(data) = data.first_chunk() else { return };
        let value = u32::from_le_bytes(*data);
        let is_entry = || {
            let selected = Self::REGISTERS.read(Self::SELECT) & 0xff;
            selected >= Self::TABLE && selected % 2 == 0
        };
        if access.offset() == Self::WINDOW && takes_the_processor(value) && is_entry() {
            return;
        }
        Self::REGISTERS.write(access.offset(), value);
    }
}
