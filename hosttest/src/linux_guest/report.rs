//! What the kernel of a Linux guest found, as `report.sh` prints it in the guest.

use std::collections::BTreeMap;
use std::fmt;

/// What a line with the name of a section, or with the end, begins with.
const MARKER: &str = "@@ ";
const END: &str = "end";

/// What the kernel found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The version of the kernel, as it says itself.
    pub kernel: String,
    /// How many processors it uses.
    pub processors: usize,
    /// `/proc/ioports`, in its order.
    pub ports: Vec<Range>,
    /// `/proc/iomem`, in its order.
    pub memory: Vec<Range>,
    /// `/proc/interrupts`.
    pub interrupts: Vec<Interrupt>,
    /// The functions on PCI buses.
    pub functions: Vec<PciFunction>,
    /// The serial ports, those too that the driver reserves and has found nothing for.
    pub serial: Vec<SerialPort>,
    /// The real-time clocks.
    pub clocks: Vec<Clock>,
    /// The signatures of the ACPI tables, with the number of the table where there are several.
    pub acpi_tables: Vec<String>,
    /// The devices of the ACPI namespace that say what they are.
    pub acpi_devices: Vec<AcpiDevice>,
    /// The source of time that is used.
    pub clock_source: String,
    /// Those that could be.
    pub clock_sources: Vec<String>,
}

/// A range of ports or memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first address.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// What the kernel calls it: a device, a driver, a bus, or what it is for.
    pub name: String,
    /// The names of the ranges that it lies in, the outermost first.
    pub within: Vec<String>,
}

/// An interrupt, as the kernel counts them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// A number, or letters for what has none (`NMI`, `LOC`).
    pub name: String,
    /// How many each processor has had, or all together for those that are counted together.
    pub counts: Vec<u64>,
    /// Who raises it: `IO-APIC`, `PCI-MSI`, `XT-PIC`. Empty for what has no number.
    pub chip: String,
    /// The line of the controller, if it is said: that of `XT-PIC` is the number itself. For a message it says the function.
    pub line: Option<u64>,
    /// `edge` or `fasteoi` (level-triggered), if it is said.
    pub trigger: String,
    /// The drivers that share it. For what has no number, what it is.
    pub users: Vec<String>,
}

impl Interrupt {
    /// How many there have been, on all processors.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A function on a PCI bus.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PciFunction {
    /// Segment, bus, device and function: `0000:00:1f.2`.
    pub address: String,
    /// The vendor's id.
    pub vendor: u16,
    /// The device id.
    pub device: u16,
    /// Class, subclass and programming interface.
    pub class: u32,
    /// The kernel's number of its interrupt, 0 if it has none.
    pub irq: u32,
    /// The driver that has it, if any.
    pub driver: Option<String>,
    /// The base address registers, the ROM, and the windows of a bridge, by the kernel's number, those alone that are in use.
    pub resources: Vec<PciResource>,
    /// The kernel's numbers of its messages, with their kind: `msi` or `msix`.
    pub messages: Vec<(u32, String)>,
}

/// A range of a PCI function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciResource {
    /// 0 to 5 for base address registers, 6 for the ROM, above for the windows of a bridge.
    pub number: usize,
    /// The first address.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Bit 8: ports; bit 9: memory; others as the kernel defines them (Linux, `include/linux/ioport.h`).
    pub flags: u64,
}

/// A serial port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SerialPort {
    /// The number in `/dev/ttyS`.
    pub number: u32,
    /// What the driver takes it for, such as `16550A`, or `unknown`.
    pub kind: String,
    /// Its first port, or its first address in memory.
    pub place: SerialPlace,
    /// The kernel's number of its interrupt, 0 if it has none.
    pub irq: u32,
    /// How many bytes were sent, if the port is known.
    pub sent: Option<u64>,
    /// How many were received, if the port is known.
    pub received: Option<u64>,
}

/// Where a serial port is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SerialPlace {
    /// From this port on.
    Port(u64),
    /// From this address on.
    Memory(u64),
}

