//! Intel VMX: the virtual processor, and entering the guest (Intel SDM vol. 3C, chapters 24 to 28).

use core::arch::x86_64::CpuidResult;
use core::arch::{asm, naked_asm};

use vm_device::exit::x86::{self, Registers};

pub use super::exit::Exit;
use super::setup::{EXTERNAL_INTERRUPT_EXITING, HLT_EXITING, INTERRUPT_WINDOW_EXITING};
use super::vmcs::{self, Contents, Field, HOST_RIP, HOST_RSP, INTERRUPTION_EXCEPTION, Segment, read, write};
use super::{control, setup};
use crate::memory::Page;
use crate::x86::fault::Exception;
use crate::x86::interrupts;

/// The interruptibility state: the shadows of STI and MOV SS.
const SHADOWS: u64 = 0b11;
/// VM-entry interruption information (table 25-17).
const INTERRUPTION_VALID: u64 = 1 << 31;
const INTERRUPTION_ERROR_CODE: u64 = 1 << 11;
/// CR0.PE.
const PROTECTED_MODE: u64 = 1;

/// One virtual processor.
pub struct Vcpu {
    /// What an access of the guest reads and changes.
    pub registers: Registers,
    /// The vector of the exception that the guest got last from the hypervisor, and where it stood.
    pub injected: Option<(u8, u64)>,
    vmxon: Page<4096>,
    vmcs: Page<4096>,
    /// The first entry is another instruction than those that follow.
    launched: bool,
    ept_pointer: u64,
}

impl Vcpu {
    /// A virtual processor that cannot run yet.
    pub const fn new() -> Self {
        Self {
            registers: Registers { gpr: [0; 16], rip: 0, rflags: 2 },
            injected: None,
            vmxon: Page([0; 4096]),
            vmcs: Page([0; 4096]),
            launched: false,
            ept_pointer: 0,
        }
    }

    /// Turns VMX on, and sets everything of the virtual processor that is the same for each guest: it exits at every access to a
    /// port, to a model-specific register and to memory that is not mapped, at `CPUID`, `HLT` and interrupts of the machine, and
    /// at the instructions of VMX.
    ///
    /// # Errors
    /// The processor has no VMX, or lacks what is used of it.
    pub fn enable(&'static mut self, nested_root: u64) -> Result<&'static mut Self, &'static str> {
        // SAFETY: the virtual processor is never freed, and nothing else uses both.
        unsafe { setup::turn_on(&mut self.vmxon, &mut self.vmcs) }?;
        vmcs::clear();
        setup::set_controls()?;
        setup::set_host_state();
        // The memory type write-back, and a walk of four levels.
        self.ept_pointer = nested_root | 6 | 3 << 3;
        write(Field::EptPointer, self.ept_pointer);
        write(Field::LinkPointer, u64::MAX);

        vmcs::set_segment(Segment::Ldtr, Contents::of_64_kib(0x82));
        vmcs::set_segment(Segment::Tr, Contents::of_64_kib(0x8b));
        write(Field::GdtrBase, 0);
        write(Field::IdtrBase, 0);
        write(Field::GdtrLimit, 0xffff);
        write(Field::IdtrLimit, 0xffff);
        write(Field::Cr3, 0);
        write(Field::Dr7, 0x400);
        write(Field::GuestPat, 0x0007_0406_0007_0406);
        Ok(self)
    }

    /// Gives the guest the machine's interrupts: they reach it as if there were no hypervisor, and end its `HLT`.
    pub fn pass_interrupts(&mut self) {
        write(Field::PinControls, read(Field::PinControls) & !EXTERNAL_INTERRUPT_EXITING);
        write(Field::PrimaryControls, read(Field::PrimaryControls) & !HLT_EXITING);
    }

    /// Lets the guest run from `address` in real mode.
    pub fn start_in_real_mode(&mut self, address: u16) {
        self.start(0, Contents::of_64_kib(0x9b), Contents::of_64_kib(0x93), address.into());
    }

