//! AMD SVM: enabling it, the virtual machine control block, and entering the guest (AMD APM vol. 2, chapter 15 and
//! appendix B).

use core::arch::naked_asm;
use core::arch::x86_64::{__cpuid, CpuidResult};
use core::fmt;
use core::mem::offset_of;
use core::ops::RangeInclusive;

use vm_device::exit::x86::{self, Registers};
use x86_64::registers::model_specific::{Efer, EferFlags, Msr};

use crate::memory::Page;
use crate::x86::fault::Exception;
use crate::x86::interrupts;

/// A segment register of the guest (APM vol. 2, 15.5.1): `attributes` are bits 55:52 and 47:40 of its descriptor.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Segment {
    selector: u16,
    attributes: u16,
    limit: u32,
    base: u64,
}

impl Segment {
    /// Real mode: 64 KiB of code at 0.
    const REAL_CODE: Self = Self { selector: 0, attributes: 0x9b, limit: 0xffff, base: 0 };
    /// Real mode: 64 KiB of data at 0.
    const REAL_DATA: Self = Self { selector: 0, attributes: 0x93, limit: 0xffff, base: 0 };
    /// Protected mode: 4 GiB of 32-bit code.
    const FLAT_CODE: Self = Self { selector: 0x10, attributes: 0xc9b, limit: 0xffff_ffff, base: 0 };
    /// Protected mode: 4 GiB of data.
    const FLAT_DATA: Self = Self { selector: 0x18, attributes: 0xc93, limit: 0xffff_ffff, base: 0 };
    /// A busy 32-bit TSS.
    const TSS: Self = Self { selector: 0, attributes: 0x8b, limit: 0xffff, base: 0 };
    /// An empty LDT.
    const LDT: Self = Self { selector: 0, attributes: 0x82, limit: 0xffff, base: 0 };
}

/// The virtual machine control block: what is intercepted, why the guest exited, and the guest's state.
#[repr(C, align(4096))]
struct Vmcb {
    intercept_registers: [u32; 2],
    intercept_exceptions: u32,
    intercept_instructions: [u32; 2],
    _unused_014: [u8; 0x2c],
    io_permissions: u64,
    msr_permissions: u64,
    tsc_offset: u64,
    asid: u32,
    /// 1 flushes the TLB at the next entry.
    tlb_control: u32,
    /// V_IRQ (bit 8), its priority, and the vector in bits 39:32.
    virtual_interrupt: u64,
    /// Bit 0: the guest is in an interrupt shadow.
    interrupt_shadow: u64,
    exit_code: u64,
    exit_info_1: u64,
    exit_info_2: u64,
    /// What was being delivered when the guest exited: EXITINTINFO.
    exit_interruption: u64,
    nested_paging: u64,
    _unused_098: [u8; 0x10],
    /// What the guest takes at the next entry: EVENTINJ.
    injected_event: u64,
    nested_cr3: u64,
    _unused_0b8: [u8; 0x348],
    es: Segment,
    cs: Segment,
    ss: Segment,
    ds: Segment,
    fs: Segment,
    gs: Segment,
    gdtr: Segment,
    ldtr: Segment,
    idtr: Segment,
    tr: Segment,
    _unused_4a0: [u8; 0x2b],
    /// The current privilege level.
    cpl: u8,
    _unused_4cc: [u8; 4],
    efer: u64,
    _unused_4d8: [u8; 0x70],
    cr4: u64,
    cr3: u64,
    cr0: u64,
    dr7: u64,
    dr6: u64,
    rflags: u64,
    rip: u64,
    _unused_580: [u8; 0x58],
    rsp: u64,
    _unused_5e0: [u8; 0x18],
    rax: u64,
    _unused_600: [u8; 0x40],
    cr2: u64,
    _unused_648: [u8; 0x20],
    pat: u64,
    _unused_670: [u8; 0x990],
}

const _: () = {
    assert!(offset_of!(Vmcb, io_permissions) == 0x40);
    assert!(offset_of!(Vmcb, exit_code) == 0x70);
    assert!(offset_of!(Vmcb, nested_cr3) == 0xb0);
    assert!(offset_of!(Vmcb, es) == 0x400);
    assert!(offset_of!(Vmcb, cpl) == 0x4cb);
    assert!(offset_of!(Vmcb, efer) == 0x4d0);
    assert!(offset_of!(Vmcb, cr4) == 0x548);
    assert!(offset_of!(Vmcb, rsp) == 0x5d8);
    assert!(offset_of!(Vmcb, rax) == 0x5f8);
    assert!(offset_of!(Vmcb, cr2) == 0x640);
    assert!(offset_of!(Vmcb, injected_event) == 0xa8);
    assert!(offset_of!(Vmcb, pat) == 0x668);
    assert!(size_of::<Vmcb>() == 4096);
};

