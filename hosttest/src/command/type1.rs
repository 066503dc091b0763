//! `hosttest type1`

use std::io;
use std::path::PathBuf;

use clap::Args;
use hosttest::complain;
use hosttest::qemu::Error;
use hosttest::type1::{Guest, Machine, add_target, boot};

use super::error::CommandError;

#[derive(Args)]
pub(super) struct Arguments {
    /// The machine that it runs on
    #[arg(long, value_enum, default_value_t)]
    machine: Machine,
    /// Run this Linux kernel, a bzImage or an Image of arm64 or riscv64, instead of the small guest
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Its initial RAM disk; without one, its `/init` prints a line and turns the machine off
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// What to add to its command line
    #[arg(long, value_name = "TEXT", requires = "kernel", default_value = "", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    append: String,
    /// Let a guest with two processors access devices while each removes those of the other, for so many seconds, 1 to 86400
    #[arg(long, value_name = "SECONDS", conflicts_with = "kernel", value_parser = clap::value_parser!(u32).range(1..=86400))]
    torture: Option<u32>,
}

impl From<Arguments> for Guest {
    fn from(Arguments { kernel, initrd, append, torture, .. }: Arguments) -> Self {
        match (kernel, torture) {
            (Some(kernel), _) => Guest::Linux { kernel, initrd, append },
            (None, Some(seconds)) => Guest::Torture { seconds },
            (None, None) => Guest::Small,
        }
    }
}

pub(super) fn execute(arguments: Arguments) -> Result<bool, CommandError> {
    let machine = arguments.machine;
    let guest = arguments.into();
    let mut ended = boot(machine, &guest, &mut io::stdout());
    if let Err(Error::NoTarget(target)) = ended {
        complain(&format_args!("the target {target} is missing, and is added by `rustup target add {target}`"));
        ended = add_target(target).and_then(|()| boot(machine, &guest, &mut io::stdout()));
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
