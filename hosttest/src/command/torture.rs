//! `hosttest torture`

use std::io::{self, Write};
use std::time::Duration;

use hosttest::membarrier::heavy_barrier;
use hosttest::torture::{self, Options, Report, threads};
use hosttest::vm::kvm;
use lexopt::{Arg, Parser, ValueExt};

use super::CommandError;

pub(super) const OPTIONS: &str = "\
  --kvm              the accesses are those of a guest with two processors
  --pair             only one reader, one writer and one device, where a missing fence shows first
  --until-violation  stop at the first violation
  --seconds N        how long, 10 unless said
  --seed N           what the decisions follow from, 1 unless said
  --asymmetric       dispatch without fences, and membarrier(2) for each removal
  --handles N        readers with a dispatcher of their own, 2 unless said (threads only)
  --anonymous N      readers without, 1 unless said (threads only)
  --writers N        threads that change the topology, 1 unless said";

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
