//! `exit::x86::instruction` does what the processor does: every instruction it decodes is also executed by the machine the
//! test runs on, with the same registers and memory, and everything either of them changed is compared.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod guest;
mod native;

use std::collections::BTreeMap;

use guest::{Memory, Page, access};
use native::{MEMORY, Machine, PAGE, Random, Vectors};
use vm_device::exit::x86::instruction::{Base, Instruction, Operand, Operation, decode};
use vm_device::exit::x86::{AddressSize, Gpr, MemoryAccessKind, Mode, Register, Registers, Repeat, Rflags, Size};

/// Where the operand of an instruction lies in the memory: in the middle of the first page, or over its end.
const OPERAND: usize = PAGE / 2;

/// The flags that the manual defines after the operation (Intel SDM vol. 2).
fn defined(operation: Operation) -> Rflags {
    match operation {
        Operation::And | Operation::Or | Operation::Xor | Operation::Test => Rflags::STATUS - Rflags::AF,
        Operation::Bt | Operation::Bts | Operation::Btr | Operation::Btc => Rflags::CF | Rflags::ZF,
        _ => Rflags::STATUS,
    }
}

fn value(memory: &[u8], offset: usize, size: Size) -> u64 {
    let mut data = [0; 8];
    size.of(&mut data).copy_from_slice(&memory[offset..][..size.bytes()]);
    u64::from_le_bytes(data)
}

/// The guest that has the machine's memory, each page of it somewhere else.
fn guest(machine: &Machine, memory: &[u8], vectors: &Vectors) -> Memory {
    let mut guest = Memory { vectors: Some(*vectors), ..Memory::flat() };
    for (number, page) in memory.chunks(PAGE).enumerate() {
        guest.map(u64::from(machine.memory()) + (number * PAGE) as u64, Page::Ram(page.to_vec()));
    }
    guest
}

/// The guest physical address of a linear one: what an exit tells.
fn physical(guest: &Memory, linear: u64) -> u64 {
    let page = guest.mapped.get(&(linear / PAGE as u64)).copied().unwrap_or_default();
    page * PAGE as u64 + linear % PAGE as u64
}

fn memory_of(guest: &Memory) -> Vec<u8> {
    let page = |number| match &guest.pages[number] {
        Page::Ram(bytes) => bytes.clone(),
        other => panic!("{other:?}"),
    };
    guest.mapped.values().flat_map(page).collect()
}

/// Every encoding of `opcode` with the operand at its absolute address: all fields `reg`, the prefixes that make another
/// instruction of it, every REX.
fn encodings(opcode: &[u8], operand: u32) -> impl Iterator<Item = Vec<u8>> {
    let prefixes: [&[u8]; 9] =
        [&[], &[0x66], &[0x67], &[0xf0], &[0xf2], &[0xf3], &[0x66, 0xf0], &[0x66, 0xf2], &[0x66, 0xf3]];
    let is_vex = opcode.len() > 1 && matches!(opcode[0], 0xc4 | 0xc5);
    prefixes.into_iter().filter(move |prefix| !is_vex || prefix.is_empty()).flat_map(move |prefix| {
        // REX.X would add R12 to the address.
        let rex = (0x3f..=0x4f).filter(move |rex| *rex == 0x3f || (rex & 2 == 0 && !is_vex));
        rex.flat_map(move |rex| {
            (0..8).map(move |register| {
                let mut bytes = prefix.to_vec();
                if rex != 0x3f {
                    bytes.push(rex);
                }
                bytes.extend_from_slice(opcode);
                match opcode {
                    [0xa0..=0xa3] if prefix == [0x67] => {}
                    [0xa0..=0xa3] => return [bytes, u64::from(operand).to_le_bytes().to_vec()].concat(),
                    _ => bytes.extend_from_slice(&[register << 3 | 4, 0x25]),
                }
                bytes.extend_from_slice(&operand.to_le_bytes());
                bytes
            })
        })
    })
}

/// Every opcode of the maps that general-purpose and vector moves are in, without VEX and with it.
fn opcodes() -> impl Iterator<Item = Vec<u8>> {
    // The second byte of VEX: R, vvvv = 1111, L, pp. The third byte of the long form: W instead of R.
    let vex = |map| (0..8).flat_map(move |low| [0x78 | low, 0xf8 | low].map(|last| (map, last)));
    (0..=0xff).flat_map(move |opcode| {
        let legacy = [vec![opcode], vec![0x0f, opcode], vec![0x0f, 0x38, opcode]];
        let short = vex(1).map(move |(_, last)| vec![0xc5, last, opcode]);
        let long = vex(1)
            .chain(vex(2))
            .flat_map(move |(map, last)| [0x60, 0xe0].map(|start| vec![0xc4, start | map, last, opcode]));
        legacy.into_iter().chain(short).chain(long).collect::<Vec<_>>()
    })
}

