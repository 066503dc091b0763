//! `hosttest list`

use std::io::{self, Write};

use hosttest::scenarios;
use lexopt::Parser;

use super::{CommandError, finish};

pub(super) fn execute(arguments: &mut Parser) -> Result<bool, CommandError> {
    finish(arguments)?;
    let mut out = io::stdout().lock();
    for scenario in scenarios::all() {
        writeln!(out, "{:<28}{}", scenario.name, scenario.about)?;
    }
    Ok(true)
}
