//! The bare-metal type-1 hypervisor of `hosttest/type1`: builds its image and runs it in QEMU, whose TCG emulates AMD SVM
//! with nested paging on any machine.

mod initrd;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::iter;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
const TARGET: &str = "x86_64-unknown-none";

/// Where QEMU puts the guest's files in the machine's memory. The hypervisor expects them there (`linux.rs`).
const KERNEL_ADDRESS: u64 = (64 + 16) << 20;
const INITRD_ADDRESS: u64 = (64 + 256) << 20;

/// The exit codes of QEMU when the image leaves through `isa-debug-exit`: twice what it writes, and one.
const PASSED: i32 = 2 * 0x10 + 1;
const FAILED: i32 = 2 * 0x11 + 1;

/// What the hypervisor runs.
#[derive(Clone, Debug, Default)]
pub enum Guest {
    /// Its own small guest.
    #[default]
    Small,
    /// A Linux kernel.
    Linux {
        /// The kernel, a bzImage.
        kernel: PathBuf,
        /// Its initial RAM disk; without, one whose `/init` prints a line and turns the machine off.
        initrd: Option<PathBuf>,
        /// What its command line ends with.
        append: String,
    },
}

impl Guest {
    /// The guest that the arguments of `hosttest type1` name: `[--kernel FILE [--initrd FILE] [--append TEXT]]`.
    ///
    /// # Errors
    /// They make no sense.
    pub fn parse(arguments: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::{Long, ValueExt};
        let (mut kernel, mut initrd, mut append) = (None, None, String::new());
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("kernel") => kernel = Some(arguments.value()?.into()),
                Long("initrd") => initrd = Some(arguments.value()?.into()),
                Long("append") => append = arguments.value()?.string()?,
                other => return Err(other.unexpected()),
            }
        }
        match kernel {
            Some(kernel) => Ok(Guest::Linux { kernel, initrd, append }),
            None if initrd.is_some() || !append.is_empty() => Err("--initrd and --append need --kernel".into()),
            None => Ok(Guest::Small),
        }
    }

    /// How long it may take. The small guest takes under a second, a kernel some ten; machines differ.
    const fn patience(&self) -> Duration {
        match self {
            Guest::Small => Duration::from_secs(60),
            Guest::Linux { .. } => Duration::from_secs(300),
        }
    }
}

/// Why there is no verdict, or not the right one.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// QEMU is not installed.
    NoQemu,
    /// A program could not be run, or a file not be read.
    Io(String, io::Error),
    /// Cargo could not build the image.
    Build,
    /// The hypervisor's verdict is that something failed.
    Failed,
    /// QEMU ended otherwise: the hypervisor crashed, with which QEMU ends too.
    Crashed(Option<i32>),
    /// The guest ended in order, but its `/init` was not heard.
    NoGreeting,
    /// It ran for too long.
    TimedOut(Duration),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoQemu => write!(f, "{QEMU} is not installed; on Debian: apt-get install qemu-system-x86"),
            Error::Io(what, error) => write!(f, "{what}: {error}"),
            Error::Build => write!(f, "the image was not built (its target: rustup target add {TARGET})"),
            Error::Failed => f.write_str("the verdict of the hypervisor is that something failed"),
            Error::Crashed(Some(code)) => write!(f, "QEMU ended with {code}, and without a verdict"),
            Error::Crashed(None) => f.write_str("QEMU was killed"),
            Error::NoGreeting => f.write_str("the guest turned the machine off, but its /init was not heard"),
            Error::TimedOut(patience) => write!(f, "no verdict within {} s", patience.as_secs()),
        }
    }
}

impl std::error::Error for Error {}

/// Whether there is QEMU to run the hypervisor.
///
/// # Errors
/// [`Error::NoQemu`], which says how to get it.
pub fn available() -> Result<(), Error> {
    let version = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
    version.map(drop).map_err(|_| Error::NoQemu)
}

