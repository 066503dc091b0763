//! Every guest on real KVM. Without `/dev/kvm` they count as ignored; where `CI` is set, as failed.

mod needs;

use std::process::ExitCode;

use hosttest::guests;
use hosttest::guests::scenario::Failure;
use hosttest::vmm::host::kvm;
use hosttest::vmm::run::Tally;
use kvm_ioctls::Kvm;
use libtest_mimic::{Arguments, Failed, Trial};

use needs::{Need, test};

fn main() -> ExitCode {
    let needs = [&Need::new("KVM", kvm())];
    let mut trials: Vec<Trial> = guests::all()
        .map(|scenario| test(scenario.name, &needs, || guest(scenario.run).map_err(Failed::from)))
        .collect();
    trials.push(test("platform", &needs, || platform().map_err(Failed::from)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn guest(run: fn(&Kvm) -> Result<Tally, Failure>) -> Result<(), Failure> {
    run(&kvm()?).map(drop)
}

fn platform() -> Result<(), Failure> {
    let report = hosttest::platform::build_and_run(&kvm()?)?;
    assert!(report.passed(), "{report}");
    Ok(())
}
