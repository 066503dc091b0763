//! `hosttest nested`: this program on a genuine `kvm_amd`, in QEMU. Without QEMU or a Linux kernel with its modules the tests
//! count as ignored; where `CI` is set, as failed.

mod needs;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use hosttest::qemu::nested::available;
use libtest_mimic::{Arguments, Failed, Trial};

use needs::{Need, test};

fn main() -> ExitCode {
    let needs = [&Need::new("QEMU and a Linux kernel with KVM", available())];
    let trials = vec![
        trial("guests_pass", &needs, || {
            let output = nested(&["run", "access/ports", "doorbell/ioeventfd", "interrupts/shared-level"])?;
            expect(&output, 0, &["access/ports ", "doorbell/ioeventfd ", "interrupts/shared-level "])?;
            let text = String::from_utf8_lossy(&output.stdout);
            let passed = text.lines().filter(|line| line.contains("passed, ")).count();
            if passed == 3 && !text.contains('\r') { Ok(()) } else { Err(format!("{passed} passed: {text:?}").into()) }
        }),
        // The name is that of no device, but of a file that is there if it is copied.
        trial("a_failure_comes_out_with_its_exit_code_and_a_file_that_is_named_is_there", &needs, || {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nested").join("no kvm");
            fs::create_dir_all(file.with_file_name("way"))?;
            fs::write(&file, "text")?;
            let way = file.with_file_name("way").join("..").join("no kvm");
            let arguments = ["run", "access/ports", "--kvm-device"].map(OsStr::new);
            let output = nested(&[&arguments[..], &[way.as_os_str()]].concat())?;
            expect(&output, 2, &["no kvm is not KVM"])
        }),
        trial("a_machine_that_takes_too_long_is_ended", &needs, || {
            let output = hosttest(&["nested", "--timeout", "1", "--", "list"])?;
            let message = String::from_utf8_lossy(&output.stderr);
            let said = message.contains("within 1 s") && message.contains("the emulator was killed");
            if said && output.status.code() == Some(1) { Ok(()) } else { Err(format!("{output:?}").into()) }
        }),
    ];
    // One at a time: each uses every processor.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &str, needs: &[&Need], run: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    test(name, needs, run)
}

fn hosttest<S: AsRef<OsStr>>(arguments: &[S]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_hosttest")).args(arguments).output()
}

fn nested<S: AsRef<OsStr>>(arguments: &[S]) -> std::io::Result<Output> {
    let before = ["nested", "--timeout", "120", "--"].map(OsStr::new);
    hosttest(&before.into_iter().chain(arguments.iter().map(AsRef::as_ref)).collect::<Vec<_>>())
}

/// Fails, unless the exit code is this one, and all parts were printed on the machine.
fn expect(output: &Output, code: i32, parts: &[&str]) -> Result<(), Failed> {
    let text = String::from_utf8_lossy(&output.stdout);
    match parts.iter().find(|part| !text.contains(**part)) {
        None if output.status.code() == Some(code) => Ok(()),
        missing => Err(format!("missing: {missing:?}; {output:?}").into()),
    }
}
