//! From the exits of the guest to its devices.

use vm_device::exit::x86::Registers;
use vm_device::exit::x86::instruction::{MAX_LENGTH, decode};
use vm_device::exit::x86::vmx::{self, IoExit};

use super::control;
use super::exit::{Exit, reason};
use super::setup::informs_of_strings;
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
        // What was delivered would be lost, and the instruction pointer is not at what made the access.
        let basic = if exit.is_in_delivery() { None } else { exit.basic() };
        match basic.ok_or(Stop::Exit(exit))? {
            vmx::IO_INSTRUCTION => {
                let informs = informs_of_strings();
                let mut access = vmx::port_access(
                    IoExit {
                        qualification: exit.qualification,
                        instruction_information: informs.then_some(exit.instruction_information),
                        instruction_length: exit.instruction_length,
                        rip: registers.rip,
                    },
                    mode,
                )?;
                if access.string.is_some() && !informs {
                    access = access.with_prefixes(self.fetch(&mut [0; MAX_LENGTH])?);
                }
                access.execute(registers, self)?;
            }
            vmx::EPT_VIOLATION => {
                let access = vmx::memory_access(exit.qualification, exit.guest_physical_address);
                if access.page_walk {
                    return Err(Stop::PageTables { address: access.address }.into());
                }
                let instruction = decode(self.fetch(&mut [0; MAX_LENGTH])?, mode)?;
                instruction.execute(registers, &access, self)?;
            }
            reason::EXCEPTION => {
                let exception = exit.exception().ok_or(Stop::Exit(exit))?;
                if exception == Exception::DEBUG {
                    control::set_debug_status(exit.qualification);
                }
                return Err(exception.into());
            }
            reason::INTERRUPT_WINDOW => {}
            reason::CPUID => *registers = self.vcpu.identify(),
            reason::HLT if !self.vcpu.accepts_interrupts() => POWER.halt(),
            // An interrupt may end it: the guest comes back if there is none yet.
            reason::HLT => registers.rip = self.vcpu.behind(exit.instruction_length),
            // The hypervisor does not use caches that would have to be written back.
            reason::INVD | reason::WBINVD => registers.rip = self.vcpu.behind(exit.instruction_length),
            reason::CONTROL_REGISTER => control::write_control_register(exit.qualification, registers)?,
            reason::RDMSR => {
                control::read_msr(registers)?;
                registers.rip = self.vcpu.behind(exit.instruction_length);
            }
            reason::WRMSR => {
                control::write_msr(registers)?;
                registers.rip = self.vcpu.behind(exit.instruction_length);
            }
            reason::RDPMC | reason::XSETBV => return Err(Exception::GENERAL_PROTECTION.into()),
            // `CPUID` says that the guest has none of them.
            reason::GETSEC
            | reason::VMCALL..=reason::VMXON
            | reason::MWAIT
            | reason::MONITOR
            | reason::INVEPT
            | reason::INVVPID => return Err(Exception::INVALID_OPCODE.into()),
            _ => return Err(Stop::Exit(exit).into()),
        }
        Ok(())
    }
}
