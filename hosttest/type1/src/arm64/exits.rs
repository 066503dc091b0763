//! From the exits of the guest to its devices.

use core::fmt;

use vm_device::exit::arm64::instruction::{DecodeError, decode, fetch};
use vm_device::exit::arm64::{DATA_ABORT_LOWER_LEVEL, DataAbort, ExitError, Transfer, data_abort};
use vm_device::exit::{ExecuteError, Guest, MemoryAccessKind};
use vm_device::{Failed, GuestAddress};

use super::psci;
use super::translation::translate;
use super::vcpu::{Exit, NoProgress, Vector};
use crate::machine::Machine;
use crate::println;

/// Exception classes (Arm ARM DDI 0487, "ESR_EL2", EC).
mod class {
    pub const UNKNOWN: u64 = 0x00;
    pub const WAIT: u64 = 0x01;
    pub const HVC: u64 = 0x16;
    pub const SMC: u64 = 0x17;
    pub const SYSTEM_REGISTER: u64 = 0x18;
    pub const FETCH_ABORT_LOWER_LEVEL: u64 = 0x20;
}

/// IL: the instruction has 4 bytes.
const FOUR_BYTES: u64 = 1 << 25;
/// DFSC and IFSC of a synchronous external abort.
const EXTERNAL_ABORT: u64 = 0x10;

impl Machine {
    /// Does what the guest exited for.
    pub fn dispatch(&mut self, exit: Exit) -> Result<(), Stop> {
        if exit.vector == Vector::Interrupt {
            return Ok(());
        }
        match self.complete(exit) {
            Err(Fault::Exception { esr, far }) => {
                self.vcpu.inject(esr, far).map_err(|NoProgress| Stop::NoProgress { esr })
            }
            Err(Fault::Stop(stop)) => Err(stop),
            Ok(()) => Ok(()),
        }
    }

    /// Does what the guest exited for, or says what it gets instead.
    fn complete(&mut self, exit: Exit) -> Result<(), Fault> {
        let (mut registers, mode) = (*self.vcpu.registers(), self.vcpu.mode());
        match exit.class() {
            DATA_ABORT_LOWER_LEVEL => match data_abort(exit.syndrome) {
                Ok(DataAbort::Transfer(transfer)) if !transfer.may_begin_earlier() => {
                    transfer.execute(&mut registers, mode, self)?;
                }
                Ok(DataAbort::Transfer(Transfer { fault, .. }) | DataAbort::Instruction(fault)) => {
                    let instruction = decode(fetch(&registers, self)?, mode)?;
                    instruction.execute(&mut registers, mode, &fault, self)?;
                }
                Ok(abort @ DataAbort::CacheMaintenance(_)) => abort.skip(&mut registers),
                Ok(DataAbort::PageWalk(fault)) => {
                    return Err(self.abort(fault.virtual_address, EXTERNAL_ABORT, MemoryAccessKind::Read));
                }
                Err(error) => return Err(Fault::Stop(Stop::Abort(error))),
            },
            // The access that it waits for may come later: it goes on, and waits again.
            class::WAIT => registers.advance(4),
            class::HVC => psci::call(self, &mut registers),
            class::SMC => {
                psci::call(self, &mut registers);
                registers.advance(4);
            }
            // What it does not have.
            class::UNKNOWN | class::SYSTEM_REGISTER => return Err(Fault::Exception { esr: FOUR_BYTES, far: 0 }),
            class::FETCH_ABORT_LOWER_LEVEL => {
                return Err(self.abort(exit.syndrome.far, EXTERNAL_ABORT, MemoryAccessKind::Fetch));
            }
            _ => return Err(Fault::Stop(Stop::Exit(exit))),
        }
        self.vcpu.complete(registers);
        Ok(())
    }

    /// The abort that the guest gets for an access that cannot be made (Arm ARM DDI 0487, "ESR_EL1").
    fn abort(&self, far: u64, status: u64, kind: MemoryAccessKind) -> Fault {
        const FETCH: u64 = 0x20;
        const DATA: u64 = 0x24;
        const WRITE: u64 = 1 << 6;
        let class = if kind == MemoryAccessKind::Fetch { FETCH } else { DATA };
        let same_level = u64::from(self.vcpu.mode().level() == 1);
        let write = if kind == MemoryAccessKind::Write { WRITE } else { 0 };
        Fault::Exception { esr: (class | same_level) << 26 | FOUR_BYTES | write | status, far }
    }

