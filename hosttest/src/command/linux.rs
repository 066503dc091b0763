//! `hosttest linux`

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hosttest::boot::board::MAX_CPUS;
use hosttest::boot::chips::Chips;
use hosttest::boot::image::Kernel;
use hosttest::boot::ram::MIB;
use hosttest::complain;
use hosttest::linux_guest::initramfs;
use hosttest::linux_guest::judge::{Failure, Trial, judge};
use hosttest::linux_guest::shell::SCRIPT;

use super::error::CommandError;

/// What the emulated machine of `nested` needs besides: its time stamp counter cannot be measured.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 lpj=4000000 tsc_early_khz=1000000 nokaslr";

#[derive(Args)]
pub(super) struct Arguments {
    /// The kernel, a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// A busybox that runs without libraries
    #[arg(long, value_name = "FILE", default_value = "/bin/busybox")]
    busybox: PathBuf,
    /// The memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(64..=65_536))]
    memory: u64,
    /// How many processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=MAX_CPUS as i64))]
    cpus: u16,
    /// Whose the 8259As and the IOAPIC are
    #[arg(long, value_enum, default_value_t)]
    chips: Chips,
    /// PCI functions interrupt by their pins, and not by messages
    #[arg(long)]
    no_messages: bool,
    /// Pull the PCI serial ports out while they are used, and plug them in again, so many times
    #[arg(long, value_name = "N", default_value_t = 0)]
    hot_plugs: u32,
    /// Reset the guest, once by each way
    #[arg(long)]
    resets: bool,
    /// How long all of it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    timeout: u64,
}

pub(super) fn execute(arguments: &Arguments) -> Result<bool, CommandError> {
    let disk = match initramfs(SCRIPT, &arguments.busybox, &[]) {
        Ok(disk) => disk,
        Err(error) => {
            complain(&error);
            return Ok(false);
        }
    };
    let messages = if arguments.no_messages { " pci=nomsi" } else { "" };
    let kernel = Kernel::read(&arguments.kernel, None, &format!("{COMMAND_LINE}{messages}"))?.with_initrd(disk);
    let trial = Trial {
        memory: arguments.memory * MIB,
        cpus: arguments.cpus.into(),
        chips: arguments.chips,
        by_messages: !arguments.no_messages,
        hot_plugs: arguments.hot_plugs,
        resets: arguments.resets,
        limit: Duration::from_secs(arguments.timeout),
    };
    // A step that cannot be shown has passed all the same: the summary is written, or the error is told.
    let told = |step: &str| drop(writeln!(io::stdout(), "{step}").and_then(|()| io::stdout().flush()));
    match judge(kernel, &trial, &told) {
        Ok((outcome, summary)) => {
            writeln!(io::stdout(), "{summary}\nLinux has passed, in {:.1?}.", outcome.elapsed)?;
            Ok(true)
        }
        Err(Failure::Boot(error)) => Err(error.into()),
        Err(failure) => {
            complain(&failure);
            Ok(false)
        }
    }
}
