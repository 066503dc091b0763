//! The virtual processor: what EL2 controls of it, its interrupts, and the exceptions it is given (Arm ARM DDI 0487).
//!
//! The registers of EL1 are the guest's alone, and stay in the processor.

use core::arch::asm;

use vm_device::exit::arm64::{self, Mode, Registers};

use super::host;
use super::vectors::enter;

/// Reads a system register.
macro_rules! mrs {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading the register touches no memory.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack)) };
        value
    }};
}

/// Writes a system register.
macro_rules! msr {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the register is one of the guest's, or controls what the guest may do; the hypervisor's own code depends on
        // none of them.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack)) };
    }};
}

pub(super) use {mrs, msr};

/// What entering and leaving the guest exchange.
#[repr(C)]
pub struct Context {
    /// The registers of an access.
    pub registers: Registers,
    /// V0 to V31.
    pub vectors: [[u8; 16]; 32],
    pub fpcr: u64,
    pub fpsr: u64,
}

/// One virtual processor.
pub struct Vcpu {
    pub context: Context,
    interrupts: Interrupts,
    /// How many exceptions it was given one after the other, with no other exit between them.
    exceptions: u32,
}

/// Who has the interrupts of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interrupts {
    /// The hypervisor, and the guest has virtual ones.
    Virtual,
    /// The guest, with the machine's interrupt controller.
    Machine,
    /// The hypervisor, and the lines of devices go to another virtual processor.
    None,
}

/// By which vector the guest left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vector {
    Synchronous,
    /// An IRQ of the hypervisor, which was taken when the guest had exited.
    Interrupt,
    /// FIQ or SError.
    Asynchronous,
}

/// Why the guest exited.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub vector: Vector,
    /// What describes it.
    pub syndrome: arm64::Exit,
}

/// HCR_EL2: stage 2 (VM), cache maintenance by set and way stays the guest's own (SWIO), its page tables are no registers of devices
/// (PTW), which the hypervisor would walk too, interrupts of the machine are the
/// hypervisor's and the guest has virtual ones (FMO, IMO, AMO), WFI, SMC, registers that are implementation defined and ACTLR_EL1
/// exit (TWI, TSC, TIDCP, TACR), and EL1 is AArch64 (RW).
const HCR: u64 = 1 | 1 << 1 | 1 << 2 | INTERRUPTS | WAITS | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 31;
const INTERRUPTS: u64 = 0b111 << 3;
const WAITS: u64 = 1 << 13;
/// VTCR_EL2: addresses of 39 bits (T0SZ 25) that begin at level 1 (SL0), pages of 4 KiB, tables in cached memory, physical
/// addresses of 40 bits; RES1.
const VTCR: u64 = 25 | 1 << 6 | 1 << 8 | 1 << 10 | 0b11 << 12 | 2 << 16 | 1 << 31;
/// VTTBR_EL2.VMID: any but 0, which is that of no guest.
const VMID: u64 = 1 << 48;
/// PSTATE: EL1 with its own stack pointer, and all interrupts masked.
const EL1_MASKED: u64 = 0x3c5;
/// SCTLR_EL1 without translation and caches; RES1.
const SCTLR_EL1: u64 = 0x30d0_0800;

impl Vcpu {
    /// A virtual processor that cannot run yet.
    pub const fn new() -> Self {
        let registers = Registers { x: [0; 31], sp: 0, pc: 0, spsr: EL1_MASKED };
        let context = Context { registers, vectors: [[0; 16]; 32], fpcr: 0, fpsr: 0 };
        Self { context, interrupts: Interrupts::Virtual, exceptions: 0 }
    }

    /// A virtual processor besides the first, which has the lines of devices.
    pub const fn without_lines() -> Self {
        Self { interrupts: Interrupts::None, ..Self::new() }
    }

    /// Sets everything of the virtual processor that is the same for each guest.
    ///
    /// # Errors
    /// The hypervisor was not entered at EL2.
    pub fn enable(&'static mut self, nested_root: u64) -> Result<&'static mut Self, &'static str> {
        self.set_up(nested_root)?;
        Ok(self)
    }

