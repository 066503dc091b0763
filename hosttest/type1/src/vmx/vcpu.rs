//! Intel VMX: enabling it, the virtual processor, and entering the guest (Intel SDM vol. 3C, chapters 24 to 28).

use core::arch::x86_64::{__cpuid, CpuidResult};
use core::arch::{asm, naked_asm};
use core::fmt;

use vm_device::exit::x86::{self, Registers};
use x86_64::instructions::segmentation::{CS, DS, Segment as _};
use x86_64::instructions::tables::sgdt;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

use super::control;
use super::vmcs::{self, Contents, Field, HOST_RIP, HOST_RSP, Segment, read, write};
use crate::memory::Page;
use crate::x86::fault::Exception;
use crate::x86::interrupts;

/// Model-specific registers (Intel SDM vol. 4, table 2-2).
mod msr {
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const PAT: u32 = 0x277;
    pub const VMX_BASIC: u32 = 0x480;
    pub const CR0_MUST_BE_SET: u32 = 0x486;
    pub const CR4_MUST_BE_SET: u32 = 0x488;
    pub const SECONDARY_CONTROLS: u32 = 0x48b;
    pub const EPT_CAPABILITIES: u32 = 0x48c;
    pub const PIN_CONTROLS: u32 = 0x48d;
    pub const PRIMARY_CONTROLS: u32 = 0x48e;
    pub const EXIT_CONTROLS: u32 = 0x48f;
    pub const ENTRY_CONTROLS: u32 = 0x490;
    pub const EFER: u32 = 0xc000_0080;
}

/// Bits of the pin-based controls.
const EXTERNAL_INTERRUPT_EXITING: u64 = 1 << 0;
const NMI_EXITING: u64 = 1 << 3;
/// Bits of the primary processor-based controls. Without bitmaps every port and model-specific register exits.
const INTERRUPT_WINDOW_EXITING: u64 = 1 << 2;
const HLT_EXITING: u64 = 1 << 7;
const MWAIT_EXITING: u64 = 1 << 10;
const RDPMC_EXITING: u64 = 1 << 11;
const IO_EXITING: u64 = 1 << 24;
const MONITOR_EXITING: u64 = 1 << 29;
const SECONDARY: u64 = 1 << 31;
/// Bits of the secondary processor-based controls.
const EPT: u64 = 1 << 1;
const RDTSCP: u64 = 1 << 3;
const UNRESTRICTED: u64 = 1 << 7;
const INVPCID: u64 = 1 << 12;
/// Bits of the exit controls: the host is in 64-bit mode, and the page attribute table and EFER are saved and loaded.
const HOST_64_BIT: u64 = 1 << 9;
const EXIT_PAT_AND_EFER: u64 = 0b1111 << 18;
/// Bits of the entry controls: the page attribute table and EFER are loaded.
const ENTRY_PAT_AND_EFER: u64 = 0b11 << 14;

/// The interruptibility state: the shadows of STI and MOV SS.
const SHADOWS: u64 = 0b11;
/// VM-entry interruption information (table 25-17).
const INTERRUPTION_VALID: u64 = 1 << 31;
const INTERRUPTION_ERROR_CODE: u64 = 1 << 11;
const INTERRUPTION_EXCEPTION: u64 = 3 << 8;
/// CR0.PE.
const PROTECTED_MODE: u64 = 1;

/// Why the guest exited.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// The exit reason: the basic one in bits 15:0; bit 31 for an entry that failed. `None` if the processor refused to enter.
    pub reason: Option<u32>,
    pub qualification: u64,
    pub linear_address: u64,
    pub guest_physical_address: u64,
    pub instruction_length: u32,
    pub instruction_information: u32,
    /// The exception or NMI that it exited for: the vector in bits 7:0, its kind in bits 10:8.
    pub interruption: u32,
    /// The event during whose delivery it exited, if bit 31 is 1.
    pub delivered: u32,
    /// Why the processor refused to enter.
    pub error: u32,
}

/// Basic exit reasons (Intel SDM vol. 3D, appendix C).
pub mod reason {
    pub const EXCEPTION: u16 = 0;
    pub const INTERRUPT_WINDOW: u16 = 7;
    pub const CPUID: u16 = 10;
    pub const GETSEC: u16 = 11;
    pub const HLT: u16 = 12;
    pub const INVD: u16 = 13;
    pub const RDPMC: u16 = 15;
    pub const VMCALL: u16 = 18;
    pub const VMXON: u16 = 27;
    pub const CONTROL_REGISTER: u16 = 28;
    pub const RDMSR: u16 = 31;
    pub const WRMSR: u16 = 32;
    pub const MWAIT: u16 = 36;
    pub const MONITOR: u16 = 39;
    pub const INVEPT: u16 = 50;
    pub const INVVPID: u16 = 53;
    pub const WBINVD: u16 = 54;
    pub const XSETBV: u16 = 55;
}