    /// The reason for a stop, and where the guest stood. Prints the guest's registers.
    pub fn stopped(&self, stop: Stop) -> Stopped {
        let registers = *self.vcpu.registers();
        println!("the guest's registers: state {:#x}, sp {:#x}", registers.spsr, registers.sp);
        for (number, value) in registers.x.iter().enumerate() {
            println!("  x{number:<2} {value:#018x}");
        }
        let mut word = [0; 4];
        let place = translate(self.vcpu.mode(), registers.pc, MemoryAccessKind::Fetch).ok();
        let fetched = place.and_then(|address| self.memory.read(address.0, &mut word));
        Stopped { stop, pc: registers.pc, word: fetched.map(|()| u32::from_le_bytes(word)) }
    }
}

/// What an instruction needs: the guest's translation, its memory and devices, and its vector registers.
impl Guest for Machine {
    type Fault = Fault;

    fn translate(&mut self, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, Fault> {
        translate(self.vcpu.mode(), address, kind).map_err(|status| self.abort(address, status, kind))
    }

    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Fault> {
        Ok(self.read_memory(address, data)?)
    }

    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Fault> {
        Ok(self.write_memory(address, data)?)
    }

    fn vector(&mut self, number: u8) -> Option<[u8; 32]> {
        let mut value = [0; 32];
        value[..16].copy_from_slice(self.vcpu.context.vectors.get(usize::from(number))?);
        Some(value)
    }

    fn set_vector(&mut self, number: u8, value: [u8; 32]) {
        if let Some(register) = self.vcpu.context.vectors.get_mut(usize::from(number)) {
            register.copy_from_slice(&value[..16]);
        }
    }
}

impl Exit {
    /// EC, if it was a synchronous exception: no class is that of another.
    fn class(&self) -> u64 {
        const NONE: u64 = u64::MAX;
        if self.vector == Vector::Synchronous { self.syndrome.esr >> 26 & 0x3f } else { NONE }
    }
}

/// Why an exit is not completed, and so what the guest gets.
#[derive(Debug)]
pub enum Fault {
    /// The guest gets an exception.
    Exception { esr: u64, far: u64 },
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
    /// An access that is none to a device.
    Abort(ExitError),
    /// An instruction that touched MMIO and cannot be executed.
    Instruction(DecodeError),
    /// The guest had nothing but exceptions.
    NoProgress { esr: u64 },
}

/// Why the hypervisor gave its guest up, and where it stood.
#[derive(Debug)]
pub struct Stopped {
    stop: Stop,
    pc: u64,
    /// The instruction that stands there, if one can be fetched.
    word: Option<u32>,
}

impl From<Failed> for Fault {
    fn from(failed: Failed) -> Self {
        Fault::Stop(Stop::Device { code: failed.code() })
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Fault::Stop(Stop::Instruction(error))
    }
}

impl From<ExecuteError<Fault>> for Fault {
    fn from(error: ExecuteError<Fault>) -> Self {
        match error {
            ExecuteError::Fault(fault) => fault,
            // None of them comes from a machine that holds its vector registers; the processor has checked the alignment.
            _ => Fault::Exception { esr: FOUR_BYTES, far: 0 },
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Exit(exit) if exit.vector == Vector::Asynchronous => {
                f.write_str("an interrupt of the machine, which none uses")
            }
            Stop::Exit(exit) => write!(f, "an exit that is not known: syndrome {:#x}", exit.syndrome.esr),
            Stop::Device { code } => write!(f, "a device failed (code {code})"),
            Stop::Abort(error) => error.fmt(f),
            Stop::Instruction(error) => error.fmt(f),
            Stop::NoProgress { esr } => write!(f, "nothing but exceptions, the last with syndrome {esr:#x}"),
        }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at pc {:#x}", self.stop, self.pc)?;
        match self.word {
            Some(word) => write!(f, ", instruction {word:#010x}"),
            None => f.write_str(", where no memory is"),
        }
    }
}
