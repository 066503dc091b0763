//! Turning VMX on, and what of the virtual-machine control structure is the same for each guest: when it exits, and how the
//! hypervisor goes on then (Intel SDM vol. 3C, 25.6 to 25.8 and 24.7).

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use x86_64::instructions::segmentation::{CS, DS, Segment};
use x86_64::instructions::tables::sgdt;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

use super::exceptions;
use super::vmcs::{Field, write};
use crate::memory::Page;
use crate::x86::fault::Exception;

/// Model-specific registers (Intel SDM vol. 4, table 2-2).
mod msr {
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const PAT: u32 = 0x277;
    pub const VMX_BASIC: u32 = 0x480;
    pub const CR0_MUST_BE_SET: u32 = 0x486;
    pub const CR4_MUST_BE_SET: u32 = 0x488;
    pub const SECONDARY_CONTROLS: u32 = 0x48b;
    pub const EPT_CAPABILITIES: u32 = 0x48c;
    pub const PIN_CONTROLS: u32 = 0x48d;
    pub const PRIMARY_CONTROLS: u32 = 0x48e;
    pub const EXIT_CONTROLS: u32 = 0x48f;
    pub const ENTRY_CONTROLS: u32 = 0x490;
    pub const EFER: u32 = 0xc000_0080;
}

/// Bits of the pin-based controls.
pub const EXTERNAL_INTERRUPT_EXITING: u64 = 1 << 0;
const NMI_EXITING: u64 = 1 << 3;
/// Bits of the primary processor-based controls. Without bitmaps every port and model-specific register exits.
pub const INTERRUPT_WINDOW_EXITING: u64 = 1 << 2;
pub const HLT_EXITING: u64 = 1 << 7;
const MWAIT_EXITING: u64 = 1 << 10;
const RDPMC_EXITING: u64 = 1 << 11;
const IO_EXITING: u64 = 1 << 24;
const MONITOR_EXITING: u64 = 1 << 29;
const SECONDARY: u64 = 1 << 31;
/// Bits of the secondary processor-based controls.
const EPT: u64 = 1 << 1;
const RDTSCP: u64 = 1 << 3;
const UNRESTRICTED: u64 = 1 << 7;
const INVPCID: u64 = 1 << 12;
/// Bits of the exit controls: the host is in 64-bit mode, and the page attribute table and EFER are saved and loaded.
const HOST_64_BIT: u64 = 1 << 9;
const EXIT_PAT_AND_EFER: u64 = 0b1111 << 18;
/// Bits of the entry controls: the page attribute table and EFER are loaded.
const ENTRY_PAT_AND_EFER: u64 = 0b11 << 14;

/// Turns VMX on, and makes the VMCS in the second region current. The first is the processor's.
///
/// # Errors
/// The processor has no VMX, or lacks what is used of it.
///
/// # Safety
/// The regions are the processor's from then on: they are never freed, and used for nothing else.
pub unsafe fn turn_on(vmxon: &mut Page<4096>, vmcs: &mut Page<4096>) -> Result<(), &'static str> {
    const FOUR_LEVELS_AND_WRITE_BACK: u64 = 1 << 6 | 1 << 14;
    const LARGE_PAGES: u64 = 1 << 16;
    const TRUE_CONTROLS: u64 = 1 << 55;
    if __cpuid(1).ecx & 1 << 5 == 0 {
        return Err("the processor has no VMX");
    }
    allow()?;
    let basic = read_msr(msr::VMX_BASIC);
    if basic & TRUE_CONTROLS == 0 {
        return Err("the processor does not tell its controls of VMX");
    }
    secondary_controls()?;
    let needed = FOUR_LEVELS_AND_WRITE_BACK | LARGE_PAGES;
    if read_msr(msr::EPT_CAPABILITIES) & needed != needed {
        return Err("the processor's extended page tables are not of four levels with large pages");
    }
    let revision = (basic as u32 & 0x7fff_ffff).to_le_bytes();
    vmxon.0[..4].copy_from_slice(&revision);
    vmcs.0[..4].copy_from_slice(&revision);
    let (vmxon, vmcs) = (&raw mut *vmxon as u64, &raw mut *vmcs as u64);
    let failed: u8;
    // SAFETY: VMX is there and allowed. The processor gets the physical addresses of two pages that are its own. Of the bits set in
    // CR0 and CR4 none changes what the hypervisor does.
    unsafe {
        Cr0::update(|cr0| cr0.insert(Cr0Flags::NUMERIC_ERROR));
        Cr4::update(|cr4| cr4.insert(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS));
        asm!(
            "vmxon [{vmxon}]",
            "jbe 2f",
            "vmclear [{vmcs}]",
            "jbe 2f",
            "vmptrld [{vmcs}]",
            "2:",
            "setbe {failed}",
            vmxon = in(reg) &raw const vmxon,
            vmcs = in(reg) &raw const vmcs,
            failed = out(reg_byte) failed,
        );
    }
    if failed == 0 { Ok(()) } else { Err("the processor does not turn VMX on") }
}

