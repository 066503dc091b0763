//! A virtual processor: the modes that a guest can start in, and running it to its next exit.

use std::sync::Arc;

use kvm_bindings::{CpuId, KVMIO, kvm_dtable, kvm_interrupt, kvm_regs, kvm_run, kvm_segment, kvm_sregs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_device::GuestAddress;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use crate::vmm::exit::{Crash, Exit};
use crate::vmm::vm::Vm;

/// Where a guest's own code finds the tables of long mode.
#[derive(Clone, Copy, Debug)]
pub struct LongMode {
    /// The root of the page tables.
    pub page_tables: GuestAddress,
    /// The global descriptor table, as [`descriptor_table`] makes it.
    pub gdt: GuestAddress,
    /// The interrupt descriptor table: 256 gates of 16 bytes.
    pub idt: GuestAddress,
    /// The task state segment, which says where the stack of ring 0 is and which ports ring 3 may use.
    pub tss: GuestAddress,
    /// The offset of the last byte of the task state segment, its I/O permission bitmap included.
    pub tss_limit: u16,
}

/// The ring a guest starts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ring {
    /// CPL 0.
    Kernel,
    /// CPL 3. Port I/O is allowed twice, by an I/O privilege level of 3 and by the bitmap of the task state segment: some
    /// nested KVMs do not keep the one, others do not look at the other.
    User,
}

const KERNEL_CODE: u16 = 0x08;
const KERNEL_DATA: u16 = 0x10;
const USER_DATA: u16 = 0x23;
const USER_CODE: u16 = 0x2b;
const TASK: u16 = 0x30;

/// The descriptors that the segments of [`Vcpu::start_long_mode`] are loaded from, for an interrupt that reloads them.
pub fn descriptor_table(tss: GuestAddress, tss_limit: u16) -> [u64; 8] {
    let tss_low = 0x0000_8b00_0000_0000 | u64::from(tss_limit) | (tss.0 & 0xff_ffff) << 16 | (tss.0 >> 24 & 0xff) << 56;
    [
        0,
        0x00af_9b00_0000_ffff, // code, ring 0, 64 bit
        0x00cf_9300_0000_ffff, // data, ring 0
        0,
        0x00cf_f300_0000_ffff, // data, ring 3
        0x00af_fb00_0000_ffff, // code, ring 3, 64 bit
        tss_low,
        tss.0 >> 32,
    ]
}

const FLAT_CODE: u16 = 0x10;
const FLAT_DATA: u16 = 0x18;

/// The descriptors that the segments of [`Vcpu::start_protected_mode`] are loaded from: those that a Linux kernel asks for (Linux,
/// Documentation/arch/x86/boot.rst, "32-bit Boot Protocol").
pub const FLAT_DESCRIPTORS: [u64; 4] = [
    0,
    0,
    0x00cf_9b00_0000_ffff, // code, 32 bit
    0x00cf_9300_0000_ffff, // data
];

/// A virtual processor. It belongs to the thread that runs it.
pub struct Vcpu {
    fd: VcpuFd,
    /// The guest's memory must not go while the processor can use it.
    _vm: Arc<Vm>,
}

