//! The terminal with pipes and with a pseudo-terminal.

use std::fs::File;
use std::io::{PipeReader, Read as _, Write as _, pipe};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use embedded_io::{Read, ReadReady, Write, WriteReady};
use vm_device::devices::time::HandClock;
use vm_device::devices::uart::Uart16550;
use vm_device::{DeviceManager, Gsi, GuestAddress, IoRange, IoType, IrqResource, Storage, SystemAllocator};

use super::line::{KEPT, ROOM};
use super::*;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A process has one terminal in raw mode.
static RAW: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> MutexGuard<'static, ()> {
    RAW.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The user's side of a pseudo-terminal, and the program's.
fn pseudo_terminal() -> (File, OwnedFd) {
    let (mut user, mut program) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: both numbers are written, and the other pointers may be null.
    assert_eq!(unsafe { libc::openpty(&mut user, &mut program, null, null.cast(), null.cast()) }, 0);
    // SAFETY: nobody else has them.
    unsafe { (File::from_raw_fd(user), OwnedFd::from_raw_fd(program)) }
}

/// The local and the input flags of a terminal, and what a read waits for.
fn mode(terminal: &OwnedFd) -> (u32, u32, [u8; 32]) {
    // SAFETY: all zeroes are a value of the type, which the call writes.
    let mode = unsafe {
        let mut mode: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut mode), 0);
        mode
    };
    (mode.c_lflag, mode.c_iflag, mode.c_cc)
}

/// What is notified, and the calls that come.
fn notifier() -> (impl Fn() + Send + Sync, Receiver<()>) {
    let (send, calls) = mpsc::channel();
    // Somebody who no longer listens need not be told.
    (move || _ = send.send(()), calls)
}

fn wait_until(calls: &Receiver<()>, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        match calls.recv_timeout(LIMIT.saturating_sub(start.elapsed())) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => panic!("it does not come"),
            Err(RecvTimeoutError::Disconnected) => panic!("it no longer comes"),
        }
    }
}

fn received(line: &mut Line) -> Vec<u8> {
    let mut all = Vec::new();
    let mut bytes = [0; 7];
    while let Ok(true) = line.read_ready()
        && let Ok(count @ 1..) = line.read(&mut bytes)
    {
        all.extend_from_slice(&bytes[..count]);
    }
    all
}

fn read_until(screen: &mut (impl std::io::Read + AsFd), text: &str) -> String {
    let mut seen = Vec::new();
    let mut bytes = [0; 64];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let mut polled = libc::pollfd { fd: screen.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: it is one.
        let ready = unsafe { libc::poll(&mut polled, 1, LIMIT.as_millis() as i32) };
        assert_eq!(ready, 1, "it does not come: {}", String::from_utf8_lossy(&seen));
        let count = screen.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// A terminal of which the input has ended, and what it prints.
fn printing(expected: Option<&str>) -> (Terminal, PipeReader) {
    let (input, _) = pipe().unwrap();
    let (screen, output) = pipe().unwrap();
    (Terminal::new(input.into(), output.into(), expected), screen)
}

#[test]
fn what_the_guest_has_sent_is_kept_before_it_is_printed() {
    let (terminal, _screen) = printing(None);
    terminal.line().write(b"panic").unwrap();
    assert_eq!(terminal.kept(), b"panic");
}

#[test]
fn a_terminal_is_raw_while_it_serves_and_as_it_was_afterwards() {
    let _one = one_at_a_time();
    let (_user, program) = pseudo_terminal();
    let before = mode(&program);
    assert_ne!(before.0 & libc::ECHO, 0);
    let terminal = Terminal::new(program.try_clone().unwrap(), program.try_clone().unwrap(), None);
    thread::scope(|scope| {
        let serving = terminal.serve(scope, || {}).unwrap();
        let (local, input, waits) = mode(&program);
        assert_eq!(local & (libc::ECHO | libc::ICANON | libc::ISIG), 0);
        assert_eq!(input & (libc::ICRNL | libc::IXON), 0);
        assert_eq!((waits[libc::VMIN], waits[libc::VTIME]), (1, 0));
        let again = RawMode::new(program.as_fd()).map(drop).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(mode(&program).0, local);
        drop(serving);
        assert_eq!(mode(&program), before);
    });
}

#[test]
fn a_panic_leaves_a_terminal_as_it_was() {
    let _one = one_at_a_time();
    let (_user, program) = pseudo_terminal();
    let before = mode(&program);
    let terminal = Terminal::new(program.try_clone().unwrap(), program.try_clone().unwrap(), None);
    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        thread::scope(|scope| {
            let _serving = terminal.serve(scope, || {}).unwrap();
            assert_ne!(mode(&program), before);
            panic::resume_unwind(Box::new("not printed"));
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(mode(&program), before);
}

#[test]
fn a_signal_that_ends_the_program_leaves_a_terminal_as_it_was() {
    let _one = one_at_a_time();
    let (_user, program) = pseudo_terminal();
    let before = mode(&program);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGABRT] {
        // SAFETY: the child only sets the mode and the handlers, allocates, which glibc allows after a fork, and ends.
        let status = unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_CORE, &no_core);
                libc::signal(signal, libc::SIG_DFL);
                let raw = RawMode::new(program.as_fd());
                if mode(&program).0 & libc::ECHO == 0 {
                    libc::raise(signal);
                }
                std::mem::forget(raw);
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            status
        };
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == signal, "{signal}: {status:#x}");
        assert_eq!(mode(&program), before, "{signal}");
    }
}

