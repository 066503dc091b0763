//! The port I/O instructions (Intel SDM vol. 2: IN, OUT, INS, OUTS).

use core::arch::asm;

/// A width of port I/O.
pub trait Width: Copy {
    /// Reads a port.
    fn read(port: u16) -> Self;
    /// Writes a port.
    fn write(port: u16, value: Self);
    /// `REP INS`: fills `count` elements from `first` on, or from `first` down.
    ///
    /// # Safety
    /// The memory is there, and nothing borrows it.
    unsafe fn read_string(port: u16, first: *mut Self, count: usize, order: Order);
    /// `REP OUTS`, in the same way.
    ///
    /// # Safety
    /// The memory is there.
    unsafe fn write_string(port: u16, first: *const Self, count: usize, order: Order);
}

/// In which direction a string instruction goes through memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// To higher addresses.
    Forwards,
    /// To lower addresses.
    Backwards,
}

macro_rules! width {
    ($type:ty, $register:tt, $in:literal, $out:literal, $ins:literal, $outs:literal) => {
        impl Width for $type {
            #[inline(always)]
            fn read(port: u16) -> Self {
                let value;
                // SAFETY: port I/O reaches the devices of the guest, and no memory.
                unsafe { asm!($in, out($register) value, in("dx") port, options(nomem, nostack, preserves_flags)) };
                value
            }

            #[inline(always)]
            fn write(port: u16, value: Self) {
                // SAFETY: as above. A device may change the guest's memory in return, so not `nomem`.
                unsafe { asm!($out, in("dx") port, in($register) value, options(nostack, preserves_flags)) };
            }

            #[inline(always)]
            unsafe fn read_string(port: u16, first: *mut Self, count: usize, order: Order) {
                // SAFETY: the caller's promise; the direction flag is clear again at the end.
                unsafe {
                    match order {
                        Order::Forwards => asm!(concat!("rep ", $ins), in("dx") port, inout("rdi") first => _,
                            inout("rcx") count => _, options(nostack, preserves_flags)),
                        Order::Backwards => asm!("std", concat!("rep ", $ins), "cld", in("dx") port,
                            inout("rdi") first => _, inout("rcx") count => _, options(nostack)),
                    }
                }
            }

            #[inline(always)]
            unsafe fn write_string(port: u16, first: *const Self, count: usize, order: Order) {
                // SAFETY: the caller's promise; the direction flag is clear again at the end.
                unsafe {
                    match order {
                        Order::Forwards => asm!(concat!("rep ", $outs), in("dx") port, inout("rsi") first => _,
                            inout("rcx") count => _, options(nostack, preserves_flags)),
                        Order::Backwards => asm!("std", concat!("rep ", $outs), "cld", in("dx") port,
                            inout("rsi") first => _, inout("rcx") count => _, options(nostack)),
                    }
                }
            }
        }
    };
}

width!(u8, "al", "in al, dx", "out dx, al", "insb", "outsb");
width!(u16, "ax", "in ax, dx", "out dx, ax", "insw", "outsw");
width!(u32, "eax", "in eax, dx", "out dx, eax", "insd", "outsd");

/// Reads a port.
#[inline(always)]
pub fn read<T: Width>(port: u16) -> T {
    T::read(port)
}

/// Writes a port.
#[inline(always)]
pub fn write<T: Width>(port: u16, value: T) {
    T::write(port, value);
}
