//! `bench`: speed beside the peers.

use clap::{Args, Subcommand};
use hosttest::bench::{self, Error};
use hosttest::complain;

use super::error::CommandError;
use super::kvm_device::KvmDevice;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: bench::Options,
    #[command(subcommand)]
    alone: Option<Alone>,
}

#[derive(Subcommand)]
enum Alone {
    /// Measure real exits under KVM
    Exits(KvmDevice),
    /// Do one dispatch or change over and over, for a program that counts instructions
    Loop(bench::Loop),
    /// Measure the software path of an exit, step by step
    ExitPath(bench::ExitPath),
    /// Do one step of an exit's path over and over, for a program that counts instructions
    ExitLoop(bench::ExitLoop),
}

pub(super) fn execute(arguments: &Arguments) -> Result<bool, CommandError> {
    let ended = match &arguments.alone {
        None => bench::run(&arguments.options),
        Some(Alone::Exits(device)) => bench::exits(&device.open()?),
        Some(Alone::Loop(repeated)) => bench::repeat(repeated),
        Some(Alone::ExitPath(options)) => bench::exit_path(options),
        Some(Alone::ExitLoop(repeated)) => bench::repeat_exit(repeated),
    };
    match ended {
        Ok(()) => Ok(true),
        Err(Error::Output(error)) => Err(CommandError::Output(error)),
        Err(Error::Usage(error)) => Err(CommandError::usage(error)),
        Err(error) => {
            complain(&error);
            Ok(false)
        }
    }
}