impl Exit {
    /// The basic exit reason of an exit that came while the guest ran; none if it could not be entered.
    pub fn basic(&self) -> Option<u16> {
        self.reason.filter(|reason| reason >> 31 == 0).map(|reason| reason as u16)
    }

    /// The exception that it exited for, if the hypervisor hands it on.
    pub fn exception(&self) -> Option<Exception> {
        const KIND: u32 = 7 << 8;
        let is_exception = u64::from(self.interruption & KIND) == INTERRUPTION_EXCEPTION;
        if is_exception { Exception::intercepted(u64::from(self.interruption & 0xff)) } else { None }
    }

    /// Whether the guest exited while an interrupt or exception was delivered to it.
    pub fn is_in_delivery(&self) -> bool {
        self.delivered >> 31 != 0
    }

    /// What the reason stands for.
    fn name(&self) -> &'static str {
        match self.reason.map(|reason| reason as u16) {
            Some(0) => "an exception or NMI",
            Some(1) => "an interrupt of the machine",
            Some(2) => "a triple fault",
            Some(3) => "INIT",
            Some(4) => "a start-up IPI",
            Some(9) => "a task switch",
            Some(30) => "an access to a port",
            Some(33) => "the processor refuses the guest's state",
            Some(34) => "the processor refuses a model-specific register",
            Some(41) => "a machine check at the entry",
            Some(46 | 47) => "an access to a table of descriptors",
            Some(48) => "an access to no memory",
            Some(49) => "a bad entry of the extended page tables",
            Some(_) => "which nothing is set up for",
            None => "the processor refuses the virtual-machine control structure",
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(reason) => write!(f, "exit {}, {}", reason as u16, self.name())?,
            None => write!(f, "{} (error {})", self.name(), self.error)?,
        }
        if self.is_in_delivery() {
            write!(f, " while vector {:#x} was delivered", self.delivered as u8)?;
        }
        let Self { qualification, guest_physical_address, linear_address, .. } = self;
        write!(
            f,
            " (qualification {qualification:#x}, address {guest_physical_address:#x}, linear {linear_address:#x})"
        )
    }
}

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
    /// Bits of CR0 and CR4 that have to be set while VMX is on.
    must_be_set: (u64, u64),
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
            must_be_set: (0, 0),
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
        const FOUR_LEVELS_AND_WRITE_BACK: u64 = 1 << 6 | 1 << 14;
        const LARGE_PAGES: u64 = 1 << 16;
        const TRUE_CONTROLS: u64 = 1 << 55;
        if __cpuid(1).ecx & 1 << 5 == 0 {
            return Err("the processor has no VMX");
        }
        allow()?;
        let basic = read_msr(msr::VMX_BASIC);
        if basic & TRUE_CONTROLS == 0 {
            return Err("the processor does not tell its controls of VMX");
        }
        let secondary = controls(msr::SECONDARY_CONTROLS, EPT | UNRESTRICTED, RDTSCP | INVPCID)
            .map_err(|_| "the processor has no extended page tables, or no unrestricted guest")?;
        let needed = FOUR_LEVELS_AND_WRITE_BACK | LARGE_PAGES;
        if read_msr(msr::EPT_CAPABILITIES) & needed != needed {
            return Err("the processor's extended page tables are not of four levels with large pages");
        }
        self.must_be_set = (read_msr(msr::CR0_MUST_BE_SET), read_msr(msr::CR4_MUST_BE_SET));
        for region in [&mut self.vmxon, &mut self.vmcs] {
            region.0[..4].copy_from_slice(&(basic as u32 & 0x7fff_ffff).to_le_bytes());
        }
        self.turn_on()?;
        vmcs::clear();

        let pin = controls(msr::PIN_CONTROLS, EXTERNAL_INTERRUPT_EXITING | NMI_EXITING, 0)?;
        let exiting = HLT_EXITING | MWAIT_EXITING | RDPMC_EXITING | IO_EXITING | MONITOR_EXITING;
        write(Field::PinControls, pin);
        write(Field::PrimaryControls, controls(msr::PRIMARY_CONTROLS, exiting | SECONDARY, 0)?);
        write(Field::SecondaryControls, secondary);
        write(Field::ExceptionBitmap, Exception::INTERCEPTED.into());
        write(Field::ExitControls, controls(msr::EXIT_CONTROLS, HOST_64_BIT | EXIT_PAT_AND_EFER, 0)?);
        write(Field::EntryControls, controls(msr::ENTRY_CONTROLS, ENTRY_PAT_AND_EFER, 0)?);
        // The memory type write-back, and a walk of four levels.
        self.ept_pointer = nested_root | 6 | 3 << 3;
        write(Field::EptPointer, self.ept_pointer);
        write(Field::LinkPointer, u64::MAX);
        set_host_state();

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

    /// Turns VMX on, and makes the VMCS current.
    fn turn_on(&self) -> Result<(), &'static str> {
        let (vmxon, vmcs) = (&raw const self.vmxon as u64, &raw const self.vmcs as u64);
        let failed: u8;
        // SAFETY: VMX is there and allowed. The processor gets two pages at their physical addresses which are used for nothing
        // else and are never freed. Of the bits set in CR0 and CR4 none changes what the hypervisor does.
        unsafe {
            Cr0::update(|cr0| cr0.insert(Cr0Flags::NUMERIC_ERROR));
            Cr4::update(|cr4| cr4.insert(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS));
            asm!(
                "vmxon [{vmxon}]",
                "jbe 2f",
                "vmclear [{vmcs}]",
                "jbe 2f",
                "vmptrld [{vmcs}]",
                "2:",
                "setbe {failed}",
                vmxon = in(reg) &raw const vmxon,
                vmcs = in(reg) &raw const vmcs,
                failed = out(reg_byte) failed,
            );
        }
        if failed == 0 { Ok(()) } else { Err("the processor does not turn VMX on") }
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
        control::start(control::CR0_RESET | cr0, self.must_be_set);
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
        Exit {
            reason: (!refused).then(|| read(Field::ExitReason) as u32),
            qualification: read(Field::Qualification),
            linear_address: read(Field::LinearAddress),
            guest_physical_address: read(Field::GuestPhysicalAddress),
            instruction_length: read(Field::InstructionLength) as u32,
            instruction_information: read(Field::InstructionInformation) as u32,
            interruption: read(Field::ExitInterruption) as u32,
            delivered: read(Field::IdtVectoring) as u32,
            error: read(Field::InstructionError) as u32,
        }
    }

    /// Whether the instruction information of string accesses to ports is valid.
    pub fn informs_of_strings() -> bool {
        read_msr(msr::VMX_BASIC) & 1 << 54 != 0
    }
}

