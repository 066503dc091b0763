//! The path of a data abort on Arm: with a valid syndrome, and by the instruction.

use std::hint::black_box;

use vm_device::exit::arm64::instruction::{Instruction, decode};
use vm_device::exit::arm64::{DataAbort, Exit, Fault, Registers, State, Transfer, data_abort};
use vm_device::{Accesses, Dispatcher, IoType};

use super::guest::{Constant, Flat, asymmetric, dispatcher, touch};
use super::other_decoders::{self, YAXPEAX_ARM};
use super::step::{Step, Way};
use super::{DECODE, DISPATCH, EXECUTE, LOOP, NUMBERS, OWN, OWN_AGAIN, OWN_ASYMMETRIC, OWN_BY_GUEST, TOGETHER};
use crate::bench::subject::leaked;

pub(super) const WITH_SYNDROME: &str = "arm64 mmio, valid syndrome";
pub(super) const WITHOUT: &str = "arm64 mmio, no syndrome";

/// ESR_EL2 of a translation fault on level 3 of a 4-byte instruction.
const FAULT: u64 = 0x24 << 26 | 1 << 25 | 7;

/// A load or store.
struct Sample {
    esr: u64,
    /// The instruction, for one that the syndrome does not describe.
    word: u32,
    /// The base register, and what the instruction adds to it.
    base: u8,
    offset: u64,
    writes: bool,
    /// The size of each access in bytes, and how many there are.
    size: usize,
    count: usize,
}

/// Loads and stores of one register, of each size.
fn described() -> &'static [Sample] {
    let samples = [0_u64, 1, 2, 3].into_iter().flat_map(|sas| {
        [false, true].map(|writes| {
            let (register, sf) = (if writes { 2 } else { 3 }, u64::from(sas == 3));
            let esr = FAULT | 1 << 24 | sas << 22 | register << 16 | sf << 15 | u64::from(writes) << 6;
            Sample { esr, word: 0, base: 1, offset: 0, writes, size: 1 << sas, count: 1 }
        })
    });
    Vec::leak(samples.collect())
}

/// Loads and stores with writeback and of pairs: what copies of buffers are made of.
fn not_described() -> &'static [Sample] {
    let sample = |word, base, offset, writes, size, count| {
        let esr = FAULT | u64::from(writes) << 6;
        Sample { esr, word, base, offset, writes, size, count }
    };
    leaked([
        // str w3, [x2], #4
        sample(0xb800_4443, 2, 0, true, 4, 1),
        // ldr w0, [x1], #4
        sample(0xb840_4420, 1, 0, false, 4, 1),
        // ldp w0, w1, [x2]
        sample(0x2940_0440, 2, 0, false, 4, 2),
        // stp w4, w5, [x6]
        sample(0x2900_14c4, 6, 0, true, 4, 2),
        // ldr x7, [x8, #8]!
        sample(0xf840_8d07, 8, 8, false, 8, 1),
        // strb w3, [x2], #1
        sample(0x3800_1443, 2, 0, true, 1, 1),
    ])
}

/// The registers of EL2 after an access to `address`.
#[inline(always)]
fn exit(sample: &Sample, address: u64) -> Exit {
    Exit { esr: sample.esr, far: address, hpfar: address >> 12 << 4 }
}

/// A virtual processor that is at one of the instructions.
struct Vcpu {
    registers: Registers,
    state: State,
}

impl Vcpu {
    fn new() -> Self {
        let registers = Registers { pc: 0x40_1000, spsr: black_box(5), ..Registers::default() };
        Self { registers, state: State::new(registers.spsr, 0) }
    }

    /// The registers with which the instruction accesses `address`.
    #[inline(always)]
    fn exits_at(&mut self, sample: &Sample, address: u64) {
        self.registers.set(sample.base, address.wrapping_sub(sample.offset));
    }

    /// What an exit leaves behind.
    #[inline(always)]
    fn outcome(&self, executed: bool) -> u64 {
        black_box(&self.registers).pc ^ u64::from(executed)
    }
}