/// `EXITCODE`s of intercepted exceptions, from that of vector 0 on.
pub const VMEXIT_EXCEPTIONS: RangeInclusive<u64> = 0x40..=0x5f;
/// `EXITCODE` of an intercepted `HLT`.
pub const VMEXIT_HLT: u64 = 0x78;
/// `EXITCODE` of an intercepted `CPUID`.
pub const VMEXIT_CPUID: u64 = 0x72;
/// `EXITCODE` of an intercepted `INVD`.
pub const VMEXIT_INVD: u64 = 0x76;
/// `EXITCODE` of an intercepted `INVLPGA`, an instruction of SVM.
pub const VMEXIT_INVLPGA: u64 = 0x7a;
/// `EXITCODE` of an intercepted `RDMSR` or `WRMSR`.
pub const VMEXIT_MSR: u64 = 0x7c;
/// `EXITCODE`s of the instructions of SVM: from `VMRUN` to `SKINIT`.
pub const VMEXIT_VMRUN: u64 = 0x80;
pub const VMEXIT_SKINIT: u64 = 0x86;
/// The model-specific registers of SVM.
const SVM_REGISTERS: RangeInclusive<u32> = 0xc001_0114..=0xc001_0117;
const EFER_SVME: u64 = 1 << 12;

/// INIT, which resets a processor.
const INTERCEPT_INIT: u32 = 1 << 3;
const INTERCEPT_CPUID: u32 = 1 << 18;
/// `INVD`, which would take back what the hypervisor wrote.
const INTERCEPT_INVD: u32 = 1 << 22;
const INTERCEPT_HLT: u32 = 1 << 24;
const INTERCEPT_INVLPGA: u32 = 1 << 26;
const INTERCEPT_IOIO: u32 = 1 << 27;
const INTERCEPT_MSR: u32 = 1 << 28;
const INTERCEPT_SHUTDOWN: u32 = 1 << 31;
/// `VMRUN`, which has to be intercepted, and the other instructions of SVM.
const INTERCEPT_SVM: u32 = 0x7f;

/// EVENTINJ and EXITINTINFO (APM vol. 2, 15.20): they are valid; there is an error code, in bits 63:32; the event is an exception.
const EVENT_VALID: u64 = 1 << 31;
const EVENT_ERROR_CODE: u64 = 1 << 11;
const EVENT_EXCEPTION: u64 = 3 << 8;
/// CR0.PE.
const PROTECTED_MODE: u64 = 1;

const V_IRQ: u64 = 1 << 8;
/// The highest priority, and no regard to the task priority register.
const V_PRIORITY: u64 = 0xf << 16 | 1 << 20;
/// Interrupts of the machine are held back by the hypervisor's interrupt flag, which is clear, and not by the guest's.
const V_INTR_MASKING: u64 = 1 << 24;

impl Vmcb {
    const fn new() -> Self {
        // SAFETY: every field is an integer, or a structure or array of them, for which all zeros is a value.
        unsafe { core::mem::MaybeUninit::zeroed().assume_init() }
    }
}

/// Why the guest exited: `EXITCODE`, `EXITINFO1`, `EXITINFO2` and `EXITINTINFO`.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub code: u64,
    pub info_1: u64,
    pub info_2: u64,
    pub delivered: u64,
}

impl Exit {
    /// Whether the guest exited while an interrupt or exception was delivered to it.
    pub fn is_in_delivery(&self) -> bool {
        self.delivered & EVENT_VALID != 0
    }

