//! What a Linux guest has found, beside what the manager has: what one of both has and the other has not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vm_device::devices::pci::Slot;
use vm_device::{DeviceManager, Gsi, InstanceId, IoRange, IoType, RangeState};

use crate::boot::board::Board;
use crate::boot::chips::Chips;
use crate::linux_guest::report::{Clock, Interrupt, PciFunction, Range, Report, SerialPlace};

/// What Linux lists on every PC, whatever is there (arch/x86/kernel/setup.c, `standard_io_resources`).
const STANDARD: [&str; 5] = ["dma1", "dma2", "dma page reg", "timer1", "fpu"];
/// What is KVM's, and no device's: in any case, and where the interrupt controllers are.
const LOCAL_APICS: [&str; 1] = ["Local APIC"];
const CONTROLLERS: [&str; 3] = ["pic1", "pic2", "IOAPIC 0"];
/// What Linux calls memory that is no device's.
const MEMORY: [&str; 7] =
    ["Reserved", "System RAM", "System ROM", "Kernel code", "Kernel rodata", "Kernel data", "Kernel bss"];

/// Ranges that are decoded and that Linux does not list as they are: the first address, and the reason.
const UNLISTED: [(u64, &str); 6] = [
    (0x61, "Linux uses the port without listing it"),
    (0x80, "the port lies in what Linux lists as page registers of the DMA controllers"),
    (0x92, "Linux does not list what is the board's below port 0x100"),
    (0xb2, "Linux uses the port without listing it"),
    (0x4d0, "Linux uses the ports without listing them"),
    (0xcf9, "the port lies in those of the PCI configuration mechanism"),
];

/// A line of KVM's irqchip that leads to another input of the IOAPIC, which Linux names.
const TIMER: (Gsi, u64) = (Gsi(0), 2);

/// The ACPI tables.
const TABLES: [&str; 7] = ["APIC", "DSDT", "FACP", "FACS", "HPET", "MCFG", "SPCR"];

/// How much the guest's clock may differ from the host's, since a report takes its time.
const TOLERANCE: Duration = Duration::from_secs(30);

/// Compares the report of a guest with the board that it runs on, with so many processors. Returns the differences, each a line of
/// text.
pub fn compare(report: &Report, board: &Board<'_>, cpus: usize) -> Vec<String> {
    let mut differences = Vec::new();
    let of_kvm: &[&str] = if board.chips() == Chips::Kvm { &CONTROLLERS } else { &[] };
    differences.extend(ranges("port", &mapped(board.manager, IoType::Pio), &report.ports, of_kvm));
    differences.extend(ranges("memory", &mapped(board.manager, IoType::Mmio), &report.memory, of_kvm));
    differences.extend(functions(board, &report.functions));
    differences.extend(lines(board.manager, &report.interrupts));
    differences.extend(serial_ports(board.manager, report));
    differences.extend(clock(&report.clocks));
    if report.processors != cpus {
        differences.push(format!("Linux has {} processors, of {cpus}", report.processors));
    }
    if report.acpi_tables != TABLES {
        differences.push(format!("Linux has the ACPI tables {:?}, of {TABLES:?}", report.acpi_tables));
    }
    differences
}

/// A decoded range.
struct Mapped {
    path: String,
    range: IoRange,
}

impl Mapped {
    fn ends(&self) -> (u64, u64) {
        (self.range.first().0, self.range.last().0)
    }
}

fn mapped(manager: &DeviceManager<'_>, io_type: IoType) -> Vec<Mapped> {
    manager
        .walk()
        .flat_map(|info| {
            let path = manager.path(info.id).to_string();
            decoded(manager, info.id, io_type).map(move |range| Mapped { path: path.clone(), range })
        })
        .collect()
}

fn decoded<'m>(manager: &'m DeviceManager<'_>, id: InstanceId, io_type: IoType) -> impl Iterator<Item = IoRange> + 'm {
    let ranges = (0..).map_while(move |index| manager.range(id, index));
    ranges
        .filter(move |range| range.io_type == io_type && range.state == RangeState::Decoded)
        .map(|assigned| assigned.range)
}

