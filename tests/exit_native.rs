//! `exit::x86::instruction` does what the processor does: every instruction it decodes is also executed by the machine the
//! test runs on, with the same registers and memory, and everything either of them changed is compared.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::arch::asm;
use std::collections::BTreeMap;
use std::ops::Range;

use vm_device::exit::x86::instruction::{Direction, Instruction, Operand, Operation, decode};
use vm_device::exit::x86::{AddressSize, Gpr, Mode, Register, Registers, Rflags, Size};

const PAGE: usize = 0x1000;
/// Where the operand of an instruction lies in the memory.
const OPERAND: usize = PAGE / 2;
/// In the page of the state: where RFLAGS and the caller's RSP are kept. The registers are at its start.
const RFLAGS: u32 = 0x80;
const RSP: u32 = 0x88;

/// Three pages below 2 GiB, where an absolute address of 32 bits reaches them: code, state, memory.
struct Machine {
    base: u32,
}

impl Machine {
    /// Maps the pages at `base`. Every machine needs a base of its own, since tests run at the same time.
    fn new(base: u32) -> Self {
        const PROT_READ_WRITE_EXEC: usize = 7;
        const MAP_PRIVATE_ANONYMOUS_FIXED_NOREPLACE: usize = 0x10_0022;
        let mapped: usize;
        // SAFETY: mmap of new pages; with MAP_FIXED_NOREPLACE it fails rather than touch a mapping that exists.
        unsafe {
            asm!("syscall", inlateout("rax") 9_usize => mapped, in("rdi") base as usize, in("rsi") 3 * PAGE,
                in("rdx") PROT_READ_WRITE_EXEC, in("r10") MAP_PRIVATE_ANONYMOUS_FIXED_NOREPLACE, in("r8") -1_isize,
                in("r9") 0, lateout("rcx") _, lateout("r11") _);
        }
        assert_eq!(mapped, base as usize, "mmap");
        Self { base }
    }

    fn page(&mut self, number: usize) -> &mut [u8] {
        let page = (self.base as usize + number * PAGE) as *mut u8;
        // SAFETY: the three pages are mapped, belong to this machine, and nothing else points into them.
        unsafe { core::slice::from_raw_parts_mut(page, PAGE) }
    }

    /// The address of the operand.
    fn operand(&self) -> u32 {
        self.base + (2 * PAGE + OPERAND) as u32
    }

    /// Executes one instruction, which touches nothing but the memory, the flags and registers other than RSP.
    fn execute(&mut self, instruction: &[u8], registers: &Registers, memory: &[u8]) -> (Registers, Vec<u8>) {
        let state = self.base + PAGE as u32;
        let absolute = |code: &mut Vec<u8>, opcode: &[u8], register: usize, address: u32| {
            code.extend_from_slice(opcode);
            code.extend_from_slice(&[(register as u8 & 7) << 3 | 4, 0x25]);
            code.extend_from_slice(&address.to_le_bytes());
        };
        let registers_but_rsp = || (0..16).filter(|number| *number != Gpr::Rsp as usize);
        // push rbx, rbp, r12 to r15; pushfq; mov [RSP], rsp; push [RFLAGS]; popfq; mov every register
        let mut code = vec![0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x9c];
        absolute(&mut code, &[0x48, 0x89], 4, state + RSP);
        absolute(&mut code, &[0xff], 6, state + RFLAGS);
        code.push(0x9d);
        for number in registers_but_rsp() {
            absolute(&mut code, &[0x48 | (number >> 3 << 2) as u8, 0x8b], number, state + 8 * number as u32);
        }
        code.extend_from_slice(instruction);
        // mov every register; mov rsp, [RSP]; pushfq; pop [RFLAGS]; popfq; pop r15 to r12, rbp, rbx; ret
        for number in registers_but_rsp() {
            absolute(&mut code, &[0x48 | (number >> 3 << 2) as u8, 0x89], number, state + 8 * number as u32);
        }
        absolute(&mut code, &[0x48, 0x8b], 4, state + RSP);
        code.push(0x9c);
        absolute(&mut code, &[0x8f], 0, state + RFLAGS);
        code.extend_from_slice(&[0x9d, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3]);

        self.page(0)[..code.len()].copy_from_slice(&code);
        for (number, value) in registers.gpr.iter().enumerate() {
            self.page(1)[8 * number..][..8].copy_from_slice(&value.to_le_bytes());
        }
        self.page(1)[RFLAGS as usize..][..8].copy_from_slice(&registers.rflags.to_le_bytes());
        self.page(2).copy_from_slice(memory);
        // SAFETY: the code is that of a function that keeps the registers and flags the ABI wants kept.
        unsafe { core::mem::transmute::<usize, extern "sysv64" fn()>(self.base as usize)() };

        let state = self.page(1);
        let word = |offset: usize| u64::from_le_bytes(state[offset..][..8].try_into().unwrap());
        let mut after = Registers { rflags: word(RFLAGS as usize), rip: 0, ..*registers };
        for number in registers_but_rsp() {
            after.gpr[number] = word(8 * number);
        }
        (after, self.page(2).to_vec())
    }
}

