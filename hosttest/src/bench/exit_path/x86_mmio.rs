//! The path of an MMIO exit on x86: the numbers of the exit, the instruction, its accesses, the registers.

use std::hint::black_box;

use vm_device::exit::x86::instruction::{Instruction, decode};
use vm_device::exit::x86::{Gpr, MemoryAccess, Mode, Registers, svm, vmx};
use vm_device::{Accesses, Dispatcher, GuestAddress, IoType};

use super::as_it_was;
use super::guest::{Constant, Flat, asymmetric, dispatcher, touch};
use super::other_decoders::{self, ICED, ICED_WITH_ADDRESS, YAXPEAX};
use super::step::{Step, Way};
use super::{
    AS_IT_WAS, DECODE, DISPATCH, EXECUTE, LOOP, NUMBERS, OWN, OWN_AGAIN, OWN_ASYMMETRIC, OWN_SVM, OWN_VMX,
    OWN_WITH_ADDRESS, TOGETHER,
};
use crate::bench::subject::leaked;

pub(super) const PATH: &str = "x86 mmio";

/// An instruction that touches MMIO, in 64-bit mode.
pub(super) struct Sample {
    /// As many bytes as are fetched, the instruction first.
    bytes: [u8; 15],
    /// The register with the address, and what the instruction adds to it.
    base: Gpr,
    offset: u64,
    reads: bool,
    writes: bool,
    /// The size of an access, in bytes.
    size: usize,
}

/// The value of RCX, which one of the instructions takes as an index.
const INDEX: u64 = 3;

/// The address that the instructions are at.
const RIP: u64 = 0x40_1000;

/// The twelve commonest: what a compiler makes of `readb` to `readq` and of `writeb` to `writeq`, of constants that are written,
/// of bits that are set and of bits that are waited for.
fn samples() -> &'static [Sample] {
    fn sample(bytes: &[u8], base: Gpr, offset: u64, size: usize) -> Sample {
        // What follows are other instructions.
        let mut fetched = [0x90; 15];
        fetched[..bytes.len()].copy_from_slice(bytes);
        Sample { bytes: fetched, base, offset, reads: false, writes: false, size }
    }
    fn read(bytes: &[u8], base: Gpr, offset: u64, size: usize) -> Sample {
        Sample { reads: true, ..sample(bytes, base, offset, size) }
    }
    fn write(bytes: &[u8], base: Gpr, offset: u64, size: usize) -> Sample {
        Sample { writes: true, ..sample(bytes, base, offset, size) }
    }
    leaked([
        // mov eax, [rdi]
        read(&[0x8b, 0x07], Gpr::Rdi, 0, 4),
        // mov [rdi + 0x10], esi
        write(&[0x89, 0x77, 0x10], Gpr::Rdi, 0x10, 4),
        // mov dword [rbx + 0xb0], 0
        write(&[0xc7, 0x83, 0xb0, 0, 0, 0, 0, 0, 0, 0], Gpr::Rbx, 0xb0, 4),
        // movzx eax, byte [rdi + 5]
        read(&[0x0f, 0xb6, 0x47, 0x05], Gpr::Rdi, 5, 1),
        // movzx eax, word [rdi + 0x12]
        read(&[0x0f, 0xb7, 0x47, 0x12], Gpr::Rdi, 0x12, 2),
        // mov al, [rdx]
        read(&[0x8a, 0x02], Gpr::Rdx, 0, 1),
        // mov [rsi + 0x14], dl
        write(&[0x88, 0x56, 0x14], Gpr::Rsi, 0x14, 1),
        // mov [rdx], ax
        write(&[0x66, 0x89, 0x02], Gpr::Rdx, 0, 2),
        // mov rax, [rdi + 0xf0]
        read(&[0x48, 0x8b, 0x87, 0xf0, 0, 0, 0], Gpr::Rdi, 0xf0, 8),
        // mov [r12 + rcx * 8 + 0x1000], rax
        write(&[0x49, 0x89, 0x84, 0xcc, 0, 0x10, 0, 0], Gpr::R12, 0x1000 + 8 * INDEX, 8),
        // or dword [rbx + 0x10], 0x80
        Sample { reads: true, ..write(&[0x81, 0x4b, 0x10, 0x80, 0, 0, 0], Gpr::Rbx, 0x10, 4) },
        // test byte [rbx + 5], 0x20
        read(&[0xf6, 0x43, 0x05, 0x20], Gpr::Rbx, 5, 1),
    ])
}

