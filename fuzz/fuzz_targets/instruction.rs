//! Bytes that a guest chose, decoded and executed in every mode, and exit information of any value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vm_device::exit::x86::instruction::{DecodeError, MAX_LENGTH, decode};
use vm_device::exit::x86::{Gpr, Mode, Registers, svm, vmx};

/// 17 numbers: the registers and what the device returned. The rest of the input is the instruction.
const NUMBERS: usize = 17;

fuzz_target!(|input: &[u8]| {
    let Some((numbers, bytes)) = input.split_at_checked(8 * NUMBERS) else { return };
    let mut numbers = numbers.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().unwrap()));
    let read = numbers.next().unwrap();
    let gpr = core::array::from_fn(|_| numbers.next().unwrap());
    let registers = Registers { gpr, rip: read.rotate_left(7), rflags: read.rotate_left(29) };

    for mode in [Mode::Bits16, Mode::Bits32, Mode::Bits64] {
        match decode(bytes, mode) {
            Ok(instruction) => {
                assert!((1..=MAX_LENGTH).contains(&instruction.length()));
                assert_eq!(decode(&bytes[..instruction.length()], mode), Ok(instruction));
                let outcome = instruction.execute(&registers, read);
                let nothing_left = instruction.string().is_some_and(|string| string.count(&registers) == 0);
                assert_eq!(outcome.write.is_some(), instruction.direction().writes() && !nothing_left);
                assert!(outcome.write.is_none_or(|value| instruction.size().truncate(value) == value));
            }
            Err(DecodeError::Truncated(_)) => assert!(bytes.len() < MAX_LENGTH),
            Err(error) => assert!(!error.to_string().is_empty()),
        }

        let exit = vmx::IoExit {
            qualification: read,
            instruction_information: Some(registers.get(Gpr::Rdx) as u32),
            instruction_length: registers.get(Gpr::Rbx) as u32,
            rip: registers.rip,
        };
        for access in [svm::port_access(read, registers.rip, mode), vmx::port_access(exit, mode)].into_iter().flatten()
        {
            let access = access.with_prefixes(bytes, mode);
            let count = access.count(&registers);
            let complete = access.complete_string(&registers, count);
            assert_eq!(complete.rip, access.next_rip);
            let _ = (access.output(&registers), access.element(&registers, count), access.complete(&registers, read));
        }
    }
});
