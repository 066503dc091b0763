//! `hosttest list`

use std::io::{self, Write};

use hosttest::guests;

use super::error::CommandError;

pub(super) fn execute() -> Result<bool, CommandError> {
    let mut out = io::stdout().lock();
    for scenario in guests::all() {
        writeln!(out, "{:<28}{}", scenario.name, scenario.about)?;
    }
    Ok(true)
}