impl Sample {
    /// `EXITINFO1` of the nested page fault.
    fn exitinfo1(&self) -> u64 {
        if self.writes { 0x1_0000_0006 } else { 0x1_0000_0004 }
    }

    /// The exit qualification of the EPT violation.
    fn qualification(&self) -> u64 {
        0x180 | u64::from(self.reads) | u64::from(self.writes) << 1
    }
}

/// A virtual processor that is at one of the instructions.
struct Vcpu {
    registers: Registers,
    mode: Mode,
}

impl Vcpu {
    fn new() -> Self {
        let mut registers = Registers { rip: RIP, ..Registers::default() };
        registers.set(Gpr::Rcx, INDEX);
        // No compiler knows the mode of a guest.
        Self { registers, mode: black_box(Mode::Bits64) }
    }

    /// The registers with which the instruction accesses `address`.
    #[inline(always)]
    fn exits_at(&mut self, sample: &Sample, address: u64) {
        self.registers.set(sample.base, address.wrapping_sub(sample.offset));
    }
}

pub(super) fn steps() -> Vec<Step> {
    let samples = samples();
    let step = |name, ways| Step { name, path: PATH, io_type: IoType::Mmio, samples: samples.len(), ways };
    vec![
        step(NUMBERS, numbers(samples)),
        step(DECODE, decoders(samples)),
        step(DISPATCH, dispatches(samples)),
        step(EXECUTE, executions(samples)),
        step(TOGETHER, whole_paths(samples)),
    ]
}

/// The loop that all ways have around them, and the register that the exits come with.
fn loop_alone(samples: &'static [Sample]) -> Way {
    let mut vcpu = Vcpu::new();
    Way::new(LOOP, samples, move |sample, address| {
        vcpu.exits_at(sample, address);
        black_box(&vcpu.registers);
        address
    })
}

fn numbers(samples: &'static [Sample]) -> Vec<Way> {
    vec![
        Way::new(OWN_SVM, samples, |sample, address| {
            let access = svm::memory_access(sample.exitinfo1(), address);
            black_box(&access).address.0
        }),
        Way::new(OWN_VMX, samples, |sample, address| {
            let access = vmx::memory_access(sample.qualification(), address);
            black_box(&access).address.0
        }),
        loop_alone(samples),
    ]
}

fn decoders(samples: &'static [Sample]) -> Vec<Way> {
    let mode = black_box(Mode::Bits64);
    let (mut own, mut with_iced) = (Vcpu::new(), Vcpu::new());
    vec![
        Way::new(OWN_WITH_ADDRESS, samples, move |sample, address| {
            own.exits_at(sample, address);
            match &decode(&sample.bytes, own.mode) {
                Ok(instruction) => black_box(instruction).operand(&own.registers).1,
                Err(_) => 0,
            }
        }),
        Way::new(OWN, samples, move |sample, _| match &decode(&sample.bytes, mode) {
            Ok(instruction) => black_box(instruction).length() as u64,
            Err(_) => 0,
        }),
        Way::new(AS_IT_WAS, samples, |sample, _| match &as_it_was::decode(&sample.bytes) {
            Ok(instruction) => black_box(instruction).length() as u64,
            Err(_) => 0,
        }),
        Way::new(YAXPEAX, samples, |sample, _| other_decoders::yaxpeax(&sample.bytes)),
        Way::new(ICED, samples, |sample, _| other_decoders::iced(&sample.bytes, RIP)),
        Way::new(ICED_WITH_ADDRESS, samples, move |sample, address| {
            with_iced.exits_at(sample, address);
            other_decoders::iced_with_address(&sample.bytes, &with_iced.registers)
        }),
        loop_alone(samples),
    ]
}

