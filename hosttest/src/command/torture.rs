//! `hosttest torture`

use std::io::{self, Write};
use std::time::Duration;

use hosttest::membarrier::heavy_barrier;
use hosttest::torture::{self, MAX_HANDLES, Options, Report, threads};
use hosttest::vm::kvm;
use lexopt::{Arg, Parser, ValueExt};

use super::CommandError;

pub(super) const USAGE: &str = "torture [--kvm | --pair] [--seconds N] [--seed N] [--asymmetric] [--until-violation]
          [--handles N] [--anonymous N] [--writers N]";

pub(super) const ABOUT: &str =
    "accesses against changes of the topology, for 10 seconds: on threads, with 2 readers that
          have a dispatcher, 1 that has none and 1 writer; then, or with --pair only, by one reader and one
          writer of one device; or with --kvm by a guest with two processors. --asymmetric takes the fence
          out of dispatch and has each removal call membarrier(2)";

pub(super) fn execute(arguments: &mut Parser) -> Result<bool, CommandError> {
    let mut options = Options::default();
    let (mut in_guest, mut only_pair) = (false, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("kvm") => in_guest = true,
            Arg::Long("pair") => only_pair = true,
            Arg::Long("until-violation") => options.until_violation = true,
            Arg::Long("asymmetric") => options.asymmetric = true,
            Arg::Long("seconds") => options.time = Duration::from_secs(arguments.value()?.parse()?),
            Arg::Long("seed") => options.seed = arguments.value()?.parse()?,
            Arg::Long("handles") => options.handles = arguments.value()?.parse()?,
            Arg::Long("anonymous") => options.anonymous = arguments.value()?.parse()?,
            Arg::Long("writers") => options.writers = arguments.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    if options.handles > MAX_HANDLES {
        return Err(CommandError::Usage(format!("there can be {MAX_HANDLES} readers with a dispatcher")));
    }
    let barrier = options.asymmetric.then(heavy_barrier).transpose()?;
    if in_guest {
        return print(&torture::kvm::run(&kvm()?, &options, barrier)?);
    }
    if only_pair {
        return print(&threads::run_pair(&options, barrier));
    }
    // A fifth of the time goes to the pair.
    let pair = Options { time: options.time / 5, ..options };
    let mixed = Options { time: options.time - pair.time, ..options };
    let held = print(&threads::run(&mixed, barrier))?;
    Ok(print(&threads::run_pair(&pair, barrier))? && held)
}

fn print(report: &Report) -> Result<bool, CommandError> {
    writeln!(io::stdout().lock(), "{report}")?;
    Ok(report.violations.total() == 0)
}
