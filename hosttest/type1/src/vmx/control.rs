//! The control registers and model-specific registers of the guest: those of its own are fields of the VMCS, and it has no others.

use core::arch::asm;

use vm_device::exit::x86::{Gpr, Registers};

use super::vcpu::Vcpu;
use super::vmcs::{Field, read, write};
use crate::x86::fault::Exception;

/// CR0: paging, and what the hypervisor keeps as it needs it: NE, which VMX does, and the caches.
const CR0_PAGING: u64 = 1 << 31;
const CR0_NOT_WRITE_THROUGH: u64 = 1 << 29;
const CR0_CACHE_DISABLE: u64 = 1 << 30;
const CR0_KEPT: u64 = 1 << 5 | CR0_NOT_WRITE_THROUGH | CR0_CACHE_DISABLE;
/// CR0 after a reset: ET.
pub const CR0_RESET: u64 = 1 << 4;
/// CR4: what `CPUID` tells the guest it has not: VMX, SMX and XSAVE.
const CR4_REFUSED: u64 = 1 << 13 | 1 << 14 | 1 << 18;

/// Bits of EFER: SCE, LME, NXE; and LMA, which the processor sets.
const EFER_LONG_MODE_ENABLE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
const EFER_WRITABLE: u64 = 1 | EFER_LONG_MODE_ENABLE | 1 << 11;

/// Sets CR0 and CR4 of a guest that begins. `must_be_set` are those bits of the real registers that VMX needs.
pub fn start(cr0: u64, must_be_set: (u64, u64)) {
    write(Field::Cr0Mask, CR0_KEPT);
    write(Field::Cr0Shadow, cr0);
    // An unrestricted guest chooses PE and PG itself.
    write(Field::Cr0, cr0 | must_be_set.0 & CR0_KEPT);
    write(Field::Cr4Mask, CR4_REFUSED);
    write(Field::Cr4Shadow, 0);
    write(Field::Cr4, must_be_set.1);
    write(Field::GuestEfer, 0);
}

/// CR0 or CR4 as the guest sees it.
pub fn seen(register: Field, mask: Field, shadow: Field) -> u64 {
    let mask = read(mask);
    read(register) & !mask | read(shadow) & mask
}

/// An access to a control register exited, with this qualification (Intel SDM vol. 3C, table 28-3): a write that changes a bit
/// that the hypervisor keeps.
///
/// # Errors
/// What the guest gets for it.
pub fn write_control_register(qualification: u64, registers: &Registers) -> Result<(), Exception> {
    const MOVE_TO: u64 = 0;
    let number = qualification & 0xf;
    let value = registers.gpr[(qualification >> 8 & 0xf) as usize];
    let caches_are_valid = value & (CR0_NOT_WRITE_THROUGH | CR0_CACHE_DISABLE) != CR0_NOT_WRITE_THROUGH;
    if number == 0 && qualification >> 4 & 3 == MOVE_TO && caches_are_valid {
        // The guest sees these bits as it wrote them. It comes back to the instruction, which the processor does then.
        write(Field::Cr0Shadow, value & CR0_KEPT);
        Ok(())
    } else {
        Err(Exception::GENERAL_PROTECTION)
    }
}

/// Sets what DR6 says of a debug exception: the exit qualification (Intel SDM vol. 3C, table 28-1), which the register does not
/// have yet. The debug registers but for DR7 are the guest's.
pub fn set_debug_status(qualification: u64) {
    const CAUSES: u64 = 0x600f;
    const BREAKPOINTS: u64 = 0xf;
    // SAFETY: nothing of the hypervisor looks at the register, which only tells what happened.
    unsafe {
        let mut status: u64;
        asm!("mov {}, dr6", out(reg) status, options(nomem, nostack, preserves_flags));
        status = status & !BREAKPOINTS | qualification & CAUSES;
        asm!("mov dr6, {}", in(reg) status, options(nomem, nostack, preserves_flags));
    }
}

/// The field that a model-specific register of the guest is.
fn field(number: u32) -> Option<Field> {
    Some(match number {
        0x174 => Field::SysenterCs,
        0x175 => Field::SysenterEsp,
        0x176 => Field::SysenterEip,
        0x277 => Field::GuestPat,
        0xc000_0080 => Field::GuestEfer,
        0xc000_0100 => Field::FsBase,
        0xc000_0101 => Field::GsBase,
        _ => return None,
    })
}

/// Does `RDMSR`.
///
/// # Errors
/// What the guest gets for a register that it has not.
pub fn read_msr(registers: &mut Registers) -> Result<(), Exception> {
    let value = read(field(registers.get(Gpr::Rcx) as u32).ok_or(Exception::GENERAL_PROTECTION)?);
    registers.set(Gpr::Rax, value & 0xffff_ffff);
    registers.set(Gpr::Rdx, value >> 32);
    Ok(())
}

/// Does `WRMSR`.
///
/// # Errors
/// What the guest gets for a register that it has not, or for a value that the processor would refuse.
pub fn write_msr(registers: &Registers) -> Result<(), Exception> {
    let field = field(registers.get(Gpr::Rcx) as u32).ok_or(Exception::GENERAL_PROTECTION)?;
    let value = registers.get(Gpr::Rax) & 0xffff_ffff | registers.get(Gpr::Rdx) << 32;
    let (old, mut new) = (read(field), value);
    let is_valid = match field {
        Field::GuestEfer => {
            new = value & EFER_WRITABLE | old & EFER_LONG_MODE_ACTIVE;
            let is_paging = read(Field::Cr0) & CR0_PAGING != 0;
            value & !(EFER_WRITABLE | EFER_LONG_MODE_ACTIVE) == 0
                && !(is_paging && (old ^ new) & EFER_LONG_MODE_ENABLE != 0)
        }
        // Memory types 0, 1 and 4 to 7 (Intel SDM vol. 3A, table 12-10).
        Field::GuestPat => value.to_le_bytes().iter().all(|entry| matches!(entry, 0 | 1 | 4..=7)),
        Field::SysenterCs => {
            new = value & 0xffff_ffff;
            true
        }
        _ => Vcpu::is_canonical(value),
    };
    if is_valid {
        write(field, new);
        Ok(())
    } else {
        Err(Exception::GENERAL_PROTECTION)
    }
}
