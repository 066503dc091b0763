//! Bytes that a guest chose, decoded and executed in every mode, and exit information of any value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vm_device::GuestAddress;
use vm_device::exit::x86::instruction::{DecodeError, MAX_LENGTH, decode};
use vm_device::exit::x86::{Gpr, MemoryAccess, MemoryAccessKind, Mode, Registers, Segment, Size, X86Guest, svm, vmx};
use vm_device::exit::{ExecuteError, Guest, PAGE};

/// 17 numbers: the registers and what the device returned. The rest of the input is the instruction.
const NUMBERS: usize = 17;

fuzz_target!(|input: &[u8]| {
    let Some((numbers, bytes)) = input.split_at_checked(8 * NUMBERS) else { return };
    let mut numbers = numbers.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().unwrap()));
    let read = numbers.next().unwrap();
    let gpr = core::array::from_fn(|_| numbers.next().unwrap());
    let registers = Registers { gpr, rip: read.rotate_left(7), rflags: read.rotate_left(29) };

    let access = MemoryAccess {
        address: GuestAddress(read),
        kind: if read & 1 == 0 { MemoryAccessKind::Read } else { MemoryAccessKind::Write },
        mapped: false,
        page_walk: read & 2 != 0,
    };
    for mode in [Mode::Bits16, Mode::Bits32, Mode::Bits64] {
        match decode(bytes, mode) {
            Ok(instruction) => {
                assert!((1..=MAX_LENGTH).contains(&instruction.length()));
                assert_eq!(decode(&bytes[..instruction.length()], mode), Ok(instruction));
                let (mut guest, mut after) = (Anything(read), registers);
                let outcome = instruction.execute(&mut after, &access, &mut guest);
                assert!(outcome.is_ok() || after.rip == registers.rip);
                assert!(!matches!(outcome, Err(ExecuteError::NoVectorRegisters)));
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
            let access = access.with_prefixes(bytes);
            let (mut guest, mut after) = (Anything(read), registers);
            let outcome = access.execute(&mut after, &mut guest);
            assert!(outcome.is_ok() || after.rip == registers.rip);
            access.complete(&mut after, read);
        }
    }
});

/// A guest in which everything answers, but what the number decides: some pages and some accesses fail.
struct Anything(u64);

impl Anything {
    /// The next number, and whether something fails.
    fn next(&mut self) -> Result<u64, ()> {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        if self.0 >> 59 == 0 { Err(()) } else { Ok(self.0 >> 7) }
    }
}

impl Guest for Anything {
    type Fault = ();

    fn translate(&mut self, _: u64, kind: MemoryAccessKind) -> Result<GuestAddress, ()> {
        assert_ne!(kind, MemoryAccessKind::Fetch);
        self.next().map(GuestAddress)
    }
    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), ()> {
        assert!(matches!(data.len(), 1..=8) && address.0 % PAGE + data.len() as u64 <= PAGE);
        data.fill(self.next()? as u8);
        Ok(())
    }
    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), ()> {
        assert!(matches!(data.len(), 1..=8) && address.0 % PAGE + data.len() as u64 <= PAGE);
        self.next().map(drop)
    }
    fn vector(&mut self, number: u8) -> Option<[u8; 32]> {
        assert!(number < 16);
        Some([number; 32])
    }
}

impl X86Guest for Anything {
    fn linear(&mut self, _: Segment, offset: u64, _: usize, _: MemoryAccessKind) -> Result<u64, ()> {
        self.next()?;
        Ok(offset)
    }
    fn input(&mut self, _: u16, data: &mut [u8]) -> Result<(), ()> {
        assert!(matches!(data.len(), 1 | 2 | 4));
        data.fill(self.next()? as u8);
        Ok(())
    }
    fn output(&mut self, _: u16, data: &[u8]) -> Result<(), ()> {
        assert!(matches!(data.len(), 1 | 2 | 4));
        self.next().map(drop)
    }
    fn input_string(&mut self, port: u16, size: Size, data: &mut [u8]) -> Result<(), ()> {
        assert!(!data.is_empty() && data.len().is_multiple_of(size.bytes()));
        data.chunks_exact_mut(size.bytes()).try_for_each(|element| self.input(port, element))
    }
    fn is_interrupted(&mut self) -> bool {
        self.next().is_err()
    }
}
