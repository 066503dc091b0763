//! The virtual processor: what HS-mode controls of it, its interrupts, and the exceptions it is given (RISC-V ISA manual vol. II,
//! hypervisor extension).
//!
//! The registers of VS-mode are the guest's alone, and stay in the processor.

use core::arch::asm;

use vm_device::exit::riscv64::{Mode, Registers};

use super::boot::has_hypervisor_extension;
use super::host::{HERTZ, time};
use super::translation::Paging;
use super::trap::enter;
use super::watch::Watch;

/// Reads a control and status register.
macro_rules! read {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading the register touches no memory.
        unsafe { asm!(concat!("csrr {}, ", $name), out(reg) value, options(nomem, nostack)) };
        value
    }};
}

/// Writes a control and status register, or sets or clears the bits of a value in it.
macro_rules! change {
    ($instruction:literal, $name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the register is one of the guest's, or controls what the guest may do; the hypervisor's own code depends on
        // none of them.
        unsafe { asm!(concat!($instruction, " ", $name, ", {}"), in(reg) value, options(nostack)) };
    }};
}

/// What entering and leaving the guest exchange.
#[repr(C)]
pub struct Context {
    /// The registers of an access.
    pub registers: Registers,
    /// `f0` to `f31`.
    pub floats: [u64; 32],
    pub fcsr: u64,
    /// The hypervisor's stack pointer, while the guest runs.
    pub host_stack: u64,
}

/// One virtual processor.
pub struct Vcpu {
    context: Context,
    /// When the guest's timer is due, as the machine's timer counts.
    deadline: u64,
    /// Whether the guest still does something.
    pub watch: Watch,
}

/// Why the guest exited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    pub scause: u64,
    pub stval: u64,
    pub htval: u64,
    pub htinst: u64,
}

/// What the guest gets without an exit (`hedeleg`): misaligned fetches and loads (0, 4), breakpoints (3), calls of its programs (8), and
/// page faults of its own tables (12, 13, 15). Not illegal instructions and misaligned stores (2, 6): of these QEMU 7.2 tells the guest
/// a cause that is one less.
const DELEGATED: u64 = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 15;
/// Its interrupts: by software, of the timer, and external.
const VSSI: u64 = 1 << 2;
const VSTI: u64 = 1 << 6;
const VSEI: u64 = 1 << 10;
/// The hypervisor's timer.
const STI: u64 = 1 << 5;
/// `hstatus`: the trap was from the guest (SPV), from its kernel (SPVP), and its `WFI` exits (VTW). Its registers have 64 bits
/// (VSXL).
const SPV: u64 = 1 << 7;
const SPVP: u64 = 1 << 8;
const VTW: u64 = 1 << 21;
const VSXL_64: u64 = 2 << 32;
/// `sstatus`: back to the guest's kernel (SPP), and floating point in use (FS).
const SIE: u64 = 1 << 1;
const SPIE: u64 = 1 << 5;
const SPP: u64 = 1 << 8;
const FS: u64 = 3 << 13;
/// `hgatp`: Sv39x4, and a VMID.
const SV39X4: u64 = 8 << 60 | 1 << 44;
/// How long the guest runs at most without an exit: then the devices are told the time.
const SLICE: u64 = HERTZ / 100;

impl Vcpu {
    /// A virtual processor that cannot run yet.
    pub const fn new() -> Self {
        let registers = Registers { x: [0; 32], pc: 0 };
        Self {
            context: Context { registers, floats: [0; 32], fcsr: 0, host_stack: 0 },
            deadline: u64::MAX,
            watch: Watch::new(),
        }
    }

    /// Sets everything of the virtual processor that is the same for each guest.
    ///
    /// # Errors
    /// The processor has no hypervisor extension, or no second stage of translation of this format.
    pub fn enable(&'static mut self, nested_root: u64) -> Result<&'static mut Self, &'static str> {
        if !has_hypervisor_extension() {
            return Err("the processor has no hypervisor extension");
        }
        let hgatp = SV39X4 | nested_root >> 12;
        change!("csrw", "hgatp", hgatp);
        if read!("hgatp") >> 60 != SV39X4 >> 60 {
            return Err("the processor has no Sv39x4");
        }
        change!("csrw", "hedeleg", DELEGATED);
        change!("csrw", "hideleg", VSSI | VSTI | VSEI);
        change!("csrw", "hvip", 0);
        // The guest may read cycles, time and instructions, without an offset. Its timer is a call.
        change!("csrw", "hcounteren", 7);
        change!("csrw", "htimedelta", 0);
        change!("csrw", "vstimecmp", u64::MAX);
        change!("csrw", "henvcfg", 0);
        change!("csrw", "hstatus", SPV | SPVP | VTW | VSXL_64);
        change!("csrs", "sstatus", SPP | FS);
        change!("csrw", "vsstatus", 0);
        change!("csrw", "vsatp", 0);
        change!("csrw", "vstvec", 0);
        change!("csrw", "vsie", 0);
        change!("csrw", "sie", STI);
        Ok(self)
    }

