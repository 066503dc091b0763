//! The command line: one module for each command.

mod bench;
mod boot;
mod error;
mod instructions;
mod kvm_device;
mod linux;
mod list;
mod main_job;
mod nested;
mod run;
mod torture;
mod type1;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{Parser, Subcommand};

pub(crate) use error::CommandError;

const EXIT_CODES: &str = "\
Exit code: 0 if every guest passed and every guarantee held; 1 if not, or if the output cannot be
written; 2 if KVM (or membarrier(2)) is needed and cannot be used; 64 if the command line makes
no sense, for an image too; 65 if a file is no image; 66 if it cannot be read. What a nested
command ends with is passed on.";

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
    /// Boot firmware or a kernel on a PC of this crate's devices
    Boot(boot::Arguments),
    /// Let Linux judge a PC of this crate's devices
    ///
    /// It boots a kernel with a shell in its initial RAM disk, compares what the kernel has found with what
    /// the manager has, drives two PCI serial ports, and switches the machine off. Where KVM emulates
    /// what it runs, as `nested` shows how to avoid, no Linux starts.
    #[command(verbatim_doc_comment)]
    Linux(linux::Arguments),
    /// Measure dispatch and registration beside other crates
    Bench(bench::Arguments),
    /// Judge random instructions by two other decoders and by the processor itself
    ///
    /// Each case is random bytes with registers that bring their operands into memory, over the end of a
    /// page or where nothing is. The processor decides; what the other decoders get wrong is a list.
    #[command(verbatim_doc_comment)]
    Instructions(instructions::Arguments),
    /// Run the bare-metal hypervisor in QEMU, with its own small guest or a Linux kernel
    Type1(type1::Arguments),
    /// Run a command of this program on a genuine kvm_amd, in QEMU
    ///
    /// QEMU emulates a processor with SVM, and Debian's kernel is the host there. What the command
    /// prints comes on the standard output, and its exit code is that of this program. A file that
    /// is named after the `--` is there too; what the command writes to files is lost.
    #[command(verbatim_doc_comment)]
    Nested(nested::Arguments),
    /// Be the first process of the machine of `nested`
    #[command(name = hosttest::qemu::nested::INIT, hide = true)]
    NestedInit,
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
        Some(Command::Boot(arguments)) => boot::execute(&arguments),
        Some(Command::Linux(arguments)) => linux::execute(&arguments),
        Some(Command::Bench(arguments)) => bench::execute(&arguments),
        Some(Command::Instructions(arguments)) => instructions::execute(&arguments),
        Some(Command::Type1(arguments)) => type1::execute(arguments),
        Some(Command::Nested(arguments)) => nested::execute(&arguments),
        Some(Command::NestedInit) => nested::init(),
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