pub(super) fn steps() -> Vec<Step> {
    let (described, not_described) = (described(), not_described());
    let step =
        |path, samples: &[Sample], name, ways| Step { name, path, io_type: IoType::Mmio, samples: samples.len(), ways };
    vec![
        step(WITH_SYNDROME, described, NUMBERS, numbers(described)),
        step(WITH_SYNDROME, described, DISPATCH, dispatches(described)),
        step(WITH_SYNDROME, described, EXECUTE, transfers(described)),
        step(WITH_SYNDROME, described, TOGETHER, whole_paths(described)),
        step(WITHOUT, not_described, NUMBERS, numbers(not_described)),
        step(WITHOUT, not_described, DECODE, decoders(not_described)),
        step(WITHOUT, not_described, DISPATCH, dispatches(not_described)),
        step(WITHOUT, not_described, EXECUTE, executions(not_described)),
        step(WITHOUT, not_described, TOGETHER, whole_paths_by_instruction(not_described)),
    ]
}

fn loop_alone(samples: &'static [Sample]) -> Way {
    let mut vcpu = Vcpu::new();
    Way::new(LOOP, samples, move |sample, address| {
        vcpu.exits_at(sample, address);
        vcpu.outcome(true)
    })
}

fn numbers(samples: &'static [Sample]) -> Vec<Way> {
    let own = Way::new(OWN, samples, |sample, address| match &data_abort(exit(sample, address)) {
        Ok(abort) => black_box(abort).fault().virtual_address,
        Err(_) => 0,
    });
    vec![own, loop_alone(samples)]
}

/// The accesses of the instructions, by one who knows them.
fn dispatches(samples: &'static [Sample]) -> Vec<Way> {
    let own = |name, mut devices: Dispatcher<'static>| {
        Way::new(name, samples, move |sample: &Sample, address| {
            let addresses = (address..).step_by(sample.size).take(sample.count);
            addresses.map(|address| touch(&mut devices, address, sample.size, !sample.writes, sample.writes)).sum()
        })
    };
    vec![own(OWN, dispatcher(IoType::Mmio)), own(OWN_ASYMMETRIC, asymmetric(IoType::Mmio)), loop_alone(samples)]
}

/// Makes the access of a syndrome and completes it, as an embedder does that has no memory behind its exits.
#[inline(always)]
fn transfer_by_hand(transfer: &Transfer, vcpu: &mut Vcpu, devices: &mut impl Accesses) -> bool {
    let Some(address) = transfer.fault.address else { return false };
    let mut data = [0; 8];
    if transfer.writes() {
        data = transfer.output(&vcpu.registers, vcpu.state).to_le_bytes();
        let _ = devices.write(address, transfer.size.of(&mut data), IoType::Mmio);
    } else {
        let _ = devices.read(address, transfer.size.of(&mut data), IoType::Mmio);
    }
    transfer.complete(&mut vcpu.registers, vcpu.state, u64::from_le_bytes(data));
    true
}

/// An exit that is known already, and its instruction.
struct Known<T> {
    sample: &'static Sample,
    of: T,
}

