//! The start of QEMU.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::PROGRAM;
use super::error::Error;

/// Where `isa-debug-exit` is, which ends QEMU with an exit code of twice what is written there, and one.
pub(crate) const EXIT_PORT: u16 = 0xf4;

/// QEMU with a PC whose processor has SVM, of so many MiB. Its serial port is QEMU's output.
pub(crate) fn machine(accelerator: &str, memory: u32) -> Command {
    let mut qemu = Command::new(PROGRAM);
    qemu.args(["-machine", "pc,smm=off", "-accel", accelerator, "-cpu", "EPYC,+svm", "-m", &memory.to_string()])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4")]);
    qemu
}

/// Starts QEMU, with its output in pipes. It is killed when the thread that starts it ends, so that it does not outlive this
/// program. QEMU has `kept` open too, by the same number.
pub(crate) fn start(qemu: &mut Command, kept: Option<&File>) -> Result<Child, Error> {
    let kept = kept.map(AsRawFd::as_raw_fd);
    let prepare = move || {
        // SAFETY: both calls take numbers only.
        let prepared = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
                && kept.is_none_or(|file| libc::fcntl(file, libc::F_SETFD, 0) == 0)
        };
        if prepared { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe { qemu.pre_exec(prepare) };
    qemu.spawn().map_err(|error| Error::Io(qemu.get_program().display().to_string(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::thread;

    use vmm_sys_util::tempfile::TempFile;

    #[test]
    fn it_does_not_outlive_the_thread_that_started_it() {
        let started = thread::spawn(|| start(Command::new("sleep").arg("20"), None).unwrap());
        assert_eq!(started.join().unwrap().wait().unwrap().to_string(), "signal: 9 (SIGKILL)");
    }

    #[test]
    fn it_reads_a_file_that_has_no_name() {
        let mut file = TempFile::new().unwrap().into_file();
        file.write_all(b"contents").unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut child = start(Command::new("cat").arg(path), Some(&file)).unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(text, "contents");
    }
}
