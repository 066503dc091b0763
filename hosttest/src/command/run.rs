//! `hosttest run NAME...`

use std::io::{self, Write};

use hosttest::scenarios::{self, Scenario};
use hosttest::vm::kvm;
use lexopt::{Arg, Parser};

use super::CommandError;

pub(super) fn execute(arguments: &mut Parser) -> Result<bool, CommandError> {
    let mut chosen: Vec<&Scenario> = Vec::new();
    while let Some(argument) = arguments.next()? {
        let Arg::Value(name) = argument else { return Err(argument.unexpected().into()) };
        let name = name.to_string_lossy();
        let topic = format!("{name}/");
        let before = chosen.len();
        chosen.extend(scenarios::all().filter(|s| name == "all" || s.name == name || s.name.starts_with(&topic)));
        if chosen.len() == before {
            return Err(CommandError::Usage(format!("there is no guest `{name}`, as `hosttest list` shows")));
        }
    }
    if chosen.is_empty() {
        return Err(CommandError::Usage("`run` needs the name of a guest".into()));
    }

    let kvm = kvm()?;
    let mut out = io::stdout().lock();
    let mut passed = true;
    for scenario in chosen {
        match (scenario.run)(&kvm) {
            Ok(tally) => {
                writeln!(out, "{:<28}passed, {} exits in {:.1?}", scenario.name, tally.exits, tally.elapsed)?;
            }
            Err(failure) => {
                passed = false;
                writeln!(out, "{:<28}FAILED: {failure}", scenario.name)?;
            }
        }
    }
    Ok(passed)
}