/// The accesses of the instructions, by one who knows them.
fn dispatches(samples: &'static [Sample]) -> Vec<Way> {
    let own = |name, mut devices: Dispatcher<'static>| {
        Way::new(name, samples, move |sample: &Sample, address| {
            touch(&mut devices, address, sample.size, sample.reads, sample.writes)
        })
    };
    vec![own(OWN, dispatcher(IoType::Mmio)), own(OWN_ASYMMETRIC, asymmetric(IoType::Mmio)), loop_alone(samples)]
}

/// An instruction that is decoded already.
struct Decoded {
    sample: &'static Sample,
    own: Instruction,
    as_it_was: as_it_was::Instruction,
}

/// What is left when the exit is known and the instruction is decoded, with an answer that takes no time.
fn executions(samples: &'static [Sample]) -> Vec<Way> {
    let decoded = samples.iter().map(|sample| Decoded {
        sample,
        own: decode(&sample.bytes, Mode::Bits64).expect("the instructions are known"),
        as_it_was: as_it_was::decode(&sample.bytes).expect("the instructions are known"),
    });
    let decoded: &'static [Decoded] = Vec::leak(decoded.collect());
    let (mut own, mut guest) = (Vcpu::new(), Flat(Constant::new()));
    let (mut earlier, mut answers) = (Vcpu::new(), Constant::new());
    vec![
        Way::new(OWN, decoded, move |Decoded { sample, own: instruction, .. }, address| {
            own.exits_at(sample, address);
            let access = svm::memory_access(sample.exitinfo1(), address);
            let executed = instruction.execute(&mut own.registers, &access, &mut guest);
            of(&own.registers, executed.is_ok())
        }),
        Way::new(AS_IT_WAS, decoded, move |Decoded { sample, as_it_was, .. }, address| {
            earlier.exits_at(sample, address);
            execute_as_it_was(as_it_was, &mut earlier.registers, GuestAddress(address), &mut answers);
            of(&earlier.registers, true)
        }),
        loop_alone(samples),
    ]
}

/// What an exit leaves behind.
#[inline(always)]
fn of(registers: &Registers, executed: bool) -> u64 {
    black_box(registers).rax() ^ u64::from(executed)
}

/// Reads, executes and writes at the address of the exit.
#[inline(always)]
fn execute_as_it_was(
    instruction: &as_it_was::Instruction,
    registers: &mut Registers,
    address: GuestAddress,
    devices: &mut impl Accesses,
) {
    let mut data = [0; 8];
    if instruction.reads() {
        let _ = devices.read(address, instruction.size().of(&mut data), IoType::Mmio);
    }
    let outcome = instruction.execute(registers, u64::from_le_bytes(data));
    if let Some(value) = outcome.write {
        let _ = devices.write(address, instruction.size().of(&mut value.to_le_bytes()), IoType::Mmio);
    }
    *registers = outcome.registers;
}

fn whole_paths(samples: &'static [Sample]) -> Vec<Way> {
    let svm = |sample: &Sample, address| svm::memory_access(sample.exitinfo1(), address);
    let vmx = |sample: &Sample, address| vmx::memory_access(sample.qualification(), address);
    vec![
        own_path(OWN_SVM, samples, svm, dispatcher(IoType::Mmio)),
        own_path(OWN_AGAIN, samples, svm, dispatcher(IoType::Mmio)),
        own_path(OWN_ASYMMETRIC, samples, svm, asymmetric(IoType::Mmio)),
        own_path(OWN_VMX, samples, vmx, dispatcher(IoType::Mmio)),
        path_as_it_was(samples),
        loop_alone(samples),
    ]
}

