//! The command line: one module for each command.

mod bench;
mod list;
mod main_job;
mod run;
mod torture;
mod type1;

use std::fmt;
use std::io::{self, Write};

use hosttest::membarrier::Unsupported;
use hosttest::vm::Unavailable;
use lexopt::{Arg, Parser};

/// A command of the program.
struct Command {
    /// The word that calls it, and its arguments.
    usage: &'static str,
    /// What it does, in a line.
    about: &'static str,
    /// Does it. `false` if a guest did not pass.
    execute: fn(&mut Parser) -> Result<bool, CommandError>,
}

const COMMANDS: &[Command] = &[
    Command { usage: "list", about: "name the other guests", execute: list::execute },
    Command { usage: "run NAME...", about: "run guests by name, or a topic, or `all`", execute: run::execute },
    Command { usage: torture::USAGE, about: torture::ABOUT, execute: torture::execute },
    Command {
        usage: "bench [exits] [--quick] [--rounds COUNT] [--pattern NAME] [--n RANGES] [--space mmio|pio] [--threads 1|2] \
                [--json FILE] [--svg FILE]",
        about: "measure dispatch and registration beside other crates",
        execute: bench::execute,
    },
    Command {
        usage: "type1 [--kernel FILE [--initrd FILE] [--append TEXT]]",
        about: "run the bare-metal hypervisor in QEMU, with its own small guest or a Linux kernel",
        execute: type1::execute,
    },
];

/// Why a command did nothing, or stopped.
pub(crate) enum CommandError {
    /// The command line makes no sense.
    Usage(String),
    /// There is no KVM to run a guest.
    Kvm(Unavailable),
    /// There is no barrier for the asymmetric fence.
    Membarrier(Unsupported),
    /// The output went nowhere.
    Output(io::Error),
}

impl CommandError {
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
            CommandError::Usage(error) => write!(f, "{error}; see `hosttest --help`"),
            CommandError::Kvm(error) => error.fmt(f),
            CommandError::Membarrier(error) => error.fmt(f),
            CommandError::Output(error) => error.fmt(f),
        }
    }
}

impl From<lexopt::Error> for CommandError {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
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

/// Does what the command line says.
pub(crate) fn execute(mut arguments: Parser) -> Result<bool, CommandError> {
    match arguments.next()? {
        None => main_job::execute(),
        Some(Arg::Short('h') | Arg::Long("help")) => help(),
        Some(Arg::Value(word)) => {
            let word = word.to_string_lossy();
            match COMMANDS.iter().find(|command| command.usage.split(' ').next() == Some(&*word)) {
                Some(command) => (command.execute)(&mut arguments),
                None => Err(CommandError::Usage(format!("there is no command `{word}`"))),
            }
        }
        Some(option) => Err(option.unexpected().into()),
    }
}

fn help() -> Result<bool, CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "Runs guests under KVM against vm-device.\n\nUsage: hosttest [COMMAND]\n")?;
    writeln!(out, "  (none)\n          run the guest that uses a whole platform, and report")?;
    for command in COMMANDS {
        writeln!(out, "  {}\n          {}", command.usage, command.about)?;
    }
    writeln!(out, "  -h, --help\n          show this\n")?;
    writeln!(
        out,
        "Exit code: 0 if every guest passed and every guarantee held, 1 if not, 2 if KVM (or membarrier(2))"
    )?;
    writeln!(out, "cannot be used,")?;
    writeln!(out, "64 if the command line makes no sense.")?;
    Ok(true)
}

/// Refuses what follows a command that takes no more arguments.
fn finish(arguments: &mut Parser) -> Result<(), CommandError> {
    match arguments.next()? {
        None => Ok(()),
        Some(argument) => Err(argument.unexpected().into()),
    }
}
