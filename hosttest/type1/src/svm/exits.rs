//! From the exits of the guest to its devices.

use vm_device::exit::x86::instruction::{MAX_LENGTH, decode};
use vm_device::exit::x86::{Registers, svm};

use super::vcpu::{
    Exit, VMEXIT_CPUID, VMEXIT_EXCEPTIONS, VMEXIT_HLT, VMEXIT_INVD, VMEXIT_INVLPGA, VMEXIT_MSR, VMEXIT_SKINIT,
    VMEXIT_VMRUN,
};
use crate::machine::Machine;
use crate::power::POWER;
use crate::x86::fault::{Exception, Fault};
use crate::x86::stop::Stop;
pub use crate::x86::stop::Stopped;

impl Machine {
    /// Does what the guest exited for.
    pub fn dispatch(&mut self, exit: Exit) -> Result<(), Stop> {
        let mut registers = self.vcpu.registers;
        let outcome = self.execute(exit, &mut registers);
        self.complete(registers, outcome)
    }

    fn execute(&mut self, exit: Exit, registers: &mut Registers) -> Result<(), Fault> {
        let mode = self.vcpu.mode();
        match exit.code {
            // What was delivered would be lost, and the instruction pointer is not at what made the access.
            _ if exit.is_in_delivery() => return Err(Stop::Exit(exit).into()),
            svm::VMEXIT_IOIO => {
                let mut access = svm::port_access(exit.info_1, exit.info_2, mode)?;
                if access.string.is_some() {
                    // Not every processor reports address size and segment.
                    access = access.with_prefixes(self.fetch(&mut [0; MAX_LENGTH])?);
                }
                access.execute(registers, self)?;
            }
            svm::VMEXIT_NPF => {
                let access = svm::memory_access(exit.info_1, exit.info_2);
                if access.page_walk {
                    return Err(Stop::PageTables { address: access.address }.into());
                }
                let instruction = decode(self.fetch(&mut [0; MAX_LENGTH])?, mode)?;
                instruction.execute(registers, &access, self)?;
            }
            // DR6 and DR7 are those of the exception already (AMD APM vol. 2, 15.12.2).
            code if VMEXIT_EXCEPTIONS.contains(&code) => {
                let exception = Exception::intercepted(code - VMEXIT_EXCEPTIONS.start());
                return Err(exception.ok_or(Stop::Exit(exit))?.into());
            }
            VMEXIT_CPUID => *registers = self.vcpu.identify(),
            VMEXIT_HLT if !self.vcpu.accepts_interrupts() => POWER.halt(),
            // An interrupt may end it: the guest comes back if there is none yet.
            VMEXIT_HLT => registers.rip = self.vcpu.behind(1),
            // The hypervisor has memory in the caches. A register that is not the guest's own stays as it is.
            VMEXIT_INVD => registers.rip = self.vcpu.behind(2),
            VMEXIT_MSR => registers.rip = self.vcpu.ignore_write(&exit)?,
            // `CPUID` says that the guest has none of them.
            VMEXIT_INVLPGA | VMEXIT_VMRUN..=VMEXIT_SKINIT => return Err(Exception::INVALID_OPCODE.into()),
            _ => return Err(Stop::Exit(exit).into()),
        }
        Ok(())
    }
}
