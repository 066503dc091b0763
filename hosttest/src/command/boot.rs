//! `hosttest boot`

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::{ArgGroup, Args};
use hosttest::boot::board::{MAX_CPUS, Setup, with_board};
use hosttest::boot::chips::Chips;
use hosttest::boot::error::BootError;
use hosttest::boot::image::{Firmware, Image, Kernel};
use hosttest::boot::picture::draw;
use hosttest::boot::ram::MIB;
use hosttest::boot::run::{Ended, Outcome, Run, run_on};
use hosttest::boot::summary::Summary;
use hosttest::boot::terminal::Terminal;
use hosttest::complain;
use hosttest::output::{Output, Unwritable, create};
use hosttest::vmm::crew::Crew;
use hosttest::vmm::trace::Trace;

use super::error::CommandError;
use super::kvm_device::KvmDevice;

#[derive(Args)]
#[command(group = ArgGroup::new("image").required(true))]
pub(super) struct Arguments {
    /// Start this firmware, as after power-on; its messages at port 0x402 are shown too
    #[arg(long, value_name = "FILE", group = "image")]
    firmware: Option<PathBuf>,
    /// Start this kernel: a bzImage, or an ELF file
    #[arg(long, value_name = "FILE", group = "image")]
    kernel: Option<PathBuf>,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel", conflicts_with = "firmware")]
    initrd: Option<PathBuf>,
    /// Its command line
    #[arg(long, value_name = "TEXT", requires = "kernel", conflicts_with = "firmware")]
    #[arg(default_value = "console=ttyS0 panic=-1", allow_hyphen_values = true)]
    cmdline: String,
    /// The memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(2..=65_536))]
    memory: u64,
    /// How many processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=MAX_CPUS as i64))]
    cpus: u16,
    /// End the guest after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    timeout: Option<u64>,
    /// End the guest when it prints this; any other end is a failure then
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    #[arg(allow_hyphen_values = true)]
    expect: Option<String>,
    /// Whose the 8259As and the IOAPIC are
    #[arg(long, value_enum, default_value_t)]
    chips: Chips,
    /// A reset by the guest ends it, instead of starting it again
    #[arg(long)]
    no_reboot: bool,
    /// Write a line for each access
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Draw the exits over time, by device
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    device: KvmDevice,
}

impl Arguments {
    fn image(&self) -> Result<Image, BootError> {
        match (&self.firmware, &self.kernel) {
            (Some(file), _) => Firmware::read(file).map(Image::Firmware),
            (None, Some(file)) => Kernel::read(file, self.initrd.as_deref(), &self.cmdline).map(Image::Kernel),
            (None, None) => unreachable!("the parser demands one of both"),
        }
    }
}

pub(super) fn execute(arguments: &Arguments) -> Result<bool, CommandError> {
    let image = arguments.image()?;
    let kvm = arguments.device.open()?;
    let svg = arguments.svg.as_deref().map(Output::new).transpose()?;
    let trace = match &arguments.trace {
        Some(file) => Some((file, Trace::new(BufWriter::new(create(file)?)))),
        None => None,
    };
    let terminal = Terminal::standard(arguments.expect.as_deref())?;
    let line = terminal.line();
    // The PCI serial ports are not plugged in, and nobody is at their other ends: each would take a byte of what is typed.
    let nobody = Terminal::standard(None)?;
    let setup = Setup {
        memory: arguments.memory * MIB,
        image: &image,
        serial: line,
        debug: line,
        pci_serial: [nobody.line(); 2],
        cards: &[],
        chips: arguments.chips,
        trace: trace.as_ref().map(|(_, trace)| trace),
    };
    let (outcome, summary) = with_board(&setup, |board| {
        let crew = Crew::new();
        let run_how = Run {
            cpus: arguments.cpus.into(),
            limit: arguments.timeout.map(Duration::from_secs),
            starts_again: &|| !arguments.no_reboot && last_words(&terminal.kept()).is_none(),
        };
        let outcome = thread::scope(|scope| {
            let serving = terminal.serve(scope, || {
                (board.poll_serial)();
                if terminal.has_left() || terminal.has_come() {
                    crew.stop();
                }
            });
            // What the guest has sent is printed when this goes.
            let _serving = serving.map_err(BootError::Machine)?;
            run_on(&kvm, board, &crew, &run_how)
        });
        (outcome, Summary::new(board.counters))
    })?;
    let outcome = outcome?;
    if let Some((file, trace)) = trace {
        trace.finish().map_err(|error| Unwritable::new(file, error))?;
    }
    if let Some(svg) = svg {
        let image = arguments.firmware.as_ref().or(arguments.kernel.as_ref());
        let title = image.and_then(|image| image.file_name()).unwrap_or_default().to_string_lossy();
        svg.write(&draw(&format!("Boot of {title}"), &summary))?;
    }
    terminal.printed()?;
    let mut out = io::stdout().lock();
    if !terminal.is_at_line_start() {
        writeln!(out)?;
    }
    writeln!(out, "{summary}")?;
    verdict(arguments, &terminal, &outcome, &mut out)
}

/// Says how the guest has ended, and whether that is well.
fn verdict(
    arguments: &Arguments,
    terminal: &Terminal,
    outcome: &Outcome,
    out: &mut impl Write,
) -> Result<bool, CommandError> {
    let Outcome { ended, resets, elapsed } = outcome;
    let again = match resets {
        0 => String::new(),
        1 => ", reset once before".into(),
        count => format!(", reset {count} times before"),
    };
    if let Some(text) = &arguments.expect
        && terminal.has_come()
    {
        writeln!(out, "The guest printed {text:?} after {elapsed:.1?}{again}.")?;
        return Ok(true);
    }
    if let Some(words) = last_words(&terminal.kept()) {
        complain(&format_args!("the kernel died: {words}"));
        return Ok(false);
    }
    if let Some(text) = &arguments.expect {
        complain(&format_args!("{ended} after {elapsed:.1?}{again}, and has not printed {text:?}"));
        return Ok(false);
    }
    match ended {
        Ended::PoweredOff | Ended::Reset | Ended::Stopped { .. } => {
            writeln!(out, "The run has ended after {elapsed:.1?}{again}: {ended}.")?;
            Ok(true)
        }
        _ => {
            complain(&format_args!("{ended}, after {elapsed:.1?}{again}"));
            Ok(false)
        }
    }
}

/// The line by which a kernel says that it cannot go on.
fn last_words(printed: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(printed);
    let line = text.lines().find(|line| line.contains("Kernel panic - not syncing"))?;
    Some(line.trim_end().to_owned())
}
