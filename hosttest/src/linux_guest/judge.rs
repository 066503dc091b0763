//! Linux as a judge of the board: it reports what it has found, drives the PCI serial ports, is reset and switched off, and sees them
//! come and go.

use std::fmt;
use std::thread;
use std::time::Duration;

use crate::boot::board::{Board, Setup, with_board};
use crate::boot::capture::Capture;
use crate::boot::chips::Chips;
use crate::boot::error::BootError;
use crate::boot::image::{Image, Kernel};
use crate::boot::run::{Ended, Outcome, Run, run};
use crate::boot::summary::Summary;
use crate::linux_guest::compare::compare;
use crate::linux_guest::report::Report;
use crate::linux_guest::shell::Shell;
use crate::vmm::crew::Crew;

/// How a guest is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The memory in bytes.
    pub memory: u64,
    /// How many processors the guest has.
    pub cpus: usize,
    /// Whose the interrupt controllers are.
    pub chips: Chips,
    /// Whether the PCI serial port in memory has to interrupt by messages; otherwise both share a line.
    pub by_messages: bool,
    /// How often the PCI serial ports are pulled out while their drivers use them, and plugged in again.
    pub hot_plugs: u32,
    /// Whether the guest is reset, once by each way.
    pub resets: bool,
    /// How long all of it may take.
    pub limit: Duration,
}

