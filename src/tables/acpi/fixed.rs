//! The tables of fixed layout.

use super::super::pci::DEVICES;
use super::super::registered::Registered;
use super::super::survey::{Address, Console, Hpet, Survey, bit, each_host, each_role, ecam, ranges};
use super::super::writer::Writer;
use super::{Config, IoApic, IrqOverride};
use crate::address::IoType;
use crate::description::{Role, UartKind};

/// A generic address (ACPI 6.5, 5.2.3.2): the space, the size in bits, the offset, the size of accesses, the address.
fn generic_address(w: &mut Writer<'_>, io_type: IoType, bits: u8, access: u8, address: u64) {
    w.bytes(&[u8::from(io_type == IoType::Pio), bits, 0, access]);
    w.qword(address);
}

/// The same, for a register. `access` is 1 for bytes, 2 for words, 3 for dwords, or 0.
fn register(w: &mut Writer<'_>, address: Option<Address>, access: u8) {
    match address {
        Some(Address { io_type, base, size }) => {
            generic_address(w, io_type, size.saturating_mul(8), access, base);
        }
        None => w.zeros(12),
    }
}

/// The port of a register, where a table has 32 bits for it; 0 if it is no port.
fn port(address: Option<Address>) -> u32 {
    address.filter(|address| address.io_type == IoType::Pio).map_or(0, |address| address.base as u32)
}

fn size(address: Option<Address>) -> u8 {
    address.map_or(0, |address| address.size)
}

/// An address below 4 GiB, for a field of 32 bits; 0 for any other.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(0)
}

/// IAPC_BOOT_ARCH (ACPI 6.5, table 5.10).
const LEGACY_DEVICES: u16 = 1 << 0;
const KEYBOARD_CONTROLLER: u16 = 1 << 1;
const NO_VGA: u16 = 1 << 2;
const NO_RTC: u16 = 1 << 5;

/// The fixed feature flags (ACPI 6.5, table 5.10).
const WBINVD: u32 = 1 << 0;
const C1: u32 = 1 << 2;
const NO_FIXED_POWER_BUTTON: u32 = 1 << 4;
const NO_FIXED_SLEEP_BUTTON: u32 = 1 << 5;
const NO_FIXED_RTC: u32 = 1 << 6;
const TIMER_HAS_32_BITS: u32 = 1 << 8;
const RESET_REGISTER: u32 = 1 << 10;
const HARDWARE_REDUCED: u32 = 1 << 20;

/// The FADT after its header (ACPI 6.5, 5.2.9).
pub(super) fn fadt(w: &mut Writer<'_>, config: &Config<'_>, survey: &Survey, facs: Option<u64>, dsdt: u64) {
    let pm1 = survey.pm1;
    let (event, control) = (pm1.map(|pm1| pm1.event), pm1.map(|pm1| pm1.control));
    let timer = survey.pm_timer.map(|(address, _)| address).filter(|_| pm1.is_some());
    let (command, enable, disable) = match pm1.and_then(|pm1| pm1.command) {
        Some((address, enable, disable)) => (Some(address), enable, disable),
        None => (None, 0, 0),
    };
    w.dword(facs.map_or(0, low));
    w.dword(low(dsdt));
    // Reserved, and no preferred profile of power management.
    w.zeros(2);
    w.word(pm1.map_or(0, |pm1| pm1.sci) as u16);
    w.dword(port(command));
    w.bytes(&[enable, disable, 0, 0]);
    for address in [event, None, control, None, None, timer, None, None] {
        w.dword(port(address));
    }
    w.bytes(&[size(event), size(control), 0, size(timer), 0, 0, 0, 0]);
    // Latencies that say that neither C2 nor C3 is there; no flushing, no duty cycle, no alarm by day or month.
    [101, 1001, 0, 0].into_iter().for_each(|value| w.word(value));
    w.bytes(&[0, 0, 0, 0, survey.rtc.unwrap_or(0)]);
    let mut architecture = if config.has_vga { 0 } else { NO_VGA };
    for (is_so, flag) in [
        (survey.console.is_some_and(|console| console.address.io_type == IoType::Pio), LEGACY_DEVICES),
        (survey.has_keyboard_controller, LEGACY_DEVICES | KEYBOARD_CONTROLLER),
        (survey.rtc.is_none() && !config.has_rtc, NO_RTC),
    ] {
        architecture |= if is_so { flag } else { 0 };
    }
    w.word(architecture);
    w.byte(0);
    let mut flags = WBINVD | C1 | NO_FIXED_SLEEP_BUTTON | NO_FIXED_RTC;
    for (is_so, flag) in [
        (!pm1.is_some_and(|pm1| pm1.has_power_button), NO_FIXED_POWER_BUTTON),
        (timer.is_some() && survey.pm_timer.is_some_and(|(_, is_wide)| is_wide), TIMER_HAS_32_BITS),
        (survey.reset.is_some(), RESET_REGISTER),
        (pm1.is_none(), HARDWARE_REDUCED),
    ] {
        flags |= if is_so { flag } else { 0 };
    }
    w.dword(flags);
    register(w, survey.reset.map(|(address, _)| address), 1);
    w.byte(survey.reset.map_or(0, |(_, value)| value));
    // No Arm, and minor version 0.
    w.zeros(3);
    w.qword(facs.filter(|facs| low(*facs) == 0).unwrap_or(0));
    w.qword(dsdt);
    for (address, access) in
        [(event, 2), (None, 0), (control, 2), (None, 0), (None, 0), (timer, 3), (None, 0), (None, 0)]
    {
        register(w, address, access);
    }
    // No registers of hardware-reduced sleep, and no name of a hypervisor.
    w.zeros(12 + 12 + 8);
}