/// xorshift64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // Numbers at the ends of each size set more flags than others.
        match self.0 >> 60 {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (self.0 & 63),
            3 => 0x8080_8080_8080_8080,
            4 => 0x7f7f_7f7f_7f7f_7fff,
            _ => self.0.rotate_left(17),
        }
    }

    fn registers(&mut self) -> Registers {
        Registers {
            gpr: core::array::from_fn(|_| self.next()),
            rip: 0,
            // Bit 1 is always 1, and so is IF outside the kernel.
            rflags: self.next() & Rflags::STATUS.bits() | 0x202,
        }
    }

    fn memory(&mut self) -> Vec<u8> {
        let mut memory = vec![0; PAGE];
        for word in memory.chunks_exact_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes());
        }
        memory
    }
}

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

fn store(memory: &mut [u8], offset: usize, size: Size, value: u64) {
    memory[offset..][..size.bytes()].copy_from_slice(size.of(&mut value.to_le_bytes()));
}

fn uses_rsp(instruction: &Instruction) -> bool {
    let rsp = Operand::Register(Register::Low(Gpr::Rsp));
    instruction.destination() == rsp || instruction.source() == rsp
}

/// Every encoding of `opcode` with the operand at its absolute address: all fields `reg`, the prefixes `66`, `67` and LOCK,
/// every REX.
fn encodings(opcode: &[u8], operand: u32) -> impl Iterator<Item = Vec<u8>> {
    let prefixes: [&[u8]; 6] = [&[], &[0x66], &[0x67], &[0xf0], &[0xf3], &[0x66, 0xf0]];
    prefixes.into_iter().flat_map(move |prefix| {
        // REX.X would add R12 to the address.
        (0x3f..=0x4f).filter(|rex| *rex == 0x3f || rex & 2 == 0).flat_map(move |rex| {
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

#[test]
fn an_instruction_executes_as_the_processor_does() {
    let mut machine = Machine::new(0x2000_0000);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut executed = BTreeMap::<Operation, usize>::new();
    let opcodes = (0..=0xff).flat_map(|opcode| [vec![opcode], vec![0x0f, opcode]]);
    let operand = machine.operand();
    for encoding in opcodes.flat_map(|opcode| encodings(&opcode, operand).collect::<Vec<_>>()) {
        for _ in 0..3 {
            let mut bytes = encoding.clone();
            bytes.extend_from_slice(&random.next().to_le_bytes());
            let Ok(instruction) = decode(&bytes, Mode::Bits64) else { continue };
            // Where it ends before the address, the opcode had no such operand: it is another instruction.
            if instruction.length() < encoding.len() || instruction.string().is_some() || uses_rsp(&instruction) {
                continue;
            }
            bytes.truncate(instruction.length());
            // More than one value of memory, or of registers other than the general-purpose ones.
            use Operation::{CmpxchgPair, MoveVector, Pop, Push};
            if matches!(instruction.operation(), MoveVector | CmpxchgPair | Push | Pop) {
                continue;
            }
            *executed.entry(instruction.operation()).or_default() += 1;
            check(&mut machine, &mut random, &bytes, &instruction);
        }
    }
    assert_eq!(
        executed.len(),
        21 + usize::from(executed.contains_key(&Operation::Movbe)),
        "operations executed: {executed:?}"
    );
    assert!(executed.values().all(|count| *count >= 100), "{executed:?}");
}

fn check(machine: &mut Machine, random: &mut Random, bytes: &[u8], instruction: &Instruction) {
    let (mut registers, memory) = (random.registers(), random.memory());
    let size = instruction.size();
    let mut offset = OPERAND;
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
        _ => {}
    }
    let (machine_registers, machine_memory) = machine.execute(bytes, &registers, &memory);

    let read = if instruction.direction().reads() { value(&memory, offset, size) | !mask(size) } else { 0xdead };
    let outcome = instruction.execute(&registers, read);
    let mut after_memory = memory;
    if let Some(value) = outcome.write {
        store(&mut after_memory, offset, size, value);
    }
    assert_eq!(outcome.write.is_some(), instruction.direction().writes());
    let context = format!("{bytes:02x?} {instruction:x?} with {registers:x?}");
    assert_eq!(outcome.registers.gpr, machine_registers.gpr, "{context}");
    assert_eq!(outcome.registers.rip, bytes.len() as u64, "{context}");
    let compared = defined(instruction.operation());
    assert_eq!(outcome.registers.flags() & compared, machine_registers.flags() & compared, "{context}");
    assert!(after_memory == machine_memory, "{context}: writes {:x?}", outcome.write);
}

fn mask(size: Size) -> u64 {
    size.truncate(u64::MAX)
}

#[test]
fn strings_repeat_as_the_processor_does() {
    const REPEATS: [&[u8]; 3] = [&[], &[0xf3], &[0xf2]];
    let mut machine = Machine::new(0x2001_0000);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut executed = BTreeMap::<(Direction, AddressSize), usize>::new();
    let forms: [&[u8]; 6] = [&[], &[0x66], &[0x48], &[0x67], &[0x67, 0x66], &[0x67, 0x48]];
    for (repeat, form, opcode) in REPEATS.into_iter().flat_map(|repeat| {
        forms
            .into_iter()
            .flat_map(move |form| [0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad].map(|opcode| (repeat, form, opcode)))
    }) {
        let bytes = [repeat, form, &[opcode]].concat();
        let instruction = decode(&bytes, Mode::Bits64).unwrap();
        let string = instruction.string().unwrap();
        for round in 0..40 {
            let (mut registers, memory) = (random.registers(), random.memory());
            let near: Range<u64> = 0..0x100;
            let mut place = || u64::from(machine.operand()) + random.next() % near.end;
            // The registers that a 32-bit address size uses have garbage above it.
            let garbage = if string.address_size == AddressSize::Bits32 { 0xabcd_0000_0000_0000 } else { 0 };
            registers.set(Gpr::Rsi, place() | garbage);
            registers.set(Gpr::Rdi, place() | garbage);
            if string.repeat.repeats() {
                // A count of 0 with garbage above it differs between Intel and AMD.
                let count = round % 20;
                registers.set(Gpr::Rcx, if count == 0 { 0 } else { count | garbage });
                if count == 0 {
                    registers.set(Gpr::Rsi, 0);
                    registers.set(Gpr::Rdi, 0);
                }
            }
            if round & 1 != 0 {
                registers.rflags |= Rflags::DF.bits();
            }
            let (machine_registers, machine_memory) = machine.execute(&bytes, &registers, &memory);

            let (mut after, mut after_memory) = (registers, memory);
            let mut elements = 0;
            while after.rip == 0 {
                let offset = |index| {
                    let address = string.offset(&after, index, instruction.size(), 0);
                    (address as usize).wrapping_sub(machine.base as usize + 2 * PAGE)
                };
                let read = match instruction.direction().reads() && string.count(&after) != 0 {
                    true => value(&after_memory, offset(Gpr::Rsi), instruction.size()),
                    false => 0,
                };
                let outcome = instruction.execute(&after, read);
                if let Some(value) = outcome.write {
                    store(&mut after_memory, offset(Gpr::Rdi), instruction.size(), value);
                }
                after = outcome.registers;
                elements += 1;
            }
            let context = format!("{bytes:02x?} with {registers:x?}");
            assert_eq!(after.gpr, machine_registers.gpr, "{context}");
            assert_eq!(after.rflags, machine_registers.rflags, "{context}");
            assert_eq!(after.rip, bytes.len() as u64);
            assert!(after_memory == machine_memory, "{context}");
            *executed.entry((instruction.direction(), string.address_size)).or_default() += elements;
        }
    }
    assert_eq!(executed.len(), 6, "{executed:?}");
    assert!(executed.values().all(|count| *count > 1000), "{executed:?}");
}
