//! The examples, as they run by `cargo run -p hosttest --example ...`. Without `/dev/kvm` that of a KVM VMM counts as ignored;
//! where `CI` is set, as failed.

#[path = "../examples/design_2019.rs"]
mod design_2019;
#[path = "../examples/firmware.rs"]
mod firmware;
#[path = "../examples/kvm_vmm.rs"]
mod kvm_vmm;
mod needs;
#[path = "../examples/type1.rs"]
mod type1;

use std::error::Error;
use std::process::ExitCode;

use hosttest::vmm::host::kvm;
use libtest_mimic::{Arguments, Trial};

use needs::{Need, test};

fn main() -> ExitCode {
    let trials = vec![
        trial("firmware", &[], firmware::main),
        trial("type1", &[], type1::main),
        trial("kvm_vmm", &[&Need::new("KVM", kvm())], kvm_guest),
        trial("design_2019", &[], design_2019::main),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The program ends well without KVM; as a test it does not.
fn kvm_guest() -> Result<(), Box<dyn Error>> {
    kvm()?;
    kvm_vmm::main()
}

fn trial(name: &str, needs: &[&Need], example: fn() -> Result<(), Box<dyn Error>>) -> Trial {
    test(name, needs, move || example().map_err(|error| error.to_string().into()))
}
