//! Data aborts of a guest: what ESR_EL2, FAR_EL2 and HPFAR_EL2 say.

use super::error::ExitError;
use super::registers::Registers;
use super::transfer::{Register, Transfer};
use crate::address::GuestAddress;
use crate::exit::memory::MemoryAccessKind;
use crate::exit::operand::PAGE;
use crate::exit::size::Size;

/// The registers of EL2 that describe an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2: the virtual address.
    pub far: u64,
    /// HPFAR_EL2: the page of the guest physical address.
    pub hpfar: u64,
}

impl Exit {
    /// The guest physical address that HPFAR_EL2 and FAR_EL2 hold.
    ///
    /// They hold one after a translation or an access flag fault of stage 2, of a data abort, whose fault
    /// [has it](Stage2Fault::address), and of an instruction abort: an embedder that maps memory when it is first used asks for
    /// that here. It is HPFAR_EL2\[47:4\], which are bits 55 to 12 of it as far as the processor has them (39:4 without
    /// FEAT_LPA, 43:4 with it, 47:4 with FEAT_D128), and the low 12 bits of FAR_EL2. In stage-2 pages of 16 and 64 KiB too:
    /// HPFAR_EL2 holds the address of a 4 KiB page.
    ///
    /// ```
    /// use vm_device::GuestAddress;
    /// use vm_device::exit::arm64::Exit;
    ///
    /// // An instruction abort: the guest's first fetch from a page.
    /// let exit = Exit { esr: 0x8200_0007, far: 0xffff_8000_1000_0048, hpfar: 0x40_2000 };
    /// assert_eq!(exit.address(), GuestAddress(0x4020_0048));
    /// ```
    #[inline]
    pub const fn address(&self) -> GuestAddress {
        GuestAddress(self.page() | self.far & (PAGE - 1))
    }

    const fn page(&self) -> u64 {
        (self.hpfar >> 4 & 0xfff_ffff_ffff) << 12
    }
}

/// The Exception class of a data abort from a lower Exception level, ESR_EL2\[31:26\] (Arm ARM DDI 0487, "ESR_EL2").
pub const DATA_ABORT_LOWER_LEVEL: u64 = 0x24;

/// ISS encoding for an exception from a Data Abort (Arm ARM DDI 0487, "ESR_EL2").
pub(super) mod esr {
    /// IL: the instruction has 4 bytes, not 2.
    pub(crate) const IL: u64 = 1 << 25;
    /// ISV: bits 23 to 14 are valid.
    pub(crate) const ISV: u64 = 1 << 24;
    /// SSE: what is read is sign-extended.
    pub(crate) const SSE: u64 = 1 << 21;
    /// SF: the register has 64 bits, not 32.
    pub(crate) const SF: u64 = 1 << 15;
    /// AR: the instruction is a Load-Acquire or a Store-Release.
    pub(crate) const AR: u64 = 1 << 14;
    /// LST: the instruction is a load or a store of 64 bytes (FEAT_LS64), if these are not 0.
    pub(crate) const LST: u64 = 0b11 << 11;
    /// FnV: FAR_EL2 is not valid.
    pub(crate) const FNV: u64 = 1 << 10;
    /// EA: the kind of an external abort.
    pub(crate) const EA: u64 = 1 << 9;
    /// CM: a cache maintenance instruction.
    pub(crate) const CM: u64 = 1 << 8;
    /// S1PTW: the fault is of an access to the guest's own page tables.
    pub(crate) const S1PTW: u64 = 1 << 7;
    /// WnR: a write.
    pub(crate) const WNR: u64 = 1 << 6;
    /// DFSC: the status code of the fault.
    pub(crate) const DFSC: u64 = 0x3f;

    /// EC.
    pub(crate) const fn class(esr: u64) -> u64 {
        esr >> 26 & 0x3f
    }
}

/// Why stage 2 did not allow an access that a device can answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// Nothing is mapped at the address.
    Translation,
    /// The page is mapped, and its access flag is clear.
    AccessFlag,
    /// The page is mapped, and not for this kind of access: as a rule a write to a read-only page.
    Permission,
}

/// The access that faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2Fault {
    /// The guest physical address. `None` after a permission fault, for which HPFAR_EL2 is not valid: translate
    /// [`virtual_address`](Self::virtual_address), with `AT S1E1R` and its kin or in software. Of the page walk it is always
    /// told, and is the first of the page that the table lies in.
    pub address: Option<GuestAddress>,
    /// FAR_EL2: the virtual address, with its tag if top bytes are ignored. Of the page walk, the one whose translation needed it.
    pub virtual_address: u64,
    /// What was tried: WnR. Of the page walk a write, if it has no permission: the processor reads tables first, and writes no
    /// more than their flags.
    pub kind: MemoryAccessKind,
    /// Why it may not.
    pub cause: Cause,
    /// IL: the length of the instruction, in bytes: 4, or 2 for the short ones of T32. For those it is known only where the
    /// syndrome is valid: of others IL says 4 (Arm ARM DDI 0487, "ESR_EL2", IL).
    pub length: u8,
}

impl Stage2Fault {
    /// The guest physical address of the page that the fault is in, if an operand of this kind at `address` starts in it.
    ///
    /// The kind counts: another vCPU may have exchanged the instruction since, for one that the guest's page tables forbid.
    #[inline]
    pub(super) fn known(&self, address: u64, kind: MemoryAccessKind) -> Option<GuestAddress> {
        let same_page = (address ^ self.virtual_address) & !(PAGE - 1) == 0;
        if same_page && kind == self.kind { self.address } else { None }
    }
}

