//! VM exits.

use core::hint::black_box;

use vm_device::GuestAddress;
use vm_device::exit::x86::instruction::{Bytes, DecodeError, Direction, Instruction, Operation, decode};
use vm_device::exit::x86::{
    AddressSize, Gpr, MemoryAccess, MemoryAccessKind, Mode, PortAccess, Register, Registers, Repeat, Segment, Size,
    StringForm, X86Guest, svm, vmx,
};
use vm_device::exit::{ExecuteError, Guest, pieces};

/// A guest of which the compiler knows nothing.
struct Unknown;

impl Guest for Unknown {
    type Fault = u64;

    fn translate(&mut self, address: u64, _: MemoryAccessKind) -> Result<GuestAddress, u64> {
        black_box(Ok(GuestAddress(address)))
    }
    fn read(&mut self, _: GuestAddress, data: &mut [u8]) -> Result<(), u64> {
        black_box(data);
        black_box(Ok(()))
    }
    fn write(&mut self, _: GuestAddress, data: &[u8]) -> Result<(), u64> {
        black_box(data);
        black_box(Ok(()))
    }
    fn vector(&mut self, _: u8) -> Option<[u8; 32]> {
        black_box(None)
    }
    fn set_vector(&mut self, number: u8, value: [u8; 32]) {
        black_box((number, value));
    }
}

impl X86Guest for Unknown {
    fn linear(&mut self, _: Segment, offset: u64, _: usize, _: MemoryAccessKind) -> Result<u64, u64> {
        black_box(Ok(offset))
    }
    fn stack_address_size(&mut self, mode: Mode) -> AddressSize {
        black_box(mode.address_size())
    }
    fn input(&mut self, _: u16, data: &mut [u8]) -> Result<(), u64> {
        black_box(data);
        black_box(Ok(()))
    }
    fn output(&mut self, _: u16, data: &[u8]) -> Result<(), u64> {
        black_box(data);
        black_box(Ok(()))
    }
    fn is_interrupted(&mut self) -> bool {
        black_box(false)
    }
}

fn registers() -> Registers {
    black_box(Registers { gpr: [0; 16], rip: 0, rflags: 0 })
}

pub fn ports(instruction: &[u8]) {
    let mode = call!(Mode::new, true, true, false);
    let mut registers = registers();
    let exit = vmx::IoExit { qualification: 0, instruction_information: None, instruction_length: 1, rip: 0 };
    for access in [call!(svm::port_access, 0, 0, mode), call!(vmx::port_access, exit, mode)].into_iter().flatten() {
        let access = call!(PortAccess::with_prefixes, access, instruction);
        call!(PortAccess::output, &access, &registers);
        call!(PortAccess::complete, &access, &mut registers, 1);
        let _: Result<(), ExecuteError<u64>> = call!(PortAccess::execute, &access, &mut registers, &mut Unknown);
        if let Some(form) = access.string {
            call!(Repeat::repeats, form.repeat);
            call!(StringForm::count, &form, &registers);
            call!(StringForm::offset, &form, &registers, Gpr::Rsi, Size::Byte, 1);
        }
    }
}

pub fn memory() {
    call!(svm::memory_access, 0, 0);
    call!(vmx::memory_access, 0, 0);
    call!(pieces, 0, 1, 0);
    let _: ExecuteError<u64> = call!(ExecuteError::from, 0_u64);
}

pub fn instructions(bytes: &[u8]) {
    let mut registers = registers();
    match call!(decode, bytes, Mode::Bits64) {
        Ok(instruction) => {
            let operation = call!(Instruction::operation, &instruction);
            call!(Operation::flags, operation);
            call!(Instruction::destination, &instruction);
            call!(Instruction::source, &instruction);
            call!(Instruction::size, &instruction);
            call!(Instruction::bytes, &instruction);
            call!(Instruction::register_size, &instruction);
            let direction = call!(Instruction::direction, &instruction);
            call!(Direction::reads, direction);
            call!(Direction::writes, direction);
            call!(Instruction::is_locked, &instruction);
            call!(Instruction::vector, &instruction);
            call!(Instruction::string, &instruction);
            call!(Instruction::length, &instruction);
            call!(Instruction::next_rip, &instruction, 0);
            call!(Instruction::address, &instruction);
            call!(Instruction::operand, &instruction, &registers);
            let access: MemoryAccess = call!(svm::memory_access, 0, 0);
            let _: Result<(), ExecuteError<u64>> =
                call!(Instruction::execute, &instruction, &mut registers, &access, &mut Unknown);
        }
        Err(error) => {
            call!(DecodeError::mnemonic, &error);
            let bytes = call!(DecodeError::bytes, &error);
            call!(Bytes::as_slice, bytes);
            call!(Bytes::mode, bytes);
        }
    }
}

pub fn operands() {
    let mut registers = registers();
    call!(Registers::get, &registers, Gpr::Rax);
    call!(Registers::set, &mut registers, Gpr::Rax, 1);
    call!(Registers::rax, &registers);
    call!(Registers::flags, &registers);
    call!(Registers::read, &registers, Register::High(Gpr::Rax), Size::Byte);
    call!(Registers::write, &mut registers, Register::High(Gpr::Rax), Size::Byte, 1);
    call!(Gpr::from_number, 0);
    call!(Segment::from_number, 0);
    call!(Mode::address_size, Mode::Bits16);
    call!(Mode::overridden_address_size, Mode::Bits16);
    call!(AddressSize::size, AddressSize::Bits16);
    call!(Size::bytes, Size::Byte);
    call!(Size::bits, Size::Byte);
    call!(Size::from_bytes, 1);
    call!(Size::truncate, Size::Byte, 1);
    call!(Size::sign_extend, Size::Byte, 1);
    call!(Size::of, Size::Byte, &mut [0; 8]);
}