#[test]
fn what_is_no_terminal_has_no_raw_mode() {
    let (reader, _) = pipe().unwrap();
    assert!(RawMode::new(reader.as_fd()).unwrap().is_none());
}

#[test]
fn keys_are_the_guests_but_for_those_after_ctrl_a() {
    let _one = one_at_a_time();
    let (mut user, program) = pseudo_terminal();
    let terminal = Terminal::new(program.try_clone().unwrap(), program, None);
    let mut line = terminal.line();
    let (notify, calls) = notifier();
    thread::scope(|scope| {
        let _serving = terminal.serve(scope, notify).unwrap();
        // Ctrl-C, Ctrl-S and carriage returns are the guest's too.
        user.write_all(b"ls\r\x03\x13\x01\x01").unwrap();
        let mut seen = Vec::new();
        wait_until(&calls, || {
            seen.extend(received(&mut line));
            seen.len() >= 6
        });
        assert_eq!(seen, b"ls\r\x03\x13\x01");
        user.write_all(b"\x01h").unwrap();
        let help = read_until(&mut user, "to the guest");
        assert!(help.contains("Ctrl-A x       leaves\r\n"), "{help}");
        user.write_all(b"\x01b").unwrap();
        read_until(&mut user, "Ctrl-A b is unknown");
        assert!(!terminal.has_left());
        user.write_all(b"\x01x").unwrap();
        wait_until(&calls, || terminal.has_left());
        assert_eq!(received(&mut line), b"");
    });
    assert_eq!(terminal.kept(), b"", "only the guest's bytes are kept");
}

#[test]
fn the_user_can_leave_a_guest_that_takes_nothing() {
    let _one = one_at_a_time();
    let (mut user, program) = pseudo_terminal();
    let terminal = Terminal::new(program.try_clone().unwrap(), program, None);
    let (notify, calls) = notifier();
    thread::scope(|scope| {
        let _serving = terminal.serve(scope, notify).unwrap();
        for _ in 0..ROOM / 256 + 8 {
            user.write_all(&[b'a'; 256]).unwrap();
        }
        user.write_all(b"\x01x").unwrap();
        wait_until(&calls, || terminal.has_left());
    });
    assert_eq!(received(&mut terminal.line()).len(), ROOM);
}

#[test]
fn a_hung_up_terminal_is_an_end_of_the_input() {
    let _one = one_at_a_time();
    let (user, program) = pseudo_terminal();
    let terminal = Terminal::new(program.try_clone().unwrap(), program, None);
    let mut line = terminal.line();
    thread::scope(|scope| {
        let _serving = terminal.serve(scope, || {}).unwrap();
        drop(user);
        assert_eq!(line.read(&mut [0]), Ok(0));
    });
}

#[test]
fn everything_from_a_pipe_is_the_guests_and_waits_until_it_is_taken() {
    let (input, mut keyboard) = pipe().unwrap();
    let (_screen, output) = pipe().unwrap();
    let terminal = Terminal::new(input.into(), output.into(), None);
    let mut line = terminal.line();
    let sent: Vec<u8> = (0..3 * ROOM).map(|index| (index % 251) as u8).collect();
    thread::scope(|scope| {
        let _serving = terminal.serve(scope, || {}).unwrap();
        let copy = sent.clone();
        scope.spawn(move || keyboard.write_all(&copy).unwrap());
        let mut seen = Vec::new();
        let mut bytes = [0; 1000];
        loop {
            match line.read(&mut bytes).unwrap() {
                0 => break,
                count => seen.extend_from_slice(&bytes[..count]),
            }
        }
        assert_eq!(line.read_ready(), Ok(true), "the end can be read without waiting");
        assert!(seen == sent);
        assert!(!terminal.has_left());
    });
}

#[test]
fn a_full_line_takes_nothing_and_says_when_it_does_again() {
    let (terminal, mut screen) = printing(None);
    let mut line = terminal.line();
    let (notify, calls) = notifier();
    let mut sent = 0;
    let mut reader = None;
    thread::scope(|scope| {
        let _serving = terminal.serve(scope, notify).unwrap();
        // The pipe is full at some time, and then the line is.
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            if line.write_ready().unwrap() {
                sent += line.write(&[b'x'; 1000]).unwrap();
            } else if calls.recv_timeout(Duration::from_millis(300)).is_err() {
                break;
            }
        }
        assert_eq!(line.write_ready(), Ok(false));
        assert!(sent > ROOM, "{sent}");
        assert!(calls.try_recv().is_err());
        reader = Some(thread::spawn(move || {
            let mut all = Vec::new();
            screen.read_to_end(&mut all).unwrap();
            all.len()
        }));
        wait_until(&calls, || line.write_ready().unwrap());
        sent += line.write(b"end").unwrap();
    });
    terminal.printed().unwrap();
    drop(terminal);
    assert_eq!(reader.unwrap().join().unwrap(), sent);
}

