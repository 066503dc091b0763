//! What the command line asks for.

use std::path::PathBuf;

use clap::Args;
use vm_device::IoType;

use super::error::Error;
use super::exit_path::Order;
use super::layout::{MOST_PORT_RANGES, Pattern, space_name};
use super::measure;

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

/// How often everything is measured.
#[derive(Args, Clone, Debug)]
pub(super) struct Rounds {
    /// Measure in 11 rounds instead of 101
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// Measure in this number of rounds
    #[arg(long, value_name = "COUNT", default_value_t = 101, value_parser = rounds)]
    rounds: usize,
}

impl Rounds {
    pub(super) fn count(&self) -> usize {
        if self.quick { 11 } else { self.rounds }
    }
}

/// What `bench` measures, and where the results go besides the standard output.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    rounds: Rounds,
    /// Measure this pattern alone
    #[arg(long, value_name = "NAME", value_parser = pattern)]
    pattern: Option<Pattern>,
    /// Measure among this number of ranges alone
    #[arg(long, value_name = "RANGES", value_parser = ranges)]
    n: Option<usize>,
    /// Measure in this space alone, `mmio` or `pio`
    #[arg(long, value_name = "SPACE", value_parser = space)]
    space: Option<IoType>,
    /// Measure on this number of threads alone, 1 or 2
    #[arg(long, value_name = "COUNT", value_parser = threads)]
    threads: Option<usize>,
    /// Keep the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Draw the figures
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}

/// What is done over and over.
#[derive(Args, Clone, Debug)]
pub struct Loop {
    /// A row of the benchmark's tables
    pub(super) subject: String,
    /// A pattern, for dispatches; or `change`, for registrations and removals
    #[arg(value_parser = repeated)]
    pub(super) pattern: Repeated,
    /// How many ranges there are
    #[arg(value_name = "RANGES", value_parser = ranges)]
    pub(super) n: usize,
    /// `mmio` or `pio`
    #[arg(value_parser = space)]
    pub(super) space: IoType,
    /// How often 4,096 of them are done
    pub(super) times: usize,
}

/// How the path of an exit is measured, and where the results go besides the standard output.
#[derive(Args, Clone, Debug)]
pub struct ExitPath {
    #[command(flatten)]
    pub(super) rounds: Rounds,
    /// Keep the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

/// Which step of an exit's path is done over and over.
#[derive(Args, Clone, Debug)]
pub struct ExitLoop {
    /// A path, as `x86 mmio`
    pub(super) path: String,
    /// A step of the path, as `decode`
    pub(super) step: String,
    /// A row of the step's table
    pub(super) way: String,
    /// The order of the samples
    pub(super) order: Order,
    /// How often 4,096 of them are done
    pub(super) times: usize,
}

/// A dispatch of a pattern, or, without one, a registration and a removal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeated(pub(super) Option<Pattern>);

impl Options {
    /// What they come to on this machine.
    pub(super) fn plan(&self) -> Result<Plan, Error> {
        let processors = measure::processors();
        let Self { pattern, n, space, threads, .. } = *self;
        if pattern == Some(Pattern::Cold) && threads == Some(2) {
            return Err(Error::Usage(
                "accesses with cold caches are measured on one thread only: leave `--threads` out".into(),
            ));
        }
        if self.json.is_some() && self.json == self.svg {
            return Err(Error::Usage("`--json` and `--svg` name the same file".into()));
        }
        if threads == Some(2) && processors.len() < 2 {
            return Err(Error::Usage("`--threads 2` needs 2 processors, and the program may run on one".into()));
        }
        Ok(Plan { pattern, n, space, threads, rounds: self.rounds.count(), processors })
    }
}

fn pattern(name: &str) -> Result<Pattern, String> {
    let known = Pattern::ALL.into_iter().find(|pattern| pattern.name() == name);
    known.ok_or_else(|| format!("there are {}", Pattern::ALL.map(Pattern::name).join(", ")))
}

fn repeated(name: &str) -> Result<Repeated, String> {
    match name {
        "change" => Ok(Repeated(None)),
        name => pattern(name).map(Some).map(Repeated).map_err(|patterns| format!("{patterns}, change")),
    }
}

fn space(name: &str) -> Result<IoType, String> {
    let known = [IoType::Mmio, IoType::Pio].into_iter().find(|io_type| space_name(*io_type) == name);
    known.ok_or_else(|| "there are mmio, pio".into())
}

fn ranges(text: &str) -> Result<usize, String> {
    at_most(MOST_PORT_RANGES, text)
}

fn rounds(text: &str) -> Result<usize, String> {
    at_most(10_000, text)
}

fn threads(text: &str) -> Result<usize, String> {
    at_most(2, text)
}

/// A number from 1 to `most`.
fn at_most(most: usize, text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|error| format!("{error}"))?;
    if (1..=most).contains(&number) { Ok(number) } else { Err(format!("{number} is not in 1 to {most}")) }
}
