//! What a run came to: the accesses of each device, and those that nothing has answered, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use vm_device::{AccessDirection, InstanceId, IoError, IoType};

use crate::vmm::counters::{Counters, Counts, Reached, Totals, Unanswered};

/// How many of the accesses that nothing answered are shown.
const SHOWN: usize = 32;

/// What was counted of all devices of one path, or of no device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The path of the device, or its id if it was never known by a path; or why there was none.
    pub name: String,
    /// Whether it is a device.
    pub is_device: bool,
    /// All of it.
    pub counts: Counts,
    /// The accesses over time, each bucket as long as [`Summary::bucket`].
    pub buckets: Vec<u64>,
}

/// An access that nothing has answered, and how often it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missed {
    /// What it was, and why it was not answered.
    pub access: Unanswered,
    /// The path of the device that has refused it, if any.
    pub device: Option<String>,
    /// How often.
    pub count: u64,
}

/// What a run came to. It displays as a table, the most frequent first.
pub struct Summary {
    /// Accesses that are not nested in others.
    pub exits: u64,
    /// The time from the start of the counters to the summary.
    pub elapsed: Duration,
    /// The time of each bucket of each line.
    pub bucket: Duration,
    /// The most frequent first.
    pub lines: Vec<Line>,
    /// The most frequent first.
    pub missed: Vec<Missed>,
    /// How many accesses are missing from `missed`, since there are too many different ones.
    pub missed_beside: u64,
}

impl Summary {
    /// What these have counted so far. Devices of one path are one: a device that was unplugged and plugged in again.
    pub fn new(counters: &Counters) -> Self {
        let Totals { exits, elapsed, bucket, rows, unanswered, unanswered_beside } = counters.totals();
        let mut names = BTreeMap::new();
        let mut lines: BTreeMap<String, Line> = BTreeMap::new();
        for row in rows {
            let (name, is_device) = match row.reached {
                Reached::Device(id) => (row.path.unwrap_or_else(|| id.to_string()), true),
                Reached::Unclaimed => ("unclaimed".into(), false),
                Reached::Straddling => ("straddling".into(), false),
                Reached::Refused => ("refused".into(), false),
            };
            if let Reached::Device(id) = row.reached {
                names.insert(id, name.clone());
            }
            let new = || Line { name: name.clone(), is_device, counts: Counts::default(), buckets: Vec::new() };
            let line = lines.entry(name.clone()).or_insert_with(new);
            line.counts += row.counts;
            line.buckets.resize(line.buckets.len().max(row.buckets.len()), 0);
            for (sum, count) in line.buckets.iter_mut().zip(row.buckets) {
                *sum += count;
            }
        }
        let mut lines: Vec<_> = lines.into_values().collect();
        // A stable sort: those of one count are in the order of their names.
        lines.sort_by_key(|line| std::cmp::Reverse(line.counts.accesses()));
        let missed = missed(unanswered, &names);
        Self { exits, elapsed, bucket, lines, missed, missed_beside: unanswered_beside }
    }

    /// What was counted of the device of this path.
    pub fn device(&self, path: &str) -> Option<Counts> {
        self.lines.iter().find(|line| line.is_device && line.name == path).map(|line| line.counts)
    }

    /// The accesses that no device claims.
    pub fn unclaimed(&self) -> impl Iterator<Item = &Missed> {
        self.missed.iter().filter(|missed| missed.access.error == IoError::Unclaimed)
    }

    /// All accesses together.
    pub fn total(&self) -> Counts {
        self.lines.iter().fold(Counts::default(), |mut sum, line| {
            sum += line.counts;
            sum
        })
    }