#[test]
fn an_instruction_executes_as_the_processor_does() {
    let mut machine = Machine::new(0x2000_0000);
    let mut random = Random::new();
    let mut executed = BTreeMap::<(Operation, bool), usize>::new();
    for in_two_pages in [false, true] {
        for opcode in opcodes() {
            let before_end = 1 + random.next() as usize % 7;
            let offset = if in_two_pages { PAGE - before_end } else { OPERAND };
            for encoding in encodings(&opcode, machine.memory() + offset as u32) {
                // Over two pages every fourth will do.
                if in_two_pages && random.next() & 0x30 != 0 {
                    continue;
                }
                let mut bytes = encoding.clone();
                bytes.extend_from_slice(&random.next().to_le_bytes());
                let Ok(instruction) = decode(&bytes, Mode::Bits64) else { continue };
                // Where it ends before the address, the opcode had no such operand: it is another instruction.
                if instruction.length() < encoding.len() || instruction.string().is_some() {
                    continue;
                }
                // Locked accesses over two cache lines raise exceptions on some machines, and misaligned ones of some moves
                // on all.
                if in_two_pages && (instruction.is_locked() || needs_alignment(&instruction)) {
                    continue;
                }
                bytes.truncate(instruction.length());
                if !machine.has(&bytes) {
                    continue;
                }
                *executed.entry((instruction.operation(), in_two_pages)).or_default() += 1;
                check(&mut machine, &mut random, &bytes, &instruction, offset);
            }
        }
    }
    // XCHG is always locked.
    assert_eq!(executed.len(), 26 + 25, "operations executed: {executed:?}");
    let enough = |in_two_pages: bool| if in_two_pages { 8 } else { 60 };
    assert!(executed.iter().all(|((_, in_two_pages), count)| *count >= enough(*in_two_pages)), "{executed:?}");
}

fn needs_alignment(instruction: &Instruction) -> bool {
    let is_pair = instruction.operation() == Operation::CmpxchgPair && instruction.bytes() == 16;
    is_pair || instruction.vector().is_some_and(|vector| vector.aligned)
}

fn check(machine: &mut Machine, random: &mut Random, bytes: &[u8], instruction: &Instruction, mut offset: usize) {
    let (mut registers, memory, vectors) = (random.registers(), random.memory(), random.vectors(machine));
    let size = instruction.size();
    match (instruction.operation(), instruction.source()) {
        (Operation::Bt | Operation::Bts | Operation::Btr | Operation::Btc, Operand::Register(register)) => {
            // The bit lies up to 1024 bytes away, in either direction.
            let number = random.next() as i64 % 0x2000;
            registers.write(register, Size::Qword, number as u64);
            offset = offset.wrapping_add_signed(number.div_euclid(size.bits().into()) as isize * size.bytes() as isize);
        }
        (Operation::Cmpxchg, _) if random.next() & 1 == 0 => {
            registers.write(Register::Low(Gpr::Rax), size, value(&memory, offset, size));
        }
        (Operation::CmpxchgPair, _) if random.next() & 1 == 0 => {
            // Random upper halves are left to CMPXCHG8B.
            for (gpr, place) in [(Gpr::Rax, offset), (Gpr::Rdx, offset + size.bytes())] {
                let before = registers.get(gpr);
                registers.set(gpr, before - size.truncate(before) + value(&memory, place, size));
            }
        }
        // The top of the stack, over the end of the page now and then.
        (Operation::Push | Operation::Pop, _) => {
            let top = PAGE as u64 + random.next() % 64 - 32;
            registers.set(Gpr::Rsp, u64::from(machine.memory()) + top);
        }
        _ => {}
    }
    registers.rip = u64::from(machine.start_of_instruction());
    let native = machine.execute(bytes, &registers, &memory, &vectors);

    let mut guest = guest(machine, &memory, &vectors);
    let kind = if instruction.direction().writes() { MemoryAccessKind::Write } else { MemoryAccessKind::Read };
    let operand = physical(&guest, u64::from(machine.memory()) + offset as u64);
    let mut after = registers;
    let context = || format!("{bytes:02x?} {instruction:x?} with {registers:x?}");
    assert_eq!(instruction.execute(&mut after, &access(operand, kind), &mut guest), Ok(()), "{}", context());
    assert_eq!(after.gpr, native.registers.gpr, "{}", context());
    assert_eq!(after.rip, registers.rip + bytes.len() as u64, "{}", context());
    let compared = defined(instruction.operation());
    assert_eq!(after.flags() & compared, native.registers.flags() & compared, "{}", context());
    assert!(memory_of(&guest) == native.memory, "{}", context());
    assert_eq!(guest.vectors, Some(native.vectors), "{}", context());
}

