//! A virtual machine: KVM's file descriptor of it, and the memory slots of its guest.

use std::sync::{Arc, Mutex, MutexGuard};

use kvm_bindings::{
    CpuId, KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting,
    kvm_enable_cap, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip,
    kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VmFd};
use vm_device::GuestAddress;

use crate::vmm::image::Mapping;
use crate::vmm::memory::{Memory, PAGE};

/// Where a machine has its task state segment unless it is told otherwise.
pub const TSS_ADDRESS: GuestAddress = GuestAddress(0xfffb_d000);

/// A virtual machine and the memory its guest sees.
pub struct Vm {
    fd: VmFd,
    cpuid: CpuId,
    /// What is mapped into the guest, by the number of the slot.
    slots: Mutex<Vec<Option<Mapped>>>,
}

/// A memory slot in use.
struct Mapped {
    region: kvm_userspace_memory_region,
    /// What the guest sees there stays alive as long as KVM may use it. The program's own image does so by itself.
    _memory: Option<Arc<Memory>>,
}

/// A memory slot of a [`Vm`]: what is mapped at one place of the guest's memory. Dropping this leaves it there.
#[derive(PartialEq, Eq, Debug)]
pub struct Slot(u32);

impl Vm {
    /// A machine without memory, interrupt controller and processors.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn new(kvm: &Kvm) -> Result<Self, kvm_ioctls::Error> {
        Self::with_tss_address(kvm, TSS_ADDRESS)
    }

    /// The same with a task state segment at `address`: three pages below 4 GiB that KVM needs on Intel processors without
    /// "unrestricted guest" for real mode, and one more page below them. None of the four may be RAM, ROM or a device's
    /// (Linux, Documentation/virt/kvm/api.rst, `KVM_SET_TSS_ADDR` and `KVM_SET_IDENTITY_MAP_ADDR`).
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn with_tss_address(kvm: &Kvm, address: GuestAddress) -> Result<Self, kvm_ioctls::Error> {
        let fd = kvm.create_vm()?;
        // Both before the first vCPU, and harmless on AMD.
        fd.set_identity_map_address(address.0.saturating_sub(PAGE))?;
        fd.set_tss_address(address.0 as usize)?;
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

    /// Wires the lines of KVM's irqchip as on a PC: line 0, the timer's, leads to input 2 of the IOAPIC, and line 2 nowhere (Intel
    /// MultiProcessor Specification 1.4, D.1). Without, each line leads to the input of its number.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn wire_as_pc(&self) -> Result<(), kvm_ioctls::Error> {
        let route = |gsi, irqchip, pin| {
            let irqchip = kvm_irq_routing_irqchip { irqchip, pin };
            let u = kvm_irq_routing_entry__bindgen_ty_1 { irqchip };
            kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, u, ..Default::default() }
        };
        let lines = (0..24).filter(|gsi| *gsi != 2);
        let routes: Vec<_> = lines
            .flat_map(|gsi| {
                let ioapic = route(gsi, KVM_IRQCHIP_IOAPIC, if gsi == 0 { 2 } else { gsi });
                let pic = match gsi {
                    0..8 => Some(route(gsi, KVM_IRQCHIP_PIC_MASTER, gsi)),
                    8..16 => Some(route(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8)),
                    _ => None,
                };
                [Some(ioapic), pic].into_iter().flatten()
            })
            .collect();
        let routes = KvmIrqRouting::from_entries(&routes).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))?;
        self.fd.set_gsi_routing(&routes)
    }

    /// Gives the machine KVM's own local APICs, and no IOAPIC and 8259s: the VMM has an IOAPIC with `lines` of its own
    /// ([`ioapic`](crate::vmm::ioapic)). It has to come before the first vCPU.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn create_split_irqchip(&self, lines: u32) -> Result<(), kvm_ioctls::Error> {
        let args = [lines.into(), 0, 0, 0];
        self.fd.enable_cap(&kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, args, ..Default::default() })
    }

    /// Gives the machine KVM's own 8254, at the ports 0x40 to 0x43 and 0x61. It needs the irqchip.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn create_pit(&self) -> Result<(), kvm_ioctls::Error> {
        self.fd.create_pit2(kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() })
    }

    /// What KVM can show a guest as CPUID: what that of a virtual processor is made from.
    pub fn supported_cpuid(&self) -> &CpuId {
        &self.cpuid
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
    pub fn map(&self, base: GuestAddress, memory: &Arc<Memory>) -> Result<Slot, kvm_ioctls::Error> {
        self.map_memory(base, memory, 0)
    }

    /// The same as [`map`](Self::map) for reading, as of a ROM: a write exits as one to a device, and changes nothing there.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_read_only(&self, base: GuestAddress, memory: &Arc<Memory>) -> Result<Slot, kvm_ioctls::Error> {
        self.map_memory(base, memory, KVM_MEM_READONLY)
    }

    fn map_memory(&self, base: GuestAddress, memory: &Arc<Memory>, flags: u32) -> Result<Slot, kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            flags,
            guest_phys_addr: base.0,
            memory_size: memory.length(),
            userspace_addr: memory.host_address(),
            ..Default::default()
        };
        // SAFETY: the slot keeps the memory alive, and nothing in this process borrows its contents.
        unsafe { self.add(region, Some(Arc::clone(memory))) }
    }

    /// Lets the guest see a part of this program itself at `base`.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_image(&self, base: GuestAddress, mapping: &Mapping) -> Result<Slot, kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            guest_phys_addr: base.0,
            memory_size: mapping.length,
            userspace_addr: mapping.first,
            ..Default::default()
        };
        // SAFETY: the mappings of the program and of its libraries stay for as long as it runs. The guest that uses them is a
        // function of the same program, and keeps to the same rules as its threads.
        unsafe { self.add(region, None) }
    }

    /// Where the guest sees what is in this slot. `None` if this machine has no such slot.
    pub fn base(&self, slot: &Slot) -> Option<GuestAddress> {
        let slots = self.slots();
        let mapped = slots.get(slot.0 as usize)?.as_ref()?;
        Some(GuestAddress(mapped.region.guest_phys_addr))
    }

    /// Lets the guest see at `base` what it sees in this slot, and no longer where that was.
    ///
    /// # Errors
    /// As [`map`](Self::map); then it is where it was.
    pub fn move_slot(&self, slot: &Slot, base: GuestAddress) -> Result<(), kvm_ioctls::Error> {
        self.change(slot, |region| region.guest_phys_addr = base.0)
    }

    /// Takes what is in this slot out of the guest's memory: accesses exit again.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn unmap(&self, slot: Slot) -> Result<(), kvm_ioctls::Error> {
        // A slot of no size is one that is not there (Linux, Documentation/virt/kvm/api.rst, KVM_SET_USER_MEMORY_REGION).
        self.change(&slot, |region| region.memory_size = 0)?;
        if let Some(mapped) = self.slots().get_mut(slot.0 as usize) {
            *mapped = None;
        }
        Ok(())
    }

    /// Puts a region into a slot that is free.
    ///
    /// # Safety
    /// The bytes at the host address of the region stay mapped for as long as the machine lives or `memory` does, and nothing
    /// in this process relies on their keeping their values.
    unsafe fn add(
        &self,
        mut region: kvm_userspace_memory_region,
        memory: Option<Arc<Memory>>,
    ) -> Result<Slot, kvm_ioctls::Error> {
        let mut slots = self.slots();
        let free = slots.iter().position(Option::is_none).unwrap_or(slots.len());
        region.slot = free as u32;
        // SAFETY: the caller's promise, and a slot number that is not in use.
        unsafe { self.fd.set_user_memory_region(region) }?;
        let mapped = Some(Mapped { region, _memory: memory });
        match slots.get_mut(free) {
            Some(slot) => *slot = mapped,
            None => slots.push(mapped),
        }
        Ok(Slot(region.slot))
    }

    /// Tells KVM of a change of a region, and notes it when that was accepted.
    fn change(
        &self,
        slot: &Slot,
        change: impl FnOnce(&mut kvm_userspace_memory_region),
    ) -> Result<(), kvm_ioctls::Error> {
        let mut slots = self.slots();
        let mapped = slots.get_mut(slot.0 as usize).and_then(Option::as_mut);
        let mapped = mapped.ok_or_else(|| kvm_ioctls::Error::new(libc::ENOENT))?;
        let mut region = mapped.region;
        change(&mut region);
        // SAFETY: the host's memory is the same as before, and as much of it or none.
        unsafe { self.fd.set_user_memory_region(region) }?;
        mapped.region = region;
        Ok(())
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Option<Mapped>>> {
        self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
