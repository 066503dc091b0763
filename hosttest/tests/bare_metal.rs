//! The core links for bare metal, where there is no `std`, without an allocator, so that `alloc` is not linked either, and
//! without a panic handler that exists, so that nothing in it can panic.

mod needs;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::Arguments;

use needs::{Need, test};

const TARGET: &str = "x86_64-unknown-none";

fn main() -> ExitCode {
    let target = if target_is_installed() { Ok(()) } else { Err(format!("`rustup target add {TARGET}` brings it")) };
    let image = test("neither_std_nor_alloc_nor_a_panic_is_linked", &[&Need::new(TARGET, target)], || {
        let output = link()?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).as_ref().into()) }
    });
    libtest_mimic::run(&Arguments::from_args(), vec![image]).exit_code()
}

fn target_is_installed() -> bool {
    let rustc = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    rustc.is_ok_and(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// Links the image. `rustc` itself refuses an image with `alloc` and without a global allocator.
fn link() -> std::io::Result<std::process::Output> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("footprint");
    Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--target", TARGET, "--target-dir"])
        .arg(package.join("target"))
        .current_dir(package)
        // What is meant for programs of the host does not fit the image.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
}
