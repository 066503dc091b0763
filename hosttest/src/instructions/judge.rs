//! One case before all of its judges.

use std::fmt::Write;
use std::io;

use vm_device::GuestAddress;
use vm_device::exit::x86::instruction::{DecodeError, Direction, Instruction, Operation, decode};
use vm_device::exit::x86::{
    AddressSize, Gpr, MemoryAccess, MemoryAccessKind, Mode, Registers, Rflags, Segment, X86Guest,
};
use vm_device::exit::{ExecuteError, pieces};

use super::cases::{Case, LENGTH, Places, pristine};
use super::faults::{self, Oracle};
use super::memory::{Copy, DATA, PAGE, READ_ONLY, Refusal};
use super::oracles::{self, Meaning};
use super::processor::{End, Machine, Processor};
use super::report::Report;

/// More elements than a string of a case has.
const ELEMENTS: usize = 100;

/// The processor, and what it begins each case with.
pub(super) struct Judge {
    processor: Processor,
    pristine: [u8; DATA],
    copy: [u8; DATA],
}

/// What is wrong with a case.
pub(super) type Disagreement = String;

impl Judge {
    pub(super) fn new() -> io::Result<Self> {
        let mut processor = Processor::new()?;
        let pristine = pristine();
        processor.set_data(&pristine)?;
        Ok(Self { processor, pristine, copy: pristine })
    }

    pub(super) fn places(&self) -> Places {
        self.processor.places()
    }

    /// Judges a case, and counts it.
    pub(super) fn case(&mut self, case: &Case, report: &mut Report) -> Result<(), Disagreement> {
        let registers = &case.machine.registers;
        let decoded = decode(&case.bytes, case.mode);
        let own = decoded.ok().map(|instruction| oracles::own(&instruction, case.mode, registers));
        let iced = oracles::iced::meaning(&case.second, case.mode, registers);
        let yaxpeax = oracles::yaxpeax::meaning(&case.bytes, case.mode, registers, own.or(iced));
        report.cases += 1;
        let uses_fs = [own, iced, yaxpeax].iter().flatten().any(|meaning| uses(meaning, Segment::Fs));
        let uses_gs = [own, iced, yaxpeax].iter().flatten().any(|meaning| uses(meaning, Segment::Gs));
        // The code is in memory too, which the guest of the crate does not have.
        let reaches_code =
            own.is_some_and(|own| self.places().is_code(case.bases.of(own.operand.0, case.mode), own.operand.1));
        let can_execute = !uses_fs && !reaches_code && self.processor.executes(case.mode, uses_gs);

        match &decoded {
            Ok(instruction) if !is_the_same_alone(case, instruction) => {
                return Err("other bytes behind it, or fewer of its own, change it".to_owned());
            }
            Ok(instruction) if can_execute => {
                self.execute(case, instruction, report)?;
                report.executed += 1;
                *report.operations.entry(instruction.operation()).or_default() += 1;
            }
            Ok(_) => report.decoded_only += 1,
            Err(DecodeError::Truncated(_)) => return Err("15 bytes are truncated".to_owned()),
            Err(error) => {
                let may_execute = can_execute && (case.second.is_invalid() || iced.is_some());
                self.refused(case, error, iced.is_some(), may_execute, report)?;
            }
        }
        for (oracle, says) in [(Oracle::Iced, iced), (Oracle::Yaxpeax, yaxpeax)] {
            if own == says {
                continue;
            }
            match faults::name(oracle, case, own, says) {
                Some(fault) => *report.faults.entry((oracle, fault)).or_default() += 1,
                None => {
                    return Err(format!(
                        "{oracle:?} says otherwise, for no known reason:\n  {says:x?}\nthe crate:\n  {own:x?}"
                    ));
                }
            }
        }
        if own.is_some() {
            report.agreed += 1;
        }
        Ok(())
    }

    /// What this crate refuses is refused by the processor too, if it is said to be no instruction.
    fn refused(
        &mut self,
        case: &Case,
        error: &DecodeError,
        is_known: bool,
        may_execute: bool,
        report: &mut Report,
    ) -> Result<(), Disagreement> {
        let is_malformed = matches!(error, DecodeError::Malformed(_));
        report.refused += 1;
        if is_malformed && !case.second.is_invalid() && !is_known {
            return Err(format!("malformed, but iced knows {:?}", case.second.code()));
        }
        if !may_execute || !is_malformed && !is_known {
            return Ok(());
        }
        self.begin(case);
        let (end, after) = self.processor.step(case, &case.machine);
        self.processor.write_data(0, &self.pristine[..READ_ONLY * PAGE]);
        report.refused_by_processor += 1;
        match end {
            End::Undefined => Ok(()),
            // More than 15 bytes.
            End::Protection if is_malformed => Ok(()),
            _ => Err(format!("{error}; the processor: {end:x?}, RIP {:x}", after.registers.rip)),
        }
    }

