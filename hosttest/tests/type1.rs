//! The bare-metal hypervisor in emulators of its machines. Without an emulator or the image's target its tests count as ignored, and
//! those of Linux kernels without one: see `Kernel`. Where `CI` is set, they count as failed. A kernel for riscv64 is run only where
//! `VM_DEVICE_KERNEL_RISCV64` names one.

mod needs;

use std::process::ExitCode;

use hosttest::linux_guest::kernel::Kernel;
use hosttest::qemu::Error;
use hosttest::type1::{Guest, Machine, available, boot};
use libtest_mimic::{Arguments, Trial};

use needs::{Need, test};

fn main() -> ExitCode {
    let machines = Machine::ALL.map(|machine| (machine, available(machine)));
    let needs: Vec<_> = machines.into_iter().map(|(machine, found)| (machine, needs_of(machine, found))).collect();
    let mut trials: Vec<_> = needs
        .iter()
        .map(|(machine, need)| trial(&format!("{}/small_guest", machine.name()), *machine, &[need], Ok(Guest::Small)))
        .collect();
    for (machine, need) in needs.iter().filter(|(machine, _)| machine.has_two_processors()) {
        let name = format!("{}/torture", machine.name());
        trials.push(trial(&name, *machine, &[need], Ok(Guest::Torture { seconds: 2 })));
    }
    for (machine, need) in &needs {
        let kernel = |kernel: Kernel| kernel.find().map_err(|missing| missing.to_string());
        let (kernel, what) = match machine {
            Machine::Svm => (kernel(Kernel::Cloud), "a Linux kernel"),
            Machine::Arm64 => (kernel(Kernel::Arm64), "a Linux kernel for arm64"),
            // Its disk is too small for one.
            Machine::Vmx => continue,
            // Debian 12 has none. The `vmlinux` of Debian 13 is one.
            Machine::Riscv64 => match std::env::var_os("VM_DEVICE_KERNEL_RISCV64") {
                Some(named) => (Ok(named.into()), "a Linux kernel for riscv64"),
                None => continue,
            },
        };
        let linux = Need::new(what, kernel.as_ref());
        let guest = kernel.map(|kernel| Guest::Linux { kernel, initrd: None, append: String::new() });
        trials.push(trial(&format!("{}/linux", machine.name()), *machine, &[need, &linux], guest));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn needs_of(machine: Machine, found: Result<(), Error>) -> Need {
    let what = match machine {
        Machine::Svm => "QEMU and the image's target",
        Machine::Vmx => "Bochs and the image's target",
        Machine::Arm64 => "QEMU for Arm and the image's target",
        Machine::Riscv64 => "QEMU for RISC-V and the image's target",
    };
    Need::new(what, found)
}

fn trial(name: &str, machine: Machine, needs: &[&Need], guest: Result<Guest, String>) -> Trial {
    test(name, needs, move || {
        let mut output = Vec::new();
        match boot(machine, &guest?, &mut output) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error}\n{}", String::from_utf8_lossy(&output)).into()),
        }
    })
}