/// Each decoded range is listed as it is, or as parts that follow each other; and what is listed is decoded, or KVM's.
fn ranges(space: &str, mapped: &[Mapped], listed: &[Range], of_kvm: &[&str]) -> Vec<String> {
    let is_listed = |range: &&Mapped| {
        let (first, last) = range.ends();
        let mut next = Some(first);
        while let Some(from) = next {
            let parts = listed.iter().filter(|part| part.first == from && part.last <= last);
            let Some(end) = parts.map(|part| part.last).max() else { return false };
            next = end.checked_add(1).filter(|_| end < last);
        }
        true
    };
    let unlisted = mapped.iter().filter(|range| !is_listed(range));
    let unlisted = unlisted.filter(|range| UNLISTED.iter().all(|(first, _)| *first != range.ends().0));
    let unlisted = unlisted.map(|Mapped { path, range }| format!("{space} {range} of {path} is not in Linux' list"));

    let is_window = |range: &Range| range.name.starts_with("PCI Bus ");
    let has_no_device = |range: &&Range| {
        let known = STANDARD.iter().chain(&LOCAL_APICS).chain(&MEMORY).chain(of_kvm).any(|name| *name == range.name);
        let holds = |mapped: &Mapped| mapped.ends().0 <= range.first && range.last <= mapped.ends().1;
        !known && !is_window(range) && !mapped.iter().any(holds)
    };
    let alone = listed.iter().filter(has_no_device);
    let alone = alone.map(|Range { first, last, name, .. }| {
        format!("{space} {first:#x} to {last:#x} is in Linux' list as {name}, and no device's")
    });
    unlisted.chain(alone).collect()
}

/// Each function that is plugged in was found, as what it is, with its ranges where the manager has them; and no other was.
fn functions(board: &Board<'_>, found: &[PciFunction]) -> Vec<String> {
    let plugged = board.functions();
    let address = |slot: Slot| format!("0000:00:{:02x}.{}", slot.device(), slot.function());
    let mut differences = Vec::new();
    for (slot, id, function) in &plugged {
        let at = address(*slot);
        let Some(found) = found.iter().find(|found| found.address == at) else {
            differences.push(format!("Linux has not found the PCI function {at}"));
            continue;
        };
        let identity = u32::from(found.device) << 16 | u32::from(found.vendor);
        if (function.register(0), function.register(8) >> 8) != (identity, found.class) {
            differences.push(format!("Linux takes the PCI function {at} for another: {found:?}"));
        }
        let theirs: Vec<_> = found.resources.iter().map(|resource| (resource.first, resource.last)).collect();
        let ours: Vec<_> = id.map_or(Vec::new(), |id| {
            let both = [IoType::Pio, IoType::Mmio].map(|io_type| decoded(board.manager, id, io_type));
            both.into_iter().flatten().map(|range| (range.first().0, range.last().0)).collect()
        });
        if ours != theirs {
            differences.push(format!("the PCI function {at} decodes {ours:x?}, and Linux has {theirs:x?}"));
        }
    }
    let unknown = found.iter().filter(|found| plugged.iter().all(|(slot, ..)| address(*slot) != found.address));
    differences.extend(unknown.map(|found| format!("Linux has found a PCI function that is not there: {found:?}")));
    differences
}

/// Each line that Linux uses is a device's, and is triggered as it says; and the lines of devices that interrupt are used.
fn lines(manager: &DeviceManager<'_>, interrupts: &[Interrupt]) -> Vec<String> {
    /// The devices whose interrupts a driver has asked for when a report is made, unless they are sent as messages.
    const IN_USE: [&str; 5] = ["/isa/serial", "/isa/rtc", "/isa/i8042", "/isa/pm1", "/isa/pit"];
    let input = |gsi: Gsi| if gsi == TIMER.0 { TIMER.1 } else { u64::from(gsi.0) };
    let ours: Vec<_> = manager
        .walk()
        .flat_map(|info| {
            let path = manager.path(info.id).to_string();
            let irqs = (0..).map_while(move |index| manager.irq(info.id, index)).filter_map(|irq| irq.gsi);
            irqs.map(move |gsi| (path.clone(), gsi))
        })
        .collect();
    let theirs: Vec<_> = interrupts.iter().filter(|interrupt| interrupt.chip == "IO-APIC").collect();
    let mut differences = Vec::new();
    for interrupt in &theirs {
        let Some((_, gsi)) = ours.iter().find(|(_, gsi)| Some(input(*gsi)) == interrupt.line) else {
            differences.push(format!("Linux uses a line that no device has: {interrupt:?}"));
            continue;
        };
        // The lines from 16 on, and that of ACPI's events, are level-triggered (ACPI 6.5, 4.8.3; PCI Local Bus 3.0, 2.2.6).
        let trigger = if gsi.0 >= 16 || gsi.0 == 9 { "fasteoi" } else { "edge" };
        if interrupt.trigger != trigger {
            differences.push(format!("{gsi} is not {trigger} in Linux: {interrupt:?}"));
        }
    }
    for (path, gsi) in ours.iter().filter(|(path, _)| IN_USE.contains(&path.as_str())) {
        if !theirs.iter().any(|interrupt| interrupt.line == Some(input(*gsi))) {
            differences.push(format!("Linux does not use {gsi} of {path}"));
        }
    }
    differences
}

