//! Accesses to memory, each exactly one instruction, aligned or not.

use core::arch::asm;

/// A width of an access to memory.
pub trait Width: Copy {
    /// Reads memory.
    fn read(address: u64) -> Self;
    /// Writes memory.
    fn write(address: u64, value: Self);
    /// `OR`: a read and a write.
    fn or(address: u64, value: Self);
    /// `LOCK XADD`: a read and a write, which returns what was there.
    fn add(address: u64, value: Self) -> Self;
    /// `XCHG`: a read and a write, which returns what was there.
    fn exchange(address: u64, value: Self) -> Self;
}

macro_rules! width {
    ($type:ty, $class:ident, $modifier:literal) => {
        impl Width for $type {
            #[inline(always)]
            fn read(address: u64) -> Self {
                let value;
                // SAFETY: a guest reads nothing but its devices and the memory that is set aside for it.
                unsafe {
                    asm!(concat!("mov {value", $modifier, "}, [{address}]"), value = out($class) value,
                        address = in(reg) address, options(nostack, preserves_flags, readonly));
                }
                value
            }

            #[inline(always)]
            fn write(address: u64, value: Self) {
                // SAFETY: a guest writes nothing but its devices and the memory that is set aside for it.
                unsafe {
                    asm!(concat!("mov [{address}], {value", $modifier, "}"), value = in($class) value,
                        address = in(reg) address, options(nostack, preserves_flags));
                }
            }

            #[inline(always)]
            fn or(address: u64, value: Self) {
                // SAFETY: as for `write`.
                unsafe {
                    asm!(concat!("or [{address}], {value", $modifier, "}"), value = in($class) value,
                        address = in(reg) address, options(nostack));
                }
            }

            #[inline(always)]
            fn add(address: u64, value: Self) -> Self {
                let before;
                // SAFETY: as for `write`.
                unsafe {
                    asm!(concat!("lock xadd [{address}], {value", $modifier, "}"), value = inout($class) value => before,
                        address = in(reg) address, options(nostack));
                }
                before
            }

            #[inline(always)]
            fn exchange(address: u64, value: Self) -> Self {
                let before;
                // SAFETY: as for `write`.
                unsafe {
                    asm!(concat!("xchg [{address}], {value", $modifier, "}"), value = inout($class) value => before,
                        address = in(reg) address, options(nostack, preserves_flags));
                }
                before
            }
        }
    };
}

width!(u8, reg_byte, "");
width!(u16, reg, ":x");
width!(u32, reg, ":e");
width!(u64, reg, ":r");

/// Reads memory.
#[inline(always)]
pub fn read<T: Width>(address: u64) -> T {
    T::read(address)
}

/// Writes memory.
#[inline(always)]
pub fn write<T: Width>(address: u64, value: T) {
    T::write(address, value);
}
