//! The calls of a guest to its firmware (Arm DEN0022, Power State Coordination Interface 1.1), which is the hypervisor.

use vm_device::PowerControl;
use vm_device::exit::arm64::Registers;

use crate::power::POWER;

const VERSION: u32 = 0x8400_0000;
const CPU_OFF: u32 = 0x8400_0002;
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
const FEATURES: u32 = 0x8400_000a;

const VERSION_1_1: u64 = 1 << 16 | 1;
/// There is no trusted system that would have to move.
const NO_MIGRATION: u64 = 2;
const NOT_SUPPORTED: u64 = -1_i64 as u64;

/// Does the call in `registers`: its number is in `x0`, and so is its result.
pub fn call(registers: &mut Registers) {
    registers.x[0] = match registers.x[0] as u32 {
        VERSION => VERSION_1_1,
        MIGRATE_INFO_TYPE => NO_MIGRATION,
        FEATURES => match registers.x[1] as u32 {
            VERSION | CPU_OFF | MIGRATE_INFO_TYPE | SYSTEM_OFF | SYSTEM_RESET | FEATURES => 0,
            _ => NOT_SUPPORTED,
        },
        // The only processor.
        CPU_OFF => {
            POWER.halt();
            0
        }
        SYSTEM_OFF => {
            POWER.power_off();
            0
        }
        SYSTEM_RESET => {
            POWER.reset();
            0
        }
        _ => NOT_SUPPORTED,
    };
}
