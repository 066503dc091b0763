//! The bounds that hold in every cell of the table of dispatches, and the cells in which they were missed.

use std::io::{self, Write};

use super::peer_locking::{CLOUD_HYPERVISOR, CROSVM, FIRECRACKER};
use super::peers::{DBS_DEVICE_SWAPPED, VM_DEVICE_LOCKED};
use super::report::{Report, Row, Work};
use super::this_crate::{AGAIN, NO_HANDLE, NO_HINTS, PORTABLE};

/// The peers from which devices can be removed while others read.
const REMOVING: [&str; 5] = [VM_DEVICE_LOCKED, DBS_DEVICE_SWAPPED, FIRECRACKER, CLOUD_HYPERVISOR, CROSVM];

/// A subject, and how many times the time of each other subject its own may take at most.
struct Bound {
    name: &'static str,
    subject: &'static str,
    others: &'static [&'static str],
    /// In which cells, and how many times.
    at_most: fn(&Work) -> Option<f64>,
}

fn is_far(work: &Work) -> bool {
    work.n > 1024 || work.pattern == "cold"
}

const BOUNDS: [Bound; 6] = [
    Bound { name: "noise: the same twice, within 5 %", subject: PORTABLE, others: &[AGAIN], at_most: |_| Some(1.05) },
    Bound {
        name: "handle: no slower than peers with removal",
        subject: PORTABLE,
        others: &REMOVING,
        at_most: |_| Some(1.0),
    },
    Bound {
        name: "handle, warm, up to 1,024 ranges: within 5 % of none of the hints",
        subject: PORTABLE,
        others: &[NO_HINTS],
        at_most: |work| (!is_far(work)).then_some(1.05),
    },
    Bound {
        name: "handle, cold or more ranges: within 10 % of none of the hints",
        subject: PORTABLE,
        others: &[NO_HINTS],
        at_most: |work| is_far(work).then_some(1.1),
    },
    Bound {
        name: "no handle, 8 ranges or more: no slower than a locked vm-device",
        subject: NO_HANDLE,
        others: &[VM_DEVICE_LOCKED],
        at_most: |work| (work.n >= 8).then_some(1.0),
    },
    Bound {
        name: "no handle, two threads on one device: half of a locked vm-device",
        subject: NO_HANDLE,
        others: &[VM_DEVICE_LOCKED],
        at_most: |work| (work.n >= 8 && work.threads == 2 && work.pattern == "same").then_some(0.5),
    },
];

/// Prints in how many cells each bound holds, and where it does not.
pub(super) fn print(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\nbounds of dispatches in each cell, and where they are missed")?;
    for Bound { name, subject, others, at_most } in &BOUNDS {
        let (mut held, mut missed) = (0, Vec::new());
        for row in report.rows.iter().filter(|row| row.work.bench == "dispatch" && row.subject == *subject) {
            let Some(at_most) = at_most(&row.work) else { continue };
            let Work { bench, pattern, space, n, threads } = &row.work;
            let others = others.iter().filter_map(|other| report.find(bench, pattern, space, *n, *threads, other));
            let times = |other: &Row| row.figure.median / other.figure.median;
            match others.max_by(|a, b| times(a).total_cmp(&times(b))) {
                Some(other) if times(other) > at_most => missed.push((row, other, times(other))),
                _ => held += 1,
            }
        }
        writeln!(out, "{name:<72}{held:>4} of {}", held + missed.len())?;
        for (row, other, times) in missed {
            let Work { pattern, space, n, threads, .. } = &row.work;
            let cell = format!("{pattern}, {space}, n = {n}, threads = {threads}");
            let (own, noise) = (row.figure.noise, other.figure.noise);
            writeln!(out, "    {cell:<44}{times:>6.2} times {} (noise {own:.1} %, {noise:.1} %)", other.subject)?;
        }
    }
    Ok(())
}