    /// Brings the data into the state that the case begins with, for the processor and for the guest of the crate.
    fn begin(&mut self, case: &Case) {
        self.copy = self.pristine;
        for (offset, bytes) in &case.patches {
            self.copy[*offset..][..bytes.len()].copy_from_slice(bytes);
            self.processor.write_data(*offset, bytes);
        }
    }

    fn execute(&mut self, case: &Case, instruction: &Instruction, report: &mut Report) -> Result<(), Disagreement> {
        self.begin(case);
        let places = self.places();
        let steps = if case.to_the_end && instruction.string().is_some() { ELEMENTS } else { 1 };

        let mut processor = match steps {
            1 => self.processor.step(case, &case.machine),
            _ => self.processor.whole(case, instruction.length(), &case.machine),
        };
        let mut guest = Copy {
            mode: case.mode,
            bases: case.bases,
            start: places.data,
            data: &mut self.copy,
            vectors: case.machine.vectors,
            is_interrupted: steps == 1,
        };
        let mut registers = case.machine.registers;
        registers.rflags &= Rflags::all().bits() & !Rflags::RF.bits();
        let mut own = Ok(());
        for _ in 0..steps {
            if let Some(refusal) = no_exit(instruction, &registers, &mut guest) {
                own = Err(ExecuteError::Fault(refusal));
                break;
            }
            let access = access(instruction, &registers, &mut guest);
            own = instruction.execute(&mut registers, &access, &mut guest);
            if own.is_err() || registers.rip != case.machine.registers.rip {
                break;
            }
        }
        let vectors = guest.vectors;
        let (end, has) = &mut processor;
        if clears_upper_halves(case, instruction, &registers, &mut has.registers) {
            report.upper_halves += 1;
        }
        if let (End::PageFault(first), Err(ExecuteError::Fault(Refusal::Page(second)))) = (*end, own)
            && first != second
            && has_two_operands(instruction)
            && [first, second].iter().all(|address| !guest.allows(*address, MemoryAccessKind::Write))
        {
            *end = End::PageFault(second);
            report.other_order += 1;
        }
        let same_memory = self.processor.data() == self.copy;
        let difference = compare(case, instruction, processor, (own, Machine { registers, vectors }), same_memory);
        self.processor.write_data(0, &self.pristine[..READ_ONLY * PAGE]);
        report.faulted += u64::from(own.is_err());
        if difference.is_empty() { Ok(()) } else { Err(difference) }
    }
}

/// Nothing but its own bytes count, and all of them.
fn is_the_same_alone(case: &Case, instruction: &Instruction) -> bool {
    let (bytes, length) = (&case.bytes, instruction.length());
    let shorter = usize::from(bytes[LENGTH - 1]) % length;
    decode(&bytes[..length], case.mode) == Ok(*instruction)
        && matches!(decode(&bytes[..shorter], case.mode), Err(DecodeError::Truncated(_)))
}

/// Whether an instruction has an operand in this segment.
fn uses(meaning: &Meaning, segment: Segment) -> bool {
    meaning.operand.0 == segment || meaning.string_source.is_some_and(|place| place.0 == segment)
}

/// The fault that the guest gets without an exit, so that the crate is not asked: the only operand is in one page that does
/// not allow the access.
fn no_exit(instruction: &Instruction, registers: &Registers, guest: &mut Copy<'_>) -> Option<Refusal> {
    if has_two_operands(instruction) || instruction.string().is_some_and(|string| string.count(registers) == 0) {
        return None;
    }
    let (segment, offset) = instruction.operand(registers);
    let kind = kind(instruction);
    let linear = match guest.linear(segment, offset, instruction.bytes(), kind) {
        Ok(linear) => linear,
        Err(refusal) => return Some(refusal),
    };
    // The alignment is looked at first.
    let is_to_be_aligned = instruction.vector().map_or(instruction.bytes() == 16, |vector| vector.aligned);
    if is_to_be_aligned && !linear.is_multiple_of(instruction.bytes() as u64) {
        return None;
    }
    let [_, (_, rest)] = pieces(linear, instruction.bytes(), u64::MAX);
    (rest == 0 && !guest.allows(linear, kind)).then_some(Refusal::Page(linear))
}

/// Whether it has two operands in memory, of which the exit tells one.
fn has_two_operands(instruction: &Instruction) -> bool {
    matches!(instruction.direction(), Direction::Copy | Direction::Compare)
        || matches!(instruction.operation(), Operation::Push | Operation::Pop)
}

