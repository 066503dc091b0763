//! The software path of an exit, from the numbers of the processor to the registers with which the guest goes on:
//! `hosttest bench exit-path`.
//!
//! Each step is measured alone, and all of them together, in turn and in random order over 65,536 exits, that access random
//! ranges of 64. Beside them stand other decoders, and the path as it was before the crate had one of its own. The time of the
//! measuring loop, a row of its own, is part of every figure.

mod arm64;
mod as_it_was;
mod goals;
mod guest;
mod other_decoders;
mod riscv64;
mod step;
mod x86_mmio;
mod x86_ports;

pub(super) use step::Order;
use step::Step;

use super::error::Error;
use super::measure;
use super::options::{ExitLoop, ExitPath};
use super::report::Report;
use crate::output::Output;

const OWN: &str = "this crate";
/// The same with another manager: what the two differ by is noise.
const OWN_AGAIN: &str = "this crate, again";
const OWN_SVM: &str = "this crate, SVM";
const OWN_VMX: &str = "this crate, VMX";
const OWN_WITH_ADDRESS: &str = "this crate, with the address";
const OWN_ASYMMETRIC: &str = "this crate, asymmetric fence";
/// By one call with the guest as a whole, instead of an access and the call that completes it.
const OWN_BY_GUEST: &str = "this crate, by one call";
const AS_IT_WAS: &str = "as it was";
const LOOP: &str = "the loop alone";

/// From the numbers of the exit to an access.
const NUMBERS: &str = "numbers";
/// From the bytes of an instruction to what it does.
const DECODE: &str = "decode";
/// From an access to the device and back.
const DISPATCH: &str = "dispatch";
/// What the instruction does beside that.
const EXECUTE: &str = "execute";
/// All of it.
const TOGETHER: &str = "together";

fn steps() -> Vec<Step> {
    let paths = [x86_ports::steps, x86_mmio::steps, arm64::steps, riscv64::steps];
    paths.into_iter().flat_map(|steps| steps()).collect()
}

/// Measures every step of every path.
///
/// # Errors
/// [`Error`].
pub(super) fn run(options: &ExitPath) -> Result<(), Error> {
    let json = options.json.as_deref().map(Output::new).transpose()?;
    if let Some(processor) = measure::processors().first() {
        measure::pin(*processor);
    }
    let mut report = Report::default();
    for mut step in steps() {
        step.measure(options.rounds.count(), &mut report)?;
    }
    goals::print(&report)?;
    if let Some(json) = json {
        json.write(&report.json())?;
    }
    Ok(())
}

/// Does one step in one way over and over.
///
/// # Errors
/// [`Error::Usage`] if there is no such step or way.
pub(super) fn repeat(task: &ExitLoop) -> Result<(), Error> {
    let ExitLoop { path, step, way, order, times } = task;
    let found = steps().into_iter().filter(|candidate| candidate.path == path && candidate.name == step);
    let mut found: Vec<_> = found.collect();
    let cases = found.first().map(|step| step.cases(*order)).unwrap_or_default();
    let way = found.iter_mut().flat_map(|step| &mut step.ways).find(|candidate| candidate.name == way);
    let Some(way) = way else {
        let all = steps();
        let all = all.iter().flat_map(|step| step.ways.iter().map(|way| [step.path, step.name, way.name].join(": ")));
        return Err(Error::Usage(format!(
            "there is no such way; there are\n  {}",
            all.collect::<Vec<_>>().join("\n  ")
        )));
    };
    (0..*times).for_each(|_| way.run(&cases[..step::BATCH]));
    Ok(())
}
