//! Runs the parts of the host test bed.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("bench") => hosttest::bench::run(arguments),
        _ => ExitCode::FAILURE,
    }
}
