//! The guest's interrupt controllers, as far as the guests here use them.

use super::{mmio, port};

/// Where the local APIC of a processor is (Intel SDM vol. 3A, 11.4.1).
const LOCAL_APIC: u64 = 0xfee0_0000;
/// Where the IOAPIC is (Intel 82093AA data sheet, 3.0).
const IOAPIC: u64 = 0xfec0_0000;

/// How an input of the IOAPIC is triggered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// By a rising edge.
    Edge,
    /// While it is high.
    Level,
}

/// Switches the local APIC on (Intel SDM vol. 3A, 11.9), and the two 8259s off, which get the first 16 GSIs as well.
pub fn enable() {
    const SPURIOUS_VECTOR: u64 = LOCAL_APIC + 0xf0;
    const APIC_ENABLED: u32 = 1 << 8;
    mmio::write(SPURIOUS_VECTOR, APIC_ENABLED | 0xffu32);
    port::write(PIC + 1, 0xffu8);
    port::write(SECOND_PIC + 1, 0xffu8);
}

/// In the IOAPIC's register of a line: it is triggered by level (Intel 82093AA data sheet, 3.2.4).
const TRIGGERED_BY_LEVEL: u32 = 1 << 15;
/// There: it is masked.
const MASKED: u32 = 1 << 16;

/// The IOAPIC's register of the lower half of what it has about a GSI; that of the upper half follows.
pub const fn redirection(gsi: u32) -> u32 {
    0x10 + 2 * gsi
}

/// The lower half for a line that is triggered by level, and masked.
pub const fn masked(vector: u8) -> u32 {
    MASKED | TRIGGERED_BY_LEVEL | vector as u32
}

/// Lets the IOAPIC deliver a GSI to processor 0 as `vector` (Intel 82093AA data sheet, 3.2.4).
pub fn route(gsi: u32, vector: u8, trigger: Trigger) {
    let low = u32::from(vector) | if trigger == Trigger::Level { TRIGGERED_BY_LEVEL } else { 0 };
    write_ioapic(redirection(gsi) + 1, 0);
    write_ioapic(redirection(gsi), low);
}

/// Masks a GSI that is triggered by level.
pub fn mask(gsi: u32, vector: u8) {
    write_ioapic(redirection(gsi), masked(vector));
}

/// Reads a register of the IOAPIC.
pub fn read_ioapic(register: u32) -> u32 {
    mmio::write(IOAPIC, register);
    mmio::read(IOAPIC + 0x10)
}

/// Writes a register of the IOAPIC.
pub fn write_ioapic(register: u32, value: u32) {
    mmio::write(IOAPIC, register);
    mmio::write(IOAPIC + 0x10, value);
}

/// The ports of the two 8259As (Intel 8259A data sheet, 231468, and Intel 82371FB data sheet, 290550).
const PIC: u16 = 0x20;
const SECOND_PIC: u16 = 0xa0;
const TRIGGERS: u16 = 0x4d0;

/// Initialises the two 8259As: line 0 interrupts with the vector `base`, line 8 with `base + 8`, and so on. All are masked, and
/// triggered by edges.
pub fn initialise_pics(base: u8) {
    const INITIALISE: u8 = 0x11;
    const X86: u8 = 0x01;
    for (port, vector, cascade) in [(PIC, base, 4u8), (SECOND_PIC, base.wrapping_add(8), 2)] {
        port::write(port, INITIALISE);
        port::write(port + 1, vector);
        port::write(port + 1, cascade);
        port::write(port + 1, X86);
        port::write(port + 1, 0xffu8);
    }
    port::write(TRIGGERS, 0u16);
}

/// Masks all lines of the 8259As but those whose bits are set, those of the second one first. The line of the second one is not
/// masked.
pub fn unmask_pics(lines: u16) {
    const CASCADE: u16 = 1 << 2;
    let [first, second] = (!(lines | CASCADE)).to_le_bytes();
    port::write(SECOND_PIC + 1, second);
    port::write(PIC + 1, first);
}

/// Lets the lines whose bits are set be triggered by level.
pub fn trigger_pics_by_level(lines: u16) {
    port::write(TRIGGERS, lines);
}

/// An interrupt handler as that of [`interrupt_handler`](crate::interrupt_handler), for an interrupt of an 8259A, which it ends.
#[macro_export]
macro_rules! pic_interrupt_handler {
    ($(#[$attribute:meta])* $name:ident: $($instruction:literal),* ; $($operand:ident = const $value:expr),*) => {
        // The end of the second one's is nothing if it serves none.
        $crate::interrupt_handler! {
            $(#[$attribute])*
            $name ends by "mov al, 0x20", "out 0xa0, al", "out 0x20, al":
            $($instruction),* ; $($operand = const $value),*
        }
    };
}

/// Waits until the word at `address` is at least `count`, which an interrupt handler counts up. False if it takes too long.
pub fn wait_for(address: u64, count: u64) -> bool {
    for _ in 0..10_000_000 {
        if mmio::read::<u64>(address) >= count {
            return true;
        }
    }
    false
}

/// An interrupt handler: executes the given instructions, which may use `rax` and `rdx`, and ends the interrupt (Intel SDM
/// vol. 3A, 11.8.5).
///
/// It runs in ring 0, where not every KVM can run what the compiler emits, so it is assembly. It must not rely on the local
/// APIC to hold back the next interrupt until the end of this one: there are KVMs whose local APIC ends an interrupt when it
/// delivers it. A level-triggered line that is still asserted then interrupts once more.
#[macro_export]
macro_rules! interrupt_handler {
    ($(#[$attribute:meta])* $name:ident: $($instruction:literal),* ; $($operand:ident = const $value:expr),*) => {
        $crate::interrupt_handler! {
            $(#[$attribute])*
            $name ends by "mov eax, 0xfee000b0", "mov dword ptr [rax], 0":
            $($instruction),* ; $($operand = const $value),*
        }
    };
    (
        $(#[$attribute:meta])* $name:ident ends by $($end:literal),*:
        $($instruction:literal),* ; $($operand:ident = const $value:expr),*
    ) => {
        $(#[$attribute])*
        #[unsafe(naked)]
        extern "C" fn $name() {
            core::arch::naked_asm!(
                "push rax",
                "push rdx",
                $($instruction,)*
                $($end,)*
                "pop rdx",
                "pop rax",
                "iretq",
                $($operand = const $value,)*
            )
        }
    };
}
