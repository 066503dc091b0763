//! The bare-metal hypervisor under QEMU. Without QEMU its tests count as ignored; where `CI` is set, as failed. The test
//! of a Linux kernel is ignored unless `VM_DEVICE_KERNEL` names one.

use std::process::ExitCode;

use hosttest::type1::{Guest, available, boot};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let available = available();
    if let Err(missing) = &available {
        eprintln!("no hypervisor is run: {missing}");
    }
    let skipped = available.is_err() && std::env::var_os("CI").is_none();
    let kernel = std::env::var_os("VM_DEVICE_KERNEL");
    let without_kernel = kernel.is_none();
    let linux = Guest::Linux { kernel: kernel.unwrap_or_default().into(), initrd: None, append: String::new() };
    let trials = vec![
        trial("small_guest", Guest::Small).with_ignored_flag(skipped),
        trial("linux", linux).with_ignored_flag(skipped || without_kernel),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, guest: Guest) -> Trial {
    Trial::test(name, move || {
        let mut output = Vec::new();
        match boot(&guest, &mut output) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error}\n{}", String::from_utf8_lossy(&output)).into()),
        }
    })
}
