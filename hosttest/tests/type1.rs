//! The bare-metal hypervisor under QEMU. Without QEMU or the image's target its tests count as ignored, and that of a Linux
//! kernel without one: `VM_DEVICE_KERNEL` names it, or else it is the one that `.ci/debian-kernel` fetches. Where `CI` is set,
//! they count as failed.

mod needs;

use std::process::ExitCode;

use hosttest::linux_guest::kernel::Kernel;
use hosttest::qemu::{Guest, available, boot};
use libtest_mimic::{Arguments, Trial};

use needs::{Need, test};

fn main() -> ExitCode {
    let hypervisor = Need::new("QEMU and the image's target", available());
    let kernel = Kernel::Cloud.find().map_err(|missing| missing.to_string());
    let linux = Need::new("a Linux kernel", kernel.as_ref());
    let trials = vec![
        trial("small_guest", &[&hypervisor], Ok(Guest::Small)),
        trial(
            "linux",
            &[&hypervisor, &linux],
            kernel.map(|kernel| Guest::Linux { kernel, initrd: None, append: String::new() }),
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, needs: &[&Need], guest: Result<Guest, String>) -> Trial {
    test(name, needs, move || {
        let mut output = Vec::new();
        match boot(&guest?, &mut output) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error}\n{}", String::from_utf8_lossy(&output)).into()),
        }
    })
}
