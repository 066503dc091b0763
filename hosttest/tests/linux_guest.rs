//! Debian's kernels, on the machine that QEMU emulates, report what they found: this shows that the script and what reads its
//! report are right about a machine that is known. Without QEMU, busybox or the kernel a test counts as ignored; where `CI` is
//! set, as failed.

mod needs;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use hosttest::linux_guest::kernel::Kernel;
use hosttest::linux_guest::report::{AcpiDevice, Range, Report, SerialPlace};
use hosttest::linux_guest::{busybox, initramfs};
use hosttest::qemu::{installed, run};
use libtest_mimic::{Arguments, Failed, Trial};

use needs::{Need, test};

fn main() -> ExitCode {
    let qemu = Need::new("QEMU", installed());
    let programs = Need::new("busybox", busybox());
    let trial = |name, what, kernel: Kernel| {
        let there = Need::new(what, kernel.find());
        test(name, &[&qemu, &programs, &there], move || report(kernel))
    };
    let trials: Vec<Trial> = vec![
        trial("cloud_kernel", "a Linux kernel", Kernel::Cloud),
        trial("stock_kernel", "a second Linux kernel", Kernel::Stock),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Boots the kernel, and returns what it printed.
fn boot(kernel: Kernel, script: &str) -> Result<String, Failed> {
    let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{kernel:?}.initramfs"));
    fs::write(&image, initramfs(script, &busybox()?, &[])?)?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "512", "-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-serial", "stdio", "-device", "pci-serial,addr=5"])
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(kernel.find()?)
        .arg("-initrd")
        .arg(&image);
    let mut said = Vec::new();
    let ended = run(&mut qemu, Duration::from_secs(120), &mut said);
    ended.map_err(|error| format!("{error}\n{}", String::from_utf8_lossy(&said)).into())
}

fn report(kernel: Kernel) -> Result<(), Failed> {
    let text = boot(kernel, "report")?;
    let report = Report::read(&text).map_err(|error| format!("{error}\n{text}"))?;
    let found = |name: &str, is_found: bool| match is_found {
        true => Ok(()),
        false => Err(Failed::from(format!("{name} is not right: {report:#?}\n{text}"))),
    };
    let range = |ranges: &[Range], first, last, name| {
        ranges.iter().any(|range| (range.first, range.last, range.name.as_str()) == (first, last, name))
    };
    found("the version", report.kernel.starts_with("Linux version 6."))?;
    found("the number of processors", report.processors == 2)?;
    found("the serial port at 0x3f8", range(&report.ports, 0x3f8, 0x3ff, "serial"))?;
    found("the HPET", range(&report.memory, 0xfed0_0000, 0xfed0_03ff, "HPET 0"))?;

    let timer = report.interrupts.iter().find(|interrupt| interrupt.name == "LOC");
    found("the local timer", timer.is_some_and(|timer| timer.counts.len() == 2 && timer.total() > 0))?;
    let line = report.interrupts.iter().find(|interrupt| interrupt.line == Some(4));
    let line = line.map(|line| (line.chip.as_str(), line.trigger.as_str(), line.users.join(",")));
    found("the line of the serial port", line == Some(("IO-APIC", "edge", "ttyS0".into())))?;

    let function = report.functions.iter().find(|function| (function.vendor, function.device) == (0x1b36, 2));
    let function = function.cloned().unwrap_or_default();
    let [bar] = function.resources[..] else {
        return found("the PCI serial port", false);
    };
    found("its place", function.address == "0000:00:05.0" && function.class == 0x07_0002)?;
    found("its driver", function.driver.as_deref() == Some("serial"))?;
    found("its register", bar.number == 0 && bar.flags & 0x100 != 0 && bar.last - bar.first == 7)?;
    let within = |range: &&Range| range.first == bar.first && range.name == "serial";
    let within = report.ports.iter().find(within).map(|range| range.within.join(", "));
    found("its range", within.as_deref() == Some("PCI Bus 0000:00, 0000:00:05.0"))?;
    let port = report.serial.iter().find(|port| port.place == SerialPlace::Port(bar.first));
    found("its number", port.is_some_and(|port| port.kind == "16550A" && port.irq == function.irq))?;
    let console = report.serial.iter().find(|port| port.place == SerialPlace::Port(0x3f8));
    found("the console", console.is_some_and(|port| port.number == 0 && port.sent > Some(1000)))?;

    let clock = report.clocks.iter().any(|clock| clock.name == "rtc0" && clock.driver.starts_with("rtc_cmos"));
    found("the clock", clock)?;
    found("the table of APICs", report.acpi_tables.iter().any(|table| table == "APIC"))?;
    let root = |device: &AcpiDevice| device.id == "PNP0A03" && device.path == r"\_SB_.PCI0";
    found("the PCI root", report.acpi_devices.iter().any(root))?;
    found("the source of time", report.clock_sources.contains(&report.clock_source))
}
