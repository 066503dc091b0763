//! The raw mode of a terminal.

use std::io::{self, IsTerminal};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The signals that end the program unless it ignores them; the last one is that of a panic that aborts.
const ENDING: [libc::c_int; 5] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGABRT];

/// A terminal that gives each key to the program as it is pressed, does not show it, and makes no signals from it; what is printed
/// it shows as before. When this is dropped, also by a panic, or when one of the signals comes that end a program, the terminal is
/// as it was.
pub struct RawMode {
    saved: &'static Saved,
    signals: Vec<(libc::c_int, libc::sigaction)>,
}

/// A terminal, and how it was.
struct Saved {
    terminal: RawFd,
    mode: libc::termios,
}

/// The terminal in raw mode, if one is. What it points to is never freed: a signal handler may be reading it.
static SAVED: AtomicPtr<Saved> = AtomicPtr::new(ptr::null_mut());

impl RawMode {
    /// Puts a terminal into raw mode. `None` if it is no terminal.
    ///
    /// # Errors
    /// What the terminal refuses; `ResourceBusy` if this process has one in raw mode already.
    pub fn new(terminal: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        if !terminal.is_terminal() {
            return Ok(None);
        }
        // A descriptor of its own stays open for as long as the signal handler may use it.
        let terminal = OwnedFd::as_raw_fd(Box::leak(Box::new(terminal.try_clone_to_owned()?)));
        let mut mode = MaybeUninit::uninit();
        // SAFETY: the terminal is open, and there is room for its mode.
        check(unsafe { libc::tcgetattr(terminal, mode.as_mut_ptr()) })?;
        // SAFETY: the call has succeeded, and so has written it.
        let mode = unsafe { mode.assume_init() };
        let saved: &'static Saved = Box::leak(Box::new(Saved { terminal, mode }));
        let pointer = ptr::from_ref(saved).cast_mut();
        SAVED
            .compare_exchange(ptr::null_mut(), pointer, Ordering::AcqRel, Ordering::Acquire)
            .map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?;
        // From here on, dropping it undoes all of it.
        let mut raw = Self { saved, signals: Vec::new() };
        for signal in ENDING {
            raw.watch(signal)?;
        }
        set(terminal, &raw_mode(mode))?;
        Ok(Some(raw))
    }

    /// Restores the terminal when a signal comes, unless the program ignores it.
    fn watch(&mut self, signal: libc::c_int) -> io::Result<()> {
        // SAFETY: all zeroes are a value of the type, and the handler is one that takes the signal's number alone. It only
        // calls what may be called from a handler, and reads what is never freed.
        let before = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = restore_and_end as *const () as usize;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER;
            let mut before = std::mem::zeroed();
            check(libc::sigaction(signal, &action, &mut before))?;
            if before.sa_sigaction == libc::SIG_IGN {
                return check(libc::sigaction(signal, &before, ptr::null_mut()));
            }
            before
        };
        self.signals.push((signal, before));
        Ok(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone has no mode.
        let _ = set(self.saved.terminal, &self.saved.mode);
        SAVED.store(ptr::null_mut(), Ordering::Release);
        for (signal, before) in &self.signals {
            // SAFETY: it is what was installed before.
            unsafe { libc::sigaction(*signal, before, ptr::null_mut()) };
        }
    }
}

/// The flags are those of termios(3), raw mode, but for those of the output, which stay: a guest need not send carriage returns.
fn raw_mode(mut mode: libc::termios) -> libc::termios {
    mode.c_iflag &= !(libc::IGNBRK | libc::BRKINT | libc::PARMRK | libc::ISTRIP);
    mode.c_iflag &= !(libc::INLCR | libc::IGNCR | libc::ICRNL | libc::IXON);
    mode.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::ISIG | libc::IEXTEN);
    mode.c_cflag = mode.c_cflag & !(libc::CSIZE | libc::PARENB) | libc::CS8;
    // A read waits for one byte.
    mode.c_cc[libc::VMIN] = 1;
    mode.c_cc[libc::VTIME] = 0;
    mode
}

fn set(terminal: RawFd, mode: &libc::termios) -> io::Result<()> {
    // SAFETY: the call only reads the mode.
    check(unsafe { libc::tcsetattr(terminal, libc::TCSANOW, mode) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the program by the signal, as it would have without a handler: this one is uninstalled by its own call.
extern "C" fn restore_and_end(signal: libc::c_int) {
    let saved = SAVED.load(Ordering::Acquire);
    // SAFETY: what was saved is never freed, and both functions may be called from a signal handler (POSIX, 2.4.3).
    unsafe {
        if let Some(saved) = saved.as_ref() {
            libc::tcsetattr(saved.terminal, libc::TCSANOW, &saved.mode);
        }
        libc::raise(signal);
    }
}
