//! The calls of a guest to its firmware (Arm DEN0022, Power State Coordination Interface 1.1), which is the hypervisor.

use vm_device::PowerControl;
use vm_device::exit::arm64::Registers;

use super::barrier;
use super::processors::{self, NotTurnedOn, Start};
use super::torture;
use crate::machine::Machine;
use crate::power::POWER;

const VERSION: u32 = 0x8400_0000;
const CPU_OFF: u32 = 0x8400_0002;
/// The two forms of the call: with arguments of 32 bits and of 64.
const CPU_ON: u32 = 0x8400_0003;
const CPU_ON_64: u32 = 0xc400_0003;
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
const FEATURES: u32 = 0x8400_000a;

const VERSION_1_1: u64 = 1 << 16 | 1;
/// There is no trusted system that would have to move.
const NO_MIGRATION: u64 = 2;
const NOT_SUPPORTED: u64 = -1_i64 as u64;
const INVALID_PARAMETERS: u64 = -2_i64 as u64;
const DENIED: u64 = -3_i64 as u64;
const ALREADY_ON: u64 = -4_i64 as u64;

/// Does the call in `registers`: its number is in `x0`, and so is its result.
pub fn call(machine: &mut Machine, registers: &mut Registers) {
    let [function, number, entry, argument] = [0, 1, 2, 3].map(|index: usize| registers.x[index]);
    registers.x[0] = match function as u32 {
        VERSION => VERSION_1_1,
        MIGRATE_INFO_TYPE => NO_MIGRATION,
        FEATURES => match number as u32 {
            VERSION | CPU_OFF | CPU_ON | CPU_ON_64 | MIGRATE_INFO_TYPE | SYSTEM_OFF | SYSTEM_RESET | FEATURES => 0,
            _ => NOT_SUPPORTED,
        },
        CPU_ON => turn_on(machine, u64::from(number as u32), u64::from(entry as u32), u64::from(argument as u32)),
        CPU_ON_64 => turn_on(machine, number, entry, argument),
        CPU_OFF if barrier::current() != 0 => {
            machine.off = true;
            0
        }
        // The first is turned off as the last.
        CPU_OFF if processors::is_on() => DENIED,
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
        function => torture::call(machine, function, number, entry).unwrap_or(NOT_SUPPORTED),
    };
}

fn turn_on(machine: &Machine, number: u64, entry: u64, argument: u64) -> u64 {
    if machine.vcpu.has_machine_interrupts() {
        // The other processor's would be the guest's too, and those of the hypervisor.
        return NOT_SUPPORTED;
    }
    match processors::turn_on(number, Start { entry, argument, memory: machine.memory }) {
        Ok(()) => 0,
        Err(NotTurnedOn::On) => ALREADY_ON,
        Err(NotTurnedOn::Unknown | NotTurnedOn::NoProcessor) => INVALID_PARAMETERS,
    }
}
