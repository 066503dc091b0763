//! Guests in real mode, in assembly. They are copied to 0x7c00, where a PC starts the first sector of a disk.

use core::arch::global_asm;

/// Declares a piece of 16-bit code as a `&'static [u8]`.
macro_rules! code {
    ($(#[$attribute:meta])* $name:ident, $first:ident, $end:ident, $($line:literal),* $(,)?) => {
        global_asm!(
            ".pushsection .rodata.real_mode, \"a\", @progbits",
            ".code16",
            concat!(".globl ", stringify!($first)),
            concat!(".hidden ", stringify!($first)),
            concat!(stringify!($first), ":"),
            $($line,)*
            concat!(".globl ", stringify!($end)),
            concat!(".hidden ", stringify!($end)),
            concat!(stringify!($end), ":"),
            ".code64",
            ".popsection",
        );

        $(#[$attribute])*
        pub fn $name() -> &'static [u8] {
            unsafe extern "C" {
                static $first: u8;
                static $end: u8;
            }
            let (first, end) = (&raw const $first, &raw const $end);
            // SAFETY: the two symbols enclose the bytes assembled above, which are read-only data.
            unsafe { core::slice::from_raw_parts(first, end as usize - first as usize) }
        }
    };
}

code! {
    /// The guest of the 2019 example: it writes the configuration address of the host bridge and reads it back, whole and
    /// in part, from both of the bridge's dwords and from over its end.
    config_address, hosttest_config_address, hosttest_config_address_end,
    "mov dx, 0xcf8",
    "mov eax, 0x80000800",
    "out dx, eax",
    "xor eax, eax",
    "in eax, dx",
    "mov ebx, 1",
    "cmp eax, 0x80000800",
    "jne 2f",
    // The dummy device answers from its register whatever the offset, as in the original design.
    "mov dx, 0xcfc",
    "in eax, dx",
    "mov ebx, 2",
    "cmp eax, 0x80000800",
    "jne 2f",
    "mov dx, 0xcf8",
    "in ax, dx",
    "mov ebx, 3",
    "cmp ax, 0x0800",
    "jne 2f",
    // A dword at the last three ports straddles the end of the device.
    "mov dx, 0xcfd",
    "in eax, dx",
    "mov ebx, 4",
    "cmp eax, 0xffffffff",
    "jne 2f",
    "xor ebx, ebx",
    "2:",
    "mov dx, 0x604",
    "out dx, eax",
    "mov dx, 0x600",
    "mov eax, ebx",
    "out dx, eax",
    "hlt",
}

code! {
    /// Fetches eight bytes with `rep insb`, and sends them back with `rep outsb`.
    strings, hosttest_strings, hosttest_strings_end,
    "cld",
    "mov dx, 0x500",
    "mov di, 0x9000",
    "mov cx, 8",
    "rep insb",
    "mov si, 0x9000",
    "mov cx, 8",
    "rep outsb",
    // 7 * 37 modulo 256 is the last byte of the stream.
    "movzx eax, byte ptr [0x9007]",
    "sub eax, 3",
    "mov dx, 0x600",
    "out dx, eax",
    "hlt",
}

code! {
    /// Never ends, and never exits: what a watchdog is for.
    spin, hosttest_spin, hosttest_spin_end,
    "2:",
    "jmp 2b",
}
