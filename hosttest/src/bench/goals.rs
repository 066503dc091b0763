//! The ratios that the project wants to reach, and what was measured.

use std::io::{self, Write};

use super::ours::{ASYMMETRIC, PORTABLE};
use super::peers::VM_DEVICE;
use super::report::Report;
use super::schemes::{FIRECRACKER, FLOOR};

/// Prints each goal for which there are figures.
pub(super) fn print(report: &Report) -> io::Result<()> {
    let ns = |bench, pattern, space, n, threads, subject| {
        report.find(bench, pattern, space, n, threads, subject).map(|row| row.figure.median)
    };
    let mmio = |pattern, n, threads, subject| ns("dispatch", pattern, "mmio", n, threads, subject);
    let over = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let vm_allocator = "vm-allocator 0.1";
    let fragmented = "free and allocate, fragmented";
    let goals = [
        ("n=64 random, vm-device", 3.0, over(mmio("random", 64, 1, VM_DEVICE), mmio("random", 64, 1, PORTABLE))),
        (
            "n=64 random, vm-device, asymmetric fence",
            4.0,
            over(mmio("random", 64, 1, VM_DEVICE), mmio("random", 64, 1, ASYMMETRIC)),
        ),
        (
            "n=64 random, Firecracker's scheme",
            6.0,
            over(mmio("random", 64, 1, FIRECRACKER), mmio("random", 64, 1, PORTABLE)),
        ),
        ("n=1024 random, vm-device", 4.0, over(mmio("random", 1024, 1, VM_DEVICE), mmio("random", 1024, 1, PORTABLE))),
        (
            "same range, a bare dyn call, asymmetric fence (at least 1/1.3)",
            1.0 / 1.3,
            over(mmio("same", 64, 1, FLOOR), mmio("same", 64, 1, ASYMMETRIC)),
        ),
        ("two vCPUs on one device", 1.9, over(mmio("same", 64, 1, PORTABLE), mmio("same", 64, 2, PORTABLE))),
        (
            "ports, n=64 random, vm-device",
            8.0,
            over(ns("dispatch", "random", "pio", 64, 1, VM_DEVICE), ns("dispatch", "random", "pio", 64, 1, PORTABLE)),
        ),
        (
            "fill, n=1024, vm-device",
            3.0,
            over(ns("register", "fill", "mmio", 1024, 1, VM_DEVICE), ns("register", "fill", "mmio", 1024, 1, PORTABLE)),
        ),
        (
            "fragmented allocation, n=1024, vm-allocator",
            30.0,
            over(
                ns("allocate", fragmented, "mmio", 1024, 1, vm_allocator),
                ns("allocate", fragmented, "mmio", 1024, 1, PORTABLE),
            ),
        ),
        (
            "unregister under load: times in 5 us",
            1.0,
            over(Some(5000.0), ns("unregister", "under dispatch load", "mmio", 64, 2, PORTABLE)),
        ),
    ];
    let mut out = io::stdout().lock();
    writeln!(out, "\n{:<64}{:>8}{:>10}", "goal", "wanted", "measured")?;
    for (name, wanted, measured) in goals {
        if let Some(measured) = measured {
            let missed = if measured < wanted { "  missed" } else { "" };
            writeln!(out, "{name:<64}{wanted:>8.2}{measured:>10.2}{missed}")?;
        }
    }
    Ok(())
}
