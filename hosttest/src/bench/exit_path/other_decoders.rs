//! Other decoders of x86, as a hypervisor would use them.

use std::hint::black_box;

use iced_x86::{Decoder, DecoderOptions, OpKind};
use vm_device::exit::x86::Registers;
use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::long_mode::InstDecoder;

pub(super) const YAXPEAX: &str = "yaxpeax-x86 2.2";
pub(super) const ICED: &str = "iced-x86 1.22";
pub(super) const ICED_WITH_ADDRESS: &str = "iced-x86 1.22, with the address";

/// The length of the instruction.
pub(super) fn yaxpeax(bytes: &[u8]) -> u64 {
    let instruction = InstDecoder::default().decode_slice(bytes);
    black_box(&instruction);
    instruction.map_or(0, |instruction| instruction.len().to_const())
}

/// The length of the instruction.
pub(super) fn iced(bytes: &[u8], rip: u64) -> u64 {
    let mut instruction = iced_x86::Instruction::default();
    Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE).decode_out(&mut instruction);
    black_box(&instruction);
    instruction.len() as u64
}

/// The address of the memory operand.
pub(super) fn iced_with_address(bytes: &[u8], registers: &Registers) -> u64 {
    let mut instruction = iced_x86::Instruction::default();
    Decoder::with_ip(64, bytes, registers.rip, DecoderOptions::NONE).decode_out(&mut instruction);
    black_box(&instruction);
    let operand = (0..instruction.op_count()).find(|operand| instruction.op_kind(*operand) == OpKind::Memory);
    let address = operand.and_then(|operand| {
        instruction.virtual_address(operand, 0, |register, _, _| {
            if register.is_segment_register() {
                return Some(0);
            }
            registers.gpr.get(register.number()).copied()
        })
    });
    address.unwrap_or_default()
}
