//! The command line: one module for each command.

mod bench;
mod list;
mod main_job;
mod run;
mod torture;
mod type1;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use hosttest::vmm::host::{self, Unavailable};
use hosttest::vmm::membarrier::Unsupported;
use kvm_ioctls::Kvm;

const EXIT_CODES: &str = "\
Exit code: 0 if every guest passed and every guarantee held; 1 if not, or if the output cannot be
written; 2 if KVM (or membarrier(2)) is needed and cannot be used; 64 if the command line makes
no sense.";

/// Runs guests under KVM against vm-device.
///
/// Without a command: builds a whole platform, runs a guest that uses all of it, and reports.
/// Without a usable KVM it says so, and shows the same platform all the same, with the accesses
/// made by this program instead of by a processor.
#[derive(Parser)]
#[command(name = "hosttest", version, after_help = EXIT_CODES, verbatim_doc_comment)]
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    platform: main_job::Arguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Name the other guests
    List,
    /// Run guests by name, or a topic, or `all`
    Run(run::Arguments),
    /// Make accesses against changes of the topology, on threads or by a guest
    ///
    /// A record of what each access may find judges it. On threads there are readers with a
    /// dispatcher, readers without, and writers; for the last fifth of the time, or with --pair for
    /// all of it, one reader and one writer of one device. With --kvm a guest with two processors
    /// makes the accesses, against one writer.
    #[command(verbatim_doc_comment)]
    Torture(torture::Arguments),
    /// Measure dispatch and registration beside other crates
    Bench(bench::Arguments),
    /// Run the bare-metal hypervisor in QEMU, with its own small guest or a Linux kernel
    Type1(type1::Arguments),
}

/// Which device is KVM.
#[derive(Args)]
struct KvmDevice {
    /// Use this device instead of /dev/kvm
    #[arg(long, value_name = "FILE")]
    kvm_device: Option<PathBuf>,
}

impl KvmDevice {
    fn open(&self) -> Result<Kvm, Unavailable> {
        open_kvm(self.kvm_device.as_deref())
    }
}

fn open_kvm(device: Option<&Path>) -> Result<Kvm, Unavailable> {
    host::open(device.unwrap_or(Path::new(host::DEVICE)))
}

/// Why a command did nothing, or stopped.
pub(crate) enum CommandError {
    /// The command line makes no sense.
    Usage(Box<clap::Error>),
    /// There is no KVM to run a guest.
    Kvm(Unavailable),
    /// There is no barrier for the asymmetric fence.
    Membarrier(Unsupported),
    /// The output went nowhere.
    Output(io::Error),
}

impl CommandError {
    /// What a rule of this program says against the command line, where the parser's own do not suffice.
    fn usage(what: impl fmt::Display) -> Self {
        Self::Usage(Box::new(clap::Error::raw(ErrorKind::ValueValidation, what)))
    }

    /// 2 without KVM or membarrier(2), 64 (`EX_USAGE` of sysexits) for a command line that makes no sense, 1 otherwise.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CommandError::Usage(_) => 64,
            CommandError::Kvm(_) | CommandError::Membarrier(_) => 2,
            CommandError::Output(_) => 1,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Usage(error) => {
                let text = error.to_string();
                f.write_str(text.strip_prefix("error: ").unwrap_or(&text).trim_end())
            }
            CommandError::Kvm(error) => error.fmt(f),
            CommandError::Membarrier(error) => error.fmt(f),
            CommandError::Output(error) => write!(f, "cannot write to the standard output: {error}"),
        }
    }
}

impl From<Unavailable> for CommandError {
    fn from(error: Unavailable) -> Self {
        Self::Kvm(error)
    }
}

impl From<Unsupported> for CommandError {
    fn from(error: Unsupported) -> Self {
        Self::Membarrier(error)
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Does what the command line says. `false` if a guest did not pass.
pub(crate) fn execute(arguments: impl Iterator<Item = OsString>) -> Result<bool, CommandError> {
    let arguments = match CommandLine::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        // What was asked for, such as help, comes as an error too.
        Err(error) if !error.use_stderr() => {
            write!(io::stdout(), "{error}")?;
            io::stdout().flush()?;
            return Ok(true);
        }
        Err(error) => return Err(CommandError::Usage(Box::new(error))),
    };
    match arguments.command {
        None => main_job::execute(&arguments.platform),
        Some(Command::List) => list::execute(),
        Some(Command::Run(arguments)) => run::execute(&arguments),
        Some(Command::Torture(arguments)) => torture::execute(&arguments),
        Some(Command::Bench(arguments)) => bench::execute(&arguments),
        Some(Command::Type1(arguments)) => type1::execute(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