impl Vcpu {
    /// Virtual processor number `id` of `vm`, with all that KVM can show it as CPUID, its own number there, and the sign of a hypervisor.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn new(vm: &Arc<Vm>, id: u64) -> Result<Self, kvm_ioctls::Error> {
        let mut cpuid = vm.supported_cpuid().clone();
        set_apic_id(&mut cpuid, id as u32);
        set_hypervisor(&mut cpuid);
        Self::with_cpuid(vm, id, &cpuid)
    }

    /// Virtual processor number `id` of `vm`, with this CPUID. What it is made from is the machine's
    /// [`supported_cpuid`](Vm::supported_cpuid).
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn with_cpuid(vm: &Arc<Vm>, id: u64, cpuid: &CpuId) -> Result<Self, kvm_ioctls::Error> {
        let fd = vm.fd().create_vcpu(id)?;
        fd.set_cpuid2(cpuid)?;
        Ok(Self { fd, _vm: Arc::clone(vm) })
    }

    /// KVM's file descriptor of the processor.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// What KVM and the VMM share about the processor (Linux, Documentation/virt/kvm/api.rst, "The kvm_run structure"): of the
    /// last exit, what [`run`](Self::run) does not tell; and for the next, requests such as `immediate_exit`.
    pub fn kvm_run(&mut self) -> &mut kvm_run {
        self.fd.get_kvm_run()
    }

    /// Starts in real mode at `entry`, below 64 KiB, with all segments at 0 and the stack below `stack`.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn start_real_mode(&mut self, entry: u16, stack: u16) -> Result<(), kvm_ioctls::Error> {
        let mut sregs = self.fd.get_sregs()?;
        for segment in [&mut sregs.cs, &mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
            segment.base = 0;
            segment.selector = 0;
        }
        self.fd.set_sregs(&sregs)?;
        self.fd.set_regs(&kvm_regs { rip: entry.into(), rsp: stack.into(), rflags: 2, ..Default::default() })
    }

    /// Starts in protected mode with 32 bits, without paging and interrupts, at the `rip` of `registers`: code and data reach all
    /// of the lower 4 GiB, by the descriptors of [`FLAT_DESCRIPTORS`], which lie at `gdt`.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn start_protected_mode(&mut self, gdt: GuestAddress, registers: kvm_regs) -> Result<(), kvm_ioctls::Error> {
        let mut sregs = self.fd.get_sregs()?;
        let segment = |selector, type_| kvm_segment {
            limit: u32::MAX,
            selector,
            type_,
            present: 1,
            db: 1,
            s: 1,
            g: 1,
            ..Default::default()
        };
        sregs.cs = segment(FLAT_CODE, 11);
        for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
            *register = segment(FLAT_DATA, 3);
        }
        // A 32-bit task, busy: both virtualization extensions ask for one.
        sregs.tr = kvm_segment { limit: 0x67, type_: 11, present: 1, ..Default::default() };
        let limit = (8 * FLAT_DESCRIPTORS.len() - 1) as u16;
        sregs.gdt = kvm_dtable { base: gdt.0, limit, ..Default::default() };
        sregs.idt = kvm_dtable::default();
        const PROTECTION: u64 = 1 << 0;
        const EXTENSION_TYPE: u64 = 1 << 4;
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (PROTECTION | EXTENSION_TYPE, 0, 0, 0);
        self.fd.set_sregs(&sregs)?;
        self.fd.set_regs(&kvm_regs { rflags: 1 << 1, ..registers })
    }

    /// Starts in 64-bit mode at `entry`, as a function of the System V ABI called with one argument. Interrupts are enabled
    /// in ring 3, which cannot do so itself without asking, and disabled in ring 0.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn start_long_mode(
        &mut self,
        tables: LongMode,
        ring: Ring,
        entry: u64,
        stack: u64,
        argument: u64,
    ) -> Result<(), kvm_ioctls::Error> {
        let mut sregs = self.fd.get_sregs()?;
        let (code, data, dpl) = match ring {
            Ring::Kernel => (KERNEL_CODE, KERNEL_DATA, 0),
            Ring::User => (USER_CODE, USER_DATA, 3),
        };
        let segment = |selector, type_, l: u8| kvm_segment {
            base: 0,
            limit: u32::MAX,
            selector,
            type_,
            present: 1,
            dpl,
            db: 1 - l,
            s: 1,
            l,
            g: 1,
            ..Default::default()
        };
        sregs.cs = segment(code, 11, 1);
        for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
            *register = segment(data, 3, 0);
        }
        sregs.tr = kvm_segment {
            base: tables.tss.0,
            limit: tables.tss_limit.into(),
            selector: TASK,
            type_: 11,
            present: 1,
            ..Default::default()
        };
        sregs.gdt = kvm_dtable { base: tables.gdt.0, limit: 8 * 8 - 1, ..Default::default() };
        sregs.idt = kvm_dtable { base: tables.idt.0, limit: 256 * 16 - 1, ..Default::default() };
        enter_long_mode(&mut sregs, tables.page_tables);
        self.fd.set_sregs(&sregs)?;
        self.enable_wide_registers()?;

        const RESERVED_ONE: u64 = 1 << 1;
        const INTERRUPTS: u64 = 1 << 9;
        const IO_PRIVILEGE_3: u64 = 3 << 12;
        let rflags = match ring {
            Ring::Kernel => RESERVED_ONE,
            Ring::User => RESERVED_ONE | INTERRUPTS | IO_PRIVILEGE_3,
        };
        // At the entry of a function the stack is 8 below a multiple of 16, as a call would have left it.
        let rsp = (stack & !0xf) - 8;
        self.fd.set_regs(&kvm_regs { rip: entry, rsp, rdi: argument, rflags, ..Default::default() })
    }

    /// Allows the vector registers that the host has, since compiled code, and the C library's `memcpy`, uses them.
    fn enable_wide_registers(&self) -> Result<(), kvm_ioctls::Error> {
        let leaf = std::arch::x86_64::__cpuid_count(0xd, 0);
        let mut xcrs = self.fd.get_xcrs()?;
        xcrs.nr_xcrs = 1;
        xcrs.xcrs[0].xcr = 0;
        // x87, SSE, AVX and AVX-512 (Intel SDM vol. 1, 13.1): nothing that needs a permission of the host's kernel.
        xcrs.xcrs[0].value = u64::from(leaf.eax) & 0xe7;
        self.fd.set_xcrs(&xcrs)
    }

    /// Runs the guest until it needs the VMM.
    pub fn run(&mut self) -> Exit<'_> {
        match self.fd.run() {
            Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => self.port_exit(),
            Ok(VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => self.mmio_exit(),
            Ok(VcpuExit::IoapicEoi(vector)) => Exit::InterruptEnded { vector },
            Ok(VcpuExit::Hlt) => Exit::Halted,
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => Exit::Interrupted,
            Ok(VcpuExit::Shutdown) => Exit::Crashed(Crash::Shutdown),
            Ok(VcpuExit::FailEntry(reason, _)) => Exit::Crashed(Crash::FailedEntry { reason }),
            Ok(VcpuExit::InternalError) => {
                // SAFETY: the exit reason says that this member of the union is the one that is set.
                let internal = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal };
                Exit::Crashed(Crash::InternalError { suberror: internal.suberror })
            }
            Ok(other) => Exit::Crashed(Crash::Unexpected(format!("{other:?}"))),
            // EAGAIN is the first run of a processor that waits for its start-up interrupt.
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Exit::Interrupted,
            Err(error) => Exit::Crashed(Crash::Failed(error)),
        }
    }

    /// A port exit, from `kvm_run` itself: `kvm-ioctls` hands out `size * count` bytes, from which `rep insb` of four bytes
    /// cannot be told from one `in eax, dx`.
    fn port_exit(&mut self) -> Exit<'_> {
        const IN: u8 = kvm_bindings::KVM_EXIT_IO_IN as u8;
        let run: *mut kvm_run = self.fd.get_kvm_run();
        // SAFETY: `run` stays mapped while `self.fd` lives, which the result borrows. The exit reason says that `io` is the
        // member of the union that is set; the kernel put `size * count` bytes at `data_offset` of the same mapping (Linux,
        // Documentation/virt/kvm/api.rst, KVM_EXIT_IO), and touches them only in the next run.
        let (io, data) = unsafe {
            let io = (*run).__bindgen_anon_1.io;
            let start = run.cast::<u8>().add(io.data_offset as usize);
            (io, std::slice::from_raw_parts_mut(start, usize::from(io.size) * io.count as usize))
        };
        let element = usize::from(io.size);
        match io.direction {
            IN => Exit::PortRead { port: io.port, element, data },
            _ => Exit::PortWrite { port: io.port, element, data },
        }
    }

    fn mmio_exit(&mut self) -> Exit<'_> {
        // SAFETY: the exit reason says that this member of the union is the one that is set.
        let mmio = unsafe { &mut self.fd.get_kvm_run().__bindgen_anon_1.mmio };
        let address = GuestAddress(mmio.phys_addr);
        let length = (mmio.len as usize).min(mmio.data.len());
        let data = &mut mmio.data[..length];
        match mmio.is_write {
            0 => Exit::MmioRead { address, data },
            _ => Exit::MmioWrite { address, data },
        }
    }

    /// Goes on behind the instruction WAIT if that is what KVM has crashed on: a KVM that emulates what it runs does not know it.
    /// Without a pending exception of the x87 it does nothing (Intel SDM vol. 2, WAIT/FWAIT). `read` copies from the guest's RAM.
    /// Returns whether the guest can go on.
    pub fn passes_wait(&self, crash: &Crash, read: impl Fn(GuestAddress, &mut [u8]) -> Option<()>) -> bool {
        const EMULATION: u32 = kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
        const WAIT: u8 = 0x9b;
        const EXCEPTION_PENDING: u16 = 1 << 7;
        if *crash != (Crash::InternalError { suberror: EMULATION }) {
            return false;
        }
        let (Ok(mut regs), Ok(sregs), Ok(fpu)) = (self.fd.get_regs(), self.fd.get_sregs(), self.fd.get_fpu()) else {
            return false;
        };
        let Ok(place) = self.fd.translate_gva(sregs.cs.base.wrapping_add(regs.rip)) else { return false };
        let mut instruction = [0];
        let is_wait = place.valid != 0
            && read(GuestAddress(place.physical_address), &mut instruction).is_some()
            && instruction == [WAIT]
            && fpu.fsw & EXCEPTION_PENDING == 0;
        regs.rip = regs.rip.wrapping_add(1);
        is_wait && self.fd.set_regs(&regs).is_ok()
    }

    /// Injects an external interrupt, into a processor of a machine without an in-kernel interrupt controller that can take one: its
    /// last exit says so by `ready_for_interrupt_injection` (Linux, Documentation/virt/kvm/api.rst, `KVM_INTERRUPT`).
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn interrupt(&self, vector: u8) -> Result<(), kvm_ioctls::Error> {
        ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);
        let interrupt = kvm_interrupt { irq: vector.into() };
        // SAFETY: the file descriptor is that of a processor, and the kernel only reads the structure.
        match unsafe { ioctl_with_ref(&self.fd, KVM_INTERRUPT(), &interrupt) } {
            0 => Ok(()),
            _ => Err(kvm_ioctls::Error::last()),
        }
    }

    /// Where the guest stands, for a message about its end.
    pub fn position(&self) -> String {
        match (self.fd.get_regs(), self.fd.get_sregs()) {
            (Ok(regs), Ok(sregs)) => format!(
                "rip {:#x} rsp {:#x} cr2 {:#x} rflags {:#x} cs {:#x}",
                regs.rip, regs.rsp, sregs.cr2, regs.rflags, sregs.cs.selector
            ),
            _ => "unknown".into(),
        }
    }
}

