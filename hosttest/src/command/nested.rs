//! `hosttest nested`

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use clap::{Args, Parser};
use hosttest::complain;
use hosttest::qemu::Error;
use hosttest::qemu::nested::{self, Options};

use super::CommandLine;
use super::error::CommandError;

#[derive(Args)]
pub(super) struct Arguments {
    /// The memory of the machine, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// How long it may run, in seconds; then QEMU is killed
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    timeout: u64,
    /// A command of this program, with its arguments, such as `run all`
    #[arg(last = true, required = true)]
    arguments: Vec<OsString>,
}

pub(super) fn execute(arguments: &Arguments) -> Result<bool, CommandError> {
    // What makes no sense is said at once.
    let program = [OsString::from("hosttest")];
    let whole = program.iter().chain(&arguments.arguments);
    if let Some(error) = CommandLine::try_parse_from(whole).err().filter(clap::Error::use_stderr) {
        return Err(CommandError::Usage(Box::new(error)));
    }
    let options = Options { memory: arguments.memory, time_limit: Duration::from_secs(arguments.timeout) };
    match nested::run(&arguments.arguments, &options, &mut io::stdout()) {
        Ok(0) => Ok(true),
        Ok(code) => Err(CommandError::Nested(code)),
        Err(Error::Output(error)) => Err(CommandError::Output(error)),
        Err(error) => {
            complain(&error);
            Ok(false)
        }
    }
}

/// `hosttest nested-init`, which returns only where it is called by hand.
pub(super) fn init() -> Result<bool, CommandError> {
    match nested::init() {
        Err(error) => {
            complain(&error);
            Ok(false)
        }
    }
}
