//! From the exits of the guest to its devices.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use vm_device::exit::riscv64::instruction::{DecodeError, Instruction, decode, fetch};
use vm_device::exit::riscv64::{
    GuestPageFault, INSTRUCTION_GUEST_PAGE_FAULT, LOAD_GUEST_PAGE_FAULT, Registers, STORE_GUEST_PAGE_FAULT,
    guest_page_fault,
};
use vm_device::exit::{ExecuteError, Guest, MemoryAccessKind};
use vm_device::{Failed, GuestAddress};

use super::host::time;
use super::sbi;
use super::translation::Untranslated;
use super::vcpu::{Exit, NoHandler};
use super::watch::SECONDS;
use crate::counts::COUNTS;
use crate::machine::Machine;
use crate::power::POWER;
use crate::println;

/// `scause` of exits (RISC-V ISA manual vol. II, hypervisor extension, "Trap Cause Codes").
mod cause {
    pub const ILLEGAL_INSTRUCTION: u64 = 2;
    pub const MISALIGNED_STORE: u64 = 6;
    pub const CALL: u64 = 10;
    pub const VIRTUAL_INSTRUCTION: u64 = 22;
    pub const TIMER: u64 = 1 << 63 | 5;
}

const WFI: u32 = 0x1050_0073;

/// How the instructions of accesses were known.
pub struct Instructions {
    /// By `htinst`.
    pub told: AtomicU64,
    /// By their bytes.
    pub decoded: AtomicU64,
}

/// How the instructions of accesses were known.
pub static INSTRUCTIONS: Instructions = Instructions { told: AtomicU64::new(0), decoded: AtomicU64::new(0) };

impl Machine {
    /// Does what the guest exited for.
    pub fn dispatch(&mut self, exit: Exit) -> Result<(), Stop> {
        match self.complete(exit) {
            Err(Fault::Exception { cause, value }) => self.vcpu.inject(cause, value)?,
            Err(Fault::Stop(stop)) => return Err(stop),
            Ok(()) => {}
        }
        if self.vcpu.watch.is_over(time(), || COUNTS.claimed()) { Err(Stop::Endless) } else { Ok(()) }
    }

    /// Does what the guest exited for, or says what it gets instead.
    fn complete(&mut self, exit: Exit) -> Result<(), Fault> {
        match exit.scause {
            LOAD_GUEST_PAGE_FAULT | STORE_GUEST_PAGE_FAULT | INSTRUCTION_GUEST_PAGE_FAULT => {
                let mut registers = *self.vcpu.registers();
                let fault = guest_page_fault(exit.scause, exit.stval, exit.htval, exit.htinst)
                    .map_err(|_| Fault::Stop(Stop::Exit(exit)))?;
                if fault.page_walk || fault.kind == MemoryAccessKind::Fetch {
                    return Err(access_fault(exit));
                }
                match self.instruction(&fault, &registers, exit)? {
                    Some(instruction) => instruction.execute(&mut registers, self.vcpu.mode(), &fault, self)?,
                    None => self.vcpu.forget_instructions(),
                }
                *self.vcpu.registers_mut() = registers;
            }
            cause @ (cause::ILLEGAL_INSTRUCTION | cause::MISALIGNED_STORE) => {
                return Err(Fault::Exception { cause, value: exit.stval });
            }
            cause::CALL => sbi::call(self.vcpu),
            cause::VIRTUAL_INSTRUCTION => match self.code() {
                Some(WFI) => self.wait(),
                code => {
                    let value = code.unwrap_or_default().into();
                    return Err(Fault::Exception { cause: cause::ILLEGAL_INSTRUCTION, value });
                }
            },
            cause::TIMER => self.vcpu.has_handler()?,
            _ => return Err(Fault::Stop(Stop::Exit(exit))),
        }
        Ok(())
    }

