//! A shell in a Linux guest, at its serial port.

use std::fmt;
use std::time::Duration;

use crate::boot::capture::Capture;

/// The script of an [`initramfs`](super::initramfs): it does what is typed, a line at a time, and says when each is done.
pub const SCRIPT: &str = "\
stty -echo
echo '@@ ready'
while read -r line; do
    eval \"$line\"
    echo \"@@ done $?\"
done
";
const READY: &str = "@@ ready\r\n";
const DONE: &str = "@@ done ";

/// How long a command may take, and the start of a guest.
const LIMIT: Duration = Duration::from_secs(120);

/// A guest that runs [`SCRIPT`], with its serial port.
#[derive(Clone, Copy)]
pub struct Shell<'g> {
    port: &'g Capture,
    poll: &'g (dyn Fn() + Sync),
}

/// A command, or the start of a guest, has not ended as it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    what: String,
    why: String,
    output: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        self.output.lines().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Failure {}

impl<'g> Shell<'g> {
    /// The shell at the other end of `port`; `poll` lets the guest's UART take what is typed.
    pub const fn new(port: &'g Capture, poll: &'g (dyn Fn() + Sync)) -> Self {
        Self { port, poll }
    }

    /// Waits until the guest has started.
    ///
    /// # Errors
    /// [`Failure`] with what the kernel has said.
    pub fn wait_until_ready(&self) -> Result<(), Failure> {
        match self.port.wait_for(READY, LIMIT) {
            Some(_) => Ok(()),
            None => Err(self.failure("the guest", "it has not started", self.port.output())),
        }
    }

    /// Types a command and returns its output.
    ///
    /// # Errors
    /// [`Failure`] if it does not end in time, or not with 0.
    pub fn run(&self, command: &str) -> Result<String, Failure> {
        self.type_line(command);
        let hangs = || self.failure(command, "it does not end", self.port.output());
        let output = self.port.wait_for(DONE, LIMIT).ok_or_else(hangs)?;
        let code = self.port.wait_for("\n", LIMIT).ok_or_else(hangs)?;
        match code.trim_end() {
            "0" => Ok(output),
            code => Err(self.failure(command, &format!("exit code {code}"), output)),
        }
    }

    /// Types a line, and does not wait.
    pub fn type_line(&self, line: &str) {
        self.port.type_text(line);
        self.port.type_text("\n");
        (self.poll)();
    }

    fn failure(&self, what: &str, why: &str, output: String) -> Failure {
        Failure { what: what.into(), why: why.into(), output }
    }
}
