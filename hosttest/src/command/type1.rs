//! `hosttest type1`

use std::io;
use std::path::PathBuf;

use clap::Args;
use hosttest::complain;
use hosttest::qemu::{Error, Guest, TARGET, add_target, boot};

use super::error::CommandError;

#[derive(Args)]
pub(super) struct Arguments {
    /// Run this Linux kernel, a bzImage, instead of the small guest
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Its initial RAM disk; without one, its `/init` prints a line and turns the machine off
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// What to add to its command line
    #[arg(long, value_name = "TEXT", requires = "kernel", default_value = "", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    append: String,
}

impl From<Arguments> for Guest {
    fn from(Arguments { kernel, initrd, append }: Arguments) -> Self {
        kernel.map_or(Guest::Small, |kernel| Guest::Linux { kernel, initrd, append })
    }
}

pub(super) fn execute(arguments: Arguments) -> Result<bool, CommandError> {
    let guest = arguments.into();
    let mut ended = boot(&guest, &mut io::stdout());
    if matches!(ended, Err(Error::NoTarget)) {
        complain(&format_args!("the target {TARGET} is missing, and is added by `rustup target add {TARGET}`"));
        ended = add_target().and_then(|()| boot(&guest, &mut io::stdout()));
    }
    match ended {
        Ok(_) => Ok(true),
        Err(Error::Output(error)) => Err(CommandError::Output(error)),
        Err(error) => {
            complain(&error);
            Ok(false)
        }
    }
}