/// A real-time clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clock {
    /// The kernel's name for it: `rtc0`.
    pub name: String,
    /// `2026-01-31`.
    pub date: String,
    /// `23:59:59`.
    pub time: String,
    /// The driver and its device.
    pub driver: String,
}

/// A device of the ACPI namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcpiDevice {
    /// Where it stands: `\_SB_.PCI0`.
    pub path: String,
    /// What it says that it is, such as `PNP0A03`.
    pub id: String,
}

/// There is no report, or a line of it makes no sense.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The report does not begin.
    None,
    /// It begins and does not end.
    NoEnd,
    /// This section is not in it.
    NoSection(&'static str),
    /// A line makes no sense in its section.
    Line {
        /// The section.
        section: &'static str,
        /// The line.
        line: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::None => f.write_str("the guest reported nothing"),
            Error::NoEnd => f.write_str("the report of the guest breaks off"),
            Error::NoSection(section) => write!(f, "the report of the guest has no section {section}"),
            Error::Line { section, line } => write!(f, "in section {section} the guest reported: {line}"),
        }
    }
}

impl std::error::Error for Error {}

impl Report {
    /// Reads the first report in an output of the guest. Messages of the kernel between its lines are passed over.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(output: &str) -> Result<Self, Error> {
        Self::of(&sections(&mut lines(output))?)
    }

    /// Reads all reports in an output of the guest, in their order: one at least.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read_all(output: &str) -> Result<Vec<Self>, Error> {
        let mut lines = lines(output);
        let mut reports = vec![Self::of(&sections(&mut lines)?)?];
        loop {
            match sections(&mut lines) {
                Ok(sections) => reports.push(Self::of(&sections)?),
                Err(Error::None) => return Ok(reports),
                Err(error) => return Err(error),
            }
        }
    }

    fn of(sections: &BTreeMap<&str, Vec<&str>>) -> Result<Self, Error> {
        let section = |name: &'static str| sections.get(name).ok_or(Error::NoSection(name));
        let clock_sources = section("clocksource")?;
        let (acpi_devices, acpi_tables) =
            section("acpi")?.iter().partition::<Vec<&str>, _>(|line| line.starts_with("device "));
        Ok(Report {
            kernel: section("kernel")?.join(" "),
            processors: section("processors")?.len(),
            ports: ranges("ioports", section("ioports")?)?,
            memory: ranges("iomem", section("iomem")?)?,
            interrupts: interrupts("interrupts", section("interrupts")?)?,
            functions: functions("pci", section("pci")?)?,
            serial: serial("serial", section("serial")?)?,
            clocks: each("rtc", section("rtc")?, clock)?,
            acpi_tables: acpi_tables.into_iter().map(str::to_owned).collect(),
            acpi_devices: each("acpi", &acpi_devices, acpi_device)?,
            clock_source: clock_sources.first().map_or_else(String::new, |name| (*name).to_owned()),
            clock_sources: clock_sources
                .get(1)
                .into_iter()
                .flat_map(|names| names.split(' '))
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// The lines of an output, as they were before the serial console.
fn lines(output: &str) -> impl Iterator<Item = &str> {
    output.lines().map(|line| line.trim_end_matches('\r'))
}

/// The lines of each section of the next report.
fn sections<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Result<BTreeMap<&'a str, Vec<&'a str>>, Error> {
    let mut sections = BTreeMap::new();
    let mut current: Option<&mut Vec<&str>> = None;
    for line in lines {
        match line.strip_prefix(MARKER) {
            Some(END) if current.is_some() => return Ok(sections),
            Some(END) => {}
            Some(name) => current = Some(sections.entry(name).or_default()),
            None if is_kernel_message(line) => {}
            None => current.iter_mut().for_each(|lines| lines.push(line)),
        }
    }
    Err(if sections.is_empty() { Error::None } else { Error::NoEnd })
}

/// A message begins with the time in brackets, in seconds.
fn is_kernel_message(line: &str) -> bool {
    let time = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    time.is_some_and(|(time, _)| time.trim().parse::<f64>().is_ok())
}

/// Reads each line, in order.
fn each<T>(section: &'static str, lines: &[&str], mut read: impl FnMut(&str) -> Option<T>) -> Result<Vec<T>, Error> {
    lines.iter().map(|line| read(line).ok_or_else(|| no_sense(section, line))).collect()
}

fn no_sense(section: &'static str, line: &str) -> Error {
    Error::Line { section, line: line.to_owned() }
}

/// `  0000-001f : dma1`, two spaces further to the right than what it lies in.
fn ranges(section: &'static str, lines: &[&str]) -> Result<Vec<Range>, Error> {
    let mut outer: Vec<String> = Vec::new();
    each(section, lines, |line| {
        let inner = line.trim_start_matches(' ');
        outer.truncate((line.len() - inner.len()) / 2);
        let (first, rest) = inner.split_once('-')?;
        let (last, name) = rest.split_once(" : ")?;
        let range = Range {
            first: hexadecimal(first)?,
            last: hexadecimal(last)?,
            name: name.to_owned(),
            within: outer.clone(),
        };
        outer.push(name.to_owned());
        Some(range)
    })
}

/// A header that names the processors; then `  4:   12   0   IO-APIC   4-edge      ttyS0, ttyS1`.
fn interrupts(section: &'static str, lines: &[&str]) -> Result<Vec<Interrupt>, Error> {
    let (header, lines) = lines.split_first().ok_or_else(|| no_sense(section, ""))?;
    let processors = header.split_whitespace().count();
    each(section, lines, |line| {
        let (name, rest) = line.trim_start().split_once(':')?;
        let mut words = rest.split_whitespace().peekable();
        let mut counts = Vec::new();
        while counts.len() < processors
            && let Some(count) = words.peek().and_then(|word| word.parse().ok())
        {
            counts.push(count);
            words.next();
        }
        if counts.is_empty() {
            return None;
        }
        let mut interrupt = Interrupt {
            name: name.to_owned(),
            counts,
            chip: String::new(),
            line: None,
            trigger: String::new(),
            users: Vec::new(),
        };
        if name.parse::<u32>().is_ok() {
            interrupt.chip = words.next()?.to_owned();
            let line = words.peek().map(|word| word.split_once('-').unwrap_or((word, "")));
            if let Some((number, trigger)) = line
                && let Ok(number) = number.parse()
            {
                interrupt.line = Some(number);
                interrupt.trigger = trigger.to_owned();
                words.next();
            }
        }
        let users = words.collect::<Vec<_>>().join(" ");
        interrupt.users = users.split(", ").filter(|user| !user.is_empty()).map(str::to_owned).collect();
        Some(interrupt)
    })
}

/// A line of the function's own; one for each of its ranges, with number, first and last address and flags; one for each message.
fn functions(section: &'static str, lines: &[&str]) -> Result<Vec<PciFunction>, Error> {
    let mut functions: Vec<PciFunction> = Vec::new();
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        let read = match (words.as_slice(), functions.last_mut()) {
            (["function", address, vendor, device, class, irq, driver], _) => {
                function(address, [vendor, device, class], irq, driver).map(|function| functions.push(function))
            }
            (["message", irq, kind], Some(function)) => {
                irq.parse().ok().map(|irq| function.messages.push((irq, (*kind).to_owned())))
            }
            (["resource", number, first, last, flags], Some(function)) => {
                resource(number, [first, last, flags]).map(|resource| function.resources.push(resource))
            }
            _ => None,
        };
        read.ok_or_else(|| no_sense(section, line))?;
    }
    Ok(functions)
}

fn function(address: &str, [vendor, device, class]: [&str; 3], irq: &str, driver: &str) -> Option<PciFunction> {
    Some(PciFunction {
        address: address.to_owned(),
        vendor: hexadecimal(vendor)?.try_into().ok()?,
        device: hexadecimal(device)?.try_into().ok()?,
        class: hexadecimal(class)?.try_into().ok()?,
        irq: irq.parse().ok()?,
        driver: (driver != "-").then(|| driver.to_owned()),
        ..PciFunction::default()
    })
}

fn resource(number: &str, [first, last, flags]: [&str; 3]) -> Option<PciResource> {
    let [first, last, flags] = [first, last, flags].map(hexadecimal);
    Some(PciResource { number: number.parse().ok()?, first: first?, last: last?, flags: flags? })
}

/// A header; then `0: uart:16550A port:000003F8 irq:4 tx:100 rx:0 RTS|DTR`.
fn serial(section: &'static str, lines: &[&str]) -> Result<Vec<SerialPort>, Error> {
    each(section, lines.get(1..).unwrap_or_default(), |line| {
        let (number, rest) = line.split_once(": ")?;
        let fields: BTreeMap<_, _> = rest.split_whitespace().filter_map(|field| field.split_once(':')).collect();
        let place = match (fields.get("port"), fields.get("mmio")) {
            (Some(port), _) => SerialPlace::Port(hexadecimal(port)?),
            (None, address) => SerialPlace::Memory(hexadecimal(address?)?),
        };
        Some(SerialPort {
            number: number.parse().ok()?,
            kind: (*fields.get("uart")?).to_owned(),
            place,
            irq: fields.get("irq")?.parse().ok()?,
            sent: fields.get("tx").and_then(|count| count.parse().ok()),
            received: fields.get("rx").and_then(|count| count.parse().ok()),
        })
    })
}

/// `clock rtc0 2026-01-31 23:59:59 rtc_cmos 00:04`
fn clock(line: &str) -> Option<Clock> {
    let mut words = line.strip_prefix("clock ")?.splitn(4, ' ').map(str::to_owned);
    Some(Clock { name: words.next()?, date: words.next()?, time: words.next()?, driver: words.next()? })
}

/// `device \_SB_.PCI0 PNP0A03`
fn acpi_device(line: &str) -> Option<AcpiDevice> {
    let (path, id) = line.strip_prefix("device ")?.split_once(' ')?;
    Some(AcpiDevice { path: path.to_owned(), id: id.to_owned() })
}

/// With `0x` before it or without.
fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest's output, with a line for each thing that there can be.
    const OUTPUT: &str = "\
hello from the guest\r
@@ kernel\r
Linux version 6.1.0-56-amd64 (gcc-12) #1 SMP\r
@@ processors\r
processor\t: 0\r
processor\t: 1\r
@@ ioports\r
0000-0cf7 : PCI Bus 0000:00\r
  0060-0060 : keyboard\r
  0600-063f : 0000:00:01.3\r
    0600-0603 : ACPI PM1a_EVT_BLK\r
[    6.785340] hpet: lost 4 rtc interrupts\r
0cf8-0cff : PCI conf1\r
@@ iomem\r
00100000-1ffdffff : System RAM\r
  16200000-17001ef1 : Kernel code\r
fd00000000-ffffffffff : Reserved\r
@@ interrupts\r
           CPU0       CPU1       \r
  0:        136          0    XT-PIC      timer\r
  4:          0         18   IO-APIC   4-edge      ttyS0, ttyS4\r
  9:          0          0   IO-APIC   9-fasteoi\r
 24:          7          1   PCI-MSI 16384-edge      PCIe PME, aerdrv\r
NMI:          2          3   Non-maskable interrupts\r
ERR:          5\r
@@ pci\r
function 0000:00:00.0 0x8086 0x1237 0x060000 0 -\r
function 0000:00:05.0 0x1b36 0x0002 0x070002 10 serial\r
resource 0 0x000000000000c010 0x000000000000c017 0x0000000000040101\r
resource 6 0x00000000fe800000 0x00000000fe800fff 0x0000000000040200\r
message 24 msix\r
@@ serial\r
serinfo:1.0 driver revision:\r
0: uart:16550A port:000003F8 irq:4 tx:6930 rx:2 RTS|CTS|DTR|DSR|CD\r
1: uart:16550A mmio:0xFEB00000 irq:24 tx:0 rx:0\r
2: uart:unknown port:000003E8 irq:4\r
@@ rtc\r
clock rtc0 2026-11-27 18:38:14 rtc_cmos 00:04\r
@@ acpi\r
APIC\r
SSDT2\r
device \\_SB_.PCI0 PNP0A03\r
device \\_SB_.PCI0.COM1 PNP0501\r
@@ clocksource\r
tsc\r
tsc hpet acpi_pm\r
@@ end\r
[    6.785340] reboot: Power down\r
";

    fn range(first: u64, last: u64, name: &str, within: &[&str]) -> Range {
        Range { first, last, name: name.into(), within: within.iter().map(|name| (*name).into()).collect() }
    }

    #[test]
    fn ranges_know_what_they_lie_in() {
        let report = Report::read(OUTPUT).unwrap();
        let (bus, function) = ("PCI Bus 0000:00", "0000:00:01.3");
        let ports = [
            range(0, 0xcf7, bus, &[]),
            range(0x60, 0x60, "keyboard", &[bus]),
            range(0x600, 0x63f, function, &[bus]),
            range(0x600, 0x603, "ACPI PM1a_EVT_BLK", &[bus, function]),
            range(0xcf8, 0xcff, "PCI conf1", &[]),
        ];
        assert_eq!(report.ports, ports);
        let memory = [
            range(0x10_0000, 0x1ffd_ffff, "System RAM", &[]),
            range(0x1620_0000, 0x1700_1ef1, "Kernel code", &["System RAM"]),
            range(0xfd_0000_0000, 0xff_ffff_ffff, "Reserved", &[]),
        ];
        assert_eq!(report.memory, memory);
    }

    #[test]
    fn interrupts_have_counts_and_those_with_a_number_a_controller() {
        let report = Report::read(OUTPUT).unwrap();
        let interrupt = |name: &str, counts: &[u64], chip: &str, line, trigger: &str, users: &[&str]| Interrupt {
            name: name.into(),
            counts: counts.into(),
            chip: chip.into(),
            line,
            trigger: trigger.into(),
            users: users.iter().map(|user| (*user).into()).collect(),
        };
        let expected = [
            interrupt("0", &[136, 0], "XT-PIC", None, "", &["timer"]),
            interrupt("4", &[0, 18], "IO-APIC", Some(4), "edge", &["ttyS0", "ttyS4"]),
            interrupt("9", &[0, 0], "IO-APIC", Some(9), "fasteoi", &[]),
            interrupt("24", &[7, 1], "PCI-MSI", Some(16384), "edge", &["PCIe PME", "aerdrv"]),
            interrupt("NMI", &[2, 3], "", None, "", &["Non-maskable interrupts"]),
            interrupt("ERR", &[5], "", None, "", &[]),
        ];
        assert_eq!(report.interrupts, expected);
        assert_eq!(report.interrupts[3].total(), 8);
    }

    #[test]
    fn functions_have_what_follows_them() {
        let report = Report::read(OUTPUT).unwrap();
        let bridge = PciFunction {
            address: "0000:00:00.0".into(),
            vendor: 0x8086,
            device: 0x1237,
            class: 0x06_0000,
            ..PciFunction::default()
        };
        let serial = PciFunction {
            address: "0000:00:05.0".into(),
            vendor: 0x1b36,
            device: 2,
            class: 0x07_0002,
            irq: 10,
            driver: Some("serial".into()),
            resources: vec![
                PciResource { number: 0, first: 0xc010, last: 0xc017, flags: 0x4_0101 },
                PciResource { number: 6, first: 0xfe80_0000, last: 0xfe80_0fff, flags: 0x4_0200 },
            ],
            messages: vec![(24, "msix".into())],
        };
        assert_eq!(report.functions, [bridge, serial]);
    }

    #[test]
    fn serial_ports_are_at_ports_or_in_memory_and_may_be_unknown() {
        let report = Report::read(OUTPUT).unwrap();
        let port = |number, kind: &str, place, irq, counts: Option<(u64, u64)>| SerialPort {
            number,
            kind: kind.into(),
            place,
            irq,
            sent: counts.map(|(sent, _)| sent),
            received: counts.map(|(_, received)| received),
        };
        let expected = [
            port(0, "16550A", SerialPlace::Port(0x3f8), 4, Some((6930, 2))),
            port(1, "16550A", SerialPlace::Memory(0xfeb0_0000), 24, Some((0, 0))),
            port(2, "unknown", SerialPlace::Port(0x3e8), 4, None),
        ];
        assert_eq!(report.serial, expected);
    }

    #[test]
    fn the_rest_is_read_as_it_stands() {
        let report = Report::read(OUTPUT).unwrap();
        assert_eq!(report.kernel, "Linux version 6.1.0-56-amd64 (gcc-12) #1 SMP");
        assert_eq!(report.processors, 2);
        let [clock] = &report.clocks[..] else { panic!("{:?}", report.clocks) };
        let clock = [&clock.name, &clock.date, &clock.time, &clock.driver];
        assert_eq!(clock, ["rtc0", "2026-11-27", "18:38:14", "rtc_cmos 00:04"]);
        assert_eq!(report.acpi_tables, ["APIC", "SSDT2"]);
        let devices: Vec<_> = report.acpi_devices.iter().map(|device| (&*device.path, &*device.id)).collect();
        assert_eq!(devices, [(r"\_SB_.PCI0", "PNP0A03"), (r"\_SB_.PCI0.COM1", "PNP0501")]);
        assert_eq!((report.clock_source.as_str(), report.clock_sources.join(" ")), ("tsc", "tsc hpet acpi_pm".into()));
    }

    #[test]
    fn a_report_that_is_not_there_or_breaks_off_is_no_report() {
        assert_eq!(Report::read("hello\n@@ end\n"), Err(Error::None));
        let (half, _) = OUTPUT.split_once("@@ pci").unwrap();
        assert_eq!(Report::read(half), Err(Error::NoEnd));
        for section in ["kernel", "processors", "ioports", "iomem", "interrupts", "pci", "serial", "rtc", "acpi"] {
            let renamed = OUTPUT.replace(&format!("@@ {section}\r"), "@@ other\r");
            assert_eq!(Report::read(&renamed), Err(Error::NoSection(section)));
        }
    }

    #[test]
    fn an_output_has_several_reports_of_which_each_has_an_end() {
        let second = OUTPUT.replace("0060-0060 : keyboard", "0061-0061 : speaker");
        let both = format!("{OUTPUT}between\n{second}after\n");
        let reports = Report::read_all(&both).unwrap();
        let names: Vec<_> = reports.iter().map(|report| report.ports[1].name.as_str()).collect();
        assert_eq!(names, ["keyboard", "speaker"]);
        assert_eq!(Report::read(&both).as_ref(), Ok(&reports[0]));
        assert_eq!(Report::read_all("hello\n"), Err(Error::None));
        assert_eq!(Report::read_all(&format!("{OUTPUT}@@ kernel\n")), Err(Error::NoEnd));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named_with_its_section() {
        for (section, old, new) in [
            ("ioports", "0cf8-0cff : PCI", "0cf8..0cff : PCI"),
            ("iomem", "00100000-", "0010000x-"),
            ("interrupts", "ERR:          5", "ERR:          ?"),
            ("interrupts", "PCI-MSI 16384-edge      PCIe PME, aerdrv", ""),
            ("pci", "0x8086 0x1237", "0x18086 0x1237"),
            ("pci", "message 24", "message x"),
            ("pci", "function 0000:00:05.0", "0000:00:05.0"),
            ("serial", "irq:24", "irq:x"),
            ("serial", "mmio:0xFEB00000 ", ""),
            ("rtc", "clock rtc0", "rtc0"),
        ] {
            assert!(OUTPUT.contains(old), "{old}");
            let error = Report::read(&OUTPUT.replace(old, new)).unwrap_err();
            assert!(matches!(&error, Error::Line { section: named, .. } if *named == section), "{new}: {error:?}");
        }
    }
}
