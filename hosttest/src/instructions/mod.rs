//! The decoder and the executor of [`exit::x86::instruction`](vm_device::exit::x86::instruction) before three judges, with
//! random bytes and machine states: the decoders `iced-x86` and `yaxpeax-x86`, and the processor that this program runs on.
//!
//! The processor decides. Where a decoder says otherwise, it is a fault of that decoder, and has a name and a reason here.

mod cases;
mod faults;
mod judge;
mod memory;
mod oracles;
mod processor;
mod report;

use std::io;

use cases::Case;
use judge::Judge;
pub use report::Report;

/// What a run is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How many cases.
    pub cases: u64,
    /// The number of the first.
    pub first: u64,
    /// What all cases follow from.
    pub seed: u64,
}

/// A run ends after so many disagreements.
const ENOUGH: usize = 10;

/// Makes the cases and judges them. `progress` is told the number of each.
///
/// # Errors
/// If the memory for the code and data of the cases, or the handlers of signals, cannot be had.
pub fn run(options: &Options, mut progress: impl FnMut(u64)) -> io::Result<Report> {
    let mut judge = Judge::new()?;
    let places = judge.places();
    let mut report = Report::default();
    for number in options.first..options.first.saturating_add(options.cases) {
        progress(number);
        let case = Case::new(options.seed, number, &places);
        if let Err(difference) = judge.case(&case, &mut report) {
            report.disagreements.push(describe(&case, options.seed, number, &difference));
            if report.disagreements.len() == ENOUGH {
                break;
            }
        }
    }
    Ok(report)
}

fn describe(case: &Case, seed: u64, number: u64, difference: &str) -> String {
    let Case { mode, bytes, machine, second, .. } = case;
    format!(
        "case {number}: {bytes:02x?} in {mode:?}, iced: {:?}\n{:x?}\n{difference}\n  again: hosttest instructions --seed {seed} --first {number} --cases 1",
        second.code(),
        machine.registers
    )
}