fn known<T>(samples: &'static [Sample], of: impl Fn(&Sample) -> Option<T>) -> &'static [Known<T>] {
    let known = samples.iter().map(|sample| Known { sample, of: of(sample).expect("the exits are known") });
    Vec::leak(known.collect())
}

/// What is left when the exit is known, with an answer that takes no time.
fn transfers(samples: &'static [Sample]) -> Vec<Way> {
    let known = known(samples, |sample| match data_abort(exit(sample, 0xe000_0000)) {
        Ok(DataAbort::Transfer(transfer)) => Some(transfer),
        _ => None,
    });
    let (mut by_hand, mut answers) = (Vcpu::new(), Constant::new());
    let (mut by_guest, mut guest) = (Vcpu::new(), Flat(Constant::new()));
    vec![
        Way::new(OWN, known, move |Known { sample, of: transfer }, address| {
            by_hand.exits_at(sample, address);
            let executed = transfer_by_hand(transfer, &mut by_hand, &mut answers);
            by_hand.outcome(executed)
        }),
        Way::new(OWN_BY_GUEST, known, move |Known { sample, of: transfer }, address| {
            by_guest.exits_at(sample, address);
            let executed = transfer.execute(&mut by_guest.registers, by_guest.state, &mut guest);
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
            let executed = match &data_abort(exit(sample, address)) {
                Ok(DataAbort::Transfer(transfer)) => transfer_by_hand(transfer, &mut vcpu, &mut devices),
                _ => false,
            };
            vcpu.outcome(executed)
        })
    };
    let (mut vcpu, mut guest) = (Vcpu::new(), Flat(dispatcher(IoType::Mmio)));
    let by_guest = Way::new(OWN_BY_GUEST, samples, move |sample, address| {
        vcpu.exits_at(sample, address);
        let executed = match &data_abort(exit(sample, address)) {
            Ok(DataAbort::Transfer(transfer)) => transfer.execute(&mut vcpu.registers, vcpu.state, &mut guest).is_ok(),
            _ => false,
        };
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

fn decoders(samples: &'static [Sample]) -> Vec<Way> {
    let vcpu = Vcpu::new();
    let own = Way::new(OWN, samples, move |sample, _| match &decode(sample.word, vcpu.state) {
        Ok(instruction) => black_box(instruction).register().into(),
        Err(_) => 0,
    });
    let peer = Way::new(YAXPEAX_ARM, samples, |sample, _| other_decoders::yaxpeax_arm(sample.word));
    vec![own, peer, loop_alone(samples)]
}

/// What is left when the exit is known and the instruction is decoded, with an answer that takes no time.
fn executions(samples: &'static [Sample]) -> Vec<Way> {
    let known: &[Known<(Fault, Instruction)>] = known(samples, |sample| {
        let abort = data_abort(exit(sample, 0xe000_0000)).ok()?;
        Some((*abort.fault(), decode(sample.word, Vcpu::new().state).ok()?))
    });
    let (mut vcpu, mut guest) = (Vcpu::new(), Flat(Constant::new()));
    let own = Way::new(OWN, known, move |Known { sample, of: (fault, instruction) }, address| {
        vcpu.exits_at(sample, address);
        let executed = instruction.execute(&mut vcpu.registers, vcpu.state, fault, &mut guest);
        vcpu.outcome(executed.is_ok())
    });
    vec![own, loop_alone(samples)]
}

fn whole_paths_by_instruction(samples: &'static [Sample]) -> Vec<Way> {
    let path = |name, devices: Dispatcher<'static>| {
        let (mut vcpu, mut guest) = (Vcpu::new(), Flat(devices));
        Way::new(name, samples, move |sample: &Sample, address| {
            vcpu.exits_at(sample, address);
            let executed = match (&data_abort(exit(sample, address)), &decode(sample.word, vcpu.state)) {
                (Ok(DataAbort::Instruction(fault)), Ok(instruction)) => {
                    instruction.execute(&mut vcpu.registers, vcpu.state, fault, &mut guest).is_ok()
                }
                _ => false,
            };
            vcpu.outcome(executed)
        })
    };
    vec![
        path(OWN, dispatcher(IoType::Mmio)),
        path(OWN_AGAIN, dispatcher(IoType::Mmio)),
        path(OWN_ASYMMETRIC, asymmetric(IoType::Mmio)),
        loop_alone(samples),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_transfer_leave_the_same() {
        for sample in described() {
            let Ok(DataAbort::Transfer(transfer)) = data_abort(exit(sample, 0xe000_0008)) else {
                panic!("{:#x} is not described", sample.esr);
            };
            assert_eq!((transfer.writes(), transfer.size.bytes()), (sample.writes, sample.size));
            let (mut by_hand, mut answers) = (Vcpu::new(), Constant::new());
            assert!(transfer_by_hand(&transfer, &mut by_hand, &mut answers));
            let (mut by_guest, mut guest) = (Vcpu::new(), Flat(Constant::new()));
            transfer.execute(&mut by_guest.registers, by_guest.state, &mut guest).unwrap();
            assert_eq!((by_hand.registers, answers.value()), (by_guest.registers, guest.0.value()));
        }
    }

    #[test]
    fn an_instruction_without_a_syndrome_accesses_what_it_is_measured_for() {
        for sample in not_described() {
            let mut vcpu = Vcpu::new();
            vcpu.exits_at(sample, 0xe000_0008);
            assert!(matches!(data_abort(exit(sample, 0xe000_0008)), Ok(DataAbort::Instruction(_))));
            let instruction = decode(sample.word, vcpu.state).unwrap();
            assert_eq!(instruction.address(&vcpu.registers), 0xe000_0008, "{instruction:?}");
            assert_eq!(other_decoders::yaxpeax_arm(sample.word), 1, "{instruction:?}");
            let count = 1 + usize::from(instruction.second_register().is_some());
            assert_eq!((instruction.writes(), instruction.size(), count), (sample.writes, sample.size, sample.count));
        }
    }
}
