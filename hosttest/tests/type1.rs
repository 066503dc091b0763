//! The bare-metal hypervisor under QEMU. Without QEMU or the image's target its tests count as ignored, and that of a Linux
//! kernel without one: `VM_DEVICE_KERNEL` names it, or else it is the one that `.ci/debian-kernel` fetches. Where `CI` is set,
//! they count as failed.

mod needs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hosttest::qemu::{Guest, available, boot};
use libtest_mimic::{Arguments, Trial};

use needs::{Need, test};

fn main() -> ExitCode {
    let hypervisor = Need::new("QEMU and the image's target", available());
    let kernel = kernel();
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

/// The kernel that is named, or the last of those that were fetched.
fn kernel() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("VM_DEVICE_KERNEL") {
        return Ok(named.into());
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian/boot");
    let files = fetched.read_dir().into_iter().flatten().flatten().map(|file| file.path());
    let is_kernel =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz-"));
    files.filter(is_kernel).max().ok_or_else(|| {
        "`.ci/debian-kernel` fetches Debian's, 27 MB; or set VM_DEVICE_KERNEL to a bzImage that has the serial port \
         built in"
            .into()
    })
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
