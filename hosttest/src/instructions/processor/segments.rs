//! Segments: those of the program, and those of 16- and 32-bit code from the local descriptor table.

use std::arch::asm;
use std::ffi::c_int;
use std::io;

use super::check;
use crate::instructions::memory::Bases;

/// CS and SS of this program.
pub(super) fn host_segments() -> (u64, u64) {
    let (cs, ss): (u64, u64);
    // SAFETY: two registers are read.
    unsafe {
        asm!("mov {0:e}, cs", "mov {1:e}, ss", out(reg) cs, out(reg) ss, options(nomem, nostack, preserves_flags))
    };
    (cs & 0xffff, ss & 0xffff)
}

/// Loads DS, ES and GS, which 64-bit code of this program does not use: glibc has its thread in FS.
pub(super) fn load_segments(selectors: Selectors) {
    let Selectors { ds, es, gs, .. } = selectors;
    // SAFETY: 0 can always be loaded, and the other values are descriptors of data segments that the kernel has taken.
    unsafe {
        asm!("mov ds, {0:e}", "mov es, {1:e}", "mov gs, {2:e}", in(reg) ds, in(reg) es, in(reg) gs,
            options(nostack, preserves_flags));
    }
}

/// The selectors of data segments.
#[derive(Clone, Copy)]
pub(super) struct Selectors {
    pub(super) ds: u64,
    pub(super) es: u64,
    pub(super) gs: u64,
    pub(super) ss: u64,
}

impl Selectors {
    const fn from(entry: u64) -> Self {
        Self { ds: selector(entry), es: selector(entry + 1), gs: selector(entry + 2), ss: selector(entry + 3) }
    }
}

pub(super) const CODE16: u64 = selector(0);
pub(super) const CODE32: u64 = selector(1);
pub(super) const NEAR: Selectors = Selectors::from(2);
pub(super) const FAR: Selectors = Selectors::from(6);

/// The selector of an entry of the local descriptor table, with the privilege of this program.
const fn selector(entry: u64) -> u64 {
    entry << 3 | 7
}

/// Gives the kernel the descriptors.
pub(super) fn load_table(data: u64) -> io::Result<()> {
    /// `struct user_desc` of Linux.
    #[repr(C)]
    struct Descriptor {
        entry: u32,
        base: u32,
        limit: u32,
        flags: u32,
    }
    const IS_32_BIT: u32 = 1 << 0;
    const CODE: u32 = 2 << 1;
    const LIMIT_IN_PAGES: u32 = 1 << 4;
    const USABLE: u32 = 1 << 6;
    const WRITE: c_int = 0x11;
    let data_segments = |Bases { ds, es, gs, ss, .. }| [ds, es, gs, ss].map(|base| (base, IS_32_BIT));
    let (near, far) = (Bases::near(data), Bases::far(data));
    let code = [(near.cs, CODE), (near.cs, CODE | IS_32_BIT)];
    let entries = code.into_iter().chain(data_segments(near)).chain(data_segments(far));
    for (entry, (base, flags)) in (0..).zip(entries) {
        let flags = flags | LIMIT_IN_PAGES | USABLE;
        let descriptor = Descriptor { entry, base: base as u32, limit: 0xf_ffff, flags };
        // SAFETY: the kernel reads a descriptor of this size, and changes an entry that this program does not use.
        let result = unsafe { libc::syscall(libc::SYS_modify_ldt, WRITE, &descriptor, size_of::<Descriptor>()) };
        // The kernel gives 32 bits of the result.
        check(result as c_int)?;
    }
    Ok(())
}