/// Control registers for 64-bit mode with SSE and the wider registers (Intel SDM vol. 3A, 2.5 and 10.8.5).
fn enter_long_mode(sregs: &mut kvm_sregs, page_tables: GuestAddress) {
    const PROTECTION: u64 = 1 << 0;
    const MONITOR_COPROCESSOR: u64 = 1 << 1;
    const EXTENSION_TYPE: u64 = 1 << 4;
    const NUMERIC_ERROR: u64 = 1 << 5;
    const WRITE_PROTECT: u64 = 1 << 16;
    const PAGING: u64 = 1 << 31;
    const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
    const SSE: u64 = 1 << 9 | 1 << 10;
    const XSAVE: u64 = 1 << 18;
    const LONG_MODE: u64 = 1 << 8 | 1 << 10;
    sregs.cr0 = PROTECTION | MONITOR_COPROCESSOR | EXTENSION_TYPE | NUMERIC_ERROR | WRITE_PROTECT | PAGING;
    sregs.cr3 = page_tables.0;
    sregs.cr4 = PHYSICAL_ADDRESS_EXTENSION | SSE | XSAVE;
    sregs.efer = LONG_MODE;
}

/// Says that a hypervisor is there: a guest looks for what KVM offers then (Linux, Documentation/virt/kvm/x86/cpuid.rst). KVM leaves
/// that to the VMM.
fn set_hypervisor(cpuid: &mut CpuId) {
    const HYPERVISOR: u32 = 1 << 31;
    for leaf in cpuid.as_mut_slice().iter_mut().filter(|leaf| leaf.function == 1) {
        leaf.ecx |= HYPERVISOR;
    }
}

/// Writes the number of a processor to the leaves that tell it: the initial APIC ID (leaf 1) and the x2APIC ID (leaves 0xb and
/// 0x1f; Intel SDM vol. 2A, CPUID).
fn set_apic_id(cpuid: &mut CpuId, id: u32) {
    for leaf in cpuid.as_mut_slice() {
        match leaf.function {
            1 => leaf.ebx = leaf.ebx & 0x00ff_ffff | id << 24,
            0xb | 0x1f => leaf.edx = id,
            _ => {}
        }
    }
}
