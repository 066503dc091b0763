//! The path of a guest-page fault on RISC-V: with `htinst`, and by the instruction.

use std::hint::black_box;

use vm_device::exit::MemoryAccessKind;
use vm_device::exit::riscv64::instruction::{Instruction, decode};
use vm_device::exit::riscv64::{GuestPageFault, Mode, Registers, guest_page_fault};
use vm_device::{Accesses, Dispatcher, IoType};

use super::guest::{Constant, Flat, asymmetric, dispatcher, touch};
use super::other_decoders::{self, RAKI};
use super::step::{Step, Way};
use super::{DECODE, DISPATCH, EXECUTE, LOOP, NUMBERS, OWN, OWN_AGAIN, OWN_ASYMMETRIC, OWN_BY_GUEST, TOGETHER};

pub(super) const TRANSFORMED: &str = "riscv64 mmio, htinst";
pub(super) const WITHOUT: &str = "riscv64 mmio, no htinst";

/// A load of x10 or a store of x12 at x11.
struct Sample {
    /// 21 for a load, 23 for a store.
    scause: u64,
    /// The transformed instruction, or 0.
    htinst: u64,
    /// As many bytes as are fetched.
    bytes: [u8; 4],
    /// What the instruction adds to x11.
    offset: u64,
    writes: bool,
    size: usize,
}

const BASE: u8 = 11;
const OFFSET: u32 = 8;

/// `lw`, `sw`, `lbu`, `sb`, `lhu`, `sh`, `ld`, `sd`, with what `htinst` says of them or without.
fn plain(tells: bool) -> impl Iterator<Item = Sample> {
    const LOAD: u32 = 0x03;
    const STORE: u32 = 0x23;
    // What both kinds have at bits 14:12, and the size in bytes.
    let loads = [(2, 4), (4, 1), (5, 2), (3, 8)].map(|(width, size)| {
        let transformed = width << 12 | 10 << 7 | LOAD;
        (21, transformed, transformed | OFFSET << 20 | u32::from(BASE) << 15, false, size)
    });
    let stores = [(2, 4), (0, 1), (1, 2), (3, 8)].map(|(width, size)| {
        let transformed = 12 << 20 | width << 12 | STORE;
        (23, transformed, transformed | OFFSET << 7 | u32::from(BASE) << 15, true, size)
    });
    loads.into_iter().chain(stores).map(move |(scause, transformed, word, writes, size)| Sample {
        scause,
        htinst: if tells { transformed.into() } else { 0 },
        bytes: word.to_le_bytes(),
        offset: OFFSET.into(),
        writes,
        size,
    })
}

/// Those that `htinst` describes.
fn transformed() -> &'static [Sample] {
    Vec::leak(plain(true).collect())
}

/// Those that it does not describe, and two compressed ones.
fn unknown() -> &'static [Sample] {
    let compressed = |scause, [low, high]: [u8; 2], writes| {
        // c.nop follows.
        Sample { scause, htinst: 0, bytes: [low, high, 1, 0], offset: 0, writes, size: 4 }
    };
    // c.lw a0, 0(a1) and c.sw a0, 0(a1)
    let compressed = [compressed(21, [0x88, 0x41], false), compressed(23, [0x88, 0xc1], true)];
    Vec::leak(plain(false).chain(compressed).collect())
}

/// What the processor says of an access to `address`, which the guest's page tables map to itself.
#[inline(always)]
fn fault(sample: &Sample, address: u64) -> Option<GuestPageFault> {
    guest_page_fault(sample.scause, address, address >> 2, sample.htinst).ok()
}

/// A virtual processor that is at one of the instructions.
struct Vcpu {
    registers: Registers,
    mode: Mode,
}

impl Vcpu {
    fn new() -> Self {
        let registers = Registers { pc: 0x8020_0000, ..Registers::default() };
        Self { registers, mode: black_box(Mode::default()) }
    }

    /// The registers with which the instruction accesses `address`.
    #[inline(always)]
    fn exits_at(&mut self, sample: &Sample, address: u64) {
        self.registers.set(BASE, address.wrapping_sub(sample.offset));
    }

    /// What an exit leaves behind.
    #[inline(always)]
    fn outcome(&self, executed: bool) -> u64 {
        black_box(&self.registers).pc ^ u64::from(executed)
    }
}

/// The instruction of a fault.
#[inline(always)]
fn instruction(sample: &Sample, fault: &GuestPageFault) -> Option<Instruction> {
    match fault.instruction() {
        Ok(Some(instruction)) => Some(instruction),
        Ok(None) => decode(&sample.bytes).ok(),
        Err(_) => None,
    }
}

pub(super) fn steps() -> Vec<Step> {
    let paths = [(TRANSFORMED, transformed()), (WITHOUT, unknown())];
    let steps = paths.map(|(path, samples)| {
        let step = |name, ways| Step { name, path, io_type: IoType::Mmio, samples: samples.len(), ways };
        [
            step(NUMBERS, numbers(samples)),
            step(DECODE, decoders(samples)),
            step(DISPATCH, dispatches(samples)),
            step(EXECUTE, executions(samples)),
            step(TOGETHER, whole_paths(samples)),
        ]
    });
    steps.into_iter().flatten().collect()
}

fn loop_alone(samples: &'static [Sample]) -> Way {
    let mut vcpu = Vcpu::new();
    Way::new(LOOP, samples, move |sample, address| {
        vcpu.exits_at(sample, address);
        vcpu.outcome(true)
    })
}

fn numbers(samples: &'static [Sample]) -> Vec<Way> {
    let own = Way::new(OWN, samples, |sample, address| match &fault(sample, address) {
        Some(fault) => black_box(fault).virtual_address,
        None => 0,
    });
    vec![own, loop_alone(samples)]
}

