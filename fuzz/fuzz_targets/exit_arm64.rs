//! Syndromes of any value, and words that a guest chose: decoded beside a second decoder, and executed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vm_device::GuestAddress;
use vm_device::exit::arm64::instruction::{Addressing, DecodeError, Form, Instruction, Target, decode, fetch};
use vm_device::exit::arm64::{Cause, DataAbort, Exit, Fault, Registers, State, data_abort};
use vm_device::exit::{ExecuteError, Guest, MemoryAccessKind, Size};
use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Opcode};

/// 39 numbers: the registers of EL2 and of the guest, and what makes the machine around it.
const NUMBERS: usize = 39;

/// A guest whose pages are mapped to others, or not, by a number.
struct Machine {
    number: u64,
    translations: usize,
    read: usize,
    written: usize,
    vectors: Option<[u8; 32]>,
}

impl Machine {
    fn new(number: u64) -> Self {
        let vectors = (number & 1 == 0).then_some([number as u8; 32]);
        Self { number, translations: 0, read: 0, written: 0, vectors }
    }

    fn may(&self, address: GuestAddress, length: usize) -> Result<(), u64> {
        assert!((1..=8).contains(&length));
        assert!(address.0 % 0x1000 + length as u64 <= 0x1000);
        if address.0 >> 12 & 7 == self.number >> 8 & 15 { Err(address.0) } else { Ok(()) }
    }
}

impl Guest for Machine {
    type Fault = u64;

    fn translate(&mut self, address: u64, _: MemoryAccessKind) -> Result<GuestAddress, u64> {
        assert_eq!((self.read, self.written), (0, 0), "all is translated before the first access");
        self.translations += 1;
        if address >> 12 & 7 == self.number >> 4 & 15 { Err(address) } else { Ok(GuestAddress(address ^ 0x5000)) }
    }

    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), u64> {
        self.may(address, data.len())?;
        self.read += data.len();
        data.fill(address.0 as u8);
        Ok(())
    }

    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), u64> {
        self.may(address, data.len())?;
        self.written += data.len();
        Ok(())
    }

    fn vector(&mut self, _: u8) -> Option<[u8; 32]> {
        self.vectors
    }

    fn set_vector(&mut self, _: u8, value: [u8; 32]) {
        assert!(self.vectors.is_some() && value[16..] == [0; 16]);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((numbers, words)) = input.split_at_checked(8 * NUMBERS) else { return };
    let mut numbers = numbers.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().unwrap()));
    let mut next = || numbers.next().unwrap();
    let exit = Exit { esr: next(), far: next(), hpfar: next() };
    let state = State::new(exit.far.rotate_left(7), next());
    let registers = Registers { x: core::array::from_fn(|_| next()), sp: next(), pc: next(), spsr: next() };
    let machine = next();

    let fault = match data_abort(exit) {
        Ok(abort) => {
            let mut after = registers;
            abort.skip(&mut after);
            assert_eq!((after.x, after.sp), (registers.x, registers.sp));
            if let DataAbort::Transfer(transfer) = abort {
                let value = transfer.output(&registers, state);
                assert_eq!(transfer.size.truncate(value), value);
                let mut complete = registers;
                transfer.complete(&mut complete, state, machine);
                assert_eq!(Registers { x: registers.x, ..complete }, after);
                let mut guest = Machine::new(machine);
                let mut executed = registers;
                match transfer.execute(&mut executed, state, &mut guest) {
                    Ok(()) => {
                        let accessed = if transfer.writes() { guest.written } else { guest.read };
                        assert_eq!((accessed, guest.read + guest.written), (transfer.size.bytes(), accessed));
                    }
                    Err(_) => assert_eq!(executed, registers),
                }
            }
            *abort.fault()
        }
        Err(error) => {
            assert_eq!(error.esr(), exit.esr);
            assert!(!error.to_string().is_empty());
            Fault {
                address: Some(GuestAddress(exit.hpfar)),
                virtual_address: exit.far,
                kind: MemoryAccessKind::Read,
                cause: Cause::Translation,
                length: 4,
            }
        }
    };
    let _ = fetch(&registers, &mut Machine::new(machine));

    for word in words.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())) {
        match decode(word, state) {
            Ok(instruction) => {
                check_second(word, &instruction);
                check_execution(&instruction, registers, state, &fault, machine);
            }
            Err(error) => assert_eq!(error == DecodeError::Aarch32(word), state.is_aarch32()),
        }
    }
});

/// The second decoder knows the instruction, by the same name.
fn check_second(word: u32, instruction: &Instruction) {
    let second = InstDecoder::default().decode(&mut U8Reader::new(&word.to_le_bytes()));
    let second = second.expect("the second decoder knows what is executed");
    let same = second.opcode.to_string() == instruction.mnemonic();
    assert!(same || second.opcode == Opcode::PRFUM && instruction.form() == Form::Prefetch, "{word:#010x}");
}

/// An instruction moves all of its bytes, or none of its registers changes.
fn check_execution(instruction: &Instruction, registers: Registers, state: State, fault: &Fault, machine: u64) {
    let mut guest = Machine::new(machine);
    let mut after = registers;
    let result = instruction.execute(&mut after, state, fault, &mut guest);
    let bytes = instruction.size() * if instruction.second_register().is_some() { 2 } else { 1 };
    match result {
        Ok(()) if instruction.form() == Form::Prefetch => assert_eq!((guest.read, guest.written), (0, 0)),
        Ok(()) if instruction.writes() => assert_eq!((guest.read, guest.written), (0, bytes)),
        Ok(()) => assert_eq!((guest.read, guest.written), (bytes, 0)),
        Err(error) => {
            assert_eq!(after, registers);
            let no_vectors = instruction.target() == Target::Vector && guest.vectors.is_none();
            assert_eq!(error == ExecuteError::NoVectorRegisters, no_vectors);
            return;
        }
    }
    assert!(guest.translations <= 4);
    let writeback = match instruction.addressing() {
        Addressing::PreIndex { base, .. } | Addressing::PostIndex { base, .. } => Some(base),
        _ => None,
    };
    let loaded = |number: u8| {
        let general =
            !instruction.writes() && instruction.target() != Target::Vector && instruction.form() != Form::Prefetch;
        general && (instruction.register() == number || instruction.second_register() == Some(number))
    };
    for number in 0..31 {
        let changed = after.get(number) != registers.get(number);
        assert!(!changed || loaded(number) || writeback == Some(number));
        let narrow = matches!(instruction.target(), Target::General { wide: false, .. });
        assert!(!loaded(number) || !narrow || Size::Dword.truncate(after.get(number)) == after.get(number));
    }
    assert!(after.sp == registers.sp || writeback == Some(31));
}
