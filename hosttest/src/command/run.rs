//! `hosttest run NAME...`

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use hosttest::guests;
use hosttest::guests::scenario::{Scenario, trace_to};
use hosttest::guests::shown::with_maps;
use hosttest::output::{Unwritable, create};
use hosttest::vmm::trace::Trace;

use super::error::CommandError;
use super::kvm_device::KvmDevice;

#[derive(Args)]
pub(super) struct Arguments {
    /// A guest, as `hosttest list` names them; a topic, which is what comes before the slash; or `all`
    #[arg(required = true, value_name = "NAME", value_parser = guests)]
    guests: Vec<Guests>,
    /// Show the map of each guest's devices, as it is when the guest has ended
    #[arg(long)]
    map: bool,
    /// Write a line for each access: vCPU, space, direction, address, length, data, device and outcome
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    device: KvmDevice,
}

/// The guests of one name.
#[derive(Clone)]
struct Guests(Vec<&'static Scenario>);

fn guests(name: &str) -> Result<Guests, String> {
    let topic = format!("{name}/");
    let named = |scenario: &&Scenario| name == "all" || scenario.name == name || scenario.name.starts_with(&topic);
    let found: Vec<_> = guests::all().filter(named).collect();
    if found.is_empty() { Err("there is no such guest; `hosttest list` names them".into()) } else { Ok(Guests(found)) }
}

pub(super) fn execute(arguments: &Arguments) -> Result<bool, CommandError> {
    let kvm = arguments.device.open()?;
    let trace = match &arguments.trace {
        Some(file) => Some((file, trace_to(Trace::new(BufWriter::new(create(file)?))))),
        None => None,
    };
    let mut out = io::stdout().lock();
    let mut passed = true;
    for scenario in arguments.guests.iter().flat_map(|guests| &guests.0) {
        let (result, maps) = match arguments.map {
            true => with_maps(|| (scenario.run)(&kvm)),
            false => ((scenario.run)(&kvm), String::new()),
        };
        match result {
            Ok(tally) => {
                writeln!(out, "{:<28}passed, {} exits in {:.1?}", scenario.name, tally.exits, tally.elapsed)?;
            }
            Err(failure) => {
                passed = false;
                writeln!(out, "{:<28}FAILED: {failure}", scenario.name)?;
            }
        }
        write!(out, "{maps}")?;
    }
    if let Some((file, trace)) = trace {
        trace.finish().map_err(|error| Unwritable::new(file, error))?;
    }
    Ok(passed)
}
