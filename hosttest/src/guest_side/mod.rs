//! The guests' side: what their code is written with.
//!
//! A guest in ring 3 is a plain function of this program, and calls what is here. Everything is one instruction or a few, and
//! none of it can panic.

pub mod interrupts;
pub mod long_mode;
pub mod mmio;
pub mod port;
pub mod real_mode;
pub mod serial;

use crate::devices::verdict::VERDICT_PORT;

/// The guest says that it passed, and ends.
pub fn pass() -> ! {
    verdict(0)
}

/// The guest says which check failed, and ends.
pub fn fail(check: u32, seen: u64, expected: u64) -> ! {
    port::write(VERDICT_PORT + 4, seen as u32);
    port::write(VERDICT_PORT + 8, (seen >> 32) as u32);
    port::write(VERDICT_PORT + 12, expected as u32);
    port::write(VERDICT_PORT + 16, (expected >> 32) as u32);
    verdict(check)
}

fn verdict(check: u32) -> ! {
    port::write(VERDICT_PORT, check);
    // The host does not run the guest again.
    loop {
        core::hint::spin_loop();
    }
}

/// Compares what the guest saw with what it should have seen; if they differ, the guest failed, at this line.
pub fn check(line: u32, seen: impl Into<u64>, expected: impl Into<u64>) {
    let (seen, expected) = (seen.into(), expected.into());
    if seen != expected {
        fail(line, seen, expected);
    }
}

/// [`check`](fn@crate::guest_side::check), with the line of the source.
#[macro_export]
macro_rules! check {
    ($seen:expr, $expected:expr) => {
        $crate::guest_side::check(line!(), $seen, $expected)
    };
}
