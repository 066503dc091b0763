//! `hosttest` without a command: the platform.

use std::io::{self, Write};

use clap::Args;
use hosttest::complain;
use hosttest::platform;

use super::error::CommandError;
use super::kvm_device::KvmDevice;

#[derive(Args)]
pub(super) struct Arguments {
    /// Demand KVM: without it nothing is shown, and the exit code is 2
    #[arg(long)]
    kvm: bool,
    #[command(flatten)]
    device: KvmDevice,
}

pub(super) fn execute(arguments: &Arguments) -> Result<bool, CommandError> {
    let report = match arguments.device.open() {
        Ok(kvm) => platform::build_and_run(&kvm),
        Err(unavailable) if arguments.kvm => return Err(unavailable.into()),
        Err(unavailable) => platform::build_in_process(unavailable),
    };
    match report {
        Ok(report) => {
            writeln!(io::stdout().lock(), "{report}")?;
            Ok(report.passed())
        }
        Err(failure) => {
            complain(&failure);
            Ok(false)
        }
    }
}
