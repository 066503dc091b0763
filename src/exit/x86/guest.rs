//! What x86 needs of the guest beside its memory: segments and ports.

use super::mode::{AddressSize, Mode, Segment};
use crate::exit::guest::Guest;
use crate::exit::memory::MemoryAccessKind;
use crate::exit::size::Size;

/// What the embedder knows of a guest on x86.
pub trait X86Guest: Guest {
    /// The linear address of `offset` into `segment`, where an operand of `length` bytes begins: the base of the segment plus
    /// the offset, cut to 32 bits outside 64-bit mode. In 64-bit mode only FS and GS have a base.
    ///
    /// # Errors
    /// The exception that the guest gets where the segment's limit or rights, or an address that is not canonical, forbid the
    /// access. An embedder that checks none of them lets a guest reach only what its page tables let it reach. A fault of
    /// several elements of a string at once is not reported: they are asked for one by one then.
    fn linear(
        &mut self,
        segment: Segment,
        offset: u64,
        length: usize,
        kind: MemoryAccessKind,
    ) -> Result<u64, Self::Fault>;

    /// How much of RSP the stack uses outside 64-bit mode: SS.B, the attribute D/B of the stack segment (Intel SDM vol. 3A,
    /// 3.4.5). PUSH and POP ask for it.
    ///
    /// Where it is not told, it is that of the code: in real mode and with flat segments they are the same.
    fn stack_address_size(&mut self, mode: Mode) -> AddressSize {
        mode.address_size()
    }

    /// Reads elements of `size` from a port: one for `IN`, several for a burst of `REP INS`.
    ///
    /// # Errors
    /// The reason to stop the guest.
    fn input(&mut self, port: u16, size: Size, data: &mut [u8]) -> Result<(), Self::Fault>;

    /// Writes elements of `size` to a port: one for `OUT`, several for a burst of `REP OUTS`.
    ///
    /// # Errors
    /// The reason to stop the guest.
    fn output(&mut self, port: u16, size: Size, data: &[u8]) -> Result<(), Self::Fault>;

    /// Whether a string is to stop between two of its elements, because an interrupt is to be delivered. The guest comes back
    /// for the rest.
    fn is_interrupted(&mut self) -> bool {
        false
    }
}
