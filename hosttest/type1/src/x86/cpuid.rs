//! `CPUID` as the guest sees it.

use core::arch::x86_64::{__cpuid_count, CpuidResult};

use vm_device::exit::x86::{Gpr, Registers};

use crate::processor::vcpu::Vcpu;

impl Vcpu {
    /// Does the guest's `CPUID`: the machine's, without what the virtual processor hides. What mirrors control registers follows
    /// the guest's (AMD APM vol. 3, E.3).
    pub fn identify(&self) -> Registers {
        const OSXSAVE: (u32, u32) = (27, 18);
        const OSPKE: (u32, u32) = (4, 22);
        let (mut registers, cr4) = (self.registers, self.cr4());
        let (leaf, subleaf) = (registers.get(Gpr::Rax) as u32, registers.get(Gpr::Rcx) as u32);
        let mut identity = Self::hide(leaf, subleaf, __cpuid_count(leaf, subleaf));
        let mut mirror = |(bit, of_cr4): (u32, u32)| {
            identity.ecx = identity.ecx & !(1 << bit) | ((cr4 >> of_cr4) as u32 & 1) << bit;
        };
        match leaf {
            1 => mirror(OSXSAVE),
            7 if subleaf == 0 => mirror(OSPKE),
            _ => {}
        }
        let CpuidResult { eax, ebx, ecx, edx } = identity;
        for (register, value) in [(Gpr::Rax, eax), (Gpr::Rbx, ebx), (Gpr::Rcx, ecx), (Gpr::Rdx, edx)] {
            registers.set(register, value.into());
        }
        Registers { rip: self.behind(2), ..registers }
    }
}
