//! Speed beside the peers: `hosttest bench`.
//!
//! Every subject is measured once a round, in turn with all others, in one process and on one processor; what is printed
//! are medians over the rounds, and how far half of the rounds were from them. Each subject has devices, tables and
//! addresses of its own, so that none finds warm what another one has used. Absolute figures belong to a machine and a
//! moment: the ratios within one run are what counts.

mod cells;
mod changes;
mod error;
mod exit_path;
mod exits;
mod goals;
mod layout;
mod lower_bounds;
mod measure;
mod options;
mod peer_locking;
mod peers;
mod picture;
mod report;
mod stage;
mod subject;
mod this_crate;

use std::io;

use kvm_ioctls::Kvm;

pub use error::Error;
use layout::{Layout, Pattern};
use options::Plan;
pub use options::{ExitLoop, ExitPath, Loop, Options};
use report::Report;
use stage::Stage;

use crate::output::Output;

/// Measures all subjects, prints the figures, and keeps them where the options say.
///
/// # Errors
/// [`Error`].
pub fn run(options: &Options) -> Result<(), Error> {
    let plan = options.plan()?;
    let Options { json, svg, .. } = options;
    let json = json.as_deref().map(Output::new).transpose()?;
    let svg = svg.as_deref().map(Output::new).transpose()?;
    if let Some(processor) = plan.processors.first() {
        measure::pin(*processor);
    }
    let mut report = Report::default();
    dispatch(&plan, &mut report)?;
    if plan.is_everything() {
        changes::run(&plan, &mut report)?;
        goals::print(&report)?;
    }
    cells::print(&report)?;
    if let Some(json) = json {
        json.write(&report.json())?;
    }
    if let Some(svg) = svg {
        svg.write(&picture::draw(&plan, &report))?;
    }
    Ok(())
}

/// Measures real exits under KVM.
///
/// # Errors
/// [`Error`].
pub fn exits(kvm: &Kvm) -> Result<(), Error> {
    exits::run(kvm, &measure::processors())
}

/// Measures the software path of an exit.
///
/// # Errors
/// [`Error`].
pub fn exit_path(options: &ExitPath) -> Result<(), Error> {
    exit_path::run(options)
}

/// Does one step of an exit's path over and over.
///
/// # Errors
/// [`Error::Usage`] if there is no such step.
pub fn repeat_exit(task: &ExitLoop) -> Result<(), Error> {
    exit_path::repeat(task)
}

/// All patterns for each number of ranges, in both spaces, on one thread and on two.
fn dispatch(plan: &Plan, report: &mut Report) -> io::Result<()> {
    for io_type in plan.spaces() {
        for n in plan.sizes(&[1, 8, 64, 256, 1024, 4096]) {
            for types in [1, 8] {
                let patterns: Vec<_> =
                    plan.patterns(&Pattern::ALL).into_iter().filter(|pattern| pattern.types() == types).collect();
                if !patterns.is_empty() {
                    let stage = Stage::new(Layout::new(io_type, n, types));
                    patterns.into_iter().try_for_each(|pattern| stage.measure(plan, report, pattern))?;
                }
            }
        }
    }
    if plan.is_everything()
        && let [first, second, ..] = plan.processors[..]
    {
        for n in plan.sizes(&[64]) {
            stage::churn(plan, report, [first, second], n)?;
        }
    }
    Ok(())
}

/// Does the same over and over.
///
/// # Errors
/// [`Error::Usage`] if there is no such subject, or none that is changed.
pub fn repeat(task: &Loop) -> Result<(), Error> {
    let Loop { subject, pattern, n, space, times } = task;
    let stage = Stage::new(Layout::new(*space, *n, pattern.0.map_or(1, Pattern::types)));
    let found = stage.subjects.iter().find(|candidate| candidate.name == subject);
    let found = found.ok_or_else(|| {
        Error::Usage(format!("there is no subject `{subject}`; there are\n  {}", stage.names().join("\n  ")))
    })?;
    match pattern.0 {
        None => {
            let change = found.change.as_ref();
            let change = change.ok_or_else(|| Error::Usage(format!("{subject} is not changed")))?;
            (0..4096 * times).for_each(|_| change());
        }
        Some(pattern) => {
            let addresses = stage.addresses(found, pattern);
            let mut reader = (found.reader)();
            (0..*times).for_each(|_| reader.read_all(&addresses[..4096]));
        }
    }
    Ok(())
}
