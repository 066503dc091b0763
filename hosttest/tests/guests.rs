//! Every guest on real KVM. Without `/dev/kvm` they count as ignored; where `CI` is set, as failed.

use std::process::ExitCode;

use hosttest::scenarios::{self, Failure};
use hosttest::vm::kvm;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let available = kvm().map(drop);
    if let Err(unavailable) = &available {
        eprintln!("no guest is run: {unavailable}");
    }
    let skipped = available.is_err() && std::env::var_os("CI").is_none();
    let mut trials: Vec<Trial> = scenarios::all()
        .map(|scenario| trial(scenario.name, skipped, move || (scenario.run)(&kvm()?).map(drop)))
        .collect();
    trials.push(trial("platform", skipped, platform));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, skipped: bool, test: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(Failed::from)).with_ignored_flag(skipped)
}

fn platform() -> Result<(), Failure> {
    let report = hosttest::platform::build_and_run(&kvm()?)?;
    assert!(report.passed(), "{report}");
    Ok(())
}
