//! `hosttest boot`

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use clap::Args;
use hosttest::boot::board::{MAX_CPUS, Setup, with_board};
use hosttest::boot::capture::Capture;
use hosttest::boot::image::{Firmware, Image, Kernel};
use hosttest::boot::ram::MIB;
use hosttest::boot::run::{Run, run};
use hosttest::complain;
use hosttest::vmm::crew::Crew;
use vm_device::{AccessObserver, ObservedAccess};

use super::error::CommandError;

#[derive(Args)]
pub(super) struct Arguments {
    /// Start this firmware, as after power-on
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,
    /// Start this kernel: a bzImage, or an ELF file
    #[arg(long, value_name = "FILE", required_unless_present = "firmware", conflicts_with = "firmware")]
    kernel: Option<PathBuf>,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Its command line
    #[arg(long, value_name = "TEXT", requires = "kernel", default_value = "console=ttyS0 panic=-1")]
    #[arg(allow_hyphen_values = true)]
    cmdline: String,
    /// The memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(2..=65_536))]
    memory: u64,
    /// How many processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=MAX_CPUS as i64))]
    cpus: u16,
    /// End the guest after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

struct Unclaimed(Mutex<std::collections::BTreeMap<String, usize>>);
impl AccessObserver for Unclaimed {
    fn observe(&self, access: &ObservedAccess<'_>) {
        if access.outcome.is_err() {
            *self
                .0
                .lock()
                .unwrap()
                .entry(format!("{:?} {} {:?} {:?}", access.io_type, access.address, access.direction, access.outcome))
                .or_default() += 1;
        }
    }
}

pub(super) fn execute(arguments: &Arguments) -> Result<bool, CommandError> {
    let image = match (&arguments.firmware, &arguments.kernel) {
        (Some(file), _) => Firmware::read(file).map(Image::Firmware),
        (_, Some(file)) => Kernel::read(file, arguments.initrd.as_deref(), &arguments.cmdline).map(Image::Kernel),
        _ => unreachable!(),
    };
    let crew = Crew::new();
    let serial = Capture::new();
    let unclaimed = Unclaimed(Mutex::default());
    let how = Run { cpus: arguments.cpus.into(), limit: arguments.timeout.map(Duration::from_secs), resets: u32::MAX };
    let outcome = image.and_then(|image| {
        let setup = Setup { memory: arguments.memory * MIB, serial: &serial, observer: &unclaimed, image: &image };
        with_board(&setup, |board| {
            let outcome = run(board, &crew, &how);
            println!("{}{}", board.debug.output(), serial.output());
            println!("{}", board.ram.screen().join("\n"));
            outcome
        })?
    });
    println!("{:#?}", unclaimed.0.lock().unwrap());
    match outcome {
        Ok(outcome) => {
            println!("{outcome:?}");
            Ok(true)
        }
        Err(error) => {
            complain(&error);
            Ok(false)
        }
    }
}
