//! The virtual-machine control structure: its fields (Intel SDM vol. 3D, appendix B) and the instructions that reach them.
//!
//! The functions take the current VMCS of the processor: there is one, which [`Vcpu::enable`](super::vcpu::Vcpu::enable) makes
//! current.

use core::arch::asm;

use vm_device::exit::x86;

/// A field, by its encoding.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Field {
    HostEs = 0xc00,
    HostCs = 0xc02,
    HostSs = 0xc04,
    HostDs = 0xc06,
    HostTr = 0xc0c,
    EptPointer = 0x201a,
    GuestPhysicalAddress = 0x2400,
    LinkPointer = 0x2800,
    GuestPat = 0x2804,
    GuestEfer = 0x2806,
    HostPat = 0x2c00,
    HostEfer = 0x2c02,
    PinControls = 0x4000,
    PrimaryControls = 0x4002,
    ExceptionBitmap = 0x4004,
    ExitControls = 0x400c,
    EntryControls = 0x4012,
    EntryInterruption = 0x4016,
    EntryErrorCode = 0x4018,
    SecondaryControls = 0x401e,
    InstructionError = 0x4400,
    ExitReason = 0x4402,
    ExitInterruption = 0x4404,
    IdtVectoring = 0x4408,
    InstructionLength = 0x440c,
    InstructionInformation = 0x440e,
    GdtrLimit = 0x4810,
    IdtrLimit = 0x4812,
    Interruptibility = 0x4824,
    SysenterCs = 0x482a,
    Cr0Mask = 0x6000,
    Cr4Mask = 0x6002,
    Cr0Shadow = 0x6004,
    Cr4Shadow = 0x6006,
    Qualification = 0x6400,
    LinearAddress = 0x640a,
    Cr0 = 0x6800,
    Cr3 = 0x6802,
    Cr4 = 0x6804,
    FsBase = 0x680e,
    GsBase = 0x6810,
    GdtrBase = 0x6816,
    IdtrBase = 0x6818,
    Dr7 = 0x681a,
    Rsp = 0x681c,
    Rip = 0x681e,
    Rflags = 0x6820,
    SysenterEsp = 0x6824,
    SysenterEip = 0x6826,
    HostCr0 = 0x6c00,
    HostCr3 = 0x6c02,
    HostCr4 = 0x6c04,
    HostGdtr = 0x6c0c,
    HostIdtr = 0x6c0e,
}

/// The host's stack and instruction pointer at the next exit, which the code that enters the guest writes.
pub const HOST_RSP: u32 = 0x6c14;
pub const HOST_RIP: u32 = 0x6c16;

/// Of an event that the guest exited for, or takes at its entry: it is an exception (table 25-17).
pub const INTERRUPTION_EXCEPTION: u64 = 3 << 8;

/// What a field holds. 0 if the processor has no such field.
pub fn read(field: Field) -> u64 {
    read_encoded(field as u32)
}

/// Sets a field.
pub fn write(field: Field, value: u64) {
    write_encoded(field as u32, value);
}

/// Sets the fields to 0 that nothing here uses: counts of lists, the host's other segments, tables and MSRs, and events that would
/// wait for the guest. A VMCS that was never used has no defined values (Intel SDM vol. 3C, 25.11.3).
pub fn clear() {
    const UNUSED: [u32; 23] = [
        0xc08, 0xc0a, 0x2802, 0x4006, 0x4008, 0x400a, 0x400e, 0x4010, 0x4014, 0x4016, 0x401a, 0x4824, 0x4826, 0x482a,
        0x4c00, 0x6822, 0x6824, 0x6826, 0x6c06, 0x6c08, 0x6c0a, 0x6c10, 0x6c12,
    ];
    for field in UNUSED {
        write_encoded(field, 0);
    }
}

fn read_encoded(field: u32) -> u64 {
    let mut value = 0u64;
    // SAFETY: VMX is on and a VMCS is current before anything is read of it; the instruction changes no memory.
    unsafe { asm!("vmread {}, {}", inout(reg) value, in(reg) u64::from(field), options(nomem, nostack)) };
    value
}

fn write_encoded(field: u32, value: u64) {
    // SAFETY: as in `read_encoded`. What the VMCS says of memory is written by `enable` alone.
    unsafe { asm!("vmwrite {}, {}", in(reg) u64::from(field), in(reg) value, options(nostack)) };
}

/// A segment register of the guest.
#[derive(Clone, Copy)]
pub enum Segment {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
    Ldtr,
    Tr,
}

impl From<x86::Segment> for Segment {
    fn from(segment: x86::Segment) -> Self {
        match segment {
            x86::Segment::Es => Segment::Es,
            x86::Segment::Cs => Segment::Cs,
            x86::Segment::Ss => Segment::Ss,
            x86::Segment::Ds => Segment::Ds,
            x86::Segment::Fs => Segment::Fs,
            x86::Segment::Gs => Segment::Gs,
        }
    }
}

/// What a segment register holds: the selector, the base, the limit, and the access rights, which are bits 55:52 and 47:40 of the
/// descriptor, at 15:12 and 7:0 (Intel SDM vol. 3C, 25.4.1).
#[derive(Clone, Copy)]
pub struct Contents {
    pub selector: u16,
    pub base: u64,
    pub limit: u32,
    pub rights: u32,
}

impl Contents {
    /// 64 KiB from 0, with these access rights.
    pub const fn of_64_kib(rights: u32) -> Self {
        Self { selector: 0, base: 0, limit: 0xffff, rights }
    }
}

/// How far the fields of two segments are apart.
const NEXT_SEGMENT: u32 = 2;
const SELECTOR: u32 = 0x800;
const LIMIT: u32 = 0x4800;
const RIGHTS: u32 = 0x4814;
const BASE: u32 = 0x6806;

/// Sets a segment register.
pub fn set_segment(segment: Segment, contents: Contents) {
    let at = segment as u32 * NEXT_SEGMENT;
    write_encoded(SELECTOR + at, contents.selector.into());
    write_encoded(BASE + at, contents.base);
    write_encoded(LIMIT + at, contents.limit.into());
    write_encoded(RIGHTS + at, contents.rights.into());
}

/// The base of a segment.
pub fn base(segment: Segment) -> u64 {
    read_encoded(BASE + segment as u32 * NEXT_SEGMENT)
}

/// The access rights of a segment.
pub fn rights(segment: Segment) -> u64 {
    read_encoded(RIGHTS + segment as u32 * NEXT_SEGMENT)
}
