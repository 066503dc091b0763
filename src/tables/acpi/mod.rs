//! ACPI tables (ACPI 6.5): a guest finds by them its processors, the IOAPIC and how lines reach it, PCI root bridges with their windows,
//! timers, the console, and how to power off and reset.
//!
//! What is registered decides what is written:
//!
//! | table | it is there | it says |
//! |---|---|---|
//! | RSDP, XSDT | always | where the others are; the RSDP is first |
//! | FADT | always | [`Pm1`](crate::Role::Pm1), [`PmTimer`](crate::Role::PmTimer), [`Reset`](crate::Role::Reset), [`Rtc`](crate::Role::Rtc), [`KeyboardController`](crate::Role::KeyboardController). Without `Pm1`, that the hardware is reduced |
//! | FACS | with `Pm1` | the global lock |
//! | MADT | always | processors; IOAPICs, of the embedder's and as [`IoApic`](crate::Role::IoApic); interrupts of ISA that are other lines, or level-triggered |
//! | MCFG | with a [`PciHost`](crate::Role::PciHost) in memory | its configuration space |
//! | HPET | with an [`Hpet`](crate::Role::Hpet) | where it is |
//! | SPCR | with a [`Uart`](crate::Role::Uart) | the first one is the console |
//! | DSDT | always | processors, PCI root bridges, and every device that says what it is in ACPI ([`Description::acpi`](crate::Description::acpi)), with its ranges and lines |
//!
//! GSI 0 to 15 of the manager are the interrupts of ISA with these numbers.

mod aml;
mod dsdt;
mod fixed;
mod resources;

use super::TableError;
use super::pci::PciRoot;
use super::registered::Registered;
use super::survey::Survey;
use super::writer::Writer;
use crate::address::GuestAddress;

/// What neither the devices nor the manager know.
///
/// ```
/// use vm_device::tables::acpi::{Config, Cpus, IoApic, IrqOverride};
///
/// // What KVM has in the kernel: an IOAPIC whose line 2 is the timer's, and a pair of 8259A.
/// let config = Config {
///     cpus: Cpus::Sequential(2),
///     io_apics: &[IoApic { id: 0, address: 0xfec0_0000, first_gsi: 0 }],
///     overrides: &[IrqOverride { irq: 0, gsi: 2 }],
///     has_pic: true,
///     ..Config::new()
/// };
/// assert_eq!(config.cpus.count(), 2);
/// ```
#[derive(Clone, Copy)]
pub struct Config<'a> {
    /// Who has made the tables.
    pub oem_id: [u8; 6],
    /// Which machine they are of.
    pub oem_table_id: [u8; 8],
    /// The processors.
    pub cpus: Cpus<'a>,
    /// The guest physical address at which each processor finds its local APIC.
    pub local_apic: u64,
    /// The IOAPICs that are not registered as devices.
    pub io_apics: &'a [IoApic],
    /// The interrupts of ISA that are other lines of the IOAPIC.
    pub overrides: &'a [IrqOverride],
    /// Whether there is a pair of 8259A that is not registered.
    pub has_pic: bool,
    /// Whether there is a real-time clock that is not registered.
    pub has_rtc: bool,
    /// Whether a guest may look for a VGA display.
    pub has_vga: bool,
    /// For each host bridge that is registered, in their order, what lies behind it.
    pub pci: &'a [PciRoot<'a>],
}

impl Config<'_> {
    /// One processor, a local APIC at its usual place, and nothing else.
    pub const fn new() -> Self {
        Self {
            oem_id: *b"VMDEV ",
            oem_table_id: *b"VMDEVICE",
            cpus: Cpus::Sequential(1),
            local_apic: 0xfee0_0000,
            io_apics: &[],
            overrides: &[],
            has_pic: false,
            has_rtc: false,
            has_vga: false,
            pci: &[],
        }
    }
}

impl Default for Config<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The processors, by the ids of their local APICs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cpus<'a> {
    /// So many, with ids from 0 on.
    Sequential(u32),
    /// These.
    Listed(&'a [u32]),
}

