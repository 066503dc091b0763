//! What the command line asks for.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};
use vm_device::IoType;

use super::layout::{MOST_PORT_RANGES, Pattern};
use super::{Error, measure, space_name};

/// What to measure, and how long.
pub(super) struct Plan {
    pub(super) pattern: Option<Pattern>,
    pub(super) n: Option<usize>,
    pub(super) space: Option<IoType>,
    pub(super) threads: Option<usize>,
    pub(super) rounds: usize,
    pub(super) processors: Vec<usize>,
}

impl Plan {
    /// The number of ranges asked for, or all of these.
    pub(super) fn sizes(&self, all: &[usize]) -> Vec<usize> {
        self.n.map_or_else(|| all.to_vec(), |n| vec![n])
    }

    pub(super) fn patterns(&self, all: &[Pattern]) -> Vec<Pattern> {
        all.iter().copied().filter(|pattern| self.pattern.is_none_or(|wanted| wanted == *pattern)).collect()
    }

    pub(super) fn spaces(&self) -> Vec<IoType> {
        self.space.map_or_else(|| vec![IoType::Mmio, IoType::Pio], |space| vec![space])
    }

    pub(super) fn wants_threads(&self, count: usize) -> bool {
        self.threads.is_none_or(|wanted| wanted == count)
    }

    /// Whether nothing in particular is asked for: then changes are measured too.
    pub(super) fn is_everything(&self) -> bool {
        self.pattern.is_none() && self.space.is_none() && self.threads.is_none()
    }
}

/// A plan, and where its results go besides the standard output.
pub(super) struct Options {
    pub(super) plan: Plan,
    pub(super) json: Option<PathBuf>,
    pub(super) svg: Option<PathBuf>,
}

/// What `bench` does.
pub(super) enum Job {
    /// Measures.
    Measure(Options),
    /// Measures exits under KVM, on these processors.
    Exits(Vec<usize>),
    /// Does one thing over and over.
    Loop(Loop),
}

/// What is done over and over, and how many times 4,096.
pub(super) struct Loop {
    pub(super) subject: String,
    /// None: a registration and a removal.
    pub(super) pattern: Option<Pattern>,
    pub(super) n: usize,
    pub(super) space: IoType,
    pub(super) times: usize,
}

pub(super) fn parse(arguments: &mut Parser) -> Result<Job, Error> {
    let processors = measure::processors();
    let mut plan = Plan { pattern: None, n: None, space: None, threads: None, rounds: 101, processors };
    let (mut json, mut svg) = (None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("quick") => plan.rounds = 11,
            Arg::Long("rounds") => plan.rounds = rounds(arguments.value()?.parse()?)?,
            Arg::Long("pattern") => plan.pattern = Some(pattern(&arguments.value()?.string()?)?),
            Arg::Long("n") => plan.n = Some(ranges(arguments.value()?.parse()?)?),
            Arg::Long("space") => plan.space = Some(space(&arguments.value()?.string()?)?),
            Arg::Long("threads") => plan.threads = Some(threads(arguments.value()?.parse()?, plan.processors.len())?),
            Arg::Long("json") => json = Some(PathBuf::from(arguments.value()?)),
            Arg::Long("svg") => svg = Some(PathBuf::from(arguments.value()?)),
            Arg::Value(word) if word == "exits" => return Ok(Job::Exits(plan.processors)),
            Arg::Value(word) if word == "loop" => return repeated(arguments).map(Job::Loop),
            other => return Err(other.unexpected().into()),
        }
    }
    if plan.pattern == Some(Pattern::Cold) && plan.threads == Some(2) {
        return Err(Error::Usage(
            "accesses with cold caches are measured on one thread only: leave `--threads` out".into(),
        ));
    }
    if json.is_some() && json == svg {
        return Err(Error::Usage("`--json` and `--svg` name the same file".into()));
    }
    Ok(Job::Measure(Options { plan, json, svg }))
}

/// `SUBJECT PATTERN RANGES SPACE TIMES`.
fn repeated(arguments: &mut Parser) -> Result<Loop, Error> {
    let subject = arguments.value()?.string()?;
    let word = arguments.value()?.string()?;
    Ok(Loop {
        subject,
        pattern: if word == "change" { None } else { Some(pattern(&word)?) },
        n: ranges(arguments.value()?.parse()?)?,
        space: space(&arguments.value()?.string()?)?,
        times: arguments.value()?.parse()?,
    })
}

fn pattern(name: &str) -> Result<Pattern, Error> {
    let known = Pattern::ALL.into_iter().find(|pattern| pattern.name() == name);
    known.ok_or_else(|| {
        let names = Pattern::ALL.map(Pattern::name).join(", ");
        Error::Usage(format!("there is no pattern `{name}`; there are {names}"))
    })
}

fn space(name: &str) -> Result<IoType, Error> {
    let known = [IoType::Mmio, IoType::Pio].into_iter().find(|io_type| space_name(*io_type) == name);
    known.ok_or_else(|| Error::Usage(format!("there is no space `{name}`; there are mmio, pio")))
}

fn ranges(n: usize) -> Result<usize, Error> {
    let most = MOST_PORT_RANGES;
    if (1..=most).contains(&n) { Ok(n) } else { Err(Error::Usage(format!("ranges are 1 to {most}, not {n}"))) }
}

fn rounds(count: usize) -> Result<usize, Error> {
    let most = 10_000;
    if (1..=most).contains(&count) {
        Ok(count)
    } else {
        Err(Error::Usage(format!("rounds are 1 to {most}, not {count}")))
    }
}

fn threads(count: usize, processors: usize) -> Result<usize, Error> {
    match count {
        1 => Ok(1),
        2 if processors >= 2 => Ok(2),
        2 => Err(Error::Usage(format!("2 threads need 2 processors, and the program may run on {processors}"))),
        _ => Err(Error::Usage(format!("threads are 1 or 2, not {count}"))),
    }
}