    /// What the code stands for (APM vol. 2, appendix C), as far as the guest is intercepted.
    fn name(&self) -> &'static str {
        match self.code {
            0x63 => "INIT: a reset of the processor",
            0x7b => "IOIO: an access to a port",
            0x40..=0x5f => "an exception",
            0x7f => "SHUTDOWN: a triple fault",
            0x400 => "NPF: an access to no memory",
            // Of 64 or of 32 bits.
            code if code as u32 == u32::MAX => "INVALID: the processor refuses the guest's state",
            _ => "which nothing is intercepted for",
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, info_1, info_2, delivered } = self;
        write!(f, "exit {code:#x}, {}", self.name())?;
        if self.is_in_delivery() {
            write!(f, " while vector {:#x} was delivered", *delivered as u8)?;
        }
        write!(f, " (information {info_1:#x}, {info_2:#x})")
    }
}

/// One virtual processor.
pub struct Vcpu {
    /// What the processor reads and writes at entry and exit.
    vmcb: Vmcb,
    /// What an access of the guest reads and changes.
    pub registers: Registers,
    /// The vector of the exception that the guest got last from the hypervisor, and where it stood.
    pub injected: Option<(u8, u64)>,
    host_state: Page<4096>,
    io_permissions: Page<12288>,
    msr_permissions: Page<8192>,
}

impl Vcpu {
    /// A virtual processor that cannot run yet.
    pub const fn new() -> Self {
        Self {
            vmcb: Vmcb::new(),
            registers: Registers { gpr: [0; 16], rip: 0, rflags: 2 },
            injected: None,
            host_state: Page([0; 4096]),
            io_permissions: Page([0; 12288]),
            msr_permissions: Page([0; 8192]),
        }
    }

    /// Turns SVM on, and sets everything of the virtual processor that is the same for each guest: it exits at every
    /// access to a port and to memory that is not mapped, to model-specific registers that are not its own, at `CPUID`, `HLT` and
    /// `INVD`, at the instructions of SVM, and at what would reset the processor.
    ///
    /// # Errors
    /// The processor has no SVM, or none with nested paging.
    pub fn enable(&'static mut self, nested_cr3: u64) -> Result<&'static mut Self, &'static str> {
        if __cpuid(0x8000_0001).ecx & 1 << 2 == 0 {
            return Err("the processor has no SVM");
        }
        if __cpuid(0x8000_000a).edx & 1 == 0 {
            return Err("the processor has no nested paging");
        }
        // SAFETY: SVM is there, and VM_HSAVE_PA (MSR 0xc001_0117) is given a page that is used for nothing else and
        // is never freed. Interrupts stay off (global interrupt flag) until the guest runs.
        unsafe {
            Efer::update(|efer| efer.insert(EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE));
            Msr::new(0xc001_0117).write(&raw const self.host_state as u64);
            core::arch::asm!("clgi", options(nomem, nostack));
        }
        self.io_permissions.0.fill(0xff);
        self.intercept_registers();
        let vmcb = &mut self.vmcb;
        let instructions = INTERCEPT_CPUID | INTERCEPT_INVD | INTERCEPT_HLT | INTERCEPT_INVLPGA;
        let accesses = INTERCEPT_IOIO | INTERCEPT_MSR;
        let ends = INTERCEPT_INIT | INTERCEPT_SHUTDOWN;
        vmcb.intercept_instructions = [instructions | accesses | ends, INTERCEPT_SVM];
        vmcb.intercept_exceptions = Exception::INTERCEPTED;
        vmcb.io_permissions = &raw const self.io_permissions as u64;
        vmcb.msr_permissions = &raw const self.msr_permissions as u64;
        vmcb.virtual_interrupt = V_INTR_MASKING;
        vmcb.asid = 1;
        vmcb.nested_paging = 1;
        vmcb.nested_cr3 = nested_cr3;
        vmcb.efer = EFER_SVME;
        vmcb.dr7 = 0x400;
        vmcb.dr6 = 0xffff_0ff0;
        vmcb.pat = 0x0007_0406_0007_0406;
        (vmcb.tr, vmcb.ldtr) = (Segment::TSS, Segment::LDT);
        (vmcb.gdtr.limit, vmcb.idtr.limit) = (0xffff, 0xffff);
        Ok(self)
    }

