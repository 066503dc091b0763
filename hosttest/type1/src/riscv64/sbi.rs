//! The calls of a guest to its firmware (RISC-V Supervisor Binary Interface 1.0), which is the hypervisor.

use vm_device::PowerControl;

use super::vcpu::Vcpu;
use crate::power::POWER;

/// Extensions, by the number in `a7`.
mod extension {
    pub const BASE: u64 = 0x10;
    pub const TIME: u64 = 0x5449_4d45;
    pub const SYSTEM_RESET: u64 = 0x5352_5354;
}

const A0: u8 = 10;
const A1: u8 = 11;
const A6: u8 = 16;
const A7: u8 = 17;

const VERSION_1_0: u64 = 1 << 24;
/// The number of the implementation: none that is registered.
const IMPLEMENTATION: u64 = 0x766d_6465;

const NOT_SUPPORTED: i64 = -2;
const INVALID_PARAMETER: i64 = -3;

/// Does the call in the registers: its extension is in `a7`, its function in `a6`. Its error and its value are in `a0` and `a1`.
pub fn call(vcpu: &mut Vcpu) {
    let registers = vcpu.registers();
    let argument = registers.get(A0);
    let outcome = match (registers.get(A7), registers.get(A6)) {
        (extension::BASE, 0) => Ok(VERSION_1_0),
        (extension::BASE, 1) => Ok(IMPLEMENTATION),
        (extension::BASE, 2) => Ok(1),
        (extension::BASE, 3) => {
            Ok(u64::from(matches!(argument, extension::BASE | extension::TIME | extension::SYSTEM_RESET)))
        }
        // The vendor, architecture and implementation of the processor: not told.
        (extension::BASE, 4..=6) => Ok(0),
        (extension::TIME, 0) => {
            vcpu.set_timer(argument);
            Ok(0)
        }
        (extension::SYSTEM_RESET, 0) => match argument {
            0 => {
                POWER.power_off();
                Ok(0)
            }
            1 | 2 => {
                POWER.reset();
                Ok(0)
            }
            _ => Err(INVALID_PARAMETER),
        },
        _ => Err(NOT_SUPPORTED),
    };
    if outcome.is_ok() {
        vcpu.watch.note();
    }
    let registers = vcpu.registers_mut();
    registers.set(A0, outcome.err().unwrap_or_default() as u64);
    registers.set(A1, outcome.unwrap_or_default());
    // `ECALL` has 4 bytes.
    registers.pc = registers.pc.wrapping_add(4);
}
