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
    /// The devices of the ACPI namespace that have a path.
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
    /// The line of the controller, if it has any. For a message: bus, device and function, and the number of the message.
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
    /// 0 to 5 for base address registers, 6 for the ROM.
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
    /// What it says that it is, such as `PNP0A03`, or `device` where it says nothing.
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
        let sections = sections(output)?;
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

/// The lines of each section.
fn sections(output: &str) -> Result<BTreeMap<&str, Vec<&str>>, Error> {
    let mut sections = BTreeMap::new();
    let mut current: Option<&mut Vec<&str>> = None;
    for line in output.lines().map(|line| line.trim_end_matches('\r')) {
        match line.strip_prefix(MARKER) {
            Some(END) if current.is_some() => return Ok(sections),
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

/// Reads each line.
fn each<T>(section: &'static str, lines: &[&str], read: fn(&str) -> Option<T>) -> Result<Vec<T>, Error> {
    lines.iter().map(|line| read(line).ok_or_else(|| no_sense(section, line))).collect()
}

fn no_sense(section: &'static str, line: &str) -> Error {
    Error::Line { section, line: line.to_owned() }
}

/// `  0000-001f : dma1`, two spaces further to the right than what it lies in.
fn ranges(section: &'static str, lines: &[&str]) -> Result<Vec<Range>, Error> {
    let mut outer: Vec<String> = Vec::new();
    let read = |line: &&str| {
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
    };
    let ranges: Vec<_> = lines.iter().map(read).collect();
    let lines = lines.iter().zip(ranges);
    lines.map(|(line, range)| range.ok_or_else(|| no_sense(section, line))).collect()
}

/// A header that names the processors; then `  4:   12   0   IO-APIC   4-edge      ttyS0, ttyS1`.
fn interrupts(section: &'static str, lines: &[&str]) -> Result<Vec<Interrupt>, Error> {
    let (header, lines) = lines.split_first().ok_or_else(|| no_sense(section, ""))?;
    let processors = header.split_whitespace().count();
    let read = |line: &str| {
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
    };
    lines.iter().map(|line| read(line).ok_or_else(|| no_sense(section, line))).collect()
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