/// Each UART that Linux has found begins where a range of a device does; and each serial port of the board was found.
fn serial_ports(manager: &DeviceManager<'_>, report: &Report) -> Vec<String> {
    let found: Vec<_> = report.serial.iter().filter(|port| port.kind == "16550A").collect();
    let place = |place: SerialPlace| match place {
        SerialPlace::Port(first) => (IoType::Pio, first),
        SerialPlace::Memory(first) => (IoType::Mmio, first),
    };
    let is_ours = |path: &str| path.ends_with("serial") || path.ends_with("serial-ports");
    let ours: Vec<_> = [IoType::Pio, IoType::Mmio]
        .into_iter()
        .flat_map(|io_type| mapped(manager, io_type).into_iter().map(move |range| (io_type, range)))
        .filter(|(_, range)| is_ours(&range.path))
        .map(|(io_type, range)| (io_type, range.ends().0))
        .collect();
    let unknown = found.iter().filter(|port| !ours.contains(&place(port.place)));
    let unknown = unknown.map(|port| format!("Linux has found a serial port where none is: {port:?}"));
    let missed = ours.iter().filter(|ours| !found.iter().any(|port| place(port.place) == **ours));
    let missed =
        missed.map(|(io_type, first)| format!("Linux has not found the serial port at {first:#x} ({io_type})"));
    unknown.chain(missed).collect()
}

/// The clock shows the time of day.
fn clock(clocks: &[Clock]) -> Option<String> {
    let [clock] = clocks else { return Some(format!("Linux has other clocks than one: {clocks:?}")) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let shown = seconds(clock);
    let is_right = shown.is_some_and(|shown| shown.abs_diff(now.as_secs()) <= TOLERANCE.as_secs());
    (!is_right)
        .then(|| format!("the clock shows {} {}, and it is {} s since 1970", clock.date, clock.time, now.as_secs()))
}

/// What a clock shows, in seconds since 1970.
fn seconds(clock: &Clock) -> Option<u64> {
    let numbers =
        |text: &str, separator| text.split(separator).map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>();
    let (date, time) = (numbers(&clock.date, '-')?, numbers(&clock.time, ':')?);
    let (&[year, month, day], &[hour, minute, second]) = (&date[..], &time[..]) else { return None };
    // Days by the Gregorian calendar, in years that begin in March.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day;
    let days = days.checked_sub(719_469)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(date: &str, time: &str) -> Option<u64> {
        let (name, driver) = ("rtc0".into(), "rtc_cmos".into());
        seconds(&Clock { name, date: date.into(), time: time.into(), driver })
    }

    #[test]
    fn a_clock_is_read_as_seconds_since_1970() {
        assert_eq!(at("1970-01-01", "00:00:00"), Some(0));
        assert_eq!(at("2000-02-29", "12:34:56"), Some(951_827_696));
        assert_eq!(at("2026-11-27", "19:17:06"), Some(1_795_807_026));
        assert_eq!((at("2026-11", "19:17:06"), at("x-1-1", "0:0:0")), (None, None));
    }

    fn listed(first: u64, last: u64, name: &str) -> Range {
        Range { first, last, name: name.into(), within: Vec::new() }
    }

    fn decoded_at(first: u64, last: u64) -> Mapped {
        Mapped { path: "/isa/pm1".into(), range: IoRange::new(first.into(), last.into()).unwrap() }
    }

    #[test]
    fn a_range_is_listed_whole_or_in_parts_and_what_is_listed_is_decoded() {
        let parts = [listed(0x600, 0x603, "event"), listed(0x604, 0x605, "control")];
        assert_eq!(ranges("port", &[decoded_at(0x600, 0x605)], &parts, &[]), [""; 0]);
        let in_use = [listed(0x600, 0x605, "0000:00:05.0"), listed(0x600, 0x601, "serial")];
        assert_eq!(ranges("port", &[decoded_at(0x600, 0x605)], &in_use, &[]), [""; 0]);
        assert_eq!(ranges("port", &[decoded_at(0x600, 0x606)], &parts, &[]).len(), 1);
        assert_eq!(ranges("port", &[decoded_at(0x600, 0x604)], &parts, &[]).len(), 2);
        assert_eq!(ranges("port", &[], &parts, &[]).len(), 2);
        assert_eq!(ranges("port", &[], &[listed(0, 0x1f, "dma1"), listed(0, 0xcf7, "PCI Bus 0000:00")], &[]), [""; 0]);
        assert_eq!(ranges("port", &[decoded_at(0x61, 0x61), decoded_at(0x62, 0x62)], &[], &[]).len(), 1);
    }
}
