//! Debian's kernels, unmodified, judge a PC of the crate's devices, on a genuine `kvm_amd` in QEMU (`hosttest nested -- linux`). Without
//! QEMU, busybox or the kernel a test counts as ignored; where `CI` is set, as failed.

mod needs;

use std::ffi::OsStr;
use std::process::{Command, ExitCode, Output};

use hosttest::linux_guest::busybox;
use hosttest::linux_guest::kernel::Kernel;
use hosttest::qemu::nested::available;
use libtest_mimic::{Arguments, Failed, Trial};

use needs::{Need, test};

/// What `hosttest linux` says of each thing that it has tried.
const STARTED: &str = "Linux has started\n";
const COMPARED: &str = "ports, memory, lines, PCI functions, serial ports, clock and tables are those of the manager\n";
const BY_MESSAGE: &str = "a PCI serial port interrupts by a message, and one by its pin\n";
const BY_PINS: &str = "two PCI serial ports interrupt by a line that they share\n";
const HOT_PLUGGED: &str = "both were pulled out in use and plugged in again, 3 times\n";
const KEYBOARD_RESET: &str = "Linux has started again after a reset (kbd)\n";
const ACPI_RESET: &str = "Linux has started again after a reset (acpi)\n";
const PORT_RESET: &str = "Linux has started again after a reset (pci)\n";
const PASSED: &str = "Linux has passed, in ";

fn main() -> ExitCode {
    let host = Need::new("QEMU and a Linux kernel with KVM", available());
    let programs = Need::new("busybox", busybox());
    let cloud = Need::new("a Linux kernel", Kernel::Cloud.find());
    let stock = Need::new("a second Linux kernel", Kernel::Stock.find());
    let trial = |name, kernel: Kernel, arguments: &'static [&str], steps: &'static [&str]| {
        let there = if kernel == Kernel::Cloud { &cloud } else { &stock };
        test(name, &[&host, &programs, there], move || judge(kernel, arguments, steps))
    };
    let trials: Vec<Trial> = vec![
        trial(
            "cloud_kernel_with_hot_plug_and_resets",
            Kernel::Cloud,
            &["--hot-plugs", "3", "--resets"],
            &[STARTED, COMPARED, BY_MESSAGE, HOT_PLUGGED, KEYBOARD_RESET, ACPI_RESET, PORT_RESET, PASSED],
        ),
        trial(
            "cloud_kernel_with_two_processors",
            Kernel::Cloud,
            &["--cpus", "2"],
            &[STARTED, COMPARED, BY_MESSAGE, PASSED],
        ),
        trial(
            "cloud_kernel_with_two_processors_and_the_crate_s_interrupt_controllers",
            Kernel::Cloud,
            &["--chips", "crate", "--cpus", "2"],
            &[STARTED, COMPARED, BY_MESSAGE, PASSED],
        ),
        trial(
            "cloud_kernel_by_pins_of_the_crate_s_interrupt_controllers_with_hot_plug",
            Kernel::Cloud,
            &["--chips", "crate", "--no-messages", "--hot-plugs", "3"],
            &[STARTED, COMPARED, BY_PINS, HOT_PLUGGED, PASSED],
        ),
        trial("stock_kernel_with_one_processor", Kernel::Stock, &[], &[STARTED, COMPARED, BY_MESSAGE, PASSED]),
        trial(
            "stock_kernel_with_two_processors_by_pins",
            Kernel::Stock,
            &["--cpus", "2", "--no-messages"],
            &[STARTED, COMPARED, BY_PINS, PASSED],
        ),
    ];
    // One at a time: each uses every processor.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// How often a kernel is tried at most. The machine that QEMU emulates, with the host kernel in it, stood still or was reset in one of
/// some six runs with two processors, which says nothing of the guest. Each failure is printed, so that one of the guest's is seen.
const TRIES: u32 = 4;

/// Lets a kernel judge, and fails unless it has tried all of `steps` in their order, and passed.
fn judge(kernel: Kernel, arguments: &[&str], steps: &[&str]) -> Result<(), Failed> {
    let mut failure = String::new();
    for attempt in 1..=TRIES {
        let output = run(kernel, arguments)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let mut rest = &*said;
        let missing = steps.iter().find(|step| match rest.split_once(**step) {
            Some((_, after)) => {
                rest = after;
                false
            }
            None => true,
        });
        match missing {
            None if output.status.success() => return Ok(()),
            _ => failure = format!("{missing:?} is missing: {said}{}", String::from_utf8_lossy(&output.stderr)),
        }
        eprintln!("try {attempt} of {TRIES}: {failure}");
    }
    Err(failure.into())
}

fn run(kernel: Kernel, arguments: &[&str]) -> Result<Output, Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_hosttest"))
        .args(["nested", "--timeout", "150", "--", "linux", "--timeout", "135", "--kernel"])
        .arg(kernel.find()?)
        .arg("--busybox")
        .arg(busybox()?)
        .args(arguments.iter().map(OsStr::new))
        .output()?;
    Ok(output)
}
