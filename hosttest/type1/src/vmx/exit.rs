//! Why the guest exited (Intel SDM vol. 3C, 28.2, and vol. 3D, appendix C).

use core::fmt;

use super::vmcs::{Field, INTERRUPTION_EXCEPTION, read};
use crate::x86::fault::Exception;

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
    /// The last exit, or what came in place of it if the processor refused to enter the guest.
    pub fn read(refused: bool) -> Self {
        Self {
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
