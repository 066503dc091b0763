//! QEMU while it runs: its output, and how it ends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::error::Error;

/// QEMU warns of features of the processor that TCG lacks; none of them is needed.
const NEEDLESS: &str = "TCG doesn't support requested feature";

/// How QEMU ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// All that came out of the serial port.
    pub(crate) text: String,
    /// What QEMU said itself.
    pub(crate) said: String,
}

/// Copies the serial port, without carriage returns, until QEMU ends, but no longer than `time_limit`.
pub(crate) fn watch(mut qemu: Child, time_limit: Duration, output: &mut (impl Write + Send)) -> Result<Ended, Error> {
    let (serial, messages) = (qemu.stdout.take(), qemu.stderr.take());
    let lost = AtomicBool::new(false);
    thread::scope(|scope| {
        let lost = &lost;
        let reader = scope.spawn(move || {
            let copied = serial.map_or(Ok(Vec::new()), |serial| copy(serial, output));
            lost.store(copied.is_err(), Ordering::Relaxed);
            copied
        });
        let listener = scope.spawn(move || messages.map_or_else(String::new, needed));
        let started = Instant::now();
        let status = loop {
            match qemu.try_wait().map_err(|error| Error::Io("the emulator".into(), error))? {
                Some(status) => break Some(status),
                // The rest would not be seen.
                None if lost.load(Ordering::Relaxed) => break None,
                None if started.elapsed() > time_limit => break None,
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        // It has ended, or is to: then its output ends too.
        let _ = qemu.kill().and_then(|()| qemu.wait().map(drop));
        let said = listener.join().unwrap_or_default();
        let text = reader.join().unwrap_or_else(|_| Ok(Vec::new())).map_err(Error::Output)?;
        match status {
            Some(status) => Ok(Ended { status, text: String::from_utf8_lossy(&text).into_owned(), said }),
            None => Err(Error::TimedOut { time_limit, said }),
        }
    })
}

/// Copies what comes as it comes, and returns all of it.
fn copy(mut serial: impl Read, output: &mut impl Write) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = serial.read(&mut buffer) {
        let start = all.len();
        all.extend(buffer[..length].iter().filter(|byte| **byte != b'\r'));
        output.write_all(&all[start..]).and_then(|()| output.flush())?;
    }
    Ok(all)
}

/// The lines that say something of use.
fn needed(messages: impl Read) -> String {
    let lines = BufReader::new(messages).split(b'\n').map_while(Result::ok);
    lines
        .map(|line| String::from_utf8_lossy(&line).into_owned() + "\n")
        .filter(|line| !line.contains(NEEDLESS))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// What is made of a QEMU that does what `script` says.
    fn watched(script: &str, time_limit: Duration, output: &mut (impl Write + Send)) -> Result<Ended, Error> {
        let shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        watch(shell.unwrap(), time_limit, output)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_errors_of_qemu_are_kept_and_its_needless_warnings_are_not() {
        let script = format!("echo \"qemu: warning: {NEEDLESS}: CPUID\" >&2; echo 'qemu: no such file' >&2; exit 1");
        let ended = watched(&script, LONG, &mut Vec::new()).unwrap();
        assert_eq!((ended.status.code(), ended.said.as_str()), (Some(1), "qemu: no such file\n"));
    }

    #[test]
    fn an_output_that_cannot_be_written_ends_the_run() {
        let mut full = std::fs::File::create("/dev/full").unwrap();
        let started = Instant::now();
        let ended = watched("echo one; exec sleep 15", LONG, &mut full);
        assert!(matches!(ended, Err(Error::Output(_))), "{ended:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "it was not waited for");
    }

    #[test]
    fn the_end_comes_with_all_that_was_printed_but_carriage_returns() {
        let mut output = Vec::new();
        let ended = watched(r"printf 'one\r\ntwo\n> '; exit 7", LONG, &mut output).unwrap();
        assert_eq!((ended.status.code(), ended.text.as_str()), (Some(7), "one\ntwo\n> "));
        assert_eq!(output, b"one\ntwo\n> ");
    }

    #[test]
    fn one_that_goes_on_is_killed_and_what_it_had_printed_is_seen() {
        let (mut output, started) = (Vec::new(), Instant::now());
        let ended = watched("echo one; exec sleep 15", Duration::from_millis(500), &mut output);
        assert!(matches!(ended, Err(Error::TimedOut { .. })), "{ended:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "it was waited for");
        assert_eq!(output, b"one\n");
    }
}