/// Moves with every form of an effective address, whose registers are such that it hits the memory.
#[test]
fn an_operand_is_where_the_processor_finds_it() {
    let mut machine = Machine::new(0x2004_0000);
    let mut random = Random::new();
    let mut forms = 0;
    for (prefix, rex, modrm) in [&[][..], &[0x67]].into_iter().flat_map(|prefix: &[u8]| {
        (0x40..=0x4f_u8).flat_map(move |rex| (0..0xc0_u8).map(move |modrm| (prefix, rex, modrm)))
    }) {
        let sibs = if modrm & 7 == 4 { 8 } else { 1 };
        for _ in 0..sibs {
            let mut bytes = [prefix, &[rex, 0x89, modrm]].concat();
            if modrm & 7 == 4 {
                bytes.push((random.next() >> 13) as u8);
            }
            let at_displacement = bytes.len();
            let displacement = (random.next() >> 17) as u32 & 0x3fff_ffff;
            bytes.extend_from_slice(&displacement.to_le_bytes());
            let instruction = decode(&bytes, Mode::Bits64).unwrap();
            bytes.truncate(instruction.length());
            let mut registers = random.registers();
            registers.rip = u64::from(machine.start_of_instruction());
            let wanted = u64::from(machine.memory()) + OPERAND as u64;
            let (_, found) = instruction.operand(&registers);
            let error = wanted.wrapping_sub(found);
            let address = instruction.address();
            match (address.base, address.index) {
                (Some(Base::Gpr(base)), index) if index != Some(base) => {
                    registers.set(base, registers.get(base).wrapping_add(error));
                }
                (None | Some(Base::Rip), None) => {
                    let displacement = displacement.wrapping_add(error as u32);
                    bytes[at_displacement..].copy_from_slice(&displacement.to_le_bytes());
                }
                // The index alone cannot be made to fit with every scale.
                _ => continue,
            }
            let instruction = decode(&bytes, Mode::Bits64).unwrap();
            if address.address_size == AddressSize::Bits32 && instruction.operand(&registers).1 != wanted {
                continue;
            }
            assert_eq!(instruction.operand(&registers).1, wanted, "{bytes:02x?}");
            let (memory, vectors) = (random.memory(), random.vectors(&machine));
            let native = machine.execute(&bytes, &registers, &memory, &vectors);
            let mut guest = guest(&machine, &memory, &vectors);
            let access = access(physical(&guest, wanted), MemoryAccessKind::Write);
            instruction.execute(&mut registers, &access, &mut guest).unwrap();
            assert!(memory_of(&guest) == native.memory, "{bytes:02x?}");
            forms += 1;
        }
    }
    assert!(forms > 4_000, "{forms}");
}