    /// As [`enable`](Self::enable), for a virtual processor that may have run before.
    ///
    /// # Errors
    /// The hypervisor was not entered at EL2.
    pub fn set_up(&mut self, nested_root: u64) -> Result<(), &'static str> {
        if mrs!("CurrentEL") >> 2 & 3 != 2 {
            return Err("the image was not entered at EL2");
        }
        msr!("vtcr_el2", VTCR);
        msr!("vttbr_el2", nested_root | VMID);
        msr!("hcr_el2", HCR);
        msr!("vpidr_el2", mrs!("midr_el1"));
        msr!("vmpidr_el2", mrs!("mpidr_el1"));
        msr!("hstr_el2", 0);
        // The guest has both of its timers, without an offset.
        msr!("cnthctl_el2", 3);
        msr!("cntvoff_el2", 0);
        msr!("sctlr_el1", SCTLR_EL1);
        msr!("cpacr_el1", 0);
        // The system registers of the interrupt controller, for the hypervisor and for the guest; then the guest has virtual
        // interrupts.
        msr!("icc_sre_el2", mrs!("icc_sre_el2") | 1 | 1 << 3);
        // SAFETY: a barrier.
        unsafe { asm!("isb", options(nostack)) };
        msr!("icc_sre_el1", 1);
        msr!("ich_vmcr_el2", 0);
        msr!("ich_lr0_el2", 0);
        msr!("ich_hcr_el2", 1);
        Ok(())
    }

    /// Gives the guest the machine's interrupts: they reach it as if there were no hypervisor, and end its `WFI`.
    pub fn pass_interrupts(&mut self) {
        msr!("hcr_el2", HCR & !(INTERRUPTS | WAITS));
        msr!("ich_hcr_el2", 0);
        self.interrupts = Interrupts::Machine;
    }

    /// Lets the guest run from `address` at EL1, without translation, with an argument in `x0`.
    pub fn start_at(&mut self, address: u64, argument: u64) {
        let registers = self.registers_mut();
        *registers = Registers { x: [0; 31], sp: 0, pc: address, spsr: EL1_MASKED };
        registers.x[0] = argument;
    }

    /// Whether the guest has the machine's interrupts.
    pub fn has_machine_interrupts(&self) -> bool {
        self.interrupts == Interrupts::Machine
    }

    /// What the guest was doing.
    pub fn mode(&self) -> Mode {
        Mode::new(self.registers().spsr, mrs!("sctlr_el1"))
    }

    /// The registers of an access.
    pub fn registers(&self) -> &Registers {
        &self.context.registers
    }

    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.context.registers
    }

    /// Requests the interrupts of the asserted lines, or withdraws them. A line has the number of its interrupt.
    pub fn request_interrupt(&mut self, asserted: u64) {
        match self.interrupts {
            Interrupts::Virtual => Self::request_virtual(asserted),
            Interrupts::Machine => host::set_pending(asserted),
            Interrupts::None => {}
        }
    }

    /// Requests the lowest asserted line, if none is under way. One list register is used: the guest has one interrupt at a time.
    fn request_virtual(asserted: u64) {
        const PENDING: u64 = 1 << 62;
        const ACTIVE: u64 = 1 << 63;
        const GROUP_1: u64 = 1 << 60;
        let entry = mrs!("ich_lr0_el2");
        if entry & ACTIVE != 0 {
            return;
        }
        let request = match asserted {
            0 => 0,
            lines => PENDING | GROUP_1 | u64::from(lines.trailing_zeros()),
        };
        if request != entry {
            msr!("ich_lr0_el2", request);
        }
    }

    /// Lets the processor forget what it knew of the nested page tables.
    pub fn forget_translations(&mut self) {
        // SAFETY: afterwards the tables are read again, which are as the hypervisor wants them.
        unsafe { asm!("dsb ishst", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack)) };
    }

    /// Gives the guest a synchronous exception at EL1, at the instruction where it stands, with this syndrome and address.
    ///
    /// # Errors
    /// It has had nothing else for a long time: as a rule its handler is not there.
    pub fn inject(&mut self, esr: u64, far: u64) -> Result<(), NoProgress> {
        const LIMIT: u32 = 1000;
        if self.exceptions == LIMIT {
            return Err(NoProgress);
        }
        self.exceptions += 1;
        const CURRENT_LEVEL: u64 = 0x200;
        let mode = self.mode();
        let offset = match (mode.level(), mode.is_aarch32(), mode.uses_sp_el0()) {
            (0, true, _) => 0x600,
            (0, false, _) => 0x400,
            (_, _, true) => 0,
            (_, _, false) => CURRENT_LEVEL,
        };
        let handler = mrs!("vbar_el1").wrapping_add(offset);
        let Registers { pc, spsr, .. } = *self.registers();
        msr!("esr_el1", esr);
        msr!("far_el1", far);
        msr!("elr_el1", pc);
        msr!("spsr_el1", spsr);
        self.store_stack_pointer();
        let registers = self.registers_mut();
        (registers.pc, registers.spsr) = (handler, EL1_MASKED);
        self.load_stack_pointer();
        Ok(())
    }

    /// Lets the guest go on after an exit that was completed, with these registers.
    pub fn complete(&mut self, registers: Registers) {
        self.context.registers = registers;
        self.exceptions = 0;
    }

    /// Runs the guest until its next exit. Interrupts of the hypervisor are masked meanwhile: one that comes makes the guest exit, and
    /// is taken here at the end.
    pub fn run(&mut self) -> Exit {
        self.store_stack_pointer();
        // SAFETY: what the processor would do in between comes later.
        unsafe { asm!("msr daifset, #2", options(nostack)) };
        // SAFETY: `enable` has set up what confines the guest. It reaches no memory but what the nested page tables map, and
        // cannot change that.
        let vector = unsafe { enter(&raw mut self.context) };
        self.load_stack_pointer();
        let syndrome = arm64::Exit { esr: mrs!("esr_el2"), far: mrs!("far_el2"), hpfar: mrs!("hpfar_el2") };
        // SAFETY: the handler keeps every register, and no exception is under way whose registers it could change.
        unsafe { asm!("msr daifclr, #2", "isb", options(nostack)) };
        let vector = match vector {
            0 => Vector::Synchronous,
            1 => Vector::Interrupt,
            _ => Vector::Asynchronous,
        };
        Exit { vector, syndrome }
    }

    fn store_stack_pointer(&self) {
        let sp = self.registers().sp;
        if self.mode().uses_sp_el0() {
            msr!("sp_el0", sp);
        } else {
            msr!("sp_el1", sp);
        }
    }

    fn load_stack_pointer(&mut self) {
        self.registers_mut().sp = if self.mode().uses_sp_el0() { mrs!("sp_el0") } else { mrs!("sp_el1") };
    }
}

/// The guest has had nothing but exceptions for a long time.
#[derive(Debug)]
pub struct NoProgress;