#[test]
fn the_end_does_not_wait_for_a_reader_that_reads_nothing() {
    let (terminal, _screen) = printing(None);
    let mut line = terminal.line();
    let start = Instant::now();
    thread::scope(|scope| {
        let _serving = terminal.serve(scope, || {}).unwrap();
        for _ in 0..4 {
            line.write(&[b'x'; ROOM / 2]).unwrap();
        }
    });
    assert!(start.elapsed() < LIMIT);
    assert_eq!(terminal.printed().unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(line.write(b"lost"), Ok(4), "a line that is closed waits for nobody");
}

#[test]
fn a_closed_output_is_an_error_and_the_guest_goes_on() {
    let (terminal, screen) = printing(Some("end"));
    drop(screen);
    let mut line = terminal.line();
    let (notify, calls) = notifier();
    thread::scope(|scope| {
        let _serving = terminal.serve(scope, notify).unwrap();
        line.write(b"begin").unwrap();
        line.flush().unwrap();
        for _ in 0..100 {
            line.write(&[b'x'; 1000]).unwrap();
        }
        line.write(b"end").unwrap();
        wait_until(&calls, || terminal.has_come());
    });
    assert_eq!(terminal.printed().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn what_is_expected_is_found_in_what_the_guest_sends_and_is_told_once() {
    let (terminal, mut screen) = printing(Some("login: "));
    let mut line = terminal.line();
    let (notify, calls) = notifier();
    thread::scope(|scope| {
        let _serving = terminal.serve(scope, notify).unwrap();
        for byte in b"debian logi" {
            line.write(&[*byte]).unwrap();
        }
        read_until(&mut screen, "logi");
        // The end of the input tells nobody.
        assert!(!terminal.has_come() && calls.try_recv().is_err());
        line.write(b"n: ").unwrap();
        assert_eq!(calls.recv_timeout(LIMIT), Ok(()));
        assert!(terminal.has_come());
        line.write(b"login: ").unwrap();
        read_until(&mut screen, "n: login: ");
        assert!(terminal.has_come() && calls.try_recv().is_err());
        assert!(!terminal.is_at_line_start());
        line.write(b"\n").unwrap();
        read_until(&mut screen, "\n");
        assert!(terminal.is_at_line_start());
    });
    assert_eq!(terminal.kept(), b"debian login: login: \n");
}

#[test]
fn the_last_of_the_output_is_kept() {
    let (terminal, mut screen) = printing(None);
    let mut line = terminal.line();
    thread::spawn(move || screen.read_to_end(&mut Vec::new()));
    thread::scope(|scope| {
        let _serving = terminal.serve(scope, || {}).unwrap();
        let mut numbers = (0..KEPT as u32).flat_map(u32::to_be_bytes);
        let mut piece: Vec<u8> = numbers.by_ref().take(1024).collect();
        while !piece.is_empty() {
            let count = line.write(&piece).unwrap();
            piece.drain(..count);
            piece.extend(numbers.by_ref().take(count));
        }
    });
    let kept = terminal.kept();
    assert_eq!(kept.len(), KEPT);
    assert_eq!(kept[..4], (3 * KEPT as u32 / 4).to_be_bytes());
    assert_eq!(kept[KEPT - 4..], (KEPT as u32 - 1).to_be_bytes());
}

#[test]
fn a_uart_is_polled_by_the_notifier_and_interrupts() {
    let (input, mut keyboard) = pipe().unwrap();
    let (mut screen, output) = pipe().unwrap();
    let terminal = Terminal::new(input.into(), output.into(), Some("#"));
    let (clock, storage) = (HandClock::new(), Storage::<2, 2, 1>::new());
    let uart = Uart16550::new("serial", terminal.line(), &clock);
    let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
    let manager = DeviceManager::new(&storage, allocator);
    manager.register_device(&uart, None, &[uart.ports(0x3f8)], &[IrqResource::Fixed(Gsi(4))]).unwrap();
    let (notify, calls) = notifier();
    let read = |port| {
        let mut byte = [0];
        manager.read(GuestAddress(port), &mut byte, IoType::Pio).unwrap();
        byte[0]
    };
    thread::scope(|scope| {
        let poll = || {
            uart.poll();
            notify();
        };
        let _serving = terminal.serve(scope, poll).unwrap();
        manager.write_string(0x3f8, 1, b"login #").unwrap();
        wait_until(&calls, || terminal.has_come());
        assert_eq!(read_until(&mut screen, "#"), "login #");
        keyboard.write_all(b"root").unwrap();
        wait_until(&calls, || read(0x3fd) & 1 != 0);
        assert_eq!(read(0x3f8), b'r');
    });
}
