//! Guest-page faults of any numbers, bytes that a guest chose, and both executed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vm_device::GuestAddress;
use vm_device::exit::riscv64::instruction::{DecodeError, Instruction, Location, decode};
use vm_device::exit::riscv64::{Mode, Registers, guest_page_fault};
use vm_device::exit::{ExecuteError, Guest, MemoryAccessKind, PAGE};

/// The three causes, and another.
const CAUSES: [u64; 4] = [20, 21, 23, 13];

/// A guest whose pages lie at their virtual addresses, turned around; one of its pages is not mapped. It sums up what is accessed.
struct Machine {
    missing: u64,
    kind: MemoryAccessKind,
    bytes: usize,
    translated: usize,
}

impl Guest for Machine {
    type Fault = u64;

    fn translate(&mut self, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, u64> {
        assert!(kind == self.kind && self.bytes == 0);
        self.translated += 1;
        if address / PAGE == self.missing / PAGE {
            Err(address)
        } else {
            Ok(GuestAddress(address ^ (u64::MAX / PAGE * PAGE)))
        }
    }

    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), u64> {
        assert_eq!(self.kind, MemoryAccessKind::Read);
        self.lies_in_one_page(address, data.len());
        data.fill(0x80);
        Ok(())
    }

    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), u64> {
        assert_eq!(self.kind, MemoryAccessKind::Write);
        self.lies_in_one_page(address, data.len());
        Ok(())
    }
}

impl Machine {
    fn lies_in_one_page(&mut self, address: GuestAddress, length: usize) {
        assert!(length > 0 && address.0 % PAGE + length as u64 <= PAGE);
        self.bytes += length;
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((numbers, bytes)) = input.split_at_checked(8 * 8) else { return };
    let mut numbers = numbers.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().unwrap()));
    let [scause, stval, htval, htinst, seed, missing, hstatus, vsstatus] =
        std::array::from_fn(|_| numbers.next().unwrap());
    let registers = Registers { x: std::array::from_fn(|number| seed.rotate_left(2 * number as u32)), pc: seed };
    let mode = Mode::new(hstatus, vsstatus);

    let decoded = decode(bytes);
    match decoded {
        Ok(instruction) => {
            assert!([2, 4].contains(&instruction.length()));
            assert_eq!(decode(&bytes[..instruction.length()]), decoded);
            assert_eq!(decode(&bytes[..instruction.length() - 1]), Err(DecodeError::Truncated));
        }
        Err(DecodeError::Truncated) => assert!(bytes.len() < 4),
        Err(error) => assert!(!error.to_string().is_empty()),
    }

    let cause = CAUSES.get(scause as usize % 5).copied().unwrap_or(scause);
    // Half of the values that a guest could put there have only 32 bits.
    let htinst = if scause & 0x100 == 0 { htinst & 0xffff_ffff } else { htinst };
    let fault = match guest_page_fault(cause, stval, htval, htinst) {
        Ok(fault) => fault,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(fault.address.is_none(), htval == 0);
    match fault.instruction() {
        Ok(Some(told)) => {
            let Location::Fault { offset } = told.location() else { panic!("{told:?}") };
            assert!(usize::from(offset) < told.size().bytes());
            execute(&told, &registers, mode, missing, &fault);
        }
        Ok(None) => assert_eq!(htinst, 0),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(instruction) = decoded {
        execute(&instruction, &registers, mode, missing, &fault);
    }
});

fn execute(
    instruction: &Instruction,
    before: &Registers,
    mode: Mode,
    missing: u64,
    fault: &vm_device::exit::riscv64::GuestPageFault,
) {
    let mut after = *before;
    let kind = if instruction.writes() { MemoryAccessKind::Write } else { MemoryAccessKind::Read };
    let mut machine = Machine { missing, kind, bytes: 0, translated: 0 };
    let address = instruction.address(before, fault);
    let crosses = address % PAGE + instruction.size().bytes() as u64 > PAGE;
    match instruction.execute(&mut after, mode, fault, &mut machine) {
        Ok(()) => {
            assert_eq!(machine.bytes, instruction.size().bytes());
            assert!(
                machine.translated == if crosses { 2 } else { 1 }
                    || (!crosses && machine.translated == 0 && fault.address.is_some())
            );
            assert_eq!(after.pc, before.pc.wrapping_add(instruction.length() as u64));
            let changed: Vec<_> = (0..32).filter(|number| after.get(*number) != before.get(*number)).collect();
            assert!(changed.is_empty() || !instruction.writes() && changed == [instruction.register()]);
        }
        Err(ExecuteError::Fault(at)) => {
            assert_eq!((at / PAGE, machine.bytes, after), (missing / PAGE, 0, *before));
        }
        Err(error) => panic!("{error}"),
    }
}
