//! What the program says to command lines, right and wrong, and to machines that lack something.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn hosttest(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hosttest"));
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    hosttest(arguments).output().unwrap()
}

/// A device that is no KVM.
const NO_KVM: &str = "/dev/null";

const COMMANDS: [&str; 9] = ["list", "run", "torture", "boot", "linux", "bench", "instructions", "type1", "nested"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_wrong_word_is_named_and_the_exit_code_is_64() {
    for (arguments, word) in [
        (&["bogus"][..], "'bogus'"),
        (&["--bogus"], "'--bogus'"),
        (&["run", "nobody"], "'nobody'"),
        (&["run"], "<NAME>"),
        (&["run", "--bogus"], "'--bogus'"),
        (&["list", "extra"], "'extra'"),
        (&["type1", "--karnel", "vmlinuz"], "'--karnel'"),
        (&["nested"], "<ARGUMENTS>"),
        (&["nested", "--", "run", "nobody"], "'nobody'"),
    ] {
        let output = output(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {message}");
        assert!(message.contains(word), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_bad_value_names_its_option() {
    for (arguments, option, value) in [
        (&["torture", "--seconds", "soon"][..], "--seconds", "'soon'"),
        (&["torture", "--seed", "-1"], "-1", "-1"),
        (&["torture", "--seed", "0x"], "--seed", "'0x'"),
        (&["torture", "--handles", "many"], "--handles", "'many'"),
        (&["torture", "--anonymous", "1.5"], "--anonymous", "'1.5'"),
        (&["torture", "--writers", "none"], "--writers", "'none'"),
        (&["type1", "--machine", "toaster"], "--machine", "'toaster'"),
        (&["type1", "--torture", "soon"], "--torture", "'soon'"),
        (&["nested", "--timeout", "soon", "--", "list"], "--timeout", "'soon'"),
        (&["bench", "--n", "few"], "--n", "'few'"),
        (&["bench", "--n", "0"], "--n", "'0'"),
        (&["bench", "--pattern", "tartan"], "--pattern", "'tartan'"),
        (&["bench", "loop", "this crate, handle", "same", "8", "outer", "1"], "<SPACE>", "'outer'"),
    ] {
        let output = output(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {message}");
        assert!(message.contains(option) && message.contains(value), "{arguments:?}: {message}");
    }
}

#[test]
fn what_would_test_nothing_or_be_ignored_is_refused() {
    for (arguments, option) in [
        (&["torture", "--seconds", "0"][..], "--seconds"),
        (&["torture", "--writers", "0"], "--writers"),
        (&["torture", "--writers", "100000"], "--writers"),
        (&["torture", "--handles", "9"], "--handles"),
        (&["torture", "--anonymous", "100000"], "--anonymous"),
        (&["torture", "--handles", "0", "--anonymous", "0"], "--anonymous"),
        (&["torture", "--kvm", "--pair"], "--pair"),
        (&["torture", "--kvm", "--handles", "3"], "--handles"),
        (&["torture", "--pair", "--writers", "2"], "--writers"),
        (&["torture", "--kvm-device", NO_KVM], "--kvm"),
        (&["bench", "exits", "--json", "figures"], "--json"),
        (&["bench", "--quick", "exits"], "--quick"),
        (&["bench", "--quick", "exit-path"], "--quick"),
        (&["--kvm", "list"], "--kvm"),
        (&["type1", "--initrd", "cpio"], "--kernel"),
        (&["type1", "--append", "quiet"], "--kernel"),
        (&["type1", "--torture", "0"], "--torture"),
        (&["type1", "--torture", "2", "--kernel", "vmlinuz"], "--kernel"),
        (&["nested", "--timeout", "0", "--", "list"], "--timeout"),
        (&["nested", "--memory", "255", "--", "list"], "--memory"),
    ] {
        let output = output(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {message}");
        assert!(message.contains(option), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty(), "{arguments:?} ran");
    }
}

#[test]
fn help_and_list_need_no_kvm() {
    let help = text(&output(&["--help"]).stdout);
    assert!(COMMANDS.iter().all(|command| help.contains(command)) && help.contains("Exit code"), "{help}");
    let list = output(&["list"]);
    assert_eq!(list.status.code(), Some(0));
    let list = text(&list.stdout);
    for scenario in hosttest::guests::all() {
        assert!(list.contains(scenario.name), "{list}");
    }
}

#[test]
fn every_command_has_help_and_the_program_has_a_version() {
    for command in COMMANDS {
        for arguments in [&["help", command][..], &[command, "--help"]] {
            let output = output(arguments);
            let usage = format!("Usage: hosttest {command}");
            assert_eq!(output.status.code(), Some(0), "{arguments:?}");
            assert!(text(&output.stdout).contains(&usage), "{arguments:?}: {}", text(&output.stdout));
        }
    }
    assert_eq!(output(&["help"]).stdout, output(&["--help"]).stdout);
    let version = format!("hosttest {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&output(&["--version"]).stdout), version);
}

#[test]
fn without_kvm_the_platform_is_shown_and_its_first_and_last_lines_say_that_no_guest_ran() {
    let shown = output(&["--kvm-device", NO_KVM]);
    let report = text(&shown.stdout);
    assert_eq!(shown.status.code(), Some(0), "{report}{}", text(&shown.stderr));
    let (first, last) = (report.lines().next().unwrap(), report.lines().next_back().unwrap());
    assert!(first.starts_with("No guest ran") && first.contains(NO_KVM), "{first}");
    assert!(last.starts_with("No guest ran") && last.contains("passed"), "{last}");
    assert!(report.contains("mknod"), "the remedy is missing: {report}");
    for part in [
        "devices\n  pci #0\n",
        "ports\n",
        "memory\n",
        "host bridge: config_address 0x80000000",
        "shared line: 0x2\n  passed",
    ] {
        assert!(report.contains(part), "{part} is missing: {report}");
    }
    assert!(!report.contains("ring 3") && !report.contains("The guest passed"), "{report}");
}

#[test]
fn what_demands_kvm_says_once_what_is_no_kvm() {
    for arguments in [
        &["--kvm", "--kvm-device", NO_KVM][..],
        &["run", "all", "--kvm-device", NO_KVM],
        &["torture", "--kvm", "--kvm-device", NO_KVM],
        &["bench", "exits", "--kvm-device", NO_KVM],
    ] {
        let output = output(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert_eq!(message.matches(NO_KVM).count(), 1, "{arguments:?}: {message}");
        assert!(message.contains("is not KVM") && message.contains("mknod"), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_full_output_is_an_error_and_no_panic() {
    let tools = Tools::new("full");
    tools.script("rustc", &format!("echo {}", tools.0.display()));
    tools.script("cargo", "exit 0");
    tools.script("qemu-system-x86_64", "echo a line; exit 33");
    for arguments in [
        &["list"][..],
        &["--help"],
        &["--version"],
        &["help", "run"],
        &["--kvm-device", NO_KVM],
        &["torture", "--pair", "--seconds", "1"],
        &["type1"],
    ] {
        let full = File::create("/dev/full").unwrap();
        let output = tools.hosttest(arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(message.contains("standard output: No space left on device"), "{arguments:?}: {message}");
    }
}

#[test]
fn a_complaint_that_nobody_hears_leaves_the_exit_code() {
    let full = File::create("/dev/full").unwrap();
    assert_eq!(hosttest(&["bogus"]).stderr(full).status().unwrap().code(), Some(64));
}

#[test]
fn without_qemu_what_needs_it_names_the_package() {
    for (arguments, package) in [
        (&["type1"][..], "qemu-system-x86"),
        (&["type1", "--machine", "svm"], "qemu-system-x86"),
        (&["type1", "--machine", "vmx"], "bochs bochsbios vgabios"),
        (&["type1", "--machine", "arm64"], "qemu-system-arm"),
        (&["type1", "--machine", "riscv64"], "qemu-system-misc"),
        (&["nested", "--", "list"], "qemu-system-x86"),
    ] {
        let output = Tools::new("no-qemu").hosttest(arguments).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(&format!("apt-get install {package}\n")), "{message}");
    }
}

#[test]
fn nested_names_what_the_kernel_lacks() {
    let tools = Tools::new("no-modules");
    tools.script("qemu-system-x86_64", "exit 0");
    let command = |kernel: &Path| {
        let output = tools.hosttest(&["nested", "--", "list"]).env("VM_DEVICE_KERNEL", kernel).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (code, message) = command(&tools.0.join("boot/vmlinuz-6.1"));
    assert!(code == Some(1) && message.contains("lib/modules/6.1/kernel/virt/lib/irqbypass.ko"), "{message}");
    assert!(message.contains(".ci/debian-kernel"), "{message}");
}

#[test]
fn the_machine_of_nested_is_set_up_by_its_first_process_only() {
    let output = output(&["nested-init"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("hosttest nested"), "{}", text(&output.stderr));
}

#[test]
fn the_torture_of_type1_names_a_machine_that_has_two_processors() {
    let output = output(&["type1", "--machine", "svm", "--torture", "1"]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("svm") && message.contains("--machine arm64"), "{message}");
}

#[test]
fn type1_adds_a_missing_target_and_says_so_before() {
    let tools = Tools::new("target");
    let libraries = tools.0.join("libraries");
    tools.script("rustc", &format!("echo {}", libraries.display()));
    tools.script("rustup", &format!("echo rustup \"$@\" >&2; /bin/mkdir {}", libraries.display()));
    tools.script("cargo", "exit 0");
    tools.script("qemu-system-x86_64", "echo verdict: passed; exit 33");
    let output = tools.hosttest(&["type1"]).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "verdict: passed\n"), "{message}");
    let (before, after) = message.split_once('\n').unwrap();
    assert!(before.contains("x86_64-unknown-none is missing"), "{message}");
    assert!(before.contains("`rustup target add x86_64-unknown-none`"), "{message}");
    assert_eq!(after, "rustup target add x86_64-unknown-none\n");
}

#[test]
fn type1_names_the_command_where_the_target_cannot_be_added() {
    let tools = Tools::new("no-target");
    tools.script("rustc", "echo /nowhere/lib");
    tools.script("qemu-system-x86_64", "exit 0");
    for rustup in [None, Some("exit 7")] {
        rustup.into_iter().for_each(|script| tools.script("rustup", script));
        let output = tools.hosttest(&["type1"]).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("`rustup target add x86_64-unknown-none` failed"), "{message}");
    }
}

#[test]
fn the_errors_of_qemu_are_shown() {
    let tools = Tools::new("qemu");
    tools.script("rustc", &format!("echo {}", tools.0.display()));
    tools.script("cargo", "exit 0");
    tools.script(
        "qemu-system-x86_64",
        "[ \"$1\" = --version ] || { echo 'qemu: cannot set up guest memory' >&2; exit 1; }",
    );
    let output = tools.hosttest(&["type1"]).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("exit status: 1") && message.contains("cannot set up guest memory"), "{message}");
}

/// A directory of programs that stand in for the machine's.
struct Tools(PathBuf);

impl Tools {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn script(&self, name: &str, body: &str) {
        let file = self.0.join(name);
        fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The program, for which there are these programs alone.
    fn hosttest(&self, arguments: &[&str]) -> Command {
        let mut command = hosttest(arguments);
        command.env("PATH", &self.0).env("CARGO", self.0.join("cargo"));
        command
    }
}
