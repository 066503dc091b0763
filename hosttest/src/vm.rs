//! A virtual machine: KVM's file descriptor, and the memory slots of the guest.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VmFd};
use vm_device::{GuestAddress, IoRange, IoType, MappedRange};

use crate::image::Mapping;
use crate::memory::{Memory, PAGE};
use crate::vcpu::Vcpu;

/// Three pages that KVM needs on Intel processors without "unrestricted guest" for real mode. They must not be RAM of the
/// guest (Linux, Documentation/virt/kvm/api.rst, `KVM_SET_TSS_ADDR`).
const TSS_ADDRESS: usize = 0xfffb_d000;
/// One more such page (`KVM_SET_IDENTITY_MAP_ADDR`).
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

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

/// A virtual machine and the memory its guest sees.
pub struct Vm {
    fd: VmFd,
    cpuid: CpuId,
    slots: Mutex<Slots>,
}

/// What is mapped into the guest. Memory stays alive as long as KVM may use it.
#[derive(Default)]
struct Slots {
    used: u32,
    memory: Vec<Arc<Memory>>,
}

impl Vm {
    /// A machine without memory, interrupt controller and processors.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn new(kvm: &Kvm) -> Result<Self, kvm_ioctls::Error> {
        let fd = kvm.create_vm()?;
        // Both before the first vCPU, and harmless on AMD.
        fd.set_identity_map_address(IDENTITY_MAP_ADDRESS)?;
        fd.set_tss_address(TSS_ADDRESS)?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        Ok(Self { fd, cpuid, slots: Mutex::default() })
    }

    /// KVM's file descriptor of the machine.
    pub fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// Gives the machine KVM's own local APICs, IOAPIC and 8259s. It has to come before the first vCPU. From then on `HLT`
    /// waits inside the kernel.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn create_irqchip(&self) -> Result<(), kvm_ioctls::Error> {
        self.fd.create_irq_chip()
    }

    /// Virtual processor number `id`.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn create_vcpu(self: &Arc<Self>, id: u64) -> Result<Vcpu, kvm_ioctls::Error> {
        Vcpu::new(self.fd.create_vcpu(id)?, &self.cpuid, Arc::clone(self))
    }

    /// The highest guest physical address, from CPUID leaf 0x8000_0008 (AMD APM vol. 3, E.4.7).
    pub fn highest_address(&self) -> GuestAddress {
        let bits =
            self.cpuid.as_slice().iter().find(|leaf| leaf.function == 0x8000_0008).map_or(36, |leaf| leaf.eax & 0xff);
        GuestAddress(u64::MAX >> 64u32.saturating_sub(bits))
    }

    /// Lets the guest see `memory` at `base`, a multiple of [`PAGE`]. Accesses no longer exit.
    ///
    /// # Errors
    /// What KVM refuses: an overlap with a slot, an unaligned base.
    pub fn map(&self, base: GuestAddress, memory: &Arc<Memory>) -> Result<(), kvm_ioctls::Error> {
        let mut slots = self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SAFETY: the memory is kept alive by the machine, and nothing in this process borrows its contents.
        unsafe { self.set_slot(&mut slots, base, memory.host_address(), memory.length()) }?;
        slots.memory.push(Arc::clone(memory));
        Ok(())
    }

    /// Lets the guest see a part of this program itself at `base`.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_image(&self, base: GuestAddress, mapping: &Mapping) -> Result<(), kvm_ioctls::Error> {
        let mut slots = self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SAFETY: the mappings of the program and of its libraries stay for as long as it runs. The guest that uses them is a
        // function of the same program, and keeps to the same rules as its threads.
        unsafe { self.set_slot(&mut slots, base, mapping.first, mapping.length) }
    }

    /// Backs every physically backed range of an address map with memory of its own, and returns the pieces.
    ///
    /// # Errors
    /// What the host or KVM refuses: no memory, a range that is not made of whole pages.
    pub fn back<'d>(&self, map: impl Iterator<Item = MappedRange<'d>>) -> io::Result<Vec<(IoRange, Arc<Memory>)>> {
        let backed = backing(map)?;
        for (range, memory) in &backed {
            self.map(range.first(), memory)?;
        }
        Ok(backed)
    }

    /// # Safety
    /// The `length` bytes at the host address `from` stay mapped for as long as the machine lives, and nothing in this
    /// process relies on their keeping their values.
    unsafe fn set_slot(
        &self,
        slots: &mut Slots,
        base: GuestAddress,
        from: u64,
        length: u64,
    ) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot: slots.used,
            flags: 0,
            guest_phys_addr: base.0,
            memory_size: length,
            userspace_addr: from,
        };
        // SAFETY: the caller's promise, and a slot number that is not in use.
        unsafe { self.fd.set_user_memory_region(region) }?;
        slots.used += 1;
        Ok(())
    }
}

/// Memory for every physically backed range of an address map.
///
/// # Errors
/// What the host refuses: no memory, a range that is not made of whole pages.
pub fn backing<'d>(map: impl Iterator<Item = MappedRange<'d>>) -> io::Result<Vec<(IoRange, Arc<Memory>)>> {
    let mut backed = Vec::new();
    for entry in map.filter(|entry| entry.assigned.io_type == IoType::PhysicalMmio && entry.assigned.decoded) {
        let range = entry.assigned.range;
        let size = range.size().map_or(0, |size| size.0);
        if !size.is_multiple_of(PAGE) {
            return Err(io::Error::other(format!("{range} of {} is not made of whole pages", entry.owner)));
        }
        backed.push((range, Arc::new(Memory::new(size)?)));
    }
    Ok(backed)
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
