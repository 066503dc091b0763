//! From the exits of the guest to its devices.

use vm_device::GuestAddress;
use vm_device::IoType::{Mmio, Pio};
use vm_device::exit::x86::instruction::{Direction, Instruction, MAX_LENGTH, decode};
use vm_device::exit::x86::{Gpr, PortAccess, PortDirection, Registers, Segment, svm};

use super::vcpu::{Exit, VMEXIT_CPUID, VMEXIT_HLT};
use crate::machine::{Machine, go_on};
use crate::power::POWER;
use crate::x86::paging::{read_linear, translate, write_linear};
use crate::x86::stop::Stop;
pub use crate::x86::stop::Stopped;

impl Machine {
    /// Does what the guest exited for.
    pub fn dispatch(&mut self, exit: Exit) -> Result<(), Stop> {
        if exit.code == VMEXIT_HLT && !self.vcpu.accepts_interrupts() {
            POWER.halt();
            return Ok(());
        }
        let registers = match exit.code {
            VMEXIT_CPUID => self.vcpu.identify(),
            _ => self.access(exit)?,
        };
        self.vcpu.complete(registers);
        Ok(())
    }

    /// Makes the access that the guest exited for. Returns the registers with which it goes on.
    fn access(&mut self, exit: Exit) -> Result<Registers, Stop> {
        let (before, mode) = (self.vcpu.registers, self.vcpu.mode());
        let mut data = [0; 8];
        match exit.code {
            svm::VMEXIT_IOIO => {
                let access = svm::port_access(exit.info_1, exit.info_2, mode)?;
                if access.string.is_some() {
                    return self.port_string(access);
                }
                data = access.output(&before).to_le_bytes();
                match access.direction {
                    PortDirection::In => self.read(access.port.into(), access.size.of(&mut data), Pio)?,
                    PortDirection::Out => self.write(access.port.into(), access.size.of(&mut data), Pio)?,
                }
                Ok(access.complete(&before, u64::from_le_bytes(data)))
            }
            svm::VMEXIT_NPF => {
                let fault = svm::memory_access(exit.info_1, exit.info_2);
                let instruction = decode(self.fetch(&mut [0; MAX_LENGTH])?, mode)?;
                let (source, destination) = self.operands(&instruction, fault.address)?;
                if instruction.direction().reads() {
                    self.read(source, instruction.size().of(&mut data), Mmio)?;
                }
                let outcome = instruction.execute(&before, u64::from_le_bytes(data));
                if let Some(value) = outcome.write {
                    self.write(destination, instruction.size().of(&mut value.to_le_bytes()), Mmio)?;
                }
                Ok(outcome.registers)
            }
            // An interrupt may end it: the guest comes back if there is none yet.
            VMEXIT_HLT => Ok(Registers { rip: before.rip + 1, ..before }),
            _ => Err(Stop::Exit(exit)),
        }
    }

    /// `INS` and `OUTS`: a burst of elements at once, as many as fit. The guest comes back for the rest.
    fn port_string(&mut self, access: PortAccess) -> Result<Registers, Stop> {
        const BURST: u64 = 64;
        let access = access.with_prefixes(self.fetch(&mut [0; MAX_LENGTH])?, self.vcpu.mode());
        let before = self.vcpu.registers;
        let count = access.count(&before).min(BURST);
        let size = access.size.bytes();
        let mut burst = [0; BURST as usize * 4];
        let data = &mut burst[..count as usize * size];
        if access.direction == PortDirection::In {
            go_on(self.devices.read_string(access.port, size, data))?;
        }
        for (number, element) in (0..).zip(data.chunks_mut(size)) {
            let Some((segment, offset)) = access.element(&before, number) else { break };
            let linear = self.vcpu.linear(segment, offset);
            let transferred = match access.direction {
                PortDirection::In => write_linear(self.memory, self.vcpu, linear, element),
                PortDirection::Out => read_linear(self.memory, self.vcpu, linear, element),
            };
            if transferred != size {
                return Err(Stop::NoMemory { linear });
            }
        }
        if access.direction == PortDirection::Out {
            go_on(self.devices.write_string(access.port, size, data))?;
        }
        Ok(access.complete_string(&before, count))
    }

    /// The bytes of the instruction at the instruction pointer, as many as can be fetched: one or more.
    fn fetch<'b>(&self, bytes: &'b mut [u8; MAX_LENGTH]) -> Result<&'b [u8], Stop> {
        let linear = self.vcpu.linear(Segment::Cs, self.vcpu.registers.rip);
        match read_linear(self.memory, self.vcpu, linear, bytes) {
            0 => Err(Stop::NotFetched { linear }),
            length => Ok(&bytes[..length]),
        }
    }

    /// The reason for a stop, and where the guest stood.
    pub fn stopped(&self, stop: Stop) -> Stopped {
        let mut bytes = [0; MAX_LENGTH];
        let length = self.fetch(&mut bytes).map_or(0, <[u8]>::len);
        Stopped { stop, rip: self.vcpu.registers.rip, bytes, length }
    }

    /// Where an instruction reads and where it writes: at the address that faulted, but for `MOVS`, which has two.
    fn operands(&self, instruction: &Instruction, faulted: GuestAddress) -> Result<(GuestAddress, GuestAddress), Stop> {
        let Some(string) = instruction.string().filter(|_| instruction.direction() == Direction::Copy) else {
            return Ok((faulted, faulted));
        };
        let operand = |segment, index| {
            let offset = string.offset(&self.vcpu.registers, index, instruction.size(), 0);
            let linear = self.vcpu.linear(segment, offset);
            translate(self.memory, self.vcpu, linear).map(GuestAddress).ok_or(Stop::NoMemory { linear })
        };
        Ok((operand(string.segment, Gpr::Rsi)?, operand(Segment::Es, Gpr::Rdi)?))
    }
}