/// Sets what the guest exits for, and what is saved and loaded then.
///
/// # Errors
/// The processor lacks some of it.
pub fn set_controls() -> Result<(), &'static str> {
    let pin = controls(msr::PIN_CONTROLS, EXTERNAL_INTERRUPT_EXITING | NMI_EXITING, 0)?;
    let exiting = HLT_EXITING | MWAIT_EXITING | RDPMC_EXITING | IO_EXITING | MONITOR_EXITING;
    write(Field::PinControls, pin);
    write(Field::PrimaryControls, controls(msr::PRIMARY_CONTROLS, exiting | SECONDARY, 0)?);
    write(Field::SecondaryControls, secondary_controls()?);
    write(Field::ExceptionBitmap, Exception::INTERCEPTED.into());
    write(Field::ExitControls, controls(msr::EXIT_CONTROLS, HOST_64_BIT | EXIT_PAT_AND_EFER, 0)?);
    write(Field::EntryControls, controls(msr::ENTRY_CONTROLS, ENTRY_PAT_AND_EFER, 0)?);
    Ok(())
}

fn secondary_controls() -> Result<u64, &'static str> {
    controls(msr::SECONDARY_CONTROLS, EPT | UNRESTRICTED, RDTSCP | INVPCID)
        .map_err(|_| "the processor has no extended page tables, or no unrestricted guest")
}

/// The bits of CR0 and CR4 that have to be set while VMX is on.
pub fn must_be_set() -> (u64, u64) {
    (read_msr(msr::CR0_MUST_BE_SET), read_msr(msr::CR4_MUST_BE_SET))
}

/// Whether the instruction information of string accesses to ports is valid.
pub fn informs_of_strings() -> bool {
    read_msr(msr::VMX_BASIC) & 1 << 54 != 0
}

fn read_msr(number: u32) -> u64 {
    // SAFETY: each caller reads a register that every processor with VMX has, or with what it has asked for before.
    unsafe { Msr::new(number).read() }
}

/// Allows VMX, if the firmware has left that open.
fn allow() -> Result<(), &'static str> {
    const LOCKED: u64 = 1;
    const ALLOWED: u64 = 1 << 2;
    match read_msr(msr::FEATURE_CONTROL) {
        value if value & LOCKED == 0 => {
            // SAFETY: the register allows VMX and changes nothing else.
            unsafe { Msr::new(msr::FEATURE_CONTROL).write(value | LOCKED | ALLOWED) };
            Ok(())
        }
        value if value & ALLOWED != 0 => Ok(()),
        _ => Err("the firmware forbids VMX"),
    }
}

/// Controls with all bits of `needed`, those of `wanted` that the processor has, and those that it insists on: the low half of
/// the register `number` has those that must be 1, the high half those that may be (Intel SDM vol. 3D, A.3).
fn controls(number: u32, needed: u64, wanted: u64) -> Result<u64, &'static str> {
    let allowed = read_msr(number);
    let controls = (needed | wanted | allowed & 0xffff_ffff) & allowed >> 32;
    if controls & needed == needed { Ok(controls) } else { Err("the processor lacks controls of VMX") }
}

/// Lets an exit bring the processor back to the state that it has now.
pub fn set_host_state() {
    let (cr3, _) = Cr3::read_raw();
    write(Field::HostCr0, Cr0::read_raw());
    write(Field::HostCr3, cr3.start_address().as_u64());
    write(Field::HostCr4, Cr4::read_raw());
    write(Field::HostCs, CS::get_reg().0.into());
    for field in [Field::HostEs, Field::HostSs, Field::HostDs] {
        write(field, DS::get_reg().0.into());
    }
    // It must not be 0. Nothing looks at a task state segment where no gate changes the stack, so none is there.
    write(Field::HostTr, DS::get_reg().0.into());
    write(Field::HostIdtr, exceptions::table(CS::get_reg().0));
    write(Field::HostGdtr, sgdt().base.as_u64());
    write(Field::HostPat, read_msr(msr::PAT));
    write(Field::HostEfer, read_msr(msr::EFER));
}
