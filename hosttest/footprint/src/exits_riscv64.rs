//! Guest-page faults of RISC-V.

use core::hint::black_box;

use vm_device::GuestAddress;
use vm_device::exit::riscv64::instruction::{self, DecodeError, Instruction};
use vm_device::exit::riscv64::{self, GuestPageFault, Mode, Registers};
use vm_device::exit::{ExecuteError, Guest, MemoryAccessKind};

/// A guest in which everything may fail.
struct Machine;

impl Guest for Machine {
    type Fault = ();

    fn translate(&mut self, address: u64, _: MemoryAccessKind) -> Result<GuestAddress, ()> {
        black_box(Ok(GuestAddress(address)))
    }

    fn read(&mut self, _: GuestAddress, data: &mut [u8]) -> Result<(), ()> {
        black_box(data);
        black_box(Ok(()))
    }

    fn write(&mut self, _: GuestAddress, data: &[u8]) -> Result<(), ()> {
        black_box(data);
        black_box(Ok(()))
    }
}

pub fn guest_page_faults(bytes: &[u8]) {
    let mut registers = black_box(Registers { x: [0; 32], pc: 0 });
    call!(Registers::get, &registers, 1);
    call!(Registers::set, &mut registers, 1, 1);
    let mode = call!(Mode::new, 0, 0);
    let Ok(fault) = call!(riscv64::guest_page_fault, 21, 0, 1, 0) else { return };
    let told = call!(GuestPageFault::instruction, &fault);
    call!(instruction::fetch::<Machine>, &registers, &mut Machine).ok();
    let decoded = call!(instruction::decode, bytes);
    if let Err(error) = decoded {
        call!(DecodeError::mnemonic, &error);
    }
    for instruction in [told.ok().flatten(), decoded.ok()].into_iter().flatten() {
        call!(Instruction::operation, &instruction);
        call!(Instruction::writes, &instruction);
        call!(Instruction::size, &instruction);
        call!(Instruction::register, &instruction);
        call!(Instruction::length, &instruction);
        call!(Instruction::location, &instruction);
        call!(Instruction::address, &instruction, &registers, &fault);
        call!(Instruction::output, &instruction, &registers, mode);
        call!(Instruction::complete, &instruction, &mut registers, mode, 1);
        call!(Instruction::execute::<Machine>, &instruction, &mut registers, mode, &fault, &mut Machine).ok();
    }
}

#[cfg(feature = "texts")]
pub fn texts() {
    use vm_device::exit::riscv64::ExitError;
    use vm_device::exit::riscv64::instruction::{Location, Operation};

    use crate::texts::{debug, display};

    if let Err(error) = riscv64::guest_page_fault(black_box(10), 0, 0, 0) {
        display::<ExitError>(&error);
        debug::<ExitError>(&error);
    }
    if let Err(error) = instruction::decode(black_box(&[0x2f])) {
        display::<DecodeError>(&error);
        debug::<DecodeError>(&error);
    }
    let error = ExecuteError::from(black_box(0));
    display::<ExecuteError<u8>>(&error);
    debug::<ExecuteError<u8>>(&error);
    if let Ok(fault) = riscv64::guest_page_fault(black_box(21), 0, 1, 0) {
        debug::<GuestPageFault>(&fault);
    }
    if let Ok(instruction) = instruction::decode(black_box(&[0x03, 0xc5, 0x55, 0x00])) {
        debug::<Instruction>(&instruction);
        debug::<Operation>(&instruction.operation());
        debug::<Location>(&instruction.location());
    }
    debug::<Mode>(&Mode { big_endian: false });
    debug::<Registers>(&Registers { x: [0; 32], pc: 0 });
}
