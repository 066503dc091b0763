//! This program on a genuine `kvm_amd`: QEMU emulates the machine, a Debian kernel is its host, and the program is all that the
//! host runs. Nothing is built for it: the initramfs holds the program as it runs now, with the libraries that it has loaded.

mod image;
mod init;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use vmm_sys_util::tempfile::TempFile;

use super::error::Error;
use super::start::{machine, start};
use super::watch::{Ended, watch};
use crate::linux_guest::kernel::{Kernel, module};

pub use init::init;

/// The argument by which the program, as the first process of the machine, knows that it is that.
pub const INIT: &str = "nested-init";

/// The modules that make KVM of the machine's SVM, in the order in which they are loaded.
const MODULES: [&str; 3] = ["virt/lib/irqbypass", "arch/x86/kvm/kvm", "arch/x86/kvm/kvm-amd"];

/// What the kernel is told: to be quiet, to end QEMU when it crashes, and to do without what the emulated processor does not need
/// and would be slowed by.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 mitigations=off";

/// What is written to the port of `isa-debug-exit` for the exit code 0. Others are written as they are, up to [`OTHER`]: QEMU has 7
/// bits for it, and its own failure would be 0.
const SUCCESS: u8 = 0x7f;
/// What is written for an exit code that cannot be, and for a signal.
const OTHER: u8 = 0x7e;

/// The machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Its memory, in MiB.
    pub memory: u32,
    /// How long it may run. Then QEMU is killed.
    pub time_limit: Duration,
}

impl Default for Options {
    /// 1024 MiB and ten minutes.
    fn default() -> Self {
        Self { memory: 1024, time_limit: Duration::from_secs(600) }
    }
}

/// Whether there is what it takes: QEMU, and a kernel with its modules.
///
/// # Errors
/// [`Error`], which says how to get what is missing.
pub fn available() -> Result<(), Error> {
    super::installed()?;
    let kernel = Kernel::Cloud.find().map_err(Error::NoKernel)?;
    MODULES.iter().try_for_each(|name| read_module(&kernel, name).map(drop))
}

/// Runs this program with `arguments` in the machine, with the working directory that it has here, and copies what it prints to
/// `output` as it comes. Returns its exit code; 126 for one above 126, and where a signal ended it.
///
/// An argument that names a regular file, or ends with `=` and the name of one, has that file at the same path in the machine. What
/// is written to a file there is lost.
///
/// # Errors
/// [`Error`].
pub fn run(arguments: &[OsString], options: &Options, output: &mut (impl Write + Send)) -> Result<u8, Error> {
    super::installed()?;
    let kernel = Kernel::Cloud.find().map_err(Error::NoKernel)?;
    let image = image::initramfs(&kernel, arguments)?;
    // It is in memory twice while it is unpacked, and half of the memory may be files.
    let needed = 256 + 2 * (image.len() as u64 >> 20);
    if u64::from(options.memory) < needed {
        return Err(Error::TooLittleMemory { given: options.memory, needed });
    }
    // A file without a name leaves nothing behind, however this program ends.
    let temporary = |error| Error::Io("a temporary file".into(), error);
    let mut file = TempFile::new().map_err(|error| temporary(error.into()))?.into_file();
    file.write_all(&image).map_err(temporary)?;
    drop(image);
    let mut qemu = machine("tcg,thread=multi", options.memory);
    qemu.args(["-smp", "2"])
        .args(["-initrd", &format!("/proc/self/fd/{}", file.as_raw_fd())])
        .args(["-append", &format!("{KERNEL_ARGUMENTS} rdinit={} -- {INIT}", image::PROGRAM)])
        .arg("-kernel")
        .arg(&kernel);
    let child = start(&mut qemu, Some(&file))?;
    let Ended { status, said, .. } = watch(child, options.time_limit, output)?;
    status.code().and_then(exit_code).ok_or(Error::NoVerdict { status, said })
}

fn read_module(kernel: &Path, name: &str) -> Result<Vec<u8>, Error> {
    module(kernel, name).map_err(|error| Error::NoModule(name.to_owned(), error))
}

/// What is written to the port of `isa-debug-exit` for an exit code of the program, if a signal did not end it.
fn verdict(code: Option<i32>) -> u8 {
    match code {
        Some(0) => SUCCESS,
        Some(code) => u8::try_from(code).map_or(OTHER, |code| code.clamp(1, OTHER)),
        None => OTHER,
    }
}

/// The exit code of the program, by that of QEMU, if the program came to its end.
fn exit_code(qemu: i32) -> Option<u8> {
    match u8::try_from(qemu) {
        Ok(code) if code % 2 == 1 && code / 2 == SUCCESS => Some(0),
        Ok(code @ 2..) if code % 2 == 1 => Some(code / 2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_out(code: Option<i32>) -> Option<u8> {
        exit_code(i32::from(verdict(code)) * 2 + 1)
    }

    #[test]
    fn an_exit_code_comes_out_as_it_is_unless_it_is_too_large() {
        for code in 0..=126u8 {
            assert_eq!(passed_out(Some(code.into())), Some(code));
        }
        for code in [Some(127), Some(255), Some(256), Some(-1), None] {
            assert_eq!(passed_out(code), Some(OTHER));
        }
    }

    #[test]
    fn the_ends_of_qemu_itself_are_no_verdicts() {
        for qemu in [0, 1, 2, 4, 254] {
            assert_eq!(exit_code(qemu), None);
        }
    }
}