/// What Intel's processors do, and no manual says: a string with REP and 32-bit addresses in 64-bit code clears the upper halves
/// of RCX, and of the RSI and RDI that it writes to, although no element is done, because of a count of 0 or a fault. Other
/// processors leave them, and so does the crate. If that is the difference, it is taken away.
fn clears_upper_halves(case: &Case, instruction: &Instruction, own: &Registers, processor: &mut Registers) -> bool {
    let has_form = instruction.string().is_some_and(|string| {
        string.repeat.repeats() && string.address_size == AddressSize::Bits32 && case.mode == Mode::Bits64
    });
    let indexes = [Gpr::Rcx, Gpr::Rsi, Gpr::Rdi];
    let is_nothing_done = indexes.iter().all(|index| own.get(*index) == case.machine.registers.get(*index));
    let mut clears = false;
    for index in indexes {
        let before = own.get(index);
        if has_form && is_nothing_done && processor.get(index) != before && processor.get(index) == before & 0xffff_ffff
        {
            processor.set(index, before);
            clears = true;
        }
    }
    clears
}

fn kind(instruction: &Instruction) -> MemoryAccessKind {
    if instruction.direction().writes() { MemoryAccessKind::Write } else { MemoryAccessKind::Read }
}

/// The exit that the instruction has: at the first byte of its operand that is memory.
fn access(instruction: &Instruction, registers: &Registers, guest: &mut Copy<'_>) -> MemoryAccess {
    let (segment, offset) = instruction.operand(registers);
    let kind = kind(instruction);
    let linear = guest.linear(segment, offset, instruction.bytes(), MemoryAccessKind::Read).ok();
    let address = linear.and_then(|linear| {
        let [(first, _), (second, rest)] = pieces(linear, instruction.bytes(), u64::MAX);
        guest.physical(first).or_else(|| if rest != 0 { guest.physical(second) } else { None })
    });
    MemoryAccess { address: address.unwrap_or(GuestAddress(0xf000)), kind, mapped: false, page_walk: false }
}

/// The flags that the manual defines after the operation (Intel SDM vol. 2).
fn defined(operation: Operation) -> Rflags {
    match operation {
        Operation::And | Operation::Or | Operation::Xor | Operation::Test => Rflags::STATUS - Rflags::AF,
        Operation::Bt | Operation::Bts | Operation::Btr | Operation::Btc => Rflags::CF | Rflags::ZF,
        _ => Rflags::STATUS,
    }
}

/// What is different; empty if nothing is.
fn compare(
    case: &Case,
    instruction: &Instruction,
    (end, processor): (End, Machine),
    (own, crate_has): (Result<(), ExecuteError<Refusal>>, Machine),
    same_memory: bool,
) -> String {
    let mut text = String::new();
    let ends_alike = match (end, own) {
        (End::Done, Ok(())) => true,
        (End::PageFault(address), Err(ExecuteError::Fault(Refusal::Page(refused)))) => address == refused,
        (End::Protection, Err(ExecuteError::Fault(Refusal::Protection) | ExecuteError::Misaligned(_))) => true,
        _ => false,
    };
    if !ends_alike {
        let _ = writeln!(text, "  the processor ends with {end:x?}, the crate with {own:x?}");
    }
    let mask = if case.mode == Mode::Bits64 { u64::MAX } else { 0xffff_ffff };
    for (number, register) in Gpr::ALL.into_iter().enumerate().take(if mask == u64::MAX { 16 } else { 8 }) {
        let (first, second) = (processor.registers.gpr[number] & mask, crate_has.registers.gpr[number] & mask);
        if first != second {
            let _ = writeln!(text, "  {register:?} is {first:#x}, of the crate {second:#x}");
        }
    }
    if processor.registers.rip != crate_has.registers.rip {
        let (first, second) = (processor.registers.rip, crate_has.registers.rip);
        let _ = writeln!(text, "  RIP is {first:#x}, of the crate {second:#x}");
    }
    let compared = defined(instruction.operation()) | Rflags::DF;
    let flags = |machine: &Machine| machine.registers.flags() & compared;
    if flags(&processor) != flags(&crate_has) {
        let _ = writeln!(text, "  the flags are {:?}, of the crate {:?}", flags(&processor), flags(&crate_has));
    }
    for (number, (first, second)) in processor.vectors.iter().zip(&crate_has.vectors).enumerate() {
        if first != second {
            let _ = writeln!(text, "  vector register {number} is {first:02x?}, of the crate {second:02x?}");
        }
    }
    if !same_memory {
        text.push_str("  the memory differs\n");
    }
    text
}
