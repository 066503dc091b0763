//! A guest in ring 0 of long mode. It is assembly, since not every KVM can run what the compiler emits there.

use core::arch::naked_asm;

use crate::devices::verdict::VERDICT_PORT;

/// Adds up what it reads from a port and from memory, in the widths they have, and compares with what it wrote. Its argument
/// is the address of eight bytes of MMIO; the four ports start at `PORT`.
#[unsafe(naked)]
pub extern "C" fn port_and_memory<const PORT: u16>(memory: u64) {
    naked_asm!(
        "mov dx, {port}",
        "mov eax, 0x44332211",
        "out dx, eax",
        "in al, dx",
        "movzx ebx, al",
        "mov rax, 0x1122334455667788",
        "mov [rdi], rax",
        "add ebx, [rdi + 4]",
        // 0x11 and 0x11223344.
        "sub ebx, 0x11223355",
        // Check 1 is the sum, check 2 or more the ring.
        "setnz cl",
        "movzx ecx, cl",
        // Ring 3 may not read CR0, and the low bits of CS are the ring.
        "mov rax, cr0",
        "mov eax, cs",
        "and eax, 3",
        "lea eax, [rcx + 2 * rax]",
        "mov dx, {verdict}",
        "out dx, eax",
        "2: jmp 2b",
        port = const PORT,
        verdict = const VERDICT_PORT,
    )
}