impl Cpus<'_> {
    /// How many there are.
    pub fn count(&self) -> u32 {
        match self {
            Self::Sequential(count) => *count,
            Self::Listed(ids) => u32::try_from(ids.len()).unwrap_or(u32::MAX),
        }
    }

    /// The id of the local APIC of processor `number`.
    fn apic_id(&self, number: u32) -> u32 {
        match self {
            Self::Sequential(_) => number,
            Self::Listed(ids) => ids.get(number as usize).copied().unwrap_or(number),
        }
    }
}

/// An IOAPIC that is not registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApic {
    /// The id in its register.
    pub id: u8,
    /// The guest physical address of its registers, below 4 GiB. The MADT has 32 bits for it (ACPI 6.5, 5.2.12.3), and says 0 for a
    /// higher one.
    pub address: u64,
    /// The GSI of its first line.
    pub first_gsi: u32,
}

/// An interrupt of ISA that is another line of the IOAPIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IrqOverride {
    /// The number of the interrupt, 0 to 15.
    pub irq: u8,
    /// The line.
    pub gsi: u32,
}

/// Where the tables are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The first one, which a guest is given (as `acpi_rsdp_addr` of Linux's boot protocol), or looks for from 0xe0000 to 0xfffff.
    pub rsdp: GuestAddress,
    /// How many bytes of the buffer they take.
    pub length: usize,
}

/// Writes the tables into `buffer`, which the guest has at `address`, a multiple of 64. The RSDP is at its start.
///
/// A guest that is not told where the RSDP is looks for it from 0xe0000 to 0xfffff. The memory is the guest's to keep: it is reserved
/// in the memory map that the guest gets.
///
/// ```
/// use vm_device::devices::pci::HostBridge;
/// use vm_device::tables::acpi::{self, Config, Cpus, IoApic};
/// use vm_device::tables::{PciInterrupts, PciRoot};
/// use vm_device::{DeviceManager, Gsi, GuestAddress, IoRange, Storage, SystemAllocator};
///
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// static HOST: HostBridge<'static> = HostBridge::new("pci", &MANAGER);
///
/// MANAGER.register_device(&HOST, None, &[HostBridge::PORTS, HostBridge::ecam(0xe000_0000, 255)], &[])?;
/// let root = PciRoot {
///     ports: &PciRoot::PC_PORTS,
///     memory: &[IoRange::of::<0xc000_0000, 0xdfff_ffff>()],
///     interrupts: PciInterrupts::Swizzled([Gsi(16), Gsi(17), Gsi(18), Gsi(19)]),
///     ..PciRoot::NOTHING
/// };
/// let config = Config {
///     cpus: Cpus::Sequential(2),
///     io_apics: &[IoApic { id: 0, address: 0xfec0_0000, first_gsi: 0 }],
///     pci: &[root],
///     ..Config::new()
/// };
/// let mut buffer = [0; 0x4000];
/// let written = acpi::write(&MANAGER, &config, GuestAddress(0xe_0000), &mut buffer)?;
/// assert_eq!(written.rsdp, GuestAddress(0xe_0000));
/// assert!(buffer.starts_with(b"RSD PTR "));
/// // The guest's memory at 0xe0000 gets `buffer[..written.length]`.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TableError`]: the buffer is too small, the address is no multiple of 64 or too high, or a window of a PCI root bridge is not free.
pub fn write(
    registered: &dyn Registered,
    config: &Config<'_>,
    address: GuestAddress,
    buffer: &mut [u8],
) -> Result<Written, TableError> {
    const RSDP_LENGTH: usize = 36;

    if !address.0.is_multiple_of(ALIGNMENT as u64) {
        return Err(TableError::BadAddress { address });
    }
    for root in config.pci {
        root.check(registered)?;
    }
    let survey = Survey::new(registered);
    let mut tables = Tables { w: Writer::new(buffer), config, address, listed: [0; LISTED], count: 0 };
    tables.w.zeros(RSDP_LENGTH);
    let dsdt = tables.table(b"DSDT", 2, |w| dsdt::body(w, registered, config, &survey));
    let facs = survey.pm1.map(|_| {
        tables.w.align(ALIGNMENT);
        let facs = tables.here();
        fixed::facs(&mut tables.w);
        facs
    });
    tables.listed(b"FACP", 6, |w| fixed::fadt(w, config, &survey, facs, dsdt));
    tables.listed(b"APIC", 4, |w| fixed::madt(w, registered, config, &survey));
    if fixed::has_ecam(registered) {
        tables.listed(b"MCFG", 1, |w| fixed::mcfg(w, registered));
    }
    if let Some(hpet) = survey.hpet {
        tables.listed(b"HPET", 1, |w| fixed::hpet(w, hpet));
    }
    if let Some(console) = survey.console {
        tables.listed(b"SPCR", 2, |w| fixed::spcr(w, console));
    }
    let (listed, count) = (tables.listed, tables.count);
    let xsdt = tables.table(b"XSDT", 1, |w| listed.iter().take(count).for_each(|table| w.qword(*table)));
    tables.rsdp(xsdt);
    let length = tables.w.finish()?;
    match address.0.checked_add(length as u64) {
        Some(_) => Ok(Written { rsdp: address, length }),
        None => Err(TableError::BadAddress { address }),
    }
}

