//! The bare-metal type-1 hypervisor of `hosttest/type1`: its image is built here, and run in an emulator of its machine, so on any
//! machine.

mod bochs;
mod machine;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use vmm_sys_util::tempdir::TempDir;

use crate::qemu::watch::Ended;
use crate::qemu::{Error, initrd, start, watch};
pub use machine::Machine;

/// The verdict of the hypervisor is the last line that it prints.
const PASSED: &str = "verdict: passed";
const FAILED: &str = "verdict: FAILED, ";

/// What the hypervisor runs.
#[derive(Clone, Debug, Default)]
pub enum Guest {
    /// Its own small guest.
    #[default]
    Small,
    /// A Linux kernel.
    Linux {
        /// The kernel: a bzImage, or an Image of arm64 or riscv64.
        kernel: PathBuf,
        /// Its initial RAM disk; without, one whose `/init` prints a line and turns the machine off.
        initrd: Option<PathBuf>,
        /// What its command line ends with.
        append: String,
    },
    /// Its own guest with two processors: each removes devices that the other accesses.
    Torture {
        /// For how many seconds.
        seconds: u32,
    },
}

impl Guest {
    /// How long it may take. The small guest takes under a second, a kernel some ten; machines differ.
    const fn time_limit(&self) -> Duration {
        match self {
            Guest::Small => Duration::from_secs(90),
            Guest::Linux { .. } => Duration::from_secs(300),
            // It goes on for two minutes, where the emulator had too little time for all that it does.
            Guest::Torture { seconds } => Duration::from_secs(180 + *seconds as u64),
        }
    }
}

/// Whether there is what it takes to build the hypervisor for a machine and to run it there: the emulator, and the target of the
/// image.
///
/// # Errors
/// [`Error::NoEmulator`] or [`Error::NoTarget`], which say how to get it.
pub fn available(machine: Machine) -> Result<(), Error> {
    let (program, package) = machine.emulator();
    let mut version = Command::new(program);
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().map_err(|_| Error::NoEmulator { program, package })?;
    let target = machine.target();
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(folder())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Error::Io("rustc".into(), error))?;
    let libraries = OsString::from_vec(libraries.stdout.trim_ascii().to_vec());
    if Path::new(&libraries).is_dir() { Ok(()) } else { Err(Error::NoTarget(target)) }
}

/// Adds a target to the toolchain of the images, by rustup.
///
/// # Errors
/// [`Error::NotAdded`], which names the command.
pub fn add_target(target: &'static str) -> Result<(), Error> {
    let not_added = |why| Error::NotAdded { target, why };
    let status = Command::new("rustup")
        .args(["target", "add", target])
        .current_dir(folder())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| not_added(format!("rustup: {error}")))?;
    if status.success() { Ok(()) } else { Err(not_added(status.to_string())) }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("type1")
}

/// Builds the image of a machine, runs it with `guest`, and copies its console to `output` as it comes. Returns all of it if the
/// verdict is passed.
///
/// # Errors
/// [`Error`].
pub fn boot(machine: Machine, guest: &Guest, output: &mut (impl Write + Send)) -> Result<String, Error> {
    let linux = match guest {
        Guest::Torture { .. } if !machine.has_two_processors() => return Err(Error::OneProcessor(machine.name())),
        Guest::Small | Guest::Torture { .. } => None,
        Guest::Linux { kernel, initrd, append } => Some((kernel, initrd, append, machine.linux())),
    };
    available(machine)?;
    let image = build(machine)?;
    let folder = TempDir::new().map_err(|error| Error::Io("the temporary directory".into(), error.into()))?;
    let mut command_line = String::new();
    let mut files = Vec::new();
    let own = folder.as_path().join("initrd");
    if let Some((kernel, initrd, append, (processor, kernel_address, initrd_address))) = linux {
        let initrd = initrd.as_deref().unwrap_or(&own);
        if initrd == own {
            std::fs::write(&own, initrd::archive(processor)).map_err(|error| unreadable(&own, error))?;
        }
        let initrd_size = initrd.metadata().map_err(|error| unreadable(initrd, error))?.len();
        // The hypervisor takes the size, and hands the rest to the kernel.
        command_line = format!("linux {initrd_size} {append}");
        files.extend([(kernel.as_path(), kernel_address), (initrd, initrd_address)]);
    }
    if let Guest::Torture { seconds } = guest {
        command_line = format!("torture {seconds}");
    }
    let mut emulator = machine.command(&image, &command_line, &files, folder.as_path())?;
    if let Guest::Torture { .. } = guest {
        emulator.args(["-smp", "2", "-accel", "tcg,thread=multi"]);
    }
    let started = start::start(&mut emulator, None)?;
    let Ended { status, text, said } = watch::watch(started, guest.time_limit(), output)?;
    let verdict = text.lines().next_back().unwrap_or_default();
    let ended = |passed| status.code() == Some(machine.exit_code(passed));
    match guest {
        _ if ended(false) && verdict.starts_with(FAILED) => Err(Error::Failed),
        Guest::Linux { initrd: None, .. } if ended(true) && !text.contains(initrd::GREETING.trim_end()) => {
            Err(Error::NoGreeting)
        }
        _ if ended(true) && verdict == PASSED => Ok(text),
        _ => Err(Error::NoVerdict { status, said }),
    }
}

fn unreadable(file: &Path, error: io::Error) -> Error {
    Error::Io(file.display().to_string(), error)
}

/// Builds the image of a machine and returns its path.
fn build(machine: Machine) -> Result<PathBuf, Error> {
    let (folder, target) = (folder(), machine.target());
    // Images of the same target have directories of their own.
    let directory = folder.join("target").join(machine.feature().unwrap_or_default());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--target", target, "--target-dir"])
        .arg(&directory)
        .args(machine.feature().map(|feature| ["--features", feature]).into_iter().flatten())
        .current_dir(&folder)
        // What is meant for programs of the host (sanitizers, another linker) does not fit the image.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .map_err(|error| Error::Io("cargo".into(), error))?;
    if !status.success() {
        return Err(Error::Build);
    }
    Ok(directory.join(target).join("release").join("type1"))
}