/// A data abort: an access that a device can answer, one that completes as nothing, or one of the page walk.
///
/// ```
/// use vm_device::GuestAddress;
/// use vm_device::exit::Size;
/// use vm_device::exit::arm64::{DataAbort, Exit, Mode, Registers, data_abort};
///
/// // `ldrb w3, [x1]`, of a PL011 at 0x900_0000: ISV, SAS = 0, SRT = 3, a translation fault of level 3.
/// let exit = Exit { esr: 0x9303_0007, far: 0xffff_0000_1234_5018, hpfar: 0x9_0000 };
/// let DataAbort::Transfer(transfer) = data_abort(exit)? else { panic!("the syndrome is valid") };
/// assert_eq!(transfer.fault.address, Some(GuestAddress(0x900_0018)));
/// assert_eq!((transfer.size, transfer.register.number, transfer.writes()), (Size::Byte, 3, false));
///
/// // Here the manager reads the device, which has 0x90.
/// let mut registers = Registers { pc: 0x8000, spsr: 5, ..Registers::default() };
/// let mode = Mode::new(registers.spsr, 0);
/// transfer.complete(&mut registers, mode, 0x90);
/// assert_eq!((registers.x[3], registers.pc), (0x90, 0x8004));
/// # Ok::<(), vm_device::exit::arm64::ExitError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataAbort {
    /// The syndrome says it all.
    Transfer(Transfer),
    /// The syndrome is not valid, as for every instruction with writeback and every pair, or does not say all, as for those of 64
    /// bytes: fetch the instruction at the program counter, [`decode`](super::instruction::decode) and
    /// [execute](super::instruction::Instruction::execute) it.
    Instruction(Stage2Fault),
    /// Maintenance of a cache by address. A device has none: the instruction does nothing, and
    /// [`Registers::advance`] completes it.
    CacheMaintenance(Stage2Fault),
    /// S1PTW: the processor accessed the guest's page tables by itself. It is no access to a device: page tables in MMIO are a
    /// guest's mistake, which gets an external abort of the walk. An embedder that maps memory when it is first used maps
    /// [`Stage2Fault::address`], and lets the guest try again.
    PageWalk(Stage2Fault),
}

impl DataAbort {
    /// The access that faulted.
    pub const fn fault(&self) -> &Stage2Fault {
        match self {
            DataAbort::Transfer(transfer) => &transfer.fault,
            DataAbort::Instruction(fault) | DataAbort::CacheMaintenance(fault) | DataAbort::PageWalk(fault) => fault,
        }
    }

    /// Goes past the instruction without an access: for cache maintenance, and for what the embedder drops. How long a short
    /// instruction of T32 is, is not always [known](Stage2Fault::length).
    ///
    /// ```
    /// use vm_device::exit::arm64::{DataAbort, Exit, Registers, data_abort};
    ///
    /// // `dc civac, x0`: CM, WnR.
    /// let abort = data_abort(Exit { esr: 0x9200_0147, far: 0x1000, hpfar: 0x9_0000 })?;
    /// assert!(matches!(abort, DataAbort::CacheMaintenance(_)));
    /// let mut registers = Registers { pc: 0x8000, ..Registers::default() };
    /// abort.skip(&mut registers);
    /// assert_eq!(registers.pc, 0x8004);
    /// # Ok::<(), vm_device::exit::arm64::ExitError>(())
    /// ```
    pub fn skip(&self, registers: &mut Registers) {
        registers.advance(self.fault().length);
    }
}

/// The access of a data abort, from the registers of EL2 that describe it.
///
/// # Errors
/// [`ExitError`] for what no device and no mapping answers: each cause has a variant.
#[inline]
pub fn data_abort(exit: Exit) -> Result<DataAbort, ExitError> {
    let esr = exit.esr;
    let cause = match esr & esr::DFSC {
        // Level -1, and with FEAT_D128 level -2.
        0x04..=0x07 | 0x2a | 0x2b => Cause::Translation,
        0x08..=0x0b => Cause::AccessFlag,
        0x0c..=0x0f => Cause::Permission,
        _ => return Err(ExitError::new(esr)),
    };
    if esr::class(esr) != DATA_ABORT_LOWER_LEVEL || esr & (esr::EA | esr::FNV) != 0 {
        return Err(ExitError::new(esr));
    }
    let fault = Stage2Fault {
        address: match cause {
            Cause::Permission => None,
            Cause::Translation | Cause::AccessFlag => Some(exit.address()),
        },
        virtual_address: exit.far,
        kind: if esr & esr::WNR != 0 { MemoryAccessKind::Write } else { MemoryAccessKind::Read },
        cause,
        length: if esr & esr::IL != 0 { 4 } else { 2 },
    };
    Ok(if esr & esr::S1PTW != 0 {
        let kind = if cause == Cause::Permission { MemoryAccessKind::Write } else { MemoryAccessKind::Read };
        DataAbort::PageWalk(Stage2Fault { address: Some(GuestAddress(exit.page())), kind, ..fault })
    } else if esr & esr::CM != 0 {
        DataAbort::CacheMaintenance(fault)
    } else if esr & (esr::ISV | esr::LST) != esr::ISV {
        DataAbort::Instruction(fault)
    } else {
        DataAbort::Transfer(Transfer {
            fault,
            size: match esr >> 22 & 0b11 {
                0 => Size::Byte,
                1 => Size::Word,
                2 => Size::Dword,
                _ => Size::Qword,
            },
            register: Register {
                number: (esr >> 16 & 0x1f) as u8,
                wide: esr & esr::SF != 0,
                sign_extended: esr & esr::SSE != 0,
            },
            ordered: esr & esr::AR != 0,
        })
    })
}