/// Where tables begin: what the FACS needs.
const ALIGNMENT: usize = 64;
/// How many tables the XSDT can list: those of [`write`].
const LISTED: usize = 5;

/// Tables with headers (ACPI 6.5, 5.2.6), one after the other.
struct Tables<'a, 'b> {
    w: Writer<'b>,
    config: &'a Config<'a>,
    /// Where the guest has the buffer.
    address: GuestAddress,
    /// Where those are that the XSDT lists.
    listed: [u64; LISTED],
    count: usize,
}

impl Tables<'_, '_> {
    /// Where the guest has what is written next.
    fn here(&self) -> u64 {
        self.address.0.wrapping_add(self.w.position() as u64)
    }

    fn table(&mut self, signature: &[u8; 4], revision: u8, fill: impl FnOnce(&mut Writer<'_>)) -> u64 {
        const LENGTH_AT: usize = 4;
        const CHECKSUM_AT: usize = 9;
        const OEM_REVISION: u32 = 1;
        const CREATOR_REVISION: u32 = 1;

        self.w.align(16);
        let (start, address) = (self.w.position(), self.here());
        let w = &mut self.w;
        w.bytes(signature);
        w.dword(0);
        w.bytes(&[revision, 0]);
        w.bytes(&self.config.oem_id);
        w.bytes(&self.config.oem_table_id);
        w.dword(OEM_REVISION);
        w.bytes(b"VMDV");
        w.dword(CREATOR_REVISION);
        fill(w);
        let length = w.position().saturating_sub(start);
        w.patch(start.saturating_add(LENGTH_AT), &(length as u32).to_le_bytes());
        let checksum = w.checksum(start, length);
        w.patch(start.saturating_add(CHECKSUM_AT), &[checksum]);
        address
    }

    fn listed(&mut self, signature: &[u8; 4], revision: u8, fill: impl FnOnce(&mut Writer<'_>)) {
        let table = self.table(signature, revision, fill);
        if let Some(place) = self.listed.get_mut(self.count) {
            *place = table;
            self.count = self.count.saturating_add(1);
        }
    }

    /// The root pointer (ACPI 6.5, 5.2.5.3), whose first 20 bytes have a checksum of their own.
    fn rsdp(&mut self, xsdt: u64) {
        const REVISION: u8 = 2;
        const LENGTH: u32 = 36;
        const CHECKSUM_AT: usize = 8;
        const EXTENDED_CHECKSUM_AT: usize = 32;

        let w = &mut self.w;
        w.patch(0, b"RSD PTR ");
        w.patch(9, &self.config.oem_id);
        w.patch(15, &[REVISION]);
        w.patch(20, &LENGTH.to_le_bytes());
        w.patch(24, &xsdt.to_le_bytes());
        let checksum = w.checksum(0, 20);
        w.patch(CHECKSUM_AT, &[checksum]);
        let checksum = w.checksum(0, LENGTH as usize);
        w.patch(EXTENDED_CHECKSUM_AT, &[checksum]);
    }
}