#[test]
fn strings_repeat_as_the_processor_does() {
    const REPEATS: [&[u8]; 3] = [&[], &[0xf3], &[0xf2]];
    let mut machine = Machine::new(0x2001_0000);
    let mut random = Random::new();
    let mut executed = BTreeMap::<_, u64>::new();
    let forms: [&[u8]; 6] = [&[], &[0x66], &[0x48], &[0x67], &[0x67, 0x66], &[0x67, 0x48]];
    let opcodes = [0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf];
    for (repeat, form, opcode) in REPEATS
        .into_iter()
        .flat_map(|repeat| forms.into_iter().flat_map(move |form| opcodes.map(|opcode| (repeat, form, opcode))))
    {
        let bytes = [repeat, form, &[opcode]].concat();
        let instruction = decode(&bytes, Mode::Bits64).unwrap();
        let string = instruction.string().unwrap();
        for round in 0..60_u64 {
            let (mut registers, mut memory) = (random.registers(), random.memory());
            let vectors = random.vectors(&machine);
            if round % 3 != 0 {
                // Long runs of equal elements, for those that compare: few differ, or few are equal.
                memory.fill(0x11);
                memory[(random.next() >> 9) as usize % MEMORY] = 0x22;
                registers.set(Gpr::Rax, if round % 3 == 1 { 0x1111_1111_1111_1111 } else { 0x22 });
            }
            // Around the end of the first page.
            let mut place = || u64::from(machine.memory()) + (PAGE - 0x800) as u64 + (random.next() >> 7) % 0x1000;
            // The registers that a 32-bit address size uses have garbage above it.
            let garbage = if string.address_size == AddressSize::Bits32 { 0xabcd_0000_0000_0000 } else { 0 };
            registers.set(Gpr::Rsi, place() | garbage);
            registers.set(Gpr::Rdi, place() | garbage);
            if string.repeat != Repeat::Once {
                let count = random.next() >> 11 & 0xff;
                registers.set(Gpr::Rcx, count | garbage);
                if count == 0 {
                    // What a count of 0 leaves of garbage differs between processors.
                    for index in [Gpr::Rcx, Gpr::Rsi, Gpr::Rdi] {
                        registers.set(index, registers.get(index) & 0xffff_ffff);
                    }
                }
            }
            if round & 1 != 0 {
                registers.rflags |= Rflags::DF.bits();
            }
            registers.rip = u64::from(machine.start_of_instruction());
            let native = machine.execute(&bytes, &registers, &memory, &vectors);

            let mut guest = guest(&machine, &memory, &vectors);
            let (mut after, mut calls) = (registers, 0);
            let context = format!("{bytes:02x?} with {registers:x?}");
            while after.rip == registers.rip {
                // An exit says where an operand is. Of two operands it is not used.
                let kind =
                    if instruction.direction().writes() { MemoryAccessKind::Write } else { MemoryAccessKind::Read };
                let access = access(physical(&guest, instruction.operand(&after).1), kind);
                assert_eq!(instruction.execute(&mut after, &access, &mut guest), Ok(()), "{context}");
                calls += 1;
                assert!(calls < 300, "{context}");
            }
            assert_eq!(after.gpr, native.registers.gpr, "{context}");
            assert_eq!(after.rflags, native.registers.rflags, "{context}");
            assert_eq!(after.rip, registers.rip + bytes.len() as u64);
            assert!(memory_of(&guest) == native.memory, "{context}");
            let elements =
                if string.repeat == Repeat::Once { 1 } else { string.count(&registers) - string.count(&after) };
            *executed
                .entry((instruction.operation() == Operation::Cmp, string.address_size, string.repeat != Repeat::Once))
                .or_default() += elements;
        }
    }
    assert_eq!(executed.len(), 8, "{executed:?}");
    assert!(executed.values().all(|count| *count > 400), "{executed:?}");
}

/// With a 32-bit address size and a count of 0 in 64-bit mode, AMD's processors leave all registers, and Intel's clear the upper
/// halves of RCX and of the pointers of MOVS and STOS. No manual says either. Here they are left.
#[test]
fn a_count_of_0_leaves_or_clears_the_upper_halves() {
    let mut machine = Machine::new(0x2002_0000);
    let mut random = Random::new();
    for opcode in [0xa4, 0xa6, 0xaa, 0xac, 0xae] {
        let bytes = [0xf3, 0x67, opcode];
        let mut registers = random.registers();
        for index in [Gpr::Rcx, Gpr::Rsi, Gpr::Rdi] {
            registers.set(index, 0xabcd_0000_0000_0000);
        }
        registers.rip = u64::from(machine.start_of_instruction());
        let (memory, vectors) = (random.memory(), random.vectors(&machine));
        let native = machine.execute(&bytes, &registers, &memory, &vectors).registers;
        println!(
            "{opcode:x}: rcx {:x} rsi {:x} rdi {:x}",
            native.get(Gpr::Rcx),
            native.get(Gpr::Rsi),
            native.get(Gpr::Rdi)
        );
        let is_cleared = native.get(Gpr::Rcx) == 0;
        for index in [Gpr::Rsi, Gpr::Rdi] {
            assert!(native.get(index) == registers.get(index) || is_cleared && native.get(index) == 0);
        }

        let instruction = decode(&bytes, Mode::Bits64).unwrap();
        let (mut after, mut guest) = (registers, guest(&machine, &memory, &vectors));
        instruction.execute(&mut after, &access(0, MemoryAccessKind::Write), &mut guest).unwrap();
        assert_eq!((after, guest.events), (Registers { rip: registers.rip + 3, ..registers }, Vec::new()));
    }
}