/// The FACS: it has a length and no checksum (ACPI 6.5, 5.2.10).
pub(super) fn facs(w: &mut Writer<'_>) {
    const LENGTH: u32 = 64;
    const VERSION: u8 = 2;
    w.bytes(b"FACS");
    w.dword(LENGTH);
    // No hardware signature, no waking vectors, a global lock that is free, no flags.
    w.zeros(24);
    w.byte(VERSION);
    w.zeros(31);
}

/// The MADT after its header (ACPI 6.5, 5.2.12).
pub(super) fn madt(w: &mut Writer<'_>, registered: &dyn Registered, config: &Config<'_>, survey: &Survey) {
    const PCAT_COMPAT: u32 = 1;
    w.dword(low(config.local_apic));
    w.dword(if survey.has_pic || config.has_pic { PCAT_COMPAT } else { 0 });
    for uid in 0..config.cpus.count() {
        processor(w, uid, config.cpus.apic_id(uid));
    }
    for IoApic { id, address, first_gsi } in config.io_apics {
        io_apic(w, *id, *address, *first_gsi);
    }
    each_role(registered, &mut |entry, role| {
        if let Role::IoApic { id, first_gsi } = role
            && let Some((IoType::Mmio, range)) = ranges(registered, entry.id, 1).next()
            && low(range.first().0) != 0
        {
            io_apic(w, id, range.first().0, first_gsi);
        }
    });
    let mut level_lines = survey.level_lines;
    for root in config.pci {
        root.interrupts.each(DEVICES, &mut |_, _, gsi| level_lines |= bit(gsi.0));
    }
    for IrqOverride { irq, gsi } in config.overrides {
        let is_level = level_lines & bit((*irq).into()) != 0;
        irq_override(w, *irq, *gsi, is_level);
    }
    for irq in 0..16 {
        let is_told = config.overrides.iter().any(|told| u32::from(told.irq) == irq);
        if level_lines & bit(irq) != 0 && !is_told {
            irq_override(w, irq as u8, irq, true);
        }
    }
    // Every processor gets non-maskable interrupts by LINT1 of its local APIC.
    w.bytes(&[4, 6, 0xff, 0, 0, 1]);
    if low(config.local_apic) == 0 {
        w.bytes(&[5, 12, 0, 0]);
        w.qword(config.local_apic);
    }
}

