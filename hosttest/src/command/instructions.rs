//! `hosttest instructions`

use std::io::{self, Write};

use clap::Args;
use hosttest::instructions::{Options, run};

use super::error::CommandError;

#[derive(Args)]
pub(super) struct Arguments {
    /// How many cases
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    cases: u64,
    /// The number of the first case
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// What all cases follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Progress is said after so many cases.
const STEP: u64 = 1_000_000;

pub(super) fn execute(arguments: &Arguments) -> Result<bool, CommandError> {
    let options = Options { cases: arguments.cases, first: arguments.first, seed: arguments.seed };
    let report = run(&options, |number| {
        let done = number - options.first;
        if done != 0 && done.is_multiple_of(STEP) {
            eprintln!("{done} of {} cases", options.cases);
        }
    })?;
    writeln!(io::stdout().lock(), "{report}")?;
    Ok(report.disagreements.is_empty())
}
