//! `hosttest torture`

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hosttest::complain;
use hosttest::torture::{self, MAX_ANONYMOUS_READERS, MAX_HANDLES, MAX_WRITERS, Options, Report, threads};
use hosttest::vmm::membarrier::heavy_barrier;

use super::error::CommandError;
use super::kvm_device::open_kvm;

#[derive(Args)]
pub(super) struct Arguments {
    /// Let a guest with two processors make the accesses
    #[arg(long, conflicts_with_all = ["pair", "handles", "anonymous", "writers"])]
    kvm: bool,
    /// One reader and one writer of one device alone
    #[arg(long, conflicts_with_all = ["handles", "anonymous", "writers"])]
    pair: bool,
    /// For how long, 1 to 1000000
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: u64,
    /// What all decisions follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Take the fence out of dispatch, and let each removal call membarrier(2)
    #[arg(long)]
    asymmetric: bool,
    /// End as soon as a guarantee is violated
    #[arg(long)]
    until_violation: bool,
    /// How many readers have a dispatcher
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_most::<0, MAX_HANDLES>)]
    handles: usize,
    /// How many readers have none
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_most::<0, MAX_ANONYMOUS_READERS>)]
    anonymous: usize,
    /// How many threads change the topology
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_most::<1, MAX_WRITERS>)]
    writers: usize,
    /// Use this device instead of /dev/kvm
    #[arg(long, value_name = "FILE", requires = "kvm")]
    kvm_device: Option<PathBuf>,
}

/// A number from `LEAST` to `MOST`.
fn at_most<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|error| format!("{error}"))?;
    if (LEAST..=MOST).contains(&number) { Ok(number) } else { Err(format!("{number} is not in {LEAST} to {MOST}")) }
}

pub(super) fn execute(arguments: &Arguments) -> Result<bool, CommandError> {
    let options = Options {
        time: Duration::from_secs(arguments.seconds),
        seed: arguments.seed,
        asymmetric: arguments.asymmetric,
        handles: arguments.handles,
        anonymous: arguments.anonymous,
        writers: arguments.writers,
        until_violation: arguments.until_violation,
    };
    if options.handles + options.anonymous == 0 {
        return Err(CommandError::usage(
            "without a reader nothing is tested: --handles or --anonymous has to be 1 or more",
        ));
    }
    let kvm = arguments.kvm.then(|| open_kvm(arguments.kvm_device.as_deref())).transpose()?;
    let barrier = options.asymmetric.then(heavy_barrier).transpose()?;
    if let Some(kvm) = kvm {
        return match torture::kvm::run(&kvm, &options, barrier) {
            Ok(report) => print(&report),
            Err(error) => {
                complain(&error);
                Ok(false)
            }
        };
    }
    if arguments.pair {
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