    /// Lets the guest exit at writes of all model-specific registers but those that are its own: what the control block, `VMLOAD` and
    /// `VMSAVE` have of it, TSC_AUX, which the hypervisor does not use, and the deadline of the local APIC's timer.
    /// All others are the machine's: they would move the local APIC over memory, change how memory is cached, or set the hypervisor's
    /// clock. It exits at reads of those of SVM.
    fn intercept_registers(&mut self) {
        const OWN: [u32; 14] = [
            0x174,
            0x175,
            0x176,
            0x277,
            0x6e0,
            0xc000_0080,
            0xc000_0081,
            0xc000_0082,
            0xc000_0083,
            0xc000_0084,
            0xc000_0100,
            0xc000_0101,
            0xc000_0102,
            0xc000_0103,
        ];
        const READ: u8 = 0b01;
        const WRITE: u8 = 0b10;
        // Two bits for each register; those from 0xc000_0000 on begin at 0x800, those from 0xc001_0000 on at 0x1000 (APM vol. 2, 15.11).
        let place = |number: u32| {
            let start = if number < 0xc000_0000 { 0 } else { 0x800 };
            (start + (number as usize & 0x1fff) / 4, number % 4 * 2)
        };
        self.msr_permissions.0.fill(WRITE * 0b0101_0101);
        for number in OWN {
            let (byte, shift) = place(number);
            self.msr_permissions.0[byte] &= !(WRITE << shift);
        }
        self.msr_permissions.0[0x1000 + 0x114 / 4] |= READ * 0b0101_0101;
    }

    /// Ignores a write of a model-specific register that is not the guest's own. Returns where the guest goes on.
    ///
    /// # Errors
    /// It was a read, of a register that the guest has not, or a write of one of SVM.
    pub fn ignore_write(&self, exit: &Exit) -> Result<u64, Exception> {
        const WRITE: u64 = 1;
        let is_of_svm = SVM_REGISTERS.contains(&(self.registers.gpr[1] as u32));
        if exit.info_1 == WRITE && !is_of_svm { Ok(self.behind(2)) } else { Err(Exception::GENERAL_PROTECTION) }
    }

    /// Gives the guest the machine's interrupts: they reach it as if there were no hypervisor, and end its `HLT`.
    pub fn pass_interrupts(&mut self) {
        self.vmcb.virtual_interrupt &= !V_INTR_MASKING;
        self.vmcb.intercept_instructions[0] &= !INTERCEPT_HLT;
    }

    /// Lets the guest run from `address` in real mode.
    pub fn start_in_real_mode(&mut self, address: u16) {
        self.vmcb.cr0 = 0x10;
        self.start(Segment::REAL_CODE, Segment::REAL_DATA, address.into());
    }

    /// Lets the guest run from `address` in 32-bit protected mode without paging.
    pub fn start_in_protected_mode(&mut self, address: u32) {
        self.vmcb.cr0 = 0x11;
        self.start(Segment::FLAT_CODE, Segment::FLAT_DATA, address.into());
    }

    fn start(&mut self, code: Segment, data: Segment, address: u64) {
        self.registers.rip = address;
        let vmcb = &mut self.vmcb;
        vmcb.cs = code;
        (vmcb.ss, vmcb.ds, vmcb.es, vmcb.fs, vmcb.gs) = (data, data, data, data, data);
    }

    /// Requests the interrupt of the asserted lines, or withdraws it: the guest takes it as soon as its interrupt flag allows,
    /// as by the INTR pin of a processor.
    pub fn request_interrupt(&mut self, asserted: u64) {
        let request = interrupts::vector(asserted).map_or(0, |vector| V_IRQ | V_PRIORITY | u64::from(vector) << 32);
        self.vmcb.virtual_interrupt = self.vmcb.virtual_interrupt & V_INTR_MASKING | request;
    }

    /// Lets the guest take an exception in place of the instruction that it exited for.
    pub fn inject(&mut self, exception: Exception) {
        let Exception { vector, error_code, address } = exception;
        self.injected = Some((vector, self.registers.rip));
        // Real mode has no error codes.
        let error_code = error_code.filter(|_| self.vmcb.cr0 & PROTECTED_MODE != 0);
        let error_code = error_code.map_or(0, |code| EVENT_ERROR_CODE | u64::from(code) << 32);
        self.vmcb.injected_event = EVENT_VALID | EVENT_EXCEPTION | u64::from(vector) | error_code;
        self.vmcb.cr2 = address.unwrap_or(self.vmcb.cr2);
        self.vmcb.interrupt_shadow = 0;
    }

    /// CR0.
    pub fn cr0(&self) -> u64 {
        self.vmcb.cr0
    }

    /// CR3.
    pub fn cr3(&self) -> u64 {
        self.vmcb.cr3
    }

    /// CR4.
    pub fn cr4(&self) -> u64 {
        self.vmcb.cr4
    }

