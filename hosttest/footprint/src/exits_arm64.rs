//! Exits of Arm, and its instructions.

use core::hint::black_box;

use vm_device::GuestAddress;
use vm_device::exit::arm64::instruction::{DecodeError, Instruction, decode, fetch};
#[cfg(feature = "texts")]
use vm_device::exit::arm64::{
    Cause, Register, Stage2Fault,
    instruction::{Addressing, Extend, Form, Target},
};
use vm_device::exit::arm64::{DataAbort, Exit, ExitError, Mode, Registers, Transfer, data_abort};
use vm_device::exit::{Guest, MemoryAccessKind};

#[cfg(feature = "texts")]
use crate::texts::{debug, display};

/// A guest whose memory is nowhere.
struct Nowhere;

impl Guest for Nowhere {
    type Fault = u64;

    fn translate(&mut self, address: u64, _: MemoryAccessKind) -> Result<GuestAddress, u64> {
        if black_box(false) { Err(address) } else { Ok(GuestAddress(address)) }
    }

    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), u64> {
        data.fill(0);
        if black_box(false) { Err(address.0) } else { Ok(()) }
    }

    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), u64> {
        black_box(data);
        if black_box(false) { Err(address.0) } else { Ok(()) }
    }

    fn vector(&mut self, number: u8) -> Option<[u8; 32]> {
        black_box(Some([number; 32]))
    }

    fn set_vector(&mut self, number: u8, value: [u8; 32]) {
        black_box((number, value));
    }
}

pub fn all() {
    let mut guest = Nowhere;
    let mut registers = black_box(Registers { x: [0; 31], sp: 0, pc: 0, spsr: 0 });
    let mode = call!(Mode::new, 0, 0);
    call!(Mode::is_aarch32, mode);
    call!(Mode::level, mode);
    call!(Mode::uses_sp_el0, mode);
    call!(Mode::is_big_endian, mode);
    call!(Mode::aarch32_register, mode, 13);
    call!(Registers::get, &registers, 1);
    call!(Registers::set, &mut registers, 1, 2);
    call!(Registers::advance, &mut registers, 4);
    call!(Exit::address, &black_box(Exit { esr: 0, far: 0, hpfar: 0 }));
    match call!(data_abort, Exit { esr: 0, far: 0, hpfar: 0 }) {
        Ok(abort) => {
            let fault = *call!(DataAbort::fault, &abort);
            call!(DataAbort::skip, &abort, &mut registers);
            if let DataAbort::Transfer(transfer) = abort {
                call!(Transfer::writes, &transfer);
                call!(Transfer::may_begin_earlier, &transfer);
                call!(Transfer::output, &transfer, &registers, mode);
                call!(Transfer::complete, &transfer, &mut registers, mode, 0);
                let _ = call!(Transfer::execute::<Nowhere>, &transfer, &mut registers, mode, &mut guest);
            }
            let word = call!(fetch::<Nowhere>, &registers, &mut guest).unwrap_or(0);
            match call!(decode, word, mode) {
                Ok(instruction) => {
                    call!(Instruction::form, &instruction);
                    call!(Instruction::writes, &instruction);
                    call!(Instruction::size, &instruction);
                    call!(Instruction::target, &instruction);
                    call!(Instruction::register, &instruction);
                    call!(Instruction::second_register, &instruction);
                    call!(Instruction::addressing, &instruction);
                    call!(Instruction::mnemonic, &instruction);
                    call!(Instruction::address, &instruction, &registers);
                    let _ =
                        call!(Instruction::execute::<Nowhere>, &instruction, &mut registers, mode, &fault, &mut guest);
                }
                Err(error) => {
                    call!(DecodeError::mnemonic, &error);
                }
            }
        }
        Err(error) => {
            call!(ExitError::esr, error);
        }
    }
}

#[cfg(feature = "texts")]
pub fn texts() {
    let exit = black_box(Exit { esr: 0, far: 0, hpfar: 0 });
    debug::<Exit>(&exit);
    debug::<Registers>(&Registers { x: [0; 31], sp: 0, pc: 0, spsr: 0 });
    debug::<Mode>(&Mode::new(0, 0));
    match data_abort(exit) {
        Ok(abort) => {
            debug::<DataAbort>(&abort);
            debug::<Stage2Fault>(abort.fault());
            debug::<Cause>(&abort.fault().cause);
            if let DataAbort::Transfer(transfer) = abort {
                debug::<Transfer>(&transfer);
                debug::<Register>(&transfer.register);
            }
        }
        Err(error) => {
            debug::<ExitError>(&error);
            display::<ExitError>(&error);
        }
    }
    match decode(black_box(0), Mode::new(0, 0)) {
        Ok(instruction) => {
            debug::<Instruction>(&instruction);
            debug::<Form>(&instruction.form());
            debug::<Target>(&instruction.target());
            debug::<Addressing>(&instruction.addressing());
            debug::<Extend>(&Extend::Sxtw);
        }
        Err(error) => {
            debug::<DecodeError>(&error);
            display::<DecodeError>(&error);
        }
    }
}
