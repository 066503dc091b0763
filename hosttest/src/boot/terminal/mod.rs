//! The guest's serial port is the terminal of the user.

mod descriptor;
mod expect;
mod keys;
mod line;
mod raw;

use std::io::{self, IsTerminal, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

pub use expect::Expect;
use keys::{Key, Keys};
pub use line::Line;
use line::Traffic;
pub use raw::RawMode;

/// How much is read at once.
const PIECE: usize = 512;
/// How long a write waits for room before it looks whether it is to give up.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long printing goes on at the end if nothing takes it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Two file descriptors, as the other end of a serial port.
///
/// What comes in goes to the guest. If it comes from a terminal, this is in raw mode meanwhile, so that each key is the guest's, but
/// for those after Ctrl-A: `x` leaves, `h` shows a help, Ctrl-A is the guest's. What the guest does not take fast enough is lost
/// then, as it is on a line without flow control. From a file or a pipe everything is the guest's; it waits until the guest takes
/// it, and when it ends, the guest goes on without.
///
/// What the guest sends is printed, and its end is kept. A guest that sends faster than it can be printed finds its port not ready.
///
/// ```
/// use embedded_io::{Read, ReadReady, Write};
/// use hosttest::boot::terminal::Terminal;
/// use std::io::{Write as _, pipe};
///
/// let (input, mut keyboard) = pipe()?;
/// let (mut screen, output) = pipe()?;
/// let terminal = Terminal::new(input.into(), output.into(), Some("login: "));
/// let mut line = terminal.line();
/// let (notify, notified) = std::sync::mpsc::channel();
/// std::thread::scope(|scope| {
///     let serving = terminal.serve(scope, move || notify.send(()).unwrap())?;
///     line.write(b"debian login: ").unwrap();
///     notified.recv().unwrap();
///     assert!(terminal.has_come());
///
///     keyboard.write_all(b"root\n")?;
///     notified.recv().unwrap();
///     let mut bytes = [0; 16];
///     assert_eq!(line.read_ready(), Ok(true));
///     assert_eq!(line.read(&mut bytes), Ok(5));
///     std::io::Result::Ok(())
/// })?;
/// terminal.printed()?;
/// drop(terminal);
/// assert_eq!(std::io::read_to_string(&mut screen)?, "debian login: ");
/// # std::io::Result::Ok(())
/// ```
pub struct Terminal {
    input: OwnedFd,
    output: OwnedFd,
    traffic: Traffic,
}

impl Terminal {
    /// Standard input and output. `expected` is what is waited for in what the guest sends: see [`has_come`](Self::has_come).
    ///
    /// # Errors
    /// There are no more file descriptors.
    pub fn standard(expected: Option<&str>) -> io::Result<Self> {
        let (input, output) = (io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self::new(input, output, expected))
    }

    /// The same with other file descriptors.
    pub fn new(input: OwnedFd, output: OwnedFd, expected: Option<&str>) -> Self {
        Self { input, output, traffic: Traffic::new(expected.map(Expect::new)) }
    }

    /// The end that the guest's serial port is given. There may be several ports.
    pub fn line(&self) -> Line<'_> {
        Line(&self.traffic)
    }

    /// Lets bytes pass, and puts the terminal into raw mode if it is one, until what is returned is dropped. That may be once.
    ///
    /// `notify` is called from threads of their own, never from within a call of a [`Line`]: when bytes have come for the guest or
    /// it has room for more again, which is when its port is polled, and when what was expected [has come](Self::has_come) or the
    /// user [has left](Self::has_left), which is when processors that do not exit have to be stopped.
    ///
    /// # Errors
    /// The terminal refuses the mode, one is in raw mode already, or there are no more file descriptors or threads.
    pub fn serve<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        notify: impl Fn() + Send + Sync + 'scope,
    ) -> io::Result<Serving<'scope>> {
        let (stopped, stop) = io::pipe()?;
        let raw = RawMode::new(self.input.as_fd())?;
        // When it is dropped, by an error too, its threads end.
        let mut serving = Serving { terminal: self, _raw: raw, stop: Some(stop), threads: Vec::new() };
        let notify = Arc::new(notify);
        let notify_of_input = Arc::clone(&notify);
        let mut start = |name: &str, work: Box<dyn FnOnce() + Send + 'scope>| {
            serving.threads.push(thread::Builder::new().name(name.into()).spawn_scoped(scope, work)?);
            io::Result::Ok(())
        };
        start("terminal output", Box::new(move || self.print(&*notify)))?;
        start("terminal input", Box::new(move || self.read(&stopped, &*notify_of_input)))?;
        Ok(serving)
    }

    /// Whether the user has typed Ctrl-A x.
    pub fn has_left(&self) -> bool {
        self.traffic.has_left()
    }

    /// Whether what was expected has come.
    pub fn has_come(&self) -> bool {
        self.traffic.has_come()
    }

    /// The last of what the guest has sent, a MiB or more. Not all of it may be printed yet.
    pub fn kept(&self) -> Vec<u8> {
        self.traffic.kept()
    }

    /// Whether what the guest has sent is at the start of a line.
    pub fn is_at_line_start(&self) -> bool {
        self.traffic.is_at_line_start()
    }

    /// Whether everything could be printed so far.
    ///
    /// # Errors
    /// Why it could not, once.
    pub fn printed(&self) -> io::Result<()> {
        self.traffic.printed()
    }

    /// Prints what the guest sends, until the line is closed and everything is printed.
    fn print(&self, notify: &dyn Fn()) {
        let mut chunk = Vec::new();
        while let Some(tells) = self.traffic.take(&mut chunk) {
            if tells {
                notify();
            }
            // What cannot be printed is still kept and looked at.
            if !self.traffic.has_failed()
                && let Err(error) = self.print_all(&chunk)
            {
                self.traffic.fail(error);
            }
        }
    }

    fn print_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match descriptor::write(self.output.as_fd(), bytes, PATIENCE)? {
                Some(count) => bytes = bytes.get(count..).unwrap_or_default(),
                None if self.traffic.closed().is_some_and(|closed| closed.elapsed() > LAST_WORDS) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Reads what goes to the guest, until the input ends or `stopped` does.
    fn read(&self, stopped: &PipeReader, notify: &dyn Fn()) {
        let is_terminal = self.input.is_terminal();
        let mut keys = Keys::default();
        // Keys after Ctrl-A are read even if the guest takes none.
        while let Some(room) = if is_terminal { Some(PIECE) } else { self.traffic.room() } {
            let mut bytes = [0; PIECE];
            let bytes = &mut bytes[..room.min(PIECE)];
            let count = match descriptor::wait_to_read([stopped.as_fd(), self.input.as_fd()]) {
                Ok(0) => return,
                Ok(_) => descriptor::read(self.input.as_fd(), bytes),
                Err(error) => Err(error),
            };
            match count {
                Ok(None) => continue,
                // A terminal that is gone, and a closed standard input, are an end as well.
                Ok(Some(0)) | Err(_) => {
                    self.traffic.end();
                    return;
                }
                Ok(Some(count)) if is_terminal => {
                    let sent: Vec<u8> = bytes[..count].iter().filter_map(|byte| self.press(&mut keys, *byte)).collect();
                    self.traffic.send(&sent);
                }
                Ok(Some(count)) => self.traffic.send(&bytes[..count]),
            }
            notify();
        }
    }

    /// Does what a key means. Returns what goes to the guest.
    fn press(&self, keys: &mut Keys, byte: u8) -> Option<u8> {
        match keys.feed(byte) {
            Key::Send(byte) => return Some(byte),
            Key::Prefix => {}
            Key::Leave => self.traffic.leave(),
            Key::Help => self.traffic.note(keys::HELP),
            Key::Unknown(byte) => self.traffic.note(&keys::unknown(byte)),
        }
        None
    }
}

/// Bytes pass between a terminal and a guest. When this is dropped, what the guest has sent is printed first, and the terminal is as
/// it was.
#[must_use = "bytes pass until it is dropped"]
pub struct Serving<'scope> {
    terminal: &'scope Terminal,
    _raw: Option<RawMode>,
    stop: Option<PipeWriter>,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.terminal.traffic.close();
        self.stop.take();
        for thread in self.threads.drain(..) {
            if let Err(payload) = thread.join()
                && !thread::panicking()
            {
                panic::resume_unwind(payload);
            }
        }
    }
}

#[cfg(test)]
mod tests;