    /// EFER.
    pub fn efer(&self) -> u64 {
        self.vmcb.efer
    }

    /// L and D of the code segment.
    pub fn code_size(&self) -> (bool, bool) {
        let attributes = self.vmcb.cs.attributes;
        (attributes & 1 << 9 != 0, attributes & 1 << 10 != 0)
    }

    /// The current privilege level.
    pub fn privilege_level(&self) -> u8 {
        self.vmcb.cpl
    }

    /// The base of a segment.
    pub fn base(&self, segment: x86::Segment) -> u64 {
        let segments = [self.vmcb.es, self.vmcb.cs, self.vmcb.ss, self.vmcb.ds, self.vmcb.fs, self.vmcb.gs];
        segments[segment as usize].base
    }

    /// A leaf of `CPUID` without SVM. (A Linux kernel that finds SVM turns it off before it reboots.)
    pub fn hide(leaf: u32, _: u32, identity: CpuidResult) -> CpuidResult {
        match leaf {
            0x8000_0001 => CpuidResult { ecx: identity.ecx & !(1 << 2), ..identity },
            0x8000_000a => CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
            _ => identity,
        }
    }

    /// Lets the guest go on after an instruction that was done for it, which ends an interrupt shadow.
    pub fn complete(&mut self, registers: Registers) {
        self.registers = registers;
        self.vmcb.interrupt_shadow = 0;
    }

    /// Lets the processor forget what it knew of the nested page tables.
    pub fn forget_translations(&mut self) {
        self.vmcb.tlb_control = 1;
    }

    /// Runs the guest until its next exit.
    pub fn run(&mut self) -> Exit {
        let Registers { gpr, rip, rflags } = self.registers;
        (self.vmcb.rax, self.vmcb.rsp, self.vmcb.rip, self.vmcb.rflags) = (gpr[0], gpr[4], rip, rflags);
        // SAFETY: `enable` has set up the control block and what it points to, for good, and addresses of the image are
        // physical addresses. The guest reaches no memory but what the nested page tables map, and cannot change that.
        unsafe { enter(&raw mut self.vmcb, &raw mut self.registers.gpr) };
        (self.vmcb.tlb_control, self.vmcb.injected_event) = (0, 0);
        let Vmcb { rax, rsp, rip, rflags, .. } = self.vmcb;
        (self.registers.gpr[0], self.registers.gpr[4]) = (rax, rsp);
        (self.registers.rip, self.registers.rflags) = (rip, rflags);
        let Vmcb { exit_code, exit_info_1, exit_info_2, exit_interruption, .. } = self.vmcb;
        Exit { code: exit_code, info_1: exit_info_1, info_2: exit_info_2, delivered: exit_interruption }
    }
}

/// Swaps the general-purpose registers with the guest's but for `rax` and `rsp`, which are in the control block, and runs
/// the guest until its next exit.
///
/// # Safety
/// `vmcb` is a control block at its physical address that confines the guest to memory of its own.
#[unsafe(naked)]
unsafe extern "sysv64" fn enter(vmcb: *mut Vmcb, registers: *mut [u64; 16]) {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        "push rsi",
        "mov rax, rdi",
        "vmload rax",
        "mov rcx, [rsi + 8]; mov rdx, [rsi + 16]; mov rbx, [rsi + 24]; mov rbp, [rsi + 40]; mov rdi, [rsi + 56]",
        "mov r8, [rsi + 64]; mov r9, [rsi + 72]; mov r10, [rsi + 80]; mov r11, [rsi + 88]",
        "mov r12, [rsi + 96]; mov r13, [rsi + 104]; mov r14, [rsi + 112]; mov r15, [rsi + 120]",
        "mov rsi, [rsi + 48]",
        "vmrun rax",
        "vmsave rax",
        "xchg rsi, [rsp]",
        "mov [rsi + 8], rcx; mov [rsi + 16], rdx; mov [rsi + 24], rbx; mov [rsi + 40], rbp; mov [rsi + 56], rdi",
        "mov [rsi + 64], r8; mov [rsi + 72], r9; mov [rsi + 80], r10; mov [rsi + 88], r11",
        "mov [rsi + 96], r12; mov [rsi + 104], r13; mov [rsi + 112], r14; mov [rsi + 120], r15",
        "pop qword ptr [rsi + 48]",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
        "ret",
    )
}
