//! From the exits of the guest to its devices.

use vm_device::exit::x86::instruction::{MAX_LENGTH, decode};
use vm_device::exit::x86::svm;

use super::vcpu::{Exit, VMEXIT_CPUID, VMEXIT_HLT};
use crate::machine::Machine;
use crate::power::POWER;
use crate::x86::stop::Stop;
pub use crate::x86::stop::Stopped;

impl Machine {
    /// Does what the guest exited for.
    pub fn dispatch(&mut self, exit: Exit) -> Result<(), Stop> {
        let (mut registers, mode) = (self.vcpu.registers, self.vcpu.mode());
        match exit.code {
            svm::VMEXIT_IOIO => {
                let mut access = svm::port_access(exit.info_1, exit.info_2, mode)?;
                if access.string.is_some() {
                    // Not every processor reports address size and segment.
                    access = access.with_prefixes(self.fetch(&mut [0; MAX_LENGTH])?);
                }
                access.execute(&mut registers, self)?;
            }
            svm::VMEXIT_NPF => {
                let access = svm::memory_access(exit.info_1, exit.info_2);
                let instruction = decode(self.fetch(&mut [0; MAX_LENGTH])?, mode)?;
                instruction.execute(&mut registers, &access, self)?;
            }
            VMEXIT_CPUID => registers = self.vcpu.identify(),
            VMEXIT_HLT if !self.vcpu.accepts_interrupts() => POWER.halt(),
            // An interrupt may end it: the guest comes back if there is none yet.
            VMEXIT_HLT => registers.rip += 1,
            _ => return Err(Stop::Exit(exit)),
        }
        self.vcpu.complete(registers);
        Ok(())
    }
}
