//! Which device is KVM.

use std::path::{Path, PathBuf};

use clap::Args;
use hosttest::vmm::host::{self, Unavailable};
use kvm_ioctls::Kvm;

/// Which device is KVM.
#[derive(Args)]
pub(super) struct KvmDevice {
    /// Use this device instead of /dev/kvm
    #[arg(long, value_name = "FILE")]
    kvm_device: Option<PathBuf>,
}

impl KvmDevice {
    pub(super) fn open(&self) -> Result<Kvm, Unavailable> {
        open_kvm(self.kvm_device.as_deref())
    }
}

pub(super) fn open_kvm(device: Option<&Path>) -> Result<Kvm, Unavailable> {
    host::open(device.unwrap_or(Path::new(host::DEVICE)))
}