/// What the board or the guest has not done as it should.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The machine could not be started.
    Boot(BootError),
    /// What was tried, and what came of it.
    Guest(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Boot(error) => error.fmt(f),
            Failure::Guest(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Failure {}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Self {
        Self::Boot(error)
    }
}

type Step<T = ()> = Result<T, String>;

/// The ways of a reset, as Linux names them: the keyboard controller, the register that ACPI tells of, the port 0xcf9.
const RESETS: [&str; 3] = ["kbd", "acpi", "pci"];

/// How long a byte on a serial line may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Boots a kernel whose initial RAM disk runs [`SCRIPT`](super::shell::SCRIPT), and tries all that `trial` says. `told` is told
/// each step that has passed.
///
/// # Errors
/// [`Failure`] says what has not.
pub fn judge(kernel: Kernel, trial: &Trial, told: &(dyn Fn(&str) + Sync)) -> Result<(Outcome, Summary), Failure> {
    let image = Image::Kernel(kernel);
    let (console, ports) = (Capture::new(), [Capture::new(), Capture::new()]);
    let [first, second] = &ports;
    let setup = Setup {
        memory: trial.memory,
        image: &image,
        serial: &console,
        debug: &console,
        pci_serial: [first, second],
        cards: &[],
        chips: trial.chips,
        trace: None,
    };
    with_board(&setup, |board| {
        let crew = Crew::new();
        let limit = Some(trial.limit);
        let shell = Shell::new(&console, board.poll_serial);
        let judge = Judge { board, shell, ports: &ports, trial, told };
        board.plug(0)?;
        board.plug(1)?;
        let (outcome, judged) = thread::scope(|scope| {
            let judged = scope.spawn(|| {
                let judged = judge.try_all();
                if judged.is_err() {
                    crew.stop();
                }
                judged
            });
            let outcome = run(board, &crew, &Run { cpus: trial.cpus, limit, starts_again: &|| true });
            console.end();
            ports.iter().for_each(Capture::end);
            (outcome, judged.join().unwrap_or_else(|_| Err("the judge has panicked".into())))
        });
        let outcome = outcome?;
        let summary = Summary::new(board.counters);
        let complain = |what: String| Failure::Guest(format!("{what}\n{}\n{}", outcome.ended, console.output()));
        judged.map_err(complain)?;
        let resets = if trial.resets { RESETS.len() as u32 } else { 0 };
        if (outcome.ended.clone(), outcome.resets) != (Ended::PoweredOff, resets) {
            return Err(complain(format!("it was reset {} times, of {resets}", outcome.resets)));
        }
        Ok((outcome, summary))
    })?
}

struct Judge<'j, 'b> {
    board: &'j Board<'b>,
    shell: Shell<'j>,
    ports: &'j [Capture; 2],
    trial: &'j Trial,
    told: &'j (dyn Fn(&str) + Sync),
}

impl Judge<'_, '_> {
    fn try_all(&self) -> Step {
        self.shell.wait_until_ready().map_err(|error| error.to_string())?;
        (self.told)("Linux has started");
        self.compare()?;
        (self.told)("ports, memory, lines, PCI functions, serial ports, clock and tables are those of the manager");
        self.drive_both()?;
        (self.told)(match self.trial.by_messages {
            true => "a PCI serial port interrupts by a message, and one by its pin",
            false => "two PCI serial ports interrupt by a line that they share",
        });
        for number in 0..self.trial.hot_plugs {
            self.hot_plug().map_err(|error| format!("hot plug {}: {error}", number + 1))?;
        }
        if self.trial.hot_plugs > 0 {
            (self.told)(&format!("both were pulled out in use and plugged in again, {} times", self.trial.hot_plugs));
        }
        if self.trial.resets {
            for way in RESETS {
                self.run(&format!("echo {way} >/sys/kernel/reboot/type"))?;
                self.shell.type_line("reboot -f");
                self.shell.wait_until_ready().map_err(|error| format!("after a reset by {way}: {error}"))?;
                (self.told)(&format!("Linux has started again after a reset ({way})"));
            }
            // The ports are there as before, and nothing of the last run is left in them.
            self.drive_both()?;
        }
        self.shell.type_line("poweroff -f");
        Ok(())
    }

    fn run(&self, command: &str) -> Step<String> {
        self.shell.run(command).map_err(|error| error.to_string())
    }

    fn report(&self) -> Step<Report> {
        let output = self.run("report")?;
        Report::read(&output).map_err(|error| format!("{error}\n{output}"))
    }

    /// Linux has found what the manager has. Its drivers look at some devices in the background, so that it is asked more than once.
    fn compare(&self) -> Step {
        const TRIES: u32 = 5;
        let mut differences = Vec::new();
        for _ in 0..TRIES {
            differences = compare(&self.report()?, self.board, self.trial.cpus);
            if differences.is_empty() {
                return Ok(());
            }
            self.run("sleep 2")?;
        }
        Err(format!("Linux and the manager differ:\n  {}", differences.join("\n  ")))
    }

    /// The name of the terminal that Linux has made of PCI serial port number `port`.
    fn terminal(&self, port: usize) -> Step<String> {
        let name = self.run(&format!("basename {}/tty/ttyS*", function(port)))?;
        Ok(format!("/dev/{}", name.trim()))
    }

    /// Bytes pass both ways, by interrupts.
    fn drive_both(&self) -> Step {
        for port in 0..2 {
            self.drive(port)?;
        }
        let report = self.report()?;
        let mut numbers = [0; 2];
        for (port, number) in numbers.iter_mut().enumerate() {
            let by_message = self.trial.by_messages && port == 0;
            let name = self.terminal(port)?;
            let serial = report.serial.iter().find(|serial| name == format!("/dev/ttyS{}", serial.number));
            *number = serial.map_or(0, |serial| serial.irq);
            // The driver asks once for a line that its ports share, in the name of one of them.
            let own = report.interrupts.iter().find(|interrupt| interrupt.name == number.to_string());
            let chip = if by_message { "PCI-MSI" } else { "IO-APIC" };
            if own.is_none_or(|own| own.chip != chip || own.total() == 0) {
                return Err(format!("{name} has had no interrupts of {chip}: {own:?}"));
            }
        }
        let [first, second] = numbers;
        if (first == second) == self.trial.by_messages {
            return Err(format!("the interrupts of the PCI serial ports are {first} and {second}"));
        }
        Ok(())
    }

    fn drive(&self, port: usize) -> Step {
        let name = self.terminal(port)?;
        // It stays open, so that its interrupt is in use.
        let descriptor = port + 3;
        self.run(&format!("exec {descriptor}<>{name} && stty -F {name} raw -echo"))?;
        self.run(&format!("echo ping >&{descriptor}"))?;
        let line = &self.ports[port];
        if line.wait_for("ping\n", LIMIT).is_none() {
            return Err(format!("{name} has sent {:?} instead of a line", line.output()));
        }
        line.type_text("pong\n");
        (self.board.poll_serial)();
        let answer = self.run(&format!("read -r -t 60 answer <&{descriptor}; echo \"$answer\""))?;
        match answer.trim() {
            "pong" => Ok(()),
            other => Err(format!("{name} has received {other:?}")),
        }
    }

    /// Both ports go while their drivers have them open, and come back.
    fn hot_plug(&self) -> Step {
        let before = self.board.manager.walk().count();
        for port in 0..2 {
            let function = function(port);
            self.board.unplug(port).map_err(|error| error.to_string())?;
            // Configuration space of a slot without a function reads all ones (PCI Local Bus 3.0, 6.1).
            let read = self.run(&format!("od -An -tx4 -N4 {function}/config"))?;
            if read.trim() != "ffffffff" {
                return Err(format!("configuration space of the empty slot reads {read:?}"));
            }
            // The driver still has it, and writes to nothing. It is told only now.
            let descriptor = port + 3;
            self.run(&format!("echo lost >&{descriptor}"))?;
            self.run(&format!("echo 1 >{function}/remove && test ! -e {function}"))?;
            self.run(&format!("exec {descriptor}>&-"))?;
            self.board.plug(port).map_err(|error| error.to_string())?;
            self.run(&format!("echo 1 >/sys/bus/pci/rescan && test -e {function}"))?;
        }
        self.drive_both()?;
        match self.board.manager.walk().count() {
            now if now == before => Ok(()),
            now => Err(format!("{now} devices are registered, and {before} were")),
        }
    }
}

/// Where Linux has PCI serial port number `port`.
fn function(port: usize) -> String {
    format!("/sys/bus/pci/devices/0000:00:{}.0", ["05", "0d"][port])
}
