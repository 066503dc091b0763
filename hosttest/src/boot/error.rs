//! Why a machine could not be started.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::boot::ram::MIB;
use crate::vmm::host::Unavailable;

/// Why a machine could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum BootError {
    /// There is no KVM.
    Kvm(Unavailable),
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A firmware image is empty, or larger than there is room for.
    FirmwareSize {
        /// The file.
        file: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The largest size in bytes.
        largest: u64,
    },
    /// An initial RAM disk is larger than there can be room for.
    InitrdSize {
        /// The file.
        file: PathBuf,
        /// The largest size in bytes.
        largest: u64,
    },
    /// A file is no kernel: why.
    NotAKernel(PathBuf, String),
    /// The command line is longer than the kernel takes.
    CommandLine {
        /// Its length in bytes.
        length: usize,
        /// The longest in bytes.
        longest: usize,
    },
    /// The images do not fit the machine's memory.
    Memory {
        /// The memory that the machine has, in bytes.
        has: u64,
        /// What it takes, in bytes.
        needs: u64,
    },
    /// The host or KVM refuses what the machine is made of.
    Machine(io::Error),
    /// A device cannot be registered: why.
    Device(String),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Kvm(error) => error.fmt(f),
            BootError::Unreadable(file, error) => {
                write!(f, "cannot read {}: {error}", file.display())?;
                match error.kind() {
                    io::ErrorKind::NotFound => write!(f, "\n  {DEBIAN}"),
                    _ => Ok(()),
                }
            }
            BootError::FirmwareSize { file, size, largest } => write!(
                f,
                "{} is no firmware: it has {size} bytes, and a firmware image has 16 to {largest}. The image is mapped below 4 \
                 GiB, where the processor starts 16 bytes before the end.",
                file.display()
            ),
            BootError::InitrdSize { file, largest } => {
                write!(f, "{} is no initial RAM disk: it has more than {largest} bytes", file.display())
            }
            BootError::NotAKernel(file, why) => write!(
                f,
                "{} is no kernel that this can load: {why}\n  It takes a bzImage (`vmlinuz` of a distribution), or an ELF file of \
                 64 bits that starts by PVH or as Linux does.",
                file.display()
            ),
            BootError::CommandLine { length, longest } => {
                write!(f, "the command line has {length} bytes, and the kernel takes {longest}: shorten --cmdline")
            }
            BootError::Memory { has, needs } => write!(
                f,
                "{} MiB of memory are too little: kernel and initial RAM disk need {} MiB at least. Give --memory more.",
                has / MIB,
                needs.div_ceil(MIB)
            ),
            BootError::Machine(error) => write!(f, "the machine cannot be made: {error}"),
            BootError::Device(why) => write!(f, "a device cannot be registered: {why}"),
        }
    }
}

/// Where images come from.
const DEBIAN: &str = "Debian has firmware as /usr/share/seabios/bios.bin (`apt-get install seabios`), kernels as /boot/vmlinuz-*, or \
                      without installing one by `.ci/debian-kernel`.";

impl std::error::Error for BootError {}

impl From<Unavailable> for BootError {
    fn from(error: Unavailable) -> Self {
        Self::Kvm(error)
    }
}

impl From<io::Error> for BootError {
    fn from(error: io::Error) -> Self {
        Self::Machine(error)
    }
}

impl From<kvm_ioctls::Error> for BootError {
    fn from(error: kvm_ioctls::Error) -> Self {
        Self::Machine(error.into())
    }
}
