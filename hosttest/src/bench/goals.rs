//! The ratios that the project wants to reach, what was measured, and what would be without the dispatch itself.

use std::io::{self, Write};

use super::lower_bounds::{BARE_BOUND, HINTED_ASYMMETRIC_BOUND, HINTED_BOUND, LAST_HIT_BOUND};
use super::peer_locking::FIRECRACKER;
use super::peers::VM_DEVICE;
use super::report::Report;
use super::this_crate::{ASYMMETRIC, PORTABLE, ROOMY};

/// A ratio to reach.
pub(super) struct Goal {
    pub(super) name: &'static str,
    pub(super) wanted: f64,
    pub(super) measured: Option<f64>,
    /// The ratio of what is the least that has to be done, in the same run.
    pub(super) limit: Option<f64>,
}

/// Prints each goal for which there are figures.
pub(super) fn print(report: &Report) -> io::Result<()> {
    let ns = |bench, pattern, space, n, threads, subject| {
        report.find(bench, pattern, space, n, threads, subject).map(|row| row.figure.median)
    };
    let over = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let mmio = |pattern, n, threads, subject| ns("dispatch", pattern, "mmio", n, threads, subject);
    let ports = |subject| ns("dispatch", "random", "pio", 64, 1, subject);
    let random = |name, wanted, n, peer, own, least| Goal {
        name,
        wanted,
        measured: over(mmio("random", n, 1, peer), mmio("random", n, 1, own)),
        limit: over(mmio("random", n, 1, peer), mmio("random", n, 1, least)),
    };
    let without_limit = |name, wanted, measured| Goal { name, wanted, measured, limit: None };
    let fill = |subject| ns("register", "fill", "mmio", 1024, 1, subject);
    let fragmented = |subject| ns("allocate", "free and allocate, fragmented", "mmio", 1024, 1, subject);
    let goals = [
        random("n=64 random, vm-device", 3.0, 64, VM_DEVICE, PORTABLE, HINTED_BOUND),
        random("n=64 random, vm-device, asymmetric fence", 4.0, 64, VM_DEVICE, ASYMMETRIC, HINTED_ASYMMETRIC_BOUND),
        random("n=64 random, Firecracker's scheme", 6.0, 64, FIRECRACKER, PORTABLE, HINTED_BOUND),
        random("n=1024 random, vm-device, 8192 hints", 4.0, 1024, VM_DEVICE, ROOMY, HINTED_BOUND),
        random("n=1024 random, vm-device, as many hints as by default", 4.0, 1024, VM_DEVICE, PORTABLE, HINTED_BOUND),
        Goal {
            name: "same range, a bare dyn call, asymmetric fence (at least 1/1.3)",
            wanted: 1.0 / 1.3,
            measured: over(mmio("same", 64, 1, BARE_BOUND), mmio("same", 64, 1, ASYMMETRIC)),
            limit: over(mmio("same", 64, 1, BARE_BOUND), mmio("same", 64, 1, LAST_HIT_BOUND)),
        },
        Goal {
            name: "two vCPUs on one device",
            wanted: 1.9,
            measured: over(mmio("same", 64, 1, PORTABLE), mmio("same", 64, 2, PORTABLE)),
            limit: over(mmio("same", 64, 1, BARE_BOUND), mmio("same", 64, 2, BARE_BOUND)),
        },
        Goal {
            name: "ports, n=64 random, vm-device",
            wanted: 8.0,
            measured: over(ports(VM_DEVICE), ports(PORTABLE)),
            limit: over(ports(VM_DEVICE), ports(HINTED_BOUND)),
        },
        without_limit("fill, n=1024, vm-device", 3.0, over(fill(VM_DEVICE), fill(PORTABLE))),
        without_limit(
            "fragmented allocation, n=1024, vm-allocator",
            30.0,
            over(fragmented("vm-allocator 0.1"), fragmented(PORTABLE)),
        ),
        without_limit(
            "unregister under load: times in 5 us",
            1.0,
            over(Some(5000.0), ns("unregister", "under dispatch load", "mmio", 64, 2, PORTABLE)),
        ),
    ];
    table(&goals)?;
    writeln!(
        io::stdout(),
        "limit: the ratio of the least that has to be done, with the same fence: a look where the range was found before, in a \
         table with 8192\nhints, and a protected call; for one range a look at the last one and a protected call; for two \
         vCPUs how a bare call scales."
    )
}

/// Prints those for which there are figures.
pub(super) fn table(goals: &[Goal]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{:<64}{:>8}{:>10}{:>8}", "goal", "wanted", "measured", "limit")?;
    for Goal { name, wanted, measured, limit } in goals {
        if let Some(measured) = *measured {
            let limit = limit.map_or(String::new(), |limit| format!("{limit:.2}"));
            let missed = if measured < *wanted { "  missed" } else { "" };
            writeln!(out, "{name:<64}{wanted:>8.2}{measured:>10.2}{limit:>8}{missed}")?;
        }
    }
    Ok(())
}
