//! What runs in QEMU: in [`nested`], this program on a genuine `kvm_amd`; by [`run`], machines of tests; and most machines of
//! [`type1`](crate::type1).

mod error;
pub(crate) mod initrd;
pub mod nested;
pub(crate) mod start;
pub(crate) mod watch;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

pub use error::Error;
pub use initrd::{Processor, archive as initial_ramdisk};
use watch::Ended;

/// QEMU for machines of x86, and the package that has it on Debian.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
pub(crate) const PACKAGE: &str = "qemu-system-x86";

/// Whether QEMU is installed.
///
/// # Errors
/// [`Error::NoEmulator`], which says how to get it.
pub fn installed() -> Result<(), Error> {
    let version = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status();
    version.map(drop).map_err(|_| Error::NoEmulator { program: PROGRAM, package: PACKAGE })
}

/// Runs a machine of QEMU's, whose serial port is its standard output, until it ends in order, and copies that port to `output` as
/// it comes. Returns all of it. The machine is killed after `time_limit`, and with the thread that called this.
///
/// # Errors
/// [`Error::Io`], [`Error::Output`], [`Error::NoVerdict`] or [`Error::TimedOut`].
pub fn run(qemu: &mut Command, time_limit: Duration, output: &mut (impl Write + Send)) -> Result<String, Error> {
    let Ended { status, text, said } = watch::watch(start::start(qemu, None)?, time_limit, output)?;
    if status.success() { Ok(text) } else { Err(Error::NoVerdict { status, said }) }
}
