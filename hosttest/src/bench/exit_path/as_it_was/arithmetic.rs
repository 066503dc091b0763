//! Results and flags.

use vm_device::exit::x86::{Rflags, Size};

use super::Operation;

/// The result of `operation` on the values of destination and source, both of `size`, and the new RFLAGS.
pub(super) fn compute(operation: Operation, destination: u64, source: u64, size: Size, rflags: u64) -> (u64, u64) {
    let carry = rflags & Rflags::CF.bits();
    let bit = 1 << (source & u64::from(size.bits() - 1));
    let (result, flags) = match operation {
        Operation::Move | Operation::Xchg => (source, Rflags::empty()),
        Operation::Add | Operation::Xadd | Operation::Inc => add(destination, source, 0, size),
        Operation::Adc => add(destination, source, carry, size),
        Operation::Sub | Operation::Cmp | Operation::Cmpxchg | Operation::Dec => subtract(destination, source, 0, size),
        Operation::Sbb => subtract(destination, source, carry, size),
        Operation::Neg => subtract(0, destination, 0, size),
        Operation::Not => (size.truncate(!destination), Rflags::empty()),
        Operation::And | Operation::Test => with_result(destination & source, size),
        Operation::Or => with_result(destination | source, size),
        Operation::Xor => with_result(destination ^ source, size),
        Operation::Bt => (destination, carry_if(destination & bit != 0)),
        Operation::Bts => (destination | bit, carry_if(destination & bit != 0)),
        Operation::Btr => (destination & !bit, carry_if(destination & bit != 0)),
        Operation::Btc => (destination ^ bit, carry_if(destination & bit != 0)),
    };
    let set = operation.flags();
    (result, rflags & !set.bits() | (flags & set).bits())
}

fn add(a: u64, b: u64, carry: u64, size: Size) -> (u64, Rflags) {
    let sum = size.truncate(a.wrapping_add(b).wrapping_add(carry));
    // In each bit: the carry out of it, and whether both operands have another sign than the sum.
    let carries = a & b | (a | b) & !sum;
    let overflows = (a ^ sum) & (b ^ sum);
    with_carries(sum, carries, overflows, a ^ b ^ sum, size)
}

fn subtract(a: u64, b: u64, borrow: u64, size: Size) -> (u64, Rflags) {
    let difference = size.truncate(a.wrapping_sub(b).wrapping_sub(borrow));
    let borrows = !a & b | (!a | b) & difference;
    let overflows = (a ^ b) & (a ^ difference);
    with_carries(difference, borrows, overflows, a ^ b ^ difference, size)
}

/// The flags of a sum or a difference. `carries_in` has, in each bit, the carry into it.
fn with_carries(value: u64, carries: u64, overflows: u64, carries_in: u64, size: Size) -> (u64, Rflags) {
    let (value, mut flags) = with_result(value, size);
    flags.set(Rflags::CF, carries & sign(size) != 0);
    flags.set(Rflags::OF, overflows & sign(size) != 0);
    flags.set(Rflags::AF, carries_in & 0x10 != 0);
    (value, flags)
}

/// The flags that depend on the result alone.
fn with_result(value: u64, size: Size) -> (u64, Rflags) {
    let mut flags = Rflags::empty();
    flags.set(Rflags::ZF, value == 0);
    flags.set(Rflags::SF, value & sign(size) != 0);
    flags.set(Rflags::PF, (value as u8).count_ones().is_multiple_of(2));
    (value, flags)
}

fn carry_if(set: bool) -> Rflags {
    if set { Rflags::CF } else { Rflags::empty() }
}

const fn sign(size: Size) -> u64 {
    1 << (size.bits() - 1)
}