/// Whether an event waits for the next entry.
fn is_injected() -> bool {
    read(Field::EntryInterruption) & INTERRUPTION_VALID != 0
}

fn read_msr(number: u32) -> u64 {
    // SAFETY: each caller reads a register that every processor with VMX has, or with what it has asked for before.
    unsafe { Msr::new(number).read() }
}

/// Allows VMX, if the firmware has left that open.
fn allow() -> Result<(), &'static str> {
    const LOCKED: u64 = 1;
    const ALLOWED: u64 = 1 << 2;
    match read_msr(msr::FEATURE_CONTROL) {
        value if value & LOCKED == 0 => {
            // SAFETY: the register allows VMX and changes nothing else.
            unsafe { Msr::new(msr::FEATURE_CONTROL).write(value | LOCKED | ALLOWED) };
            Ok(())
        }
        value if value & ALLOWED != 0 => Ok(()),
        _ => Err("the firmware forbids VMX"),
    }
}

/// Controls with all bits of `needed`, those of `wanted` that the processor has, and those that it insists on: the low half of
/// the register `number` has those that must be 1, the high half those that may be (Intel SDM vol. 3D, A.3).
fn controls(number: u32, needed: u64, wanted: u64) -> Result<u64, &'static str> {
    let allowed = read_msr(number);
    let controls = (needed | wanted | allowed & 0xffff_ffff) & allowed >> 32;
    if controls & needed == needed { Ok(controls) } else { Err("the processor lacks controls of VMX") }
}

/// Lets an exit bring the processor back to the state that it has now.
fn set_host_state() {
    let (cr3, _) = Cr3::read_raw();
    write(Field::HostCr0, Cr0::read_raw());
    write(Field::HostCr3, cr3.start_address().as_u64());
    write(Field::HostCr4, Cr4::read_raw());
    write(Field::HostCs, CS::get_reg().0.into());
    for field in [Field::HostEs, Field::HostSs, Field::HostDs] {
        write(field, DS::get_reg().0.into());
    }
    // It must not be 0. Nothing looks at a task state segment where no interrupt is taken, so none is there.
    write(Field::HostTr, DS::get_reg().0.into());
    // The hypervisor has no handlers.
    write(Field::HostIdtr, 0);
    write(Field::HostGdtr, sgdt().base.as_u64());
    write(Field::HostPat, read_msr(msr::PAT));
    write(Field::HostEfer, read_msr(msr::EFER));
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