/// A local APIC, or an x2APIC where its id or its processor's number takes more than eight bits; 255 is a broadcast.
fn processor(w: &mut Writer<'_>, uid: u32, apic_id: u32) {
    const ENABLED: u32 = 1;
    if let (uid @ 0..0xff, apic_id @ 0..0xff) = (uid, apic_id) {
        w.bytes(&[0, 8, uid as u8, apic_id as u8]);
        w.dword(ENABLED);
    } else {
        w.bytes(&[9, 16, 0, 0]);
        [apic_id, ENABLED, uid].into_iter().for_each(|value| w.dword(value));
    }
}

fn io_apic(w: &mut Writer<'_>, id: u8, address: u64, first_gsi: u32) {
    w.bytes(&[1, 12, id, 0]);
    w.dword(low(address));
    w.dword(first_gsi);
}

/// An interrupt of ISA that is another line, or is not as ISA has it.
fn irq_override(w: &mut Writer<'_>, irq: u8, gsi: u32, is_level: bool) {
    const LEVEL_LOW: u16 = 0b1111;
    w.bytes(&[2, 10, 0, irq]);
    w.dword(gsi);
    w.word(if is_level { LEVEL_LOW } else { 0 });
}

/// Calls `act` with the segment, the base and the last bus of each configuration space in memory.
fn each_ecam(registered: &dyn Registered, act: &mut dyn FnMut(u16, u64, u8)) {
    each_host(registered, &mut |entry, number| {
        if let Some((range, last_bus)) = ecam(registered, entry.id) {
            act(u16::try_from(number).unwrap_or(u16::MAX), range.first().0, last_bus);
        }
    });
}

/// Whether there is a configuration space in memory.
pub(super) fn has_ecam(registered: &dyn Registered) -> bool {
    let mut has_any = false;
    each_ecam(registered, &mut |_, _, _| has_any = true);
    has_any
}

/// The MCFG after its header (PCI Firmware 3.2, 4.1.2).
pub(super) fn mcfg(w: &mut Writer<'_>, registered: &dyn Registered) {
    w.zeros(8);
    each_ecam(registered, &mut |segment, base, last_bus| {
        w.qword(base);
        w.word(segment);
        w.bytes(&[0, last_bus, 0, 0, 0, 0]);
    });
}

/// The HPET's table after its header (IA-PC HPET 1.0a, 3.2.4).
pub(super) fn hpet(w: &mut Writer<'_>, hpet: Hpet) {
    w.dword(hpet.capabilities);
    generic_address(w, IoType::Mmio, 64, 0, hpet.base);
    // The only one, and no guarantee about the rest of its page.
    w.byte(0);
    w.word(hpet.minimum_tick);
    w.byte(0);
}

/// The SPCR after its header (Microsoft, Serial Port Console Redirection Table, revision 2).
pub(super) fn spcr(w: &mut Writer<'_>, console: Console) {
    let Console { kind, shift, address, gsi, .. } = console;
    let shift = shift.min(3);
    // The kinds are those of the Debug Port Table 2: a 16550, an Arm PL011, a 16550 that is as its address says.
    let (kind, bits, access) = match (kind, shift) {
        (UartKind::Ns16550, 0) => (0x00, 8, 1),
        (UartKind::Ns16550, shift) => (0x12, 8 << shift, shift.saturating_add(1)),
        (UartKind::Pl011, _) => (0x03, 32, 3),
    };
    w.bytes(&[kind, 0, 0, 0]);
    generic_address(w, address.io_type, bits, access, address.base);
    const PIC: u8 = 1 << 0;
    const IO_APIC: u8 = 1 << 1;
    const RATE_115200: u8 = 7;
    const ONE_STOP_BIT: u8 = 1;
    const ANSI: u8 = 3;
    let (types, irq) = match gsi {
        None => (0, 0),
        Some(gsi @ 0..16) => (PIC | IO_APIC, gsi as u8),
        Some(_) => (IO_APIC, 0),
    };
    w.bytes(&[types, irq]);
    w.dword(gsi.unwrap_or(0));
    w.bytes(&[RATE_115200, 0, ONE_STOP_BIT, 0, ANSI, 0]);
    // It is no PCI device.
    w.bytes(&[0xff; 4]);
    w.zeros(12);
}