fn decoders(samples: &'static [Sample]) -> Vec<Way> {
    let known = known(samples);
    let own = Way::new(OWN, known, |Known { sample, fault, .. }, _| match &instruction(sample, fault) {
        Some(instruction) => black_box(instruction).length() as u64,
        None => 0,
    });
    let peer = Way::new(RAKI, samples, |sample, _| other_decoders::raki(sample.bytes));
    vec![own, peer, loop_alone(samples)]
}

/// The accesses of the instructions, by one who knows them.
fn dispatches(samples: &'static [Sample]) -> Vec<Way> {
    let own = |name, mut devices: Dispatcher<'static>| {
        Way::new(name, samples, move |sample: &Sample, address| {
            touch(&mut devices, address, sample.size, !sample.writes, sample.writes)
        })
    };
    vec![own(OWN, dispatcher(IoType::Mmio)), own(OWN_ASYMMETRIC, asymmetric(IoType::Mmio)), loop_alone(samples)]
}

/// Makes the access and completes it, as an embedder does that has no memory behind its exits.
#[inline(always)]
fn execute_by_hand(
    instruction: &Instruction,
    fault: &GuestPageFault,
    vcpu: &mut Vcpu,
    devices: &mut impl Accesses,
) -> bool {
    let Some(address) = fault.address else { return false };
    let mut data = instruction.output(&vcpu.registers, vcpu.mode).to_le_bytes();
    let _ = match fault.kind {
        MemoryAccessKind::Write => devices.write(address, instruction.size().of(&mut data), IoType::Mmio),
        _ => devices.read(address, instruction.size().of(&mut data), IoType::Mmio),
    };
    instruction.complete(&mut vcpu.registers, vcpu.mode, u64::from_le_bytes(data));
    true
}

/// An exit that is known already, and its instruction.
struct Known {
    sample: &'static Sample,
    fault: GuestPageFault,
    instruction: Instruction,
}

fn known(samples: &'static [Sample]) -> &'static [Known] {
    let known = samples.iter().map(|sample| {
        let fault = fault(sample, 0xe000_0000).expect("the faults are known");
        let instruction = instruction(sample, &fault).expect("the instructions are known");
        Known { sample, fault, instruction }
    });
    Vec::leak(known.collect())
}

/// What is left when the exit is known and the instruction is decoded, with an answer that takes no time.
fn executions(samples: &'static [Sample]) -> Vec<Way> {
    let known = known(samples);
    let (mut by_hand, mut answers) = (Vcpu::new(), Constant::new());
    let (mut by_guest, mut guest) = (Vcpu::new(), Flat(Constant::new()));
    vec![
        Way::new(OWN, known, move |Known { sample, fault, instruction }, address| {
            by_hand.exits_at(sample, address);
            let executed = execute_by_hand(instruction, fault, &mut by_hand, &mut answers);
            by_hand.outcome(executed)
        }),
        Way::new(OWN_BY_GUEST, known, move |Known { sample, fault, instruction }, address| {
            by_guest.exits_at(sample, address);
            let executed = instruction.execute(&mut by_guest.registers, by_guest.mode, fault, &mut guest);
            by_guest.outcome(executed.is_ok())
        }),
        loop_alone(samples),
    ]
}

fn whole_paths(samples: &'static [Sample]) -> Vec<Way> {
    let by_hand = |name, mut devices: Dispatcher<'static>| {
        let mut vcpu = Vcpu::new();
        Way::new(name, samples, move |sample: &Sample, address| {
            vcpu.exits_at(sample, address);
            let executed = fault(sample, address).is_some_and(|fault| {
                instruction(sample, &fault)
                    .is_some_and(|instruction| execute_by_hand(&instruction, &fault, &mut vcpu, &mut devices))
            });
            vcpu.outcome(executed)
        })
    };
    let (mut vcpu, mut guest) = (Vcpu::new(), Flat(dispatcher(IoType::Mmio)));
    let by_guest = Way::new(OWN_BY_GUEST, samples, move |sample, address| {
        vcpu.exits_at(sample, address);
        let executed = fault(sample, address).is_some_and(|fault| {
            instruction(sample, &fault).is_some_and(|instruction| {
                instruction.execute(&mut vcpu.registers, vcpu.mode, &fault, &mut guest).is_ok()
            })
        });
        vcpu.outcome(executed)
    });
    vec![
        by_hand(OWN, dispatcher(IoType::Mmio)),
        by_hand(OWN_AGAIN, dispatcher(IoType::Mmio)),
        by_hand(OWN_ASYMMETRIC, asymmetric(IoType::Mmio)),
        by_guest,
        loop_alone(samples),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_execute_leave_the_same_where_the_exit_says() {
        for sample in [transformed(), unknown()].into_iter().flatten() {
            let mut by_hand = Vcpu::new();
            by_hand.exits_at(sample, 0xe000_0008);
            let fault = fault(sample, 0xe000_0008).unwrap();
            let instruction = instruction(sample, &fault).unwrap();
            assert_eq!(instruction.address(&by_hand.registers, &fault), 0xe000_0008, "{instruction:?}");
            assert_eq!((instruction.size().bytes(), other_decoders::raki(sample.bytes)), (sample.size, 1));
            let mut by_guest = Vcpu { registers: by_hand.registers, ..by_hand };
            let (mut answers, mut guest) = (Constant::new(), Flat(Constant::new()));
            assert!(execute_by_hand(&instruction, &fault, &mut by_hand, &mut answers));
            instruction.execute(&mut by_guest.registers, by_guest.mode, &fault, &mut guest).unwrap();
            assert_eq!((by_hand.registers, answers.value()), (by_guest.registers, guest.0.value()));
        }
    }
}