    /// Lets the guest run from `address` in VS-mode, without translation, with two arguments. What was written to its memory before is
    /// what it fetches.
    pub fn start_at(&mut self, address: u64, arguments: [u64; 2]) {
        self.forget_instructions();
        let registers = self.registers_mut();
        registers.pc = address;
        registers.set(10, arguments[0]);
        registers.set(11, arguments[1]);
    }

    /// The registers of an access.
    pub fn registers(&self) -> &Registers {
        &self.context.registers
    }

    /// The registers of an access.
    pub fn registers_mut(&mut self) -> &mut Registers {
        &mut self.context.registers
    }

    /// How the guest sees its memory.
    pub fn mode(&self) -> Mode {
        Mode::new(read!("hstatus"), read!("vsstatus"))
    }

    /// How it translates addresses.
    pub fn paging(&self) -> Paging {
        Paging { satp: read!("vsatp"), status: read!("vsstatus"), is_kernel: read!("hstatus") & SPVP != 0 }
    }

    /// Sets the guest's timer, and withdraws its interrupt.
    pub fn set_timer(&mut self, deadline: u64) {
        self.deadline = deadline;
    }

    /// Whether there is an interrupt that can end a `WFI` of the guest.
    pub fn can_wake(&self) -> bool {
        read!("vsie") != 0
    }

    /// Requests the external interrupt while lines are asserted, and that of the timer once it is due, or withdraws them.
    pub fn request_interrupt(&mut self, asserted: u64) {
        let now = time();
        let due = self.deadline <= now;
        let pending = (if asserted != 0 { VSEI } else { 0 }) | (if due { VSTI } else { 0 });
        // What the guest has requested of itself by software stays.
        change!("csrc", "hvip", (VSEI | VSTI) & !pending);
        change!("csrs", "hvip", pending);
        let slice = now.saturating_add(SLICE);
        change!("csrw", "stimecmp", if due { slice } else { self.deadline.min(slice) });
    }

    /// Lets the processor forget what it knew of the nested page tables.
    pub fn forget_translations(&mut self) {
        // SAFETY: afterwards the tables are read again, which are as the hypervisor wants them.
        unsafe { asm!(".option push", ".option arch, +h", "hfence.gvma", ".option pop", options(nostack)) };
    }

    /// Lets the processor fetch instructions again that it has fetched before.
    pub fn forget_instructions(&mut self) {
        // SAFETY: the barrier touches no memory.
        unsafe { asm!("fence.i", options(nostack)) };
    }

    /// Waits for the next interrupt, of the timer at the latest, unless the guest has one.
    pub fn wait(&self) {
        if read!("vsip") & read!("vsie") == 0 {
            // SAFETY: waiting touches no memory.
            unsafe { asm!("wfi", options(nomem, nostack)) };
        }
    }

    /// Gives the guest an exception in VS-mode, at the instruction where it stands, with this cause and value.
    ///
    /// # Errors
    /// It stands where it would go on: the first instruction of its handler causes exceptions, and it will do nothing else.
    pub fn inject(&mut self, cause: u64, value: u64) -> Result<(), NoHandler> {
        let handler = handler();
        let pc = self.registers().pc;
        if pc == handler {
            return Err(NoHandler { cause });
        }
        let vsstatus = read!("vsstatus");
        let before = read!("sstatus") & SPP | if vsstatus & SIE != 0 { SPIE } else { 0 };
        change!("csrw", "vsstatus", vsstatus & !(SPP | SPIE | SIE) | before);
        change!("csrw", "vsepc", pc);
        change!("csrw", "vscause", cause);
        change!("csrw", "vstval", value);
        change!("csrs", "sstatus", SPP);
        self.registers_mut().pc = handler;
        Ok(())
    }

    /// Whether the guest stands at the first instruction of its handler because of that very instruction, over and over: the processor
    /// gives it the exceptions that it handles itself without an exit.
    pub fn has_handler(&self) -> Result<(), NoHandler> {
        let (cause, pc) = (read!("vscause"), self.registers().pc);
        let is_stuck = pc == handler() && read!("vsepc") == pc && cause >> 63 == 0;
        if is_stuck { Err(NoHandler { cause }) } else { Ok(()) }
    }

    /// Runs the guest until its next exit.
    pub fn run(&mut self) -> Exit {
        // SAFETY: `enable` has set up what confines the guest. It reaches no memory but what the nested page tables map, and
        // cannot change that.
        unsafe { enter(&raw mut self.context) };
        Exit { scause: read!("scause"), stval: read!("stval"), htval: read!("htval"), htinst: read!("htinst") }
    }
}

/// Where the guest goes on at an exception (`vstvec`).
fn handler() -> u64 {
    read!("vstvec") & !3
}

/// The guest has no handler for the exception with this cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoHandler {
    pub cause: u64,
}