/// Builds the image, runs it with `guest`, and copies its serial port to `output` as it comes. Returns all of it if the
/// verdict is passed.
///
/// # Errors
/// [`Error`].
pub fn boot(guest: &Guest, output: &mut (impl Write + Send)) -> Result<String, Error> {
    available()?;
    let image = build()?;
    let mut qemu = Command::new(QEMU);
    qemu.args(["-machine", "pc,smm=off", "-accel", "tcg", "-cpu", "EPYC,+svm", "-m", "512"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .arg("-kernel")
        .arg(&image);
    if let Guest::Linux { kernel, initrd, append } = guest {
        let own = image.with_extension("initrd");
        if initrd.is_none() {
            std::fs::write(&own, initrd::archive()).map_err(|error| Error::Io(own.display().to_string(), error))?;
        }
        load(&mut qemu, kernel, KERNEL_ADDRESS)?;
        let initrd_size = load(&mut qemu, initrd.as_deref().unwrap_or(&own), INITRD_ADDRESS)?;
        // The hypervisor takes the size, and hands the rest to the kernel.
        qemu.arg("-append").arg(format!("linux {initrd_size} {append}"));
    }
    // QEMU warns of features of the processor that TCG lacks; none of them is needed.
    let child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let text = watch(child.map_err(|error| Error::Io(QEMU.into(), error))?, guest.patience(), output)?;
    match guest {
        Guest::Linux { initrd: None, .. } if !text.contains(initrd::GREETING.trim_end()) => Err(Error::NoGreeting),
        _ => Ok(text),
    }
}

/// Lets QEMU load a file to an address of the machine, and returns its size.
fn load(qemu: &mut Command, file: &Path, address: u64) -> Result<u64, Error> {
    let size = file.metadata().map_err(|error| Error::Io(file.display().to_string(), error))?.len();
    let mut device = format!("loader,force-raw=on,addr={address:#x},file=").into_bytes();
    // In an option of QEMU's a comma ends the value, and two are one.
    for byte in file.as_os_str().as_bytes() {
        device.extend(iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    }
    qemu.arg("-device").arg(OsString::from_vec(device));
    Ok(size)
}

/// Builds the image and returns its path.
fn build() -> Result<PathBuf, Error> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("type1");
    let target = package.join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .current_dir(&package)
        // What is meant for programs of the host (sanitizers, another linker) does not fit the image.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .map_err(|error| Error::Io("cargo".into(), error))?;
    if !status.success() {
        return Err(Error::Build);
    }
    Ok(target.join(TARGET).join("release").join("type1"))
}

/// Copies the output of QEMU until it ends, but no longer than `patience`.
fn watch(mut qemu: Child, patience: Duration, output: &mut (impl Write + Send)) -> Result<String, Error> {
    let serial = qemu.stdout.take();
    thread::scope(|scope| {
        let reader = scope.spawn(move || serial.map_or_else(String::new, |serial| copy(serial, output)));
        let started = Instant::now();
        let status = loop {
            match qemu.try_wait().map_err(|error| Error::Io(QEMU.into(), error))? {
                Some(status) => break Ok(status.code()),
                None if started.elapsed() > patience => break Err(Error::TimedOut(patience)),
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        // It has ended, or is to: then its output ends too.
        let _ = qemu.kill().and_then(|()| qemu.wait().map(drop));
        let text = reader.join().unwrap_or_default();
        match status? {
            Some(PASSED) => Ok(text),
            Some(FAILED) => Err(Error::Failed),
            code => Err(Error::Crashed(code)),
        }
    })
}

/// Copies lines as they come, and returns all of them.
fn copy(serial: impl Read, output: &mut impl Write) -> String {
    let mut text = String::new();
    let mut lines = BufReader::new(serial);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|length| length != 0) {
        // Who closed the output does not want it, but still the verdict.
        let _ = output.write_all(&line).and_then(|()| output.flush());
        text.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Guest, lexopt::Error> {
        Guest::parse(&mut lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn arguments_name_the_guest() {
        assert!(matches!(parse(&[]), Ok(Guest::Small)));
        let Ok(Guest::Linux { kernel, initrd, .. }) = parse(&["--kernel", "vmlinuz", "--initrd=cpio"]) else {
            panic!("a kernel is a Linux guest");
        };
        assert_eq!((kernel, initrd), ("vmlinuz".into(), Some("cpio".into())));
        assert!(parse(&["--initrd", "cpio"]).is_err());
        assert!(parse(&["--karnel", "vmlinuz"]).is_err());
    }
}
