//! What runs in QEMU: the bare-metal type-1 hypervisor of `hosttest/type1`, whose image is built here, on an emulated AMD SVM with nested
//! paging (TCG), so on any machine; in [`nested`], this program on a genuine `kvm_amd`; and by [`run`], machines of tests.

mod error;
mod initrd;
pub mod nested;
mod start;
mod watch;

use std::ffi::OsString;
use std::io::Write;
use std::iter;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use error::QEMU;
pub use error::{Error, TARGET};
pub use initrd::archive as initial_ramdisk;
use watch::Ended;

/// The exit codes of QEMU when the image leaves through `isa-debug-exit`.
const PASSED: i32 = 2 * 0x10 + 1;
const FAILED: i32 = 2 * 0x11 + 1;

/// Where QEMU puts the guest's files in the machine's memory. The hypervisor expects them there (`linux.rs`).
const KERNEL_ADDRESS: u64 = (64 + 16) << 20;
const INITRD_ADDRESS: u64 = (64 + 256) << 20;

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
    /// How long it may take. The small guest takes under a second, a kernel some ten; machines differ.
    const fn time_limit(&self) -> Duration {
        match self {
            Guest::Small => Duration::from_secs(60),
            Guest::Linux { .. } => Duration::from_secs(300),
        }
    }
}

/// Whether there is what it takes to build the hypervisor and to run it: QEMU, and the target of the image.
///
/// # Errors
/// [`Error::NoQemu`] or [`Error::NoTarget`], which say how to get it.
pub fn available() -> Result<(), Error> {
    installed()?;
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(package())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Error::Io("rustc".into(), error))?;
    let libraries = OsString::from_vec(libraries.stdout.trim_ascii().to_vec());
    if Path::new(&libraries).is_dir() { Ok(()) } else { Err(Error::NoTarget) }
}

/// Whether QEMU is installed.
///
/// # Errors
/// [`Error::NoQemu`], which says how to get it.
pub fn installed() -> Result<(), Error> {
    let version = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
    version.map(drop).map_err(|_| Error::NoQemu)
}

/// Adds the target of the image to the toolchain, by rustup.
///
/// # Errors
/// [`Error::NotAdded`], which names the command.
pub fn add_target() -> Result<(), Error> {
    let status = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(package())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| Error::NotAdded(format!("rustup: {error}")))?;
    if status.success() { Ok(()) } else { Err(Error::NotAdded(status.to_string())) }
}

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("type1")
}

/// Builds the image, runs it with `guest`, and copies its serial port to `output` as it comes. Returns all of it if the
/// verdict is passed.
///
/// # Errors
/// [`Error`].
pub fn boot(guest: &Guest, output: &mut (impl Write + Send)) -> Result<String, Error> {
    available()?;
    let image = build()?;
    let mut qemu = start::machine("tcg", 512);
    qemu.arg("-kernel").arg(&image);
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
    let Ended { status, text, said } = watch::watch(start::start(&mut qemu, None)?, guest.time_limit(), output)?;
    match (status.code(), guest) {
        (Some(FAILED), _) => Err(Error::Failed),
        (Some(PASSED), Guest::Linux { initrd: None, .. }) if !text.contains(initrd::GREETING.trim_end()) => {
            Err(Error::NoGreeting)
        }
        (Some(PASSED), _) => Ok(text),
        _ => Err(Error::NoVerdict { status, said }),
    }
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
    let package = package();
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