    /// Lets the guest run from `address` in 32-bit protected mode without paging.
    pub fn start_in_protected_mode(&mut self, address: u32) {
        let code = Contents { selector: 0x10, base: 0, limit: u32::MAX, rights: 0xc09b };
        let data = Contents { selector: 0x18, rights: 0xc093, ..code };
        self.start(PROTECTED_MODE, code, data, address.into());
    }

    fn start(&mut self, cr0: u64, code: Contents, data: Contents, address: u64) {
        self.registers.rip = address;
        control::start(control::CR0_RESET | cr0, setup::must_be_set());
        vmcs::set_segment(Segment::Cs, code);
        for segment in [Segment::Es, Segment::Ss, Segment::Ds, Segment::Fs, Segment::Gs] {
            vmcs::set_segment(segment, data);
        }
    }

    /// Requests the interrupt of the asserted lines, or withdraws it: the guest takes it now if it can, or exits as soon as it
    /// could.
    pub fn request_interrupt(&mut self, asserted: u64) {
        let mut window = 0;
        if let Some(vector) = interrupts::vector(asserted) {
            let is_shadowed = read(Field::Interruptibility) & SHADOWS != 0;
            if self.accepts_interrupts() && !is_shadowed && !is_injected() {
                write(Field::EntryInterruption, INTERRUPTION_VALID | u64::from(vector));
            } else {
                window = INTERRUPT_WINDOW_EXITING;
            }
        }
        write(Field::PrimaryControls, read(Field::PrimaryControls) & !INTERRUPT_WINDOW_EXITING | window);
    }

    /// Lets the guest take an exception in place of the instruction that it exited for.
    pub fn inject(&mut self, exception: Exception) {
        let Exception { vector, error_code, address } = exception;
        self.injected = Some((vector, self.registers.rip));
        let mut interruption = INTERRUPTION_VALID | INTERRUPTION_EXCEPTION | u64::from(vector);
        // Real mode has no error codes.
        if let Some(error_code) = error_code.filter(|_| self.cr0() & PROTECTED_MODE != 0) {
            write(Field::EntryErrorCode, error_code.into());
            interruption |= INTERRUPTION_ERROR_CODE;
        }
        write(Field::EntryInterruption, interruption);
        self.end_shadow();
        if let Some(address) = address {
            // SAFETY: the register is the guest's: the hypervisor has no page faults.
            unsafe { asm!("mov cr2, {}", in(reg) address, options(nomem, nostack)) };
        }
    }

    /// CR0.
    pub fn cr0(&self) -> u64 {
        control::seen(Field::Cr0, Field::Cr0Mask, Field::Cr0Shadow)
    }

    /// CR3.
    pub fn cr3(&self) -> u64 {
        read(Field::Cr3)
    }

    /// CR4.
    pub fn cr4(&self) -> u64 {
        control::seen(Field::Cr4, Field::Cr4Mask, Field::Cr4Shadow)
    }

    /// EFER.
    pub fn efer(&self) -> u64 {
        read(Field::GuestEfer)
    }

    /// L and D of the code segment.
    pub fn code_size(&self) -> (bool, bool) {
        let rights = vmcs::rights(Segment::Cs);
        (rights & 1 << 13 != 0, rights & 1 << 14 != 0)
    }

    /// The current privilege level: that of the stack segment (Intel SDM vol. 3C, 25.4.1).
    pub fn privilege_level(&self) -> u8 {
        (vmcs::rights(Segment::Ss) >> 5 & 3) as u8
    }

    /// The base of a segment.
    pub fn base(&self, segment: x86::Segment) -> u64 {
        vmcs::base(segment.into())
    }

    /// Whether an address has 48 bits, sign-extended.
    pub fn is_canonical(address: u64) -> bool {
        (address << 16) as i64 >> 16 == address as i64
    }

    /// A leaf of `CPUID` without VMX, SMX, MONITOR and XSAVE.
    pub fn hide(leaf: u32, _: u32, identity: CpuidResult) -> CpuidResult {
        const HIDDEN: u32 = 1 << 3 | 1 << 5 | 1 << 6 | 1 << 26 | 1 << 28;
        match leaf {
            1 => CpuidResult { ecx: identity.ecx & !HIDDEN, ..identity },
            0xd => CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
            _ => identity,
        }
    }

