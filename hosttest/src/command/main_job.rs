//! `hosttest` without a command: the platform.

use std::io::{self, Write};

use hosttest::platform::build_and_run;
use hosttest::vm::kvm;

use super::CommandError;

pub(super) fn execute() -> Result<bool, CommandError> {
    match build_and_run(&kvm()?) {
        Ok(report) => {
            writeln!(io::stdout().lock(), "{report}")?;
            Ok(report.passed())
        }
        Err(failure) => {
            writeln!(io::stderr().lock(), "hosttest: {failure}")?;
            Ok(false)
        }
    }
}
