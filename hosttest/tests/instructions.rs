//! A short form of `hosttest instructions`.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use hosttest::instructions::{Options, run};

#[test]
fn random_instructions_are_decoded_and_executed_as_the_processor_does() {
    let report = run(&Options { cases: 30_000, first: 0, seed: 1 }, |_| ()).unwrap();
    assert!(report.disagreements.is_empty(), "{report}");
    assert!(report.executed > 10_000 && report.faulted > 1000, "{report}");
    assert!(report.operations.len() == 26 && report.operations.values().all(|count| *count > 50), "{report}");
}
