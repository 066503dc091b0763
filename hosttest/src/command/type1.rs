//! `hosttest type1`

use std::io::{self, Write};

use hosttest::type1::{Guest, boot};
use lexopt::Parser;

use super::CommandError;

pub(super) fn execute(arguments: &mut Parser) -> Result<bool, CommandError> {
    match boot(&Guest::parse(arguments)?, &mut io::stdout()) {
        Ok(_) => Ok(true),
        Err(error) => {
            writeln!(io::stderr().lock(), "hosttest: {error}")?;
            Ok(false)
        }
    }
}
