//! A virtual machine: KVM's file descriptor of it, and the memory slots of its guest.

use std::io;
use std::sync::{Arc, Mutex};

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VmFd};
use vm_device::{GuestAddress, IoRange, IoType, MappedRange};

use crate::vmm::image::Mapping;
use crate::vmm::memory::{Memory, PAGE};
use crate::vmm::vcpu::Vcpu;

/// Three pages that KVM needs on Intel processors without "unrestricted guest" for real mode. They must not be RAM of the
/// guest (Linux, Documentation/virt/kvm/api.rst, `KVM_SET_TSS_ADDR`).
const TSS_ADDRESS: usize = 0xfffb_d000;
/// One more such page (`KVM_SET_IDENTITY_MAP_ADDR`).
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

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