    /// The instruction that made an access. Where the processor tells it, that is ignored every second time, so that both ways are used.
    /// `None` if the bytes in memory are those of no access: the guest has changed them since the processor fetched them.
    fn instruction(
        &mut self,
        fault: &GuestPageFault,
        registers: &Registers,
        exit: Exit,
    ) -> Result<Option<Instruction>, Fault> {
        let Instructions { told, decoded } = &INSTRUCTIONS;
        let is_ignored = told.load(Ordering::Relaxed) > decoded.load(Ordering::Relaxed);
        let known = if is_ignored { Ok(None) } else { fault.instruction() };
        let (instruction, counter) = match known {
            Ok(Some(instruction)) => (Ok(instruction), told),
            Ok(None) | Err(DecodeError::Malformed(_)) => (decode(&fetch(registers, self)?), decoded),
            Err(error) => (Err(error), told),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        match instruction {
            Ok(instruction) => Ok(Some(instruction)),
            Err(DecodeError::NoMemoryOperand(_) | DecodeError::Malformed(_)) => Ok(None),
            Err(DecodeError::Unsupported(_)) => Err(access_fault(exit)),
            Err(error) => Err(Fault::Stop(Stop::Instruction(error))),
        }
    }

    /// The guest waits for an interrupt.
    fn wait(&mut self) {
        if !self.vcpu.can_wake() {
            return POWER.halt();
        }
        self.vcpu.wait();
        self.vcpu.watch.note();
        let registers = self.vcpu.registers_mut();
        registers.pc = registers.pc.wrapping_add(4);
    }

    /// The instruction at which the guest stands, if it is in memory.
    fn code(&self) -> Option<u32> {
        let parcel = |address| {
            let mut bytes = [0; 2];
            let place = self.vcpu.paging().translate(self.memory, address, MemoryAccessKind::Fetch).ok()?;
            self.memory.read(place.0, &mut bytes)?;
            Some(u32::from(u16::from_le_bytes(bytes)))
        };
        let pc = self.vcpu.registers().pc;
        match parcel(pc)? {
            low if low & 3 == 3 => Some(parcel(pc.wrapping_add(2))? << 16 | low),
            short => Some(short),
        }
    }

    /// The reason for a stop, and where the guest stood. Prints the guest's registers.
    pub fn stopped(&mut self, stop: Stop) -> Stopped {
        let registers = self.vcpu.registers();
        println!("the guest's registers:");
        for (number, value) in registers.x.iter().enumerate().skip(1) {
            println!("  x{number:<2} {value:#018x}");
        }
        println!("{:#x?}", self.vcpu.paging());
        Stopped { stop, pc: registers.pc, code: self.code() }
    }
}

/// The exception that the guest gets for an access that cannot be made there.
fn access_fault(exit: Exit) -> Fault {
    let kind = match exit.scause {
        INSTRUCTION_GUEST_PAGE_FAULT => MemoryAccessKind::Fetch,
        LOAD_GUEST_PAGE_FAULT => MemoryAccessKind::Read,
        _ => MemoryAccessKind::Write,
    };
    exception(Untranslated::Access, kind, exit.stval)
}

/// The exception for an access to the virtual `address`.
fn exception(why: Untranslated, kind: MemoryAccessKind, address: u64) -> Fault {
    let cause = match (why, kind) {
        (Untranslated::Access, MemoryAccessKind::Fetch) => 1,
        (Untranslated::Access, MemoryAccessKind::Read) => 5,
        (Untranslated::Access, MemoryAccessKind::Write) => 7,
        (Untranslated::Page, MemoryAccessKind::Fetch) => 12,
        (Untranslated::Page, MemoryAccessKind::Read) => 13,
        (Untranslated::Page, MemoryAccessKind::Write) => 15,
    };
    Fault::Exception { cause, value: address }
}

/// What an instruction needs: the guest's translation, its memory and devices.
impl Guest for Machine {
    type Fault = Fault;

    fn translate(&mut self, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, Fault> {
        let translated = self.vcpu.paging().translate(self.memory, address, kind);
        translated.map_err(|why| exception(why, kind, address))
    }

    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Fault> {
        Ok(self.read_memory(address, data)?)
    }

    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Fault> {
        Ok(self.write_memory(address, data)?)
    }
}

/// Why an exit is not completed, and so what the guest gets.
#[derive(Debug)]
pub enum Fault {
    /// The guest gets an exception.
    Exception { cause: u64, value: u64 },
    /// The guest cannot go on.
    Stop(Stop),
}

/// Why the hypervisor gave its guest up.
#[derive(Debug)]
pub enum Stop {
    /// An exit it does not know.
    Exit(Exit),
    /// A device that failed.
    Device { code: u32 },
    /// An instruction that touched MMIO and cannot be executed.
    Instruction(DecodeError),
    /// An exception at the first instruction of the guest's own handler.
    NoHandler(NoHandler),
    /// Exceptions, and nothing else, for a while.
    Endless,
}

/// Why the hypervisor gave its guest up, and where it stood.
#[derive(Debug)]
pub struct Stopped {
    stop: Stop,
    pc: u64,
    /// The instruction that stands there, if one can be fetched.
    code: Option<u32>,
}

impl From<Failed> for Fault {
    fn from(failed: Failed) -> Self {
        Fault::Stop(Stop::Device { code: failed.code() })
    }
}

impl From<NoHandler> for Stop {
    fn from(none: NoHandler) -> Self {
        Stop::NoHandler(none)
    }
}

impl From<NoHandler> for Fault {
    fn from(none: NoHandler) -> Self {
        Fault::Stop(none.into())
    }
}

impl From<ExecuteError<Fault>> for Fault {
    fn from(error: ExecuteError<Fault>) -> Self {
        match error {
            ExecuteError::Fault(fault) => fault,
            // No instruction that is executed wants alignment, or moves a vector register.
            _ => Fault::Exception { cause: cause::ILLEGAL_INSTRUCTION, value: 0 },
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Exit(Exit { scause, stval, .. }) => {
                write!(f, "an exit that is not known: scause {scause:#x}, stval {stval:#x}")
            }
            Stop::Device { code } => write!(f, "a device failed (code {code})"),
            Stop::Instruction(error) => error.fmt(f),
            Stop::NoHandler(NoHandler { cause }) => write!(f, "an exception ({cause}) at the exception's own handler"),
            Stop::Endless => {
                write!(f, "no device was accessed, no firmware called and nothing waited for in {SECONDS} s")
            }
        }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at pc {:#x}", self.stop, self.pc)?;
        match self.code {
            Some(code) => write!(f, ", instruction {code:#x}"),
            None => f.write_str(", where no memory is"),
        }
    }
}
