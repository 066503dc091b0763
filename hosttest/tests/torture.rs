//! Short forms of `hosttest torture`. Without `/dev/kvm` the guest's count as ignored, without `membarrier(2)` those of the
//! asymmetric fence; where `CI` is set, as failed.

mod needs;

use std::process::ExitCode;
use std::time::Duration;

use hosttest::torture::{self, Options, Report, threads};
use hosttest::vmm::host::kvm;
use hosttest::vmm::membarrier::heavy_barrier;
use libtest_mimic::{Arguments, Failed, Trial};

use needs::{Need, test};

fn main() -> ExitCode {
    let kvm_device = Need::new("KVM", kvm());
    let membarrier = Need::new("membarrier(2)", heavy_barrier());
    let options = Options { time: Duration::from_secs(2), ..Options::default() };
    let asymmetric = Options { asymmetric: true, ..options };
    let trials = vec![
        trial("threads", &[], move || Ok(threads::run(&options, None))),
        trial("threads/asymmetric", &[&membarrier], move || Ok(threads::run(&asymmetric, Some(heavy_barrier()?)))),
        trial("pair", &[], move || Ok(threads::run_pair(&options, None))),
        trial("pair/asymmetric", &[&membarrier], move || Ok(threads::run_pair(&asymmetric, Some(heavy_barrier()?)))),
        trial("kvm", &[&kvm_device], move || Ok(torture::kvm::run(&kvm()?, &options, None)?)),
        trial("kvm/asymmetric", &[&kvm_device, &membarrier], move || {
            Ok(torture::kvm::run(&kvm()?, &asymmetric, Some(heavy_barrier()?))?)
        }),
    ];
    // One at a time: each uses every processor.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(
    name: &str,
    needs: &[&Need],
    run: impl FnOnce() -> Result<Report, Box<dyn std::error::Error>> + Send + 'static,
) -> Trial {
    test(name, needs, move || {
        let report = run().map_err(|error| Failed::from(error.to_string()))?;
        let enough = report.accesses > 1000 && report.rounds.total() > 100;
        if enough && report.violations.total() == 0 { Ok(()) } else { Err(Failed::from(report.to_string())) }
    })
}