fn own_path(
    name: &'static str,
    samples: &'static [Sample],
    numbers: impl Fn(&Sample, u64) -> MemoryAccess + 'static,
    devices: Dispatcher<'static>,
) -> Way {
    let (mut vcpu, mut guest) = (Vcpu::new(), Flat(devices));
    Way::new(name, samples, move |sample, address| {
        vcpu.exits_at(sample, address);
        let access = numbers(sample, address);
        let executed = match &decode(&sample.bytes, vcpu.mode) {
            Ok(instruction) => instruction.execute(&mut vcpu.registers, &access, &mut guest).is_ok(),
            Err(_) => false,
        };
        of(&vcpu.registers, executed)
    })
}

fn path_as_it_was(samples: &'static [Sample]) -> Way {
    let (mut vcpu, mut devices) = (Vcpu::new(), dispatcher(IoType::Mmio));
    Way::new(AS_IT_WAS, samples, move |sample, address| {
        vcpu.exits_at(sample, address);
        let access = svm::memory_access(sample.exitinfo1(), address);
        let decoded = as_it_was::decode(&sample.bytes);
        if let Ok(instruction) = &decoded {
            execute_as_it_was(instruction, &mut vcpu.registers, access.address, &mut devices);
        }
        of(&vcpu.registers, decoded.is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The registers after each instruction has accessed each of some addresses, and what the devices were asked.
    fn trace(mut exit: impl FnMut(&Sample, u64, &mut Vcpu, &mut Flat<Constant>)) -> Vec<(Registers, u64)> {
        let (mut vcpu, mut guest) = (Vcpu::new(), Flat(Constant::new()));
        let addresses = [0xe000_0000, 0xe000_0ff8];
        let exits = samples().iter().flat_map(|sample| addresses.map(|address| (sample, address)));
        exits
            .map(|(sample, address)| {
                vcpu.exits_at(sample, address);
                exit(sample, address, &mut vcpu, &mut guest);
                (vcpu.registers, guest.0.value())
            })
            .collect()
    }

    #[test]
    fn the_path_leaves_the_registers_and_the_device_as_it_did() {
        let own = trace(|sample, address, vcpu, guest| {
            let access = svm::memory_access(sample.exitinfo1(), address);
            let instruction = decode(&sample.bytes, vcpu.mode).unwrap();
            instruction.execute(&mut vcpu.registers, &access, guest).unwrap();
        });
        let as_it_was = trace(|sample, address, vcpu, guest| {
            let instruction = as_it_was::decode(&sample.bytes).unwrap();
            execute_as_it_was(&instruction, &mut vcpu.registers, GuestAddress(address), &mut guest.0);
        });
        assert_eq!(own, as_it_was);
    }

    #[test]
    fn an_operand_is_where_the_exit_says_by_each_decoder() {
        for sample in samples() {
            let mut vcpu = Vcpu::new();
            vcpu.exits_at(sample, 0xe000_0008);
            let (bytes, registers) = (&sample.bytes, &vcpu.registers);
            let instruction = decode(bytes, Mode::Bits64).unwrap();
            assert_eq!(instruction.operand(registers).1, 0xe000_0008, "{bytes:02x?}");
            assert_eq!(other_decoders::iced_with_address(bytes, registers), 0xe000_0008, "{bytes:02x?}");
            let length = instruction.length() as u64;
            assert_eq!([other_decoders::yaxpeax(bytes), other_decoders::iced(bytes, RIP)], [length; 2], "{bytes:02x?}");
            assert_eq!((instruction.size().bytes(), instruction.direction().reads()), (sample.size, sample.reads));
            assert_eq!(instruction.direction().writes(), sample.writes);
        }
    }
}
