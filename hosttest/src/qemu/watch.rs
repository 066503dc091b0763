//! QEMU while it runs: its output, and how it ends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{Error, QEMU};

/// The exit codes of QEMU when the image leaves through `isa-debug-exit`: twice what it writes, and one.
const PASSED: i32 = 2 * 0x10 + 1;
const FAILED: i32 = 2 * 0x11 + 1;

/// QEMU warns of features of the processor that TCG lacks; none of them is needed.
const NEEDLESS: &str = "TCG doesn't support requested feature";

/// Copies the output of QEMU until it ends, but no longer than `time_limit`.
pub(super) fn watch(mut qemu: Child, time_limit: Duration, output: &mut (impl Write + Send)) -> Result<String, Error> {
    let (serial, messages) = (qemu.stdout.take(), qemu.stderr.take());
    let lost = AtomicBool::new(false);
    thread::scope(|scope| {
        let lost = &lost;
        let reader = scope.spawn(move || {
            let copied = serial.map_or(Ok(String::new()), |serial| copy(serial, output));
            lost.store(copied.is_err(), Ordering::Relaxed);
            copied
        });
        let listener = scope.spawn(move || messages.map_or_else(String::new, needed));
        let started = Instant::now();
        let status = loop {
            match qemu.try_wait().map_err(|error| Error::Io(QEMU.into(), error))? {
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
        let text = reader.join().unwrap_or_else(|_| Ok(String::new())).map_err(Error::Output)?;
        match status.map(|status| (status.code(), status)) {
            Some((Some(PASSED), _)) => Ok(text),
            Some((Some(FAILED), _)) => Err(Error::Failed),
            Some((_, status)) => Err(Error::NoVerdict { status, said }),
            None => Err(Error::TimedOut { time_limit, said }),
        }
    })
}

/// Copies lines as they come, and returns all of them.
fn copy(serial: impl Read, output: &mut impl Write) -> io::Result<String> {
    let mut text = String::new();
    let mut lines = BufReader::new(serial);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|length| length != 0) {
        output.write_all(&line).and_then(|()| output.flush())?;
        text.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(text)
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
    fn watched(script: &str, output: &mut (impl Write + Send)) -> Result<String, Error> {
        let shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        watch(shell.unwrap(), Duration::from_secs(20), output)
    }

    #[test]
    fn the_errors_of_qemu_are_shown_and_its_needless_warnings_are_not() {
        let script = format!("echo \"qemu: warning: {NEEDLESS}: CPUID\" >&2; echo 'qemu: no such file' >&2; exit 1");
        let error = watched(&script, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("exit status: 1") && error.contains("no such file"), "{error}");
        assert!(!error.contains(NEEDLESS), "{error}");
    }

    #[test]
    fn an_output_that_cannot_be_written_ends_the_run() {
        let mut full = std::fs::File::create("/dev/full").unwrap();
        let started = Instant::now();
        let ended = watched("echo one; exec sleep 15", &mut full);
        assert!(matches!(ended, Err(Error::Output(_))), "{ended:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "it was not waited for");
    }

    #[test]
    fn a_verdict_comes_with_all_that_was_printed() {
        let mut output = Vec::new();
        let text = watched(&format!("echo one; echo two; exit {PASSED}"), &mut output).unwrap();
        assert_eq!((text.as_str(), output.as_slice()), ("one\ntwo\n", b"one\ntwo\n".as_slice()));
        assert!(matches!(watched(&format!("exit {FAILED}"), &mut output), Err(Error::Failed)));
    }
}