    /// How many of an access of the guest's come in a second.
    pub fn exits_per_second(&self) -> f64 {
        self.exits as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Those of one device path are one: the most frequent first, then by address.
fn missed(unanswered: Vec<(Unanswered, u64)>, names: &BTreeMap<InstanceId, String>) -> Vec<Missed> {
    let mut all: Vec<Missed> = Vec::new();
    let mut sorted = unanswered;
    sorted.sort_by_key(|(access, _)| (access.io_type, access.address, access.element, access.device));
    for (access, count) in sorted {
        let device = access.device.map(|id| names.get(&id).cloned().unwrap_or_else(|| id.to_string()));
        let is_same = |missed: &&mut Missed| {
            missed.device == device && missed.access == Unanswered { device: missed.access.device, ..access }
        };
        // Ids of one path stand side by side, but for other directions, errors and devices.
        match all.iter_mut().rev().take_while(|missed| missed.access.address == access.address).find(is_same) {
            Some(missed) => missed.count += count,
            None => all.push(Missed { access, device, count }),
        }
    }
    all.sort_by_key(|missed| std::cmp::Reverse(missed.count));
    all
}

/// So many of so many, in per cent.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.total();
        let width = self.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0).max("device".len());
        writeln!(
            f,
            "Accesses\n  {:<width$}{:>10}{:>10}{:>10}{:>12}{:>12}{:>9}",
            "device", "reads", "writes", "strings", "bytes", "time", "share"
        )?;
        let last = Line { name: "all".into(), is_device: false, counts: all, buckets: Vec::new() };
        for line in self.lines.iter().chain([&last]) {
            let Counts { reads, writes, strings, bytes, time } = line.counts;
            let (name, time) = (&line.name, format!("{time:.1?}"));
            let share = share(line.counts.accesses(), all.accesses());
            writeln!(f, "  {name:<width$}{reads:>10}{writes:>10}{strings:>10}{bytes:>12}{time:>12}{share:>7.1} %")?;
        }
        writeln!(f, "  {} exits in {:.2?}, {:.0} a second", self.exits, self.elapsed, self.exits_per_second())?;
        if self.missed.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nNot answered\n  {:>8}{:>9}  access", "times", "share")?;
        for missed in self.missed.iter().take(SHOWN) {
            writeln!(f, "  {:>8}{:>7.1} %  {missed}", missed.count, share(missed.count, all.accesses()))?;
        }
        let rest: u64 = self.missed.iter().skip(SHOWN).map(|missed| missed.count).sum();
        let rest = rest + self.missed_beside;
        if rest > 0 {
            writeln!(f, "  {rest:>8}{:>7.1} %  others, each less often", share(rest, all.accesses()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unanswered { error, io_type, address, direction, element, .. } = self.access;
        let space = if io_type == IoType::Pio { "port" } else { "memory" };
        let direction = match direction {
            AccessDirection::Read => "read",
            AccessDirection::Write => "write",
        };
        let bytes = if element == 1 { "byte" } else { "bytes" };
        write!(f, "{space} {direction} {address}, {element} {bytes}")?;
        if let Some(device) = &self.device {
            write!(f, ", {device}")?;
        }
        match error {
            IoError::Unclaimed => f.write_str(": unclaimed"),
            error => write!(f, ": {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vm_device::owned::{Builder, Capacities, OwnedManager};
    use vm_device::{AccessSizes, GuestAddress, IoRange, IoResource, SystemAllocator};

    use super::*;
    use crate::devices::scratch::Scratch;

    fn allocator() -> SystemAllocator {
        SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS)
    }

    /// A manager whose accesses are counted.
    fn manager(counters: &Arc<Counters>) -> OwnedManager {
        let capacities = Capacities { devices: 4, ranges: 8, vcpus: 2 };
        Builder::new(capacities, allocator()).with_observer(counters.clone()).build().unwrap()
    }

    fn name_devices(counters: &Counters, manager: &OwnedManager) {
        counters.name_devices(manager.walk().into_iter().map(|info| (info.id, manager.path(info.id))));
    }

    #[test]
    fn a_device_that_is_gone_keeps_its_path_and_its_successor_is_counted_with_it() {
        let counters = Arc::new(Counters::new());
        let manager = manager(&counters);
        for times in [1, 2] {
            let card = Arc::new(Scratch::<4>::new("card"));
            let card = manager.register_device(card, None, &[IoResource::mmio(0, 4)], &[]).unwrap();
            name_devices(&counters, &manager);
            for _ in 0..times {
                manager.read(GuestAddress(0), &mut [0; 4], IoType::Mmio).unwrap();
            }
            manager.unregister_device(card).unwrap();
        }
        let summary = Summary::new(&counters);
        assert_eq!(summary.device("/card").map(|counts| counts.reads), Some(3));
        assert_eq!((summary.lines.len(), summary.lines[0].buckets.iter().sum()), (1, 3u64));
    }

    #[test]
    fn the_table_has_the_most_frequent_first_and_shares() {
        let counters = Arc::new(Counters::new());
        let manager = manager(&counters);
        let narrow = IoResource::pio(0x70, 2).sizes(AccessSizes::BYTE);
        manager.register_device(Arc::new(Scratch::<2>::new("rtc")), None, &[narrow], &[]).unwrap();
        name_devices(&counters, &manager);
        for _ in 0..3 {
            manager.read(GuestAddress(0x71), &mut [0], IoType::Pio).unwrap();
        }
        for _ in 0..6 {
            let _ = manager.read(GuestAddress(0x64), &mut [0], IoType::Pio);
        }
        let _ = manager.write(GuestAddress(0x70), &[0, 0], IoType::Pio);
        let _ = manager.read(GuestAddress(0x71), &mut [0; 4], IoType::Pio);
        let _ = manager.read(GuestAddress(0xd000_0000), &mut [0; 4], IoType::Mmio);
        let summary = Summary::new(&counters);
        assert_eq!((summary.exits, summary.unclaimed().map(|missed| missed.count).sum()), (12, 7u64));
        let text = summary.to_string();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let columns =
            |name: &str| rows.iter().find(|row| row.first() == Some(&name)).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(columns("unclaimed")[1..5], ["7", "0", "0", "10"]);
        assert_eq!(columns("/rtc")[1..5], ["3", "1", "0", "5"]);
        assert_eq!(columns("/rtc")[6..], ["33.3", "%"]);
        assert_eq!(columns("all")[1..5], ["11", "1", "0", "19"]);
        assert!(text.find("unclaimed") < text.find("/rtc"), "{text}");
        for line in [
            "         6   50.0 %  port read 0x64, 1 byte: unclaimed",
            "         1    8.3 %  port write 0x70, 2 bytes, /rtc: the device does not accept",
            "         1    8.3 %  port read 0x71, 4 bytes: the access is not wholly inside one range",
            "         1    8.3 %  memory read 0xd0000000, 4 bytes: unclaimed",
            "  12 exits in ",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn nothing_counted_is_a_table_without_rows() {
        let text = Summary::new(&Counters::new()).to_string();
        assert!(text.contains("0 exits") && !text.contains("NaN") && !text.contains("Not answered"), "{text}");
    }

    #[test]
    fn more_than_is_shown_is_added_up() {
        let counters = Arc::new(Counters::new());
        let manager = manager(&counters);
        for port in 0..100 {
            let _ = manager.read(GuestAddress(port), &mut [0], IoType::Pio);
        }
        let text = Summary::new(&counters).to_string();
        assert!(text.contains("        68   68.0 %  others, each less often"), "{text}");
    }
}
