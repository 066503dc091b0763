//! Debian's kernels, where they are on this machine.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One of Debian's kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernel {
    /// The one for virtual machines, `linux-image-cloud-amd64`. Its modules are there too.
    Cloud,
    /// The one for every machine, `linux-image-amd64`. Its modules are not there.
    Stock,
    /// The one for virtual machines of arm64. Its modules are not there.
    Arm64,
}

impl Kernel {
    /// The kernel's file: the one that its variable names, or else the last of those that were fetched.
    ///
    /// # Errors
    /// [`Missing`], which says how to get it.
    pub fn find(self) -> Result<PathBuf, Missing> {
        match env::var_os(self.variable()) {
            Some(named) => Ok(named.into()),
            None => fetched(self.directory()).ok_or(Missing(self)),
        }
    }

    /// The environment variable that names the file to use.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Kernel::Cloud => "VM_DEVICE_KERNEL",
            Kernel::Stock => "VM_DEVICE_STOCK_KERNEL",
            Kernel::Arm64 => "VM_DEVICE_KERNEL_ARM64",
        }
    }

    const fn directory(self) -> &'static str {
        match self {
            Kernel::Cloud => "debian",
            Kernel::Stock => "debian-stock",
            Kernel::Arm64 => "debian-arm64",
        }
    }
}

fn fetched(directory: &str) -> Option<PathBuf> {
    let boot = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join("target").join(directory).join("boot");
    let files = boot.read_dir().into_iter().flatten().flatten().map(|file| file.path());
    files.filter(|path| version(path).is_some()).max()
}

/// The version that stands in the name of a kernel's file, as packages name it.
fn version(kernel: &Path) -> Option<&str> {
    kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-")
}

/// The kernel is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing(Kernel);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = self.0.variable();
        match self.0 {
            Kernel::Cloud | Kernel::Stock => write!(
                f,
                "`.ci/debian-kernel` fetches two of Debian's, 97 MB; or set {variable} to a bzImage that has the serial port built in"
            ),
            Kernel::Arm64 => write!(
                f,
                "`.ci/debian-kernel-arm64` fetches Debian's, 21 MB; or set {variable} to an Image that has the PL011 built in"
            ),
        }
    }
}

impl std::error::Error for Missing {}

/// A module of a kernel, as it can be loaded. `name` is its path below the modules' directory `kernel`, without what its name
/// ends in. The modules are looked for beside the kernel, where its package has them: `lib/modules` beside `boot`.
///
/// # Errors
/// Where it was looked for, and what went wrong.
pub fn module(kernel: &Path, name: &str) -> io::Result<Vec<u8>> {
    let modules = version(kernel).zip(kernel.parent().and_then(Path::parent));
    let modules = modules.map(|(version, root)| root.join("lib/modules").join(version)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("{}: a kernel with modules is named boot/vmlinuz-VERSION", kernel.display()),
        )
    })?;
    let plain = modules.join("kernel").join(format!("{name}.ko"));
    let packed = plain.with_extension("ko.xz");
    let read = if packed.exists() { unpacked(&packed) } else { fs::read(&plain) };
    read.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", plain.display())))
}

fn unpacked(file: &Path) -> io::Result<Vec<u8>> {
    let output = Command::new("xz").arg("-dc").arg(file).output();
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("xz: {error} (package xz-utils)")))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_beside_its_kernel_packed_or_plain() {
        let root = env::temp_dir().join(format!("modules-{}", std::process::id()));
        let directory = root.join("lib/modules/6.1/kernel/virt");
        fs::create_dir_all(&directory).unwrap();
        let kernel = root.join("boot/vmlinuz-6.1");
        fs::write(directory.join("plain.ko"), "one").unwrap();
        fs::write(directory.join("packed.ko"), "two").unwrap();
        // Without the program it stays plain.
        let _ = Command::new("xz").arg(directory.join("packed.ko")).status();
        let (plain, packed) = (module(&kernel, "virt/plain"), module(&kernel, "virt/packed"));
        let missing = module(&kernel, "virt/missing").unwrap_err().to_string();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(plain.unwrap(), b"one");
        assert_eq!(packed.unwrap(), b"two");
        assert!(missing.contains("lib/modules/6.1/kernel/virt/missing.ko"), "{missing}");
    }

    #[test]
    fn a_kernel_whose_name_has_no_version_has_no_modules() {
        let error = module(Path::new("/srv/boot/bzImage"), "virt/kvm").unwrap_err().to_string();
        assert!(error.contains("/srv/boot/bzImage"), "{error}");
    }
}
