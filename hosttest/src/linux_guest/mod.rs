//! Linux as a guest: the kernels, and an initramfs that reports what the kernel found.
//!
//! ```no_run
//! use hosttest::linux_guest::report::Report;
//! use hosttest::linux_guest::{busybox, initramfs};
//!
//! // To be booted with `console=ttyS0 quiet` on the command line.
//! std::fs::write("initramfs", initramfs("report", &busybox()?, &[])?)?;
//! // What came out of the guest's serial port then.
//! let report = Report::read(&std::fs::read_to_string("output")?)?;
//! assert!(report.ports.iter().any(|range| range.first == 0x3f8 && range.name == "serial"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod compare;
pub mod judge;
pub mod kernel;
pub mod report;
pub mod shell;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cpio::Archive;
use crate::elf;

/// Where the shell and the other programs come from.
const BUSYBOX: &str = "/bin/busybox";

/// Why there is no initramfs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no busybox, or it is none that runs without libraries.
    NoBusybox,
    /// A file cannot be read.
    Io(PathBuf, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoBusybox => {
                write!(f, "{BUSYBOX} is not there, or needs libraries; on Debian: apt-get install busybox-static")
            }
            Error::Io(file, error) => write!(f, "{}: {error}", file.display()),
        }
    }
}

impl std::error::Error for Error {}

/// The machine's busybox, if it runs without libraries.
///
/// # Errors
/// [`Error::NoBusybox`], which says how to get it.
pub fn busybox() -> Result<PathBuf, Error> {
    let file = fs::read(BUSYBOX).map_err(|_| Error::NoBusybox)?;
    if elf::is_static(&file) { Ok(BUSYBOX.into()) } else { Err(Error::NoBusybox) }
}

/// An initramfs whose `/init` runs `script`, a text for busybox's shell, and then turns the machine off.
///
/// The script finds `/dev`, `/proc` and `/sys` mounted, the modules loaded in their order, all that busybox can do as commands, and
/// the command `report`, whose output [`report::Report`] reads. Without more it prints to the kernel's console. `modules` are files
/// as the kernel loads them.
///
/// # Errors
/// [`Error::Io`].
pub fn initramfs(script: &str, busybox: &Path, modules: &[&Path]) -> Result<Vec<u8>, Error> {
    let read = |file: &Path| fs::read(file).map_err(|error| Error::Io(file.to_path_buf(), error));
    let mut archive = Archive::new();
    ["/dev", "/proc", "/sys", "/tmp", "/sbin"].iter().for_each(|directory| archive.directory(Path::new(directory)));
    archive.executable(Path::new("/bin/busybox"), &read(busybox)?);
    archive.link(Path::new("/bin/sh"), Path::new("busybox"));
    archive.executable(Path::new("/bin/report"), include_bytes!("report.sh"));
    let mut init = String::from(BEFORE);
    for (number, module) in modules.iter().enumerate() {
        let file = format!("/modules/{number}.ko");
        archive.file(Path::new(&file), &read(module)?);
        init += &format!("insmod {file}\n");
    }
    archive.executable(Path::new("/script"), format!("#!/bin/sh\n{script}\n").as_bytes());
    init += AFTER;
    archive.executable(Path::new("/init"), init.as_bytes());
    Ok(archive.finish())
}

// The links are made of what /proc says that busybox is.
const BEFORE: &str = "\
#!/bin/sh
export PATH=/bin:/sbin
busybox mount -t proc none /proc
busybox --install -s /bin
mount -t devtmpfs none /dev
mount -t sysfs none /sys
";

const AFTER: &str = "\
/script
poweroff -f
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_in_it_and_are_loaded_before_the_script() {
        let this = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let image = initramfs("echo hello", &this, &[&this]).unwrap();
        let text = String::from_utf8_lossy(&image);
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is missing"));
        assert!(place("insmod /modules/0.ko\n") < place("/script\npoweroff -f\n"));
        place("modules/0.ko\0");
        place("#!/bin/sh\necho hello\n");
        place("@@ ioports");
    }

    #[test]
    fn a_missing_file_is_named() {
        let this = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        for (busybox, module) in [(Path::new("/nowhere"), &*this), (&*this, Path::new("/nowhere"))] {
            let error = initramfs("", busybox, &[module]).unwrap_err().to_string();
            assert!(error.starts_with("/nowhere: "), "{error}");
        }
    }
}