    /// Lets the guest go on after an instruction that was done for it, which ends an interrupt shadow.
    pub fn complete(&mut self, registers: Registers) {
        self.registers = registers;
        self.end_shadow();
    }

    /// Ends the shadow of STI or MOV SS.
    fn end_shadow(&mut self) {
        write(Field::Interruptibility, read(Field::Interruptibility) & !SHADOWS);
    }

    /// Lets the processor forget what it knew of the nested page tables.
    pub fn forget_translations(&mut self) {
        const SINGLE_CONTEXT: u64 = 1;
        let descriptor = [self.ept_pointer, 0];
        // SAFETY: the instruction reads the descriptor and changes no memory; VMX is on.
        unsafe { asm!("invept {}, [{}]", in(reg) SINGLE_CONTEXT, in(reg) &raw const descriptor, options(nostack)) };
    }

    /// Runs the guest until its next exit.
    pub fn run(&mut self) -> Exit {
        write(Field::Rsp, self.registers.gpr[4]);
        write(Field::Rip, self.registers.rip);
        write(Field::Rflags, self.registers.rflags);
        // SAFETY: `enable` has set up the VMCS, and a host state that is the hypervisor's. The guest reaches no memory but what the
        // nested page tables map, and cannot change that.
        let refused = unsafe { enter(&raw mut self.registers.gpr, self.launched.into()) } != 0;
        self.launched |= !refused;
        self.registers.gpr[4] = read(Field::Rsp);
        (self.registers.rip, self.registers.rflags) = (read(Field::Rip), read(Field::Rflags));
        Exit::read(refused)
    }
}

/// Whether an event waits for the next entry.
fn is_injected() -> bool {
    read(Field::EntryInterruption) & INTERRUPTION_VALID != 0
}

/// Swaps the general-purpose registers with the guest's but for `rsp`, which is in the VMCS, and runs the guest until its next
/// exit. Returns 0, or 1 if the processor refuses to enter the guest.
///
/// # Safety
/// The current VMCS confines the guest to memory of its own. `launched` is 0 for its first entry, and else 1.
#[unsafe(naked)]
unsafe extern "sysv64" fn enter(registers: *mut [u64; 16], launched: u64) -> u64 {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        "push rdi",
        "mov eax, {HOST_RSP}",
        "vmwrite rax, rsp",
        "mov eax, {HOST_RIP}",
        "lea rcx, [rip + 4f]",
        "vmwrite rax, rcx",
        "test rsi, rsi",
        "mov rax, [rdi]; mov rcx, [rdi + 8]; mov rdx, [rdi + 16]; mov rbx, [rdi + 24]; mov rbp, [rdi + 40]",
        "mov rsi, [rdi + 48]",
        "mov r8, [rdi + 64]; mov r9, [rdi + 72]; mov r10, [rdi + 80]; mov r11, [rdi + 88]",
        "mov r12, [rdi + 96]; mov r13, [rdi + 104]; mov r14, [rdi + 112]; mov r15, [rdi + 120]",
        "mov rdi, [rdi + 56]",
        "jnz 2f",
        "vmlaunch",
        "jmp 3f",
        "2:",
        "vmresume",
        "3:",
        "pop rdi",
        "mov eax, 1",
        "jmp 5f",
        "4:",
        "xchg rdi, [rsp]",
        "mov [rdi], rax; mov [rdi + 8], rcx; mov [rdi + 16], rdx; mov [rdi + 24], rbx; mov [rdi + 40], rbp",
        "mov [rdi + 48], rsi",
        "mov [rdi + 64], r8; mov [rdi + 72], r9; mov [rdi + 80], r10; mov [rdi + 88], r11",
        "mov [rdi + 96], r12; mov [rdi + 104], r13; mov [rdi + 112], r14; mov [rdi + 120], r15",
        "pop qword ptr [rdi + 56]",
        "xor eax, eax",
        "5:",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
        "ret",
        HOST_RSP = const HOST_RSP,
        HOST_RIP = const HOST_RIP,
    )
}
