//! Resource descriptors (ACPI 6.5, 6.4).

use super::super::survey::{Irq, bit};
use super::super::writer::Writer;
use crate::address::{IoRange, IoType};

/// What an address space descriptor is about (ACPI 6.5, table 6.36).
const MEMORY: u8 = 0;
const PORTS: u8 = 1;
const BUSES: u8 = 2;

/// The general flags: both ends are fixed. The device consumes what is there, or it is for those behind it.
const FIXED: u8 = 0b1100;
const CONSUMER: u8 = 0b0001;

/// Memory that can be written and is not cached.
const READ_WRITE: u8 = 1;
/// Ports of ISA and others.
const ENTIRE_RANGE: u8 = 0b11;

/// What a device decodes there.
pub(super) fn decoded(w: &mut Writer<'_>, io_type: IoType, range: IoRange) {
    let (first, last) = (range.first().0, range.last().0);
    let span = last.wrapping_sub(first);
    match (io_type, u16::try_from(last), u32::try_from(last)) {
        // A small descriptor has eight bits for the number of ports.
        (IoType::Pio, Ok(_), _) if span < 0xff => {
            w.bytes(&[0x47, 1]);
            w.word(first as u16);
            w.word(first as u16);
            w.bytes(&[1, (span as u8).wrapping_add(1)]);
        }
        (IoType::Pio, ..) => space(w, PORTS, FIXED | CONSUMER, ENTIRE_RANGE, range),
        // The length has 32 bits.
        (_, _, Ok(_)) if span < u64::from(u32::MAX) => {
            w.byte(0x86);
            w.word(9);
            w.byte(READ_WRITE);
            w.dword(first as u32);
            w.dword((span as u32).wrapping_add(1));
        }
        _ => space(w, MEMORY, FIXED | CONSUMER, READ_WRITE, range),
    }
}

/// A window of a bridge.
pub(super) fn window(w: &mut Writer<'_>, io_type: IoType, range: IoRange) {
    match io_type {
        IoType::Pio => space(w, PORTS, FIXED, ENTIRE_RANGE, range),
        IoType::Mmio | IoType::PhysicalMmio => space(w, MEMORY, FIXED, READ_WRITE, range),
    }
}

/// The buses behind a root bridge.
pub(super) fn buses(w: &mut Writer<'_>, last: u8) {
    w.byte(0x88);
    w.word(13);
    w.bytes(&[BUSES, FIXED, 0]);
    [0, 0, u16::from(last), 0, u16::from(last).wrapping_add(1)].into_iter().for_each(|value| w.word(value));
}

/// An address space descriptor of 16, 32 or 64 bits: granularity, first, last, translation, length.
fn space(w: &mut Writer<'_>, kind: u8, flags: u8, specific: u8, range: IoRange) {
    let (first, last) = (range.first().0, range.last().0);
    let length = last.wrapping_sub(first).wrapping_add(1);
    let values = [0, first, last, 0, length];
    let header = [kind, flags, specific];
    // A descriptor of 16 bits cannot be one of memory (ACPI 6.5, 6.4.3.5.3).
    if kind != MEMORY && length < 0x1_0000 && last < 0x1_0000 {
        w.byte(0x88);
        w.word(13);
        w.bytes(&header);
        values.into_iter().for_each(|value| w.word(value as u16));
    } else if length <= u64::from(u32::MAX) && last <= u64::from(u32::MAX) {
        w.byte(0x87);
        w.word(23);
        w.bytes(&header);
        values.into_iter().for_each(|value| w.dword(value as u32));
    } else {
        w.byte(0x8a);
        w.word(43);
        w.bytes(&header);
        values.into_iter().for_each(|value| w.qword(value));
    }
}

/// The flags of a line (ACPI 6.5, tables 6.30 and 6.56): level-triggered and active low, or edge-triggered and active high.
const EDGE: u8 = 0b1;
const SHARED: u8 = 0b1_0000;
const CONSUMED_LEVEL_LOW: u8 = 0b101;
const CONSUMED_SHARED: u8 = 0b1000;

/// A line.
pub(super) fn irq(w: &mut Writer<'_>, irq: Irq) {
    match (irq.is_edge, irq.is_shared) {
        // Edge-triggered and not shared, if nothing is said.
        (true, false) => {
            w.byte(0x22);
            w.word(bit(irq.gsi));
        }
        (true, true) => {
            w.byte(0x23);
            w.word(bit(irq.gsi));
            w.byte(EDGE | SHARED);
        }
        (false, is_shared) => {
            w.byte(0x89);
            w.word(6);
            w.bytes(&[CONSUMED_LEVEL_LOW | if is_shared { CONSUMED_SHARED } else { 0 }, 1]);
            w.dword(irq.gsi);
        }
    }
}
