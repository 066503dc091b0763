//! Other decoders, as a hypervisor would use them.

use std::hint::black_box;

use iced_x86::{DecoderOptions, OpKind};
use raki::{Decode, Isa};
use vm_device::exit::x86::Registers;
use yaxpeax_arch::{Decoder, LengthedInstruction, U8Reader};
use yaxpeax_arm::armv8::a64;
use yaxpeax_x86::long_mode;

pub(super) const YAXPEAX: &str = "yaxpeax-x86 2.2";
pub(super) const YAXPEAX_ARM: &str = "yaxpeax-arm 0.5";
pub(super) const RAKI: &str = "raki 1.3";
pub(super) const ICED: &str = "iced-x86 1.22";
pub(super) const ICED_WITH_ADDRESS: &str = "iced-x86 1.22, with the address";

/// The length of the instruction.
pub(super) fn yaxpeax(bytes: &[u8]) -> u64 {
    let instruction = long_mode::InstDecoder::default().decode_slice(bytes);
    black_box(&instruction);
    instruction.map_or(0, |instruction| instruction.len().to_const())
}

/// The length of the instruction.
pub(super) fn iced(bytes: &[u8], rip: u64) -> u64 {
    let mut instruction = iced_x86::Instruction::default();
    iced_x86::Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE).decode_out(&mut instruction);
    black_box(&instruction);
    instruction.len() as u64
}

/// The address of the memory operand.
pub(super) fn iced_with_address(bytes: &[u8], registers: &Registers) -> u64 {
    let mut instruction = iced_x86::Instruction::default();
    iced_x86::Decoder::with_ip(64, bytes, registers.rip, DecoderOptions::NONE).decode_out(&mut instruction);
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

/// Whether it is an instruction.
pub(super) fn yaxpeax_arm(word: u32) -> u64 {
    let instruction = a64::InstDecoder::default().decode(&mut U8Reader::new(&word.to_le_bytes()));
    black_box(&instruction).is_ok().into()
}

/// Whether it is an instruction.
pub(super) fn raki(bytes: [u8; 4]) -> u64 {
    let [low, high, ..] = bytes;
    let instruction = match low & 3 {
        3 => u32::from_le_bytes(bytes).decode(Isa::Rv64),
        _ => u16::from_le_bytes([low, high]).decode(Isa::Rv64),
    };
    black_box(&instruction).is_ok().into()
}
