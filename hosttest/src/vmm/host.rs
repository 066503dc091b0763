//! KVM of this host: opening it, and what to do where it cannot be used.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::Kvm;

/// The device that is KVM.
pub const DEVICE: &str = "/dev/kvm";

/// KVM cannot be used here: why, and what cures it.
#[derive(Debug)]
pub struct Unavailable {
    device: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    /// The device cannot be opened.
    Refused(i32),
    /// The device is there, and does not know KVM's ioctls.
    NotKvm(io::Error),
    /// KVM, but of another version of its interface than there has been since Linux 2.6.22.
    Version(i32),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.display();
        match &self.reason {
            Reason::Refused(errno) => {
                write!(f, "cannot use {device}: {}\n  ", io::Error::from_raw_os_error(*errno))?;
                f.write_str(match *errno {
                    libc::EACCES | libc::EPERM => {
                        "This user may not open it. Join the group that owns it (`sudo usermod -aG kvm $USER`, then log in \
                         again)."
                    }
                    libc::ENOENT | libc::ENXIO | libc::ENODEV => {
                        "Load the module of this processor (`sudo modprobe kvm_intel` or `sudo modprobe kvm_amd`). If that \
                         fails, switch on VT-x or SVM in the firmware set-up; inside a virtual machine, switch on nested \
                         virtualisation on its host (`kvm_intel.nested=1` or `kvm_amd.nested=1`); in a container, pass \
                         `--device /dev/kvm`."
                    }
                    libc::EISDIR => REPLACE,
                    _ => "See `dmesg` for what the kernel says about KVM.",
                })
            }
            Reason::NotKvm(error) => {
                write!(f, "{device} is not KVM: asked for its version it says: {error}\n  {REPLACE}")
            }
            Reason::Version(version) => write!(
                f,
                "{device} is not the KVM that is needed: its interface has version {version}, and not \
                 {KVM_API_VERSION}\n  Use Linux 2.6.22 or later."
            ),
        }
    }
}

const REPLACE: &str = "Something else stands where KVM should be. Remove it, and make the device (`sudo mknod -m 660 /dev/kvm c \
                       10 232`, or load the module again); in a container, pass `--device /dev/kvm`.";

impl std::error::Error for Unavailable {}

/// Opens `/dev/kvm`.
///
/// # Errors
/// [`Unavailable`], which says what to do about it.
pub fn kvm() -> Result<Kvm, Unavailable> {
    open(Path::new(DEVICE))
}

/// Opens the device that is KVM, if it is.
///
/// # Errors
/// [`Unavailable`], which says what to do about it.
pub fn open(device: &Path) -> Result<Kvm, Unavailable> {
    let unavailable = |reason| Unavailable { device: device.to_path_buf(), reason };
    let path = CString::new(device.as_os_str().as_bytes()).map_err(|_| unavailable(Reason::Refused(libc::ENOENT)))?;
    let kvm = Kvm::new_with_path(&path).map_err(|error| unavailable(Reason::Refused(error.errno())))?;
    match kvm.get_api_version() {
        version if version == KVM_API_VERSION as i32 => Ok(kvm),
        version if version < 0 => Err(unavailable(Reason::NotKvm(io::Error::last_os_error()))),
        version => Err(unavailable(Reason::Version(version))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(device: &str) -> String {
        open(Path::new(device)).map(drop).expect_err("it is no KVM").to_string()
    }

    #[test]
    fn what_is_no_kvm_is_named_with_the_remedy() {
        let file = std::env::temp_dir().join(format!("no-kvm-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        let complaints = [complaint("/dev/null"), complaint("/"), complaint(&file.display().to_string())];
        std::fs::remove_file(&file).unwrap();
        for (device, complaint) in ["/dev/null", "/", "no-kvm"].iter().zip(complaints) {
            assert!(complaint.contains(device) && complaint.contains("mknod"), "{complaint}");
        }
    }

    #[test]
    fn a_missing_device_has_another_remedy() {
        let complaint = complaint("/nowhere/kvm");
        assert!(complaint.contains("/nowhere/kvm") && complaint.contains("modprobe"), "{complaint}");
    }
}
