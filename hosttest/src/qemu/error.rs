//! Why there is no verdict, or not the right one.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use crate::linux_guest::kernel::Missing;

/// Why there is no verdict, or not the right one.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// What emulates the machine is not installed.
    NoEmulator {
        /// The program.
        program: &'static str,
        /// The package of Debian that has it.
        package: &'static str,
    },
    /// The toolchain lacks the image's target.
    NoTarget(&'static str),
    /// The target could not be added.
    NotAdded {
        /// The target.
        target: &'static str,
        /// What adding it ended with.
        why: String,
    },
    /// A program could not be run, or a file not be read.
    Io(String, io::Error),
    /// There is no kernel for the machine that runs KVM.
    NoKernel(Missing),
    /// The kernel has not this module beside it.
    NoModule(String, io::Error),
    /// The machine has too little memory for the files that it is given.
    TooLittleMemory {
        /// What it has, in MiB.
        given: u32,
        /// What it takes, in MiB.
        needed: u64,
    },
    /// The files are too large for the disk that the hypervisor boots from: with the image they may have so many bytes.
    TooLarge(u64),
    /// The hypervisor has one virtual processor on this machine.
    OneProcessor(&'static str),
    /// The output could not be written.
    Output(io::Error),
    /// Cargo could not build the image.
    Build,
    /// The hypervisor's verdict is that something failed.
    Failed,
    /// The emulator ended without a verdict: it was used in a wrong way, or what ran in it crashed.
    NoVerdict {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// The guest ended in order, but its `/init` was not heard.
    NoGreeting,
    /// It ran for too long.
    TimedOut {
        /// How long it might run.
        time_limit: Duration,
        /// What the emulator said.
        said: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoEmulator { program, package } => {
                write!(f, "{program} is not installed; on Debian: apt-get install {package}")
            }
            Error::NoTarget(target) => {
                write!(f, "the target {target} is not installed: rustup target add {target}")
            }
            Error::NotAdded { target, why } => write!(
                f,
                "`rustup target add {target}` failed: {why}\n  The image is built for this target: add it to the toolchain, \
                 by that command where there is a network."
            ),
            Error::Io(what, error) => write!(f, "{what}: {error}"),
            Error::NoKernel(missing) => write!(f, "there is no Linux kernel: {missing}"),
            Error::NoModule(name, error) => write!(
                f,
                "the module {name} of the kernel cannot be read: {error}\n  `.ci/debian-kernel` fetches a kernel that has it, \
                 which is used where VM_DEVICE_KERNEL is not set."
            ),
            Error::TooLittleMemory { given, needed } => {
                write!(
                    f,
                    "{given} MiB of memory are too little for these files, which take {needed}: --memory {needed}"
                )
            }
            Error::TooLarge(most) => {
                write!(
                    f,
                    "the files are too large: the disk of this machine has {} KiB for them and the image",
                    most / 1024
                )
            }
            Error::OneProcessor(machine) => {
                write!(
                    f,
                    "the hypervisor has one virtual processor on {machine}, and the torture takes two: --machine arm64"
                )
            }
            Error::Output(error) => write!(f, "the output cannot be written: {error}"),
            Error::Build => f.write_str("the image was not built; cargo said why"),
            Error::Failed => f.write_str("the verdict of the hypervisor is that something failed"),
            Error::NoVerdict { status, said } => {
                write!(f, "the emulator ended without a verdict ({status})")?;
                if status.success() {
                    f.write_str(", as where the machine is reset: what ran in it crashed")?;
                }
                quote(f, said)
            }
            Error::NoGreeting => f.write_str("the guest turned the machine off, but its /init was not heard"),
            Error::TimedOut { time_limit, said } => {
                write!(f, "no verdict within {} s, and the emulator was killed", time_limit.as_secs())?;
                quote(f, said)
            }
        }
    }
}

/// What the emulator said, if it said anything.
fn quote(f: &mut fmt::Formatter<'_>, said: &str) -> fmt::Result {
    if !said.is_empty() {
        f.write_str("; it said:")?;
    }
    said.lines().try_for_each(|line| write!(f, "\n  {line}"))
}

impl std::error::Error for Error {}
