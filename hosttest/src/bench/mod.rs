//! Speed beside the peers: `hosttest bench`.
//!
//! Every subject is measured once a round, in turn with all others, in one process and on one processor; what is printed
//! are medians over the rounds. Absolute figures belong to a machine and a moment: the ratios within one run are what
//! counts.

mod changes;
mod exits;
mod floors;
mod goals;
mod layout;
mod measure;
mod ours;
mod peers;
mod picture;
mod report;
mod schemes;
mod subject;

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use lexopt::{Arg, Parser, ValueExt};
use vm_device::IoType;

use layout::{Layout, Pattern};
use measure::{Eviction, interleaved};
use report::{Report, Work};
use subject::Subject;

use crate::vm::Unavailable;

/// Why there is no benchmark, or why it stopped.
#[derive(Debug)]
pub enum Error {
    /// The command line makes no sense.
    Usage(String),
    /// The output went nowhere.
    Output(io::Error),
    /// There is no KVM.
    Kvm(Unavailable),
    /// A guest could not be started.
    Guest(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(error) | Error::Guest(error) => f.write_str(error),
            Error::Kvm(error) => error.fmt(f),
            Error::Output(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<lexopt::Error> for Error {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What to measure, and how long.
struct Plan {
    pattern: Option<Pattern>,
    n: Option<usize>,
    rounds: usize,
    processors: Vec<usize>,
}

impl Plan {
    /// The number of ranges asked for, or all of these.
    fn sizes(&self, all: &[usize]) -> Vec<usize> {
        self.n.map_or_else(|| all.to_vec(), |n| vec![n])
    }

    fn patterns(&self, all: &[Pattern]) -> Vec<Pattern> {
        all.iter().copied().filter(|pattern| self.pattern.is_none_or(|wanted| wanted == *pattern)).collect()
    }
}

/// How many addresses are accessed in turn, so that no branch predictor learns them.
const ADDRESSES: usize = 1 << 16;

/// `bench [--quick] [--pattern NAME] [--n RANGES] [--json FILE] [--svg FILE]` measures all subjects; `bench exits` measures
/// real exits under KVM; `bench loop SUBJECT PATTERN RANGES SPACE TIMES` only runs one dispatch or change, over and over, for
/// a program that counts instructions.
///
/// # Errors
/// [`Error`].
pub fn run(arguments: &mut Parser) -> Result<(), Error> {
    let mut plan = Plan { pattern: None, n: None, rounds: 101, processors: measure::processors() };
    let (mut json, mut svg) = (None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("quick") => plan.rounds = 11,
            Arg::Long("pattern") => plan.pattern = Some(pattern(&arguments.value()?.string()?)?),
            Arg::Long("n") => plan.n = Some(ranges(arguments.value()?.parse()?)?),
            Arg::Long("json") => json = Some(PathBuf::from(arguments.value()?)),
            Arg::Long("svg") => svg = Some(PathBuf::from(arguments.value()?)),
            Arg::Value(word) if word == "exits" => return exits::run(&plan.processors),
            Arg::Value(word) if word == "loop" => return repeat(arguments),
            other => return Err(other.unexpected().into()),
        }
    }
    if let Some(processor) = plan.processors.first() {
        measure::pin(*processor);
    }
    let mut report = Report::new(json.as_deref())?;
    dispatch(&plan, &mut report)?;
    if plan.pattern.is_none() {
        changes::run(&plan, &mut report)?;
        goals::print(&report)?;
    }
    report.finish()?;
    if let Some(svg) = svg {
        picture::draw(&report, &svg)?;
    }
    Ok(())
}

fn pattern(name: &str) -> Result<Pattern, Error> {
    let known = Pattern::ALL.into_iter().find(|pattern| pattern.name() == name);
    known.ok_or_else(|| {
        let names = Pattern::ALL.map(Pattern::name).join(", ");
        Error::Usage(format!("there is no pattern `{name}`; there are {names}"))
    })
}

fn ranges(n: usize) -> Result<usize, Error> {
    let most = layout::MOST_PORT_RANGES;
    if (1..=most).contains(&n) { Ok(n) } else { Err(Error::Usage(format!("ranges are 1 to {most}, not {n}"))) }
}

fn subjects(layout: &Layout) -> Vec<Subject> {
    let mut subjects = floors::floors(layout);
    subjects.extend(ours::subjects(layout));
    subjects.extend(peers::subjects(layout));
    subjects.extend(schemes::subjects(layout));
    subjects
}

fn space_name(io_type: IoType) -> &'static str {
    if io_type == IoType::Pio { "pio" } else { "mmio" }
}

/// The subjects of one layout, and what they are to read.
struct Stage {
    subjects: Vec<Subject>,
    addresses: Vec<u64>,
    /// The same, as numbers of ranges.
    numbers: Vec<u64>,
    work: Work,
}

impl Stage {
    fn new(io_type: IoType, pattern: Pattern, n: usize) -> Self {
        let layout = Layout::new(io_type, n, pattern.types());
        let addresses = layout.addresses(pattern, ADDRESSES);
        let number = |address: &u64| layout.ranges.partition_point(|(first, _)| first <= address) as u64 - 1;
        let mut subjects = subjects(&layout);
        // In a hole there is nobody to call.
        subjects.retain(|subject| pattern != Pattern::Miss || !subject.knows_range);
        let numbers = addresses.iter().map(number).collect();
        let (pattern, space) = (pattern.name().into(), space_name(io_type));
        Self { subjects, addresses, numbers, work: Work { bench: "dispatch", pattern, space, n, threads: 1 } }
    }

    fn addresses_of(&self, subject: &Subject) -> &[u64] {
        if subject.knows_range { &self.numbers } else { &self.addresses }
    }

    fn names(&self) -> Vec<&'static str> {
        self.subjects.iter().map(|subject| subject.name).collect()
    }
}

fn dispatch(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    use Pattern::{Cold, Hot, Miss, Random, Same, Types};
    for pattern in plan.patterns(&[Same, Random, Hot, Miss, Types]) {
        for n in plan.sizes(&[1, 8, 64, 256, 1024, 4096]) {
            one_thread(plan, report, IoType::Mmio, pattern, n)?;
        }
    }
    for pattern in plan.patterns(&[Same, Random]) {
        for n in plan.sizes(&[8, 64, 1024]) {
            one_thread(plan, report, IoType::Pio, pattern, n)?;
        }
    }
    for _ in plan.patterns(&[Cold]) {
        for n in plan.sizes(&[64, 1024]) {
            cold(plan, report, n)?;
        }
    }
    if let [first, second, ..] = plan.processors[..] {
        for pattern in plan.patterns(&[Same, Random]) {
            for n in plan.sizes(&[64]) {
                two_threads(plan, report, [first, second], pattern, n)?;
            }
        }
        for _ in plan.patterns(&[Random]) {
            for n in plan.sizes(&[64]) {
                churn(plan, report, [first, second], n)?;
            }
        }
    }
    Ok(())
}

fn one_thread(plan: &Plan, report: &mut Report, io_type: IoType, pattern: Pattern, n: usize) -> io::Result<()> {
    let stage = Stage::new(io_type, pattern, n);
    report.progress(&stage.work);
    let mut readers: Vec<_> = stage.subjects.iter().map(|subject| (subject.reader)()).collect();
    let figures = interleaved(plan.rounds, stage.subjects.len(), |which, round| {
        measure::one_thread(&mut *readers[which], stage.addresses_of(&stage.subjects[which]), round)
    });
    report.add(&stage.work, &stage.names(), &figures)
}

fn cold(plan: &Plan, report: &mut Report, n: usize) -> io::Result<()> {
    const ACCESSES: usize = 5;
    let stage = Stage::new(IoType::Mmio, Pattern::Cold, n);
    report.progress(&stage.work);
    let mut eviction = Eviction::new();
    let mut readers: Vec<_> = stage.subjects.iter().map(|subject| (subject.reader)()).collect();
    let figures = interleaved(plan.rounds.min(31), stage.subjects.len(), |which, round| {
        let addresses = stage.addresses_of(&stage.subjects[which]).chunks(ACCESSES).nth(round).unwrap_or_default();
        eviction.cold(&mut *readers[which], addresses)
    });
    report.add(&stage.work, &stage.names(), &figures)
}

fn two_threads(plan: &Plan, report: &mut Report, on: [usize; 2], pattern: Pattern, n: usize) -> io::Result<()> {
    let stage = Stage::new(IoType::Mmio, pattern, n);
    let work = Work { threads: 2, ..stage.work.clone() };
    report.progress(&work);
    let figures = interleaved(plan.rounds.min(31), stage.subjects.len(), |which, _| {
        let subject = &stage.subjects[which];
        measure::threads(subject, &on, stage.addresses_of(subject))
    });
    report.add(&work, &stage.names(), &figures)
}

/// While one processor reads, the other one adds and removes a device.
fn churn(plan: &Plan, report: &mut Report, on: [usize; 2], n: usize) -> io::Result<()> {
    let stage = Stage::new(IoType::Mmio, Pattern::Random, n);
    let changing: Vec<_> = stage.subjects.iter().filter(|subject| subject.change.is_some()).collect();
    let names: Vec<_> = changing.iter().map(|subject| subject.name).collect();
    for (interval, name) in [(1000, "random, changed every 1 ms"), (10, "random, changed every 10 us")] {
        let work = Work { pattern: name.into(), bench: "churn", ..stage.work.clone() };
        report.progress(&work);
        let figures = interleaved(plan.rounds.min(21), changing.len(), |which, _| {
            measure::while_changing(changing[which], on, Duration::from_micros(interval), &stage.addresses)
        });
        report.add(&work, &names, &figures)?;
    }
    Ok(())
}

/// `loop SUBJECT PATTERN RANGES SPACE TIMES`: each time is 4,096 dispatches, or with `change` for the pattern as many
/// registrations and removals.
fn repeat(arguments: &mut Parser) -> Result<(), Error> {
    let subject = arguments.value()?.string()?;
    let word = arguments.value()?.string()?;
    let is_change = word == "change";
    let pattern = if is_change { Pattern::Same } else { pattern(&word)? };
    let n = ranges(arguments.value()?.parse()?)?;
    let io_type = if arguments.value()? == "pio" { IoType::Pio } else { IoType::Mmio };
    let times: usize = arguments.value()?.parse()?;
    let stage = Stage::new(io_type, pattern, n);
    let subject = stage.subjects.iter().find(|candidate| candidate.name == subject);
    let subject = subject.ok_or_else(|| Error::Usage(format!("subjects are {}", stage.names().join(", "))))?;
    if is_change {
        let change = subject.change.as_ref().ok_or_else(|| Error::Usage(format!("{} is not changed", subject.name)))?;
        (0..4096 * times).for_each(|_| change());
        return Ok(());
    }
    let mut reader = (subject.reader)();
    for _ in 0..times {
        reader.read_all(&stage.addresses_of(subject)[..4096]);
    }
    Ok(())
}
