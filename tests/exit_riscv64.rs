//! Guest-page faults of RISC-V: what the numbers say, the instructions, and what they do.

use std::collections::BTreeMap;

use vm_device::GuestAddress;
use vm_device::exit::MemoryAccessKind::{Fetch, Read, Write};
use vm_device::exit::Size::{Byte, Dword, Qword, Word};
use vm_device::exit::riscv64::instruction::Operation::{Load, LoadUnsigned, Store};
use vm_device::exit::riscv64::instruction::{DecodeError, Instruction, Location, MAX_LENGTH, Operation, decode, fetch};
use vm_device::exit::riscv64::{ExitError, GuestPageFault, Mode, Registers, guest_page_fault};
use vm_device::exit::{ExecuteError, Guest, MemoryAccessKind, Size};

/// Every load and store of 4 bytes: its opcode and width, and what it is.
const WIDTHS: [(u32, u32, Operation, Size); 11] = [
    (0x03, 0, Load, Byte),
    (0x03, 1, Load, Word),
    (0x03, 2, Load, Dword),
    (0x03, 3, Load, Qword),
    (0x03, 4, LoadUnsigned, Byte),
    (0x03, 5, LoadUnsigned, Word),
    (0x03, 6, LoadUnsigned, Dword),
    (0x23, 0, Store, Byte),
    (0x23, 1, Store, Word),
    (0x23, 2, Store, Dword),
    (0x23, 3, Store, Qword),
];

fn encoded(opcode: u32, width: u32, register: u32, base: u32, offset: i32) -> u32 {
    let offset = offset as u32 & 0xfff;
    let operands = match opcode {
        0x23 => (offset >> 5) << 25 | register << 20 | (offset & 31) << 7,
        _ => offset << 20 | register << 7,
    };
    operands | base << 15 | width << 12 | opcode
}

fn of(word: u32) -> Result<Instruction, DecodeError> {
    decode(&word.to_le_bytes())
}

fn of_compressed(parcel: u16) -> Result<Instruction, DecodeError> {
    decode(&parcel.to_le_bytes())
}

/// What is asked of the machine.
#[derive(PartialEq, Debug)]
enum Asked {
    Translate(u64, MemoryAccessKind),
    Read(u64, usize),
    Write(u64, Vec<u8>),
}

/// A guest's memory and devices: pages, which are mapped anywhere, and bytes. Where there is no byte, nothing answers.
#[derive(Default)]
struct Machine {
    pages: BTreeMap<u64, u64>,
    bytes: BTreeMap<u64, u8>,
    refused: Option<u64>,
    asked: Vec<Asked>,
}

impl Machine {
    fn new(pages: &[(u64, u64)]) -> Self {
        Self { pages: pages.iter().copied().collect(), ..Self::default() }
    }

    fn with(mut self, address: u64, bytes: &[u8]) -> Self {
        self.bytes.extend((address..).zip(bytes.iter().copied()));
        self
    }
}

impl Guest for Machine {
    type Fault = u64;

    fn translate(&mut self, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, u64> {
        self.asked.push(Asked::Translate(address, kind));
        let page = self.pages.get(&(address & !0xfff)).ok_or(address)?;
        Ok(GuestAddress(page | address & 0xfff))
    }

    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), u64> {
        self.asked.push(Asked::Read(address.0, data.len()));
        for (byte, offset) in data.iter_mut().zip(0..) {
            *byte = self.bytes.get(&address.0.wrapping_add(offset)).copied().unwrap_or(0xff);
        }
        if self.refused == Some(address.0) { Err(address.0) } else { Ok(()) }
    }

    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), u64> {
        self.asked.push(Asked::Write(address.0, data.to_vec()));
        if self.refused == Some(address.0) { Err(address.0) } else { Ok(()) }
    }
}

fn registers() -> Registers {
    Registers { x: std::array::from_fn(|number| 0x8182_8384_8586_8700 | number as u64), pc: 0x8020_0000 }
}

fn fault(scause: u64, stval: u64, htval: u64, htinst: u64) -> GuestPageFault {
    guest_page_fault(scause, stval, htval, htinst).unwrap()
}

#[test]
fn causes_are_the_three_of_guest_page_faults() {
    for (scause, kind) in [(20, Fetch), (21, Read), (23, Write)] {
        let expected = GuestPageFault {
            address: Some(GuestAddress(0x1000_0003)),
            virtual_address: 0xffff_ffff_ffff_fff3 | 0b11,
            kind,
            page_walk: false,
            htinst: 0,
        };
        assert_eq!(guest_page_fault(scause, 0xffff_ffff_ffff_fff3, 0x400_0000, 0), Ok(expected));
    }
    for scause in [0, 5, 7, 10, 13, 15, 19, 22, 24, 20 | 1 << 32, 21 | 1 << 63, u64::MAX] {
        assert_eq!(guest_page_fault(scause, 0, 0, 0), Err(ExitError::Cause(scause)));
    }
    assert_eq!(ExitError::Cause(13).to_string(), "scause 0xd is no guest-page fault");
}

#[test]
fn the_low_bits_of_the_address_are_those_of_the_virtual_one() {
    for low in 0..8 {
        let fault = fault(21, 0x7000 | low, 0x3fff_ffff_ffff_fffe, 0);
        assert_eq!(fault.address, Some(GuestAddress(0xffff_ffff_ffff_fff8 | low & 3)));
    }
}

#[test]
fn an_address_that_is_not_told_is_none() {
    let fault = fault(23, 0x7003, 0, 0);
    assert_eq!((fault.address, fault.virtual_address), (None, 0x7003));
}

/// The pseudoinstructions, whatever the access was that needed the walk.
#[test]
fn an_access_of_the_page_walk_is_no_access_to_a_device() {
    for (htinst, kind) in [(0x2000, Read), (0x2020, Write), (0x3000, Read), (0x3020, Write)] {
        for scause in [20, 21, 23] {
            let fault = fault(scause, 0x7007, 0x2000_0002, htinst);
            assert_eq!((fault.address, fault.kind, fault.page_walk), (Some(GuestAddress(0x8000_0008)), kind, true));
            assert_eq!(fault.instruction(), Err(DecodeError::PageWalk(htinst as u32)));
        }
    }
    let error = fault(21, 0, 1, 0x3000).instruction().unwrap_err();
    assert_eq!(error.to_string(), "an access to the guest's page tables, not of an instruction: 0x3000");
}

/// An embedder that decodes the bytes nevertheless translates the operand, and does not use the page table's address for it.
#[test]
fn the_address_of_a_page_table_is_never_that_of_an_operand() {
    let fault = fault(21, 0x7000, 0x2000_0000, 0x3000);
    let mut machine = Machine::new(&[(0x7000, 0x9000)]).with(0x9000, &[7]);
    let mut registers = Registers::default();
    registers.set(11, 0x7000);
    of(encoded(0x03, 4, 10, 11, 0)).unwrap().execute(&mut registers, Mode::default(), &fault, &mut machine).unwrap();
    assert_eq!(registers.get(10), 7);
    assert_eq!(machine.asked, [Asked::Translate(0x7000, Read), Asked::Read(0x9000, 1)]);
}

#[test]
fn every_load_and_store_is_read_with_every_register_and_offset() {
    for (opcode, width, operation, size) in WIDTHS {
        for (register, base) in (0..32).flat_map(|register| (0..32).map(move |base| (register, base))) {
            let offset = (register * 67 + base * 129) as i32 % 4096 - 2048;
            let instruction = of(encoded(opcode, width, register, base, offset)).unwrap();
            assert_eq!((instruction.operation(), instruction.size()), (operation, size));
            assert_eq!((u32::from(instruction.register()), instruction.length()), (register, 4));
            let location = Location::Register { base: base as u8, offset: offset as i16 };
            assert_eq!(instruction.location(), location);
        }
        for offset in -2048..2048 {
            let location = Location::Register { base: 9, offset: offset as i16 };
            assert_eq!(of(encoded(opcode, width, 5, 9, offset)).unwrap().location(), location);
        }
    }
}

/// Words that the assembler of LLVM 22 makes of the text beside them.
#[test]
fn compressed_instructions_are_as_an_assembler_writes_them() {
    for (parcel, operation, size, register, base, offset) in [
        (0x5dfc, Load, Dword, 15, 11, 124),      // c.lw a5, 124(a1)
        (0x41c8, Load, Dword, 10, 11, 4),        // c.lw a0, 4(a1)
        (0x7dfc, Load, Qword, 15, 11, 248),      // c.ld a5, 248(a1)
        (0x61c8, Load, Qword, 10, 11, 128),      // c.ld a0, 128(a1)
        (0xddfc, Store, Dword, 15, 11, 124),     // c.sw a5, 124(a1)
        (0xfdfc, Store, Qword, 15, 11, 248),     // c.sd a5, 248(a1)
        (0x50fe, Load, Dword, 1, 2, 252),        // c.lwsp ra, 252(sp)
        (0x4092, Load, Dword, 1, 2, 4),          // c.lwsp ra, 4(sp)
        (0x70fe, Load, Qword, 1, 2, 504),        // c.ldsp ra, 504(sp)
        (0x6f86, Load, Qword, 31, 2, 64),        // c.ldsp t6, 64(sp)
        (0xdf86, Store, Dword, 1, 2, 252),       // c.swsp ra, 252(sp)
        (0xc27e, Store, Dword, 31, 2, 4),        // c.swsp t6, 4(sp)
        (0xff86, Store, Qword, 1, 2, 504),       // c.sdsp ra, 504(sp)
        (0xe002, Store, Qword, 0, 2, 0),         // c.sdsp zero, 0(sp)
        (0x81c8, LoadUnsigned, Byte, 10, 11, 1), // c.lbu a0, 1(a1)
        (0x81a8, LoadUnsigned, Byte, 10, 11, 2), // c.lbu a0, 2(a1)
        (0x85a8, LoadUnsigned, Word, 10, 11, 2), // c.lhu a0, 2(a1)
        (0x85e8, Load, Word, 10, 11, 2),         // c.lh a0, 2(a1)
        (0x85c8, Load, Word, 10, 11, 0),         // c.lh a0, 0(a1)
        (0x89e8, Store, Byte, 10, 11, 3),        // c.sb a0, 3(a1)
        (0x8da8, Store, Word, 10, 11, 2),        // c.sh a0, 2(a1)
    ] {
        let instruction = of_compressed(parcel).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((instruction.operation(), instruction.size()), (operation, size), "{parcel:#x}");
        assert_eq!((instruction.register(), instruction.length()), (register, 2), "{parcel:#x}");
        assert_eq!(instruction.location(), Location::Register { base, offset }, "{parcel:#x}");
    }
}

/// As above, of what is not executed.
#[test]
fn what_is_not_executed_is_refused_by_its_name() {
    for (word, name) in [
        (0x1005_a52f_u32, "lr.w"),
        (0x1605_b52f, "lr.d"),
        (0x18c5_a52f, "sc.w"),
        (0x18c5_b52f, "sc.d"),
        (0x00c5_a52f, "amoadd.w"),
        (0x08c5_b52f, "amoswap.d"),
        (0x20c5_852f, "amoxor.b"),
        (0x40c5_952f, "amoor.h"),
        (0x60c5_a52f, "amoand.w"),
        (0x80c5_b52f, "amomin.d"),
        (0xa0c5_a52f, "amomax.w"),
        (0xc0c5_a52f, "amominu.w"),
        (0xe0c5_b52f, "amomaxu.d"),
        (0x28c5_852f, "amocas.b"),
        (0x28c5_a52f, "amocas.w"),
        (0x28c5_c52f, "amocas.q"),
        (0x48c5_a52f, "ssamoswap.w"),
        (0x48c5_b52f, "ssamoswap.d"),
        (0x3405_852f, "lb.aq"),
        (0x3605_b52f, "ld.aq"),
        (0x3aa5_802f, "sb.rl"),
        (0x3ea5_b02f, "sd.rl"),
        (0x0045_9507, "flh"),
        (0x0045_a507, "flw"),
        (0x0045_b507, "fld"),
        (0x0045_c507, "flq"),
        (0x00a5_9227, "fsh"),
        (0x00a5_a227, "fsw"),
        (0x00a5_b227, "fsd"),
        (0x00a5_c227, "fsq"),
        (0x0205_8087, "vector load"),  // vle8.v v1, (a1)
        (0x0205_f087, "vector load"),  // vle64.v v1, (a1)
        (0x0ac5_d0a7, "vector store"), // vsse16.v v1, (a1), a2
        (0x0205_e0a7, "vector store"), // vse32.v v1, (a1)
        (0x6005_c573, "hlv.b"),
        (0x6015_c573, "hlv.bu"),
        (0x6405_c573, "hlv.h"),
        (0x6415_c573, "hlv.hu"),
        (0x6435_c573, "hlvx.hu"),
        (0x6805_c573, "hlv.w"),
        (0x6815_c573, "hlv.wu"),
        (0x6835_c573, "hlvx.wu"),
        (0x6c05_c573, "hlv.d"),
        (0x62a5_c073, "hsv.b"),
        (0x66a5_c073, "hsv.h"),
        (0x6aa5_c073, "hsv.w"),
        (0x6ea5_c073, "hsv.d"),
        (0xce10_4073, "sspush"),
        (0xce50_4073, "sspush"),
        (0xcdc0_c073, "sspopchk"),
        (0xcdc2_c073, "sspopchk"),
        (0x0005_a00f, "cbo.inval"),
        (0x0015_a00f, "cbo.clean"),
        (0x0025_a00f, "cbo.flush"),
        (0x0045_a00f, "cbo.zero"),
        (0x0000_000b, "custom instruction"),
        (0xffff_ffab, "custom instruction"),
        (0x0000_705b, "custom instruction"),
        (0x1234_567b, "custom instruction"),
        (0x0000_001f, "instruction of more than 4 bytes"),
        (0xffff_ffff, "instruction of more than 4 bytes"),
    ] {
        let error = of(word).unwrap_err();
        assert_eq!((error, error.mnemonic()), (DecodeError::Unsupported(word), Some(name)), "{word:#x}");
        assert_eq!(error.to_string(), format!("an instruction that is not executed here: {name} ({word:#x})"));
    }
    for (parcel, name) in [
        (0x2588, "c.fld"),
        (0xa588, "c.fsd"),
        (0x2522, "c.fldsp"),
        (0xa42a, "c.fsdsp"),
        (0x6081, "c.sspush"),
        (0x6281, "c.sspopchk"),
    ] {
        let error = of_compressed(parcel).unwrap_err();
        assert_eq!((error, error.mnemonic()), (DecodeError::Unsupported(parcel.into()), Some(name)), "{parcel:#x}");
    }
}

#[test]
fn reserved_encodings_are_refused() {
    for word in [
        0x0000_7003_u32, // a load of the width 7
        0x0000_4023,     // a store of the width 4
        0x0000_7023,     // and 7
        0x1015_a52f,     // lr.w with a source
        0x18c5_852f,     // sc.b
        0x3005_852f,     // lb.aq without aq
        0x38a5_802f,     // sb.rl without rl
        0x3aa5_852f,     // sb.rl with a destination
        0xf8c5_a52f,     // an atomic operation that there is not
        0x00c5_c52f,     // amoadd.q
        0x00c5_d52f,     // and wider
        0x0055_a00f,     // an operation on cache blocks that there is not
        0x0045_a50f,     // cbo.zero with a destination
    ] {
        assert_eq!(of(word), Err(DecodeError::Malformed(word)), "{word:#x}");
    }
    for parcel in [
        0x0000, // nothing
        0x0004, // c.addi4spn a5, sp, 0
        0x4002, // c.lwsp zero, 0(sp)
        0x507e, // c.lwsp zero, 252(sp)
        0x6002, // c.ldsp zero, 0(sp)
        0x8c40, // c.sh with bit 6
        0x9000, // what "Zcb" leaves
        0x9c7c,
    ] {
        assert_eq!(of_compressed(parcel), Err(DecodeError::Malformed(parcel.into())), "{parcel:#x}");
    }
    assert_eq!(of(0x7003).unwrap_err().to_string(), "no valid instruction: 0x7003");
}

#[test]
fn what_touches_no_memory_is_told_so() {
    for word in [0x0ff0_000f_u32, 0x0000_100f, 0x00c5_8533, 0x0000_0073, 0x1000_0073, 0x0000_006f, 0x6005_e573] {
        assert_eq!(of(word), Err(DecodeError::NoMemoryOperand(word)), "{word:#x}");
    }
    for parcel in [0x0001, 0x0048, 0x0505, 0x6505, 0x8082, 0x9002, 0xa001, 0x6181] {
        assert_eq!(of_compressed(parcel), Err(DecodeError::NoMemoryOperand(parcel.into())), "{parcel:#x}");
    }
    assert_eq!(of(0x73).unwrap_err().to_string(), "an instruction that touches no memory: 0x73");
}

#[test]
fn an_instruction_ends_where_its_first_bits_say() {
    assert_eq!(MAX_LENGTH, 4);
    let long = encoded(0x03, 2, 10, 11, 4).to_le_bytes();
    for length in 0..4 {
        assert_eq!(decode(&long[..length]), Err(DecodeError::Truncated));
    }
    assert_eq!(decode(&[&long[..], &[0; 3]].concat()), decode(&long));
    let short = 0x41c8_u16.to_le_bytes();
    assert_eq!(decode(&short[..1]), Err(DecodeError::Truncated));
    assert_eq!(decode(&[&short[..], &[0xff; 3]].concat()), decode(&short));
    assert_eq!(DecodeError::Truncated.to_string(), "the instruction goes on behind the bytes given");
}

/// An instruction as `htinst` has it: no offset, and a distance in place of the base.
fn transformed(opcode: u32, width: u32, register: u32, distance: u32, length: usize) -> u64 {
    u64::from(encoded(opcode, width, register, distance, 0) & if length == 2 { !2 } else { !0 })
}

#[test]
fn htinst_tells_every_load_and_store_of_either_length() {
    for (opcode, width, operation, size) in WIDTHS {
        let scause = if operation == Store { 23 } else { 21 };
        for (register, length) in (0..32).flat_map(|register| [(register, 2), (register, 4)]) {
            for distance in 0..32 {
                let htinst = transformed(opcode, width, register, distance, length);
                let told = fault(scause, 0x7000, 1, htinst).instruction();
                if distance as usize >= size.bytes() {
                    assert_eq!(told, Err(DecodeError::Malformed(htinst as u32)), "{htinst:#x}");
                    continue;
                }
                let told = told.unwrap().unwrap();
                assert_eq!((told.operation(), told.size()), (operation, size), "{htinst:#x}");
                assert_eq!((u32::from(told.register()), told.length()), (register, length), "{htinst:#x}");
                assert_eq!(told.location(), Location::Fault { offset: distance as u8 }, "{htinst:#x}");
            }
        }
    }
}

#[test]
fn htinst_of_zero_tells_nothing() {
    for scause in [20, 21, 23] {
        assert_eq!(fault(scause, 0x7000, 1, 0).instruction(), Ok(None));
    }
}

#[test]
fn htinst_names_what_is_not_executed() {
    for (scause, htinst, name) in [
        (23, 0x00c0_252f, "amoadd.w"),
        (23, 0x18c0_352f, "sc.d"),
        (21, 0x1000_252f, "lr.w"),
        (21, 0x0000_2507, "flw"),
        (21, 0x0000_3505, "fld"), // c.fld, transformed
        (23, 0x00a0_3025, "fsd"), // c.fsd, transformed
        (21, 0x6800_4573, "hlv.w"),
        (23, 0x6aa0_4073, "hsv.w"),
        (23, 0x0040_200f, "cbo.zero"),
        (23, 0x0000_000b, "custom instruction"),
        (21, 0x1234_5679, "custom instruction"), // of 2 bytes
    ] {
        let error = fault(scause, 0x7000, 1, htinst).instruction().unwrap_err();
        assert_eq!((error, error.mnemonic()), (DecodeError::Unsupported(htinst as u32), Some(name)), "{htinst:#x}");
    }
}

#[test]
fn htinst_that_no_processor_writes_is_refused() {
    for (scause, htinst) in [
        (21, 0x2040),      // bits 1:0 are 00, and no pseudoinstruction
        (21, 0x0000_2502), // bits 1:0 are 10
        (21, 0x0010_2503), // a load with an offset
        (23, 0x00a0_20a3), // a store with an offset, below
        (23, 0x02a0_2023), // and above
        (21, 0x0000_7503), // a load of the width 7
        (21, 0x00a0_2023), // a store that caused a load's fault
        (23, 0x0000_2503), // a load that caused a store's
        (20, 0x0000_2503), // a load that caused a fetch's
        (21, 0x0000_0513), // an addition
    ] {
        let told = fault(scause, 0x7000, 1, htinst).instruction();
        assert_eq!(told, Err(DecodeError::Malformed(htinst as u32)), "{htinst:#x}");
    }
    let error = guest_page_fault(21, 0x7000, 1, 0x1_0000_2503);
    assert_eq!(error, Err(ExitError::Instruction(0x1_0000_2503)));
    assert_eq!(error.unwrap_err().to_string(), "htinst 0x100002503 has more than 32 bits");
}

/// Width, what was read, and what the register holds then.
#[test]
fn a_load_extends_what_it_read() {
    for (width, read, expected) in [
        (0, 0x80, 0xffff_ffff_ffff_ff80),
        (0, 0x7f, 0x7f),
        (1, 0x8000, 0xffff_ffff_ffff_8000),
        (1, 0x7fff, 0x7fff),
        (2, 0x8000_0000, 0xffff_ffff_8000_0000),
        (2, 0x7fff_ffff, 0x7fff_ffff),
        (3, 0x8000_0000_0000_0000, 0x8000_0000_0000_0000),
        (4, 0x80, 0x80),
        (5, 0x8000, 0x8000),
        (6, 0x8000_0000, 0x8000_0000_u64),
    ] {
        for word in [encoded(0x03, width, 31, 11, 0), encoded(0x03, width, 31, 31, -1)] {
            let instruction = of(word).unwrap();
            let mut after = registers();
            // What lies above the operand is ignored.
            instruction.complete(
                &mut after,
                Mode::default(),
                read | u64::MAX.checked_shl(instruction.size().bits()).unwrap_or(0),
            );
            let mut expected_after = registers();
            expected_after.x[31] = expected;
            expected_after.pc += 4;
            assert_eq!(after, expected_after, "{word:#x}");
        }
    }
}

#[test]
fn x0_is_zero_and_stays_so() {
    let mut registers = registers();
    assert_eq!(registers.get(0), 0);
    registers.set(0, 5);
    registers.set(32, 5);
    assert_eq!((registers, registers.get(32)), (self::registers(), 0));
    // A load to it reads, and only the program counter changes.
    let fault = fault(21, 0x7000, 0x1000_0000 >> 2, transformed(0x03, 3, 0, 0, 4));
    let mut machine = Machine::default();
    let load = fault.instruction().unwrap().unwrap();
    load.execute(&mut registers, Mode::default(), &fault, &mut machine).unwrap();
    assert_eq!(machine.asked, [Asked::Read(0x1000_0000, 8)]);
    assert_eq!(registers, Registers { pc: 0x8020_0004, ..self::registers() });
    // A store of it writes zeros, and as a base it is address 0.
    let store = of(encoded(0x23, 1, 0, 0, -2)).unwrap();
    assert_eq!((store.output(&registers, Mode::default()), store.address(&registers, &fault)), (0, u64::MAX - 1));
}

#[test]
fn the_program_counter_advances_by_the_length_and_wraps() {
    for (instruction, length) in [(of_compressed(0x41c8), 2), (of(encoded(0x23, 0, 10, 11, 0)), 4)] {
        for pc in [0, 0x8020_0000, u64::MAX - 1] {
            let mut registers = Registers { pc, ..Registers::default() };
            instruction.unwrap().complete(&mut registers, Mode::default(), 0);
            assert_eq!(registers.pc, pc.wrapping_add(length));
        }
    }
}

/// The operand is where the exit says, without a translation: of every size, from either source of the instruction.
#[test]
fn an_operand_in_one_page_is_where_the_exit_says() {
    for (opcode, width, operation, size) in WIDTHS {
        let scause = if operation == Store { 23 } else { 21 };
        let [start, end] = [0x7123, 0x8000 - size.bytes() as u64];
        for address in [start, end] {
            let told =
                fault(scause, address, (0x1000_0000 | address & 0xfff) >> 2, transformed(opcode, width, 10, 0, 4));
            let mut before = registers();
            before.x[11] = address + 4;
            let decoded = of(encoded(opcode, width, 10, 11, -4)).unwrap();
            for instruction in [told.instruction().unwrap().unwrap(), decoded] {
                let mut machine = Machine::default()
                    .with(0x1000_0000 | address & 0xfff, &[0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98]);
                let mut after = before;
                instruction.execute(&mut after, Mode::default(), &told, &mut machine).unwrap();
                let place = 0x1000_0000 | address & 0xfff;
                let mut expected = before;
                if operation == Store {
                    let bytes = before.x[10].to_le_bytes()[..size.bytes()].to_vec();
                    assert_eq!(machine.asked, [Asked::Write(place, bytes)]);
                } else {
                    assert_eq!(machine.asked, [Asked::Read(place, size.bytes())]);
                    let value = size.truncate(0x9897_9695_9493_9291);
                    expected.x[10] = if operation == Load { size.sign_extend(value) } else { value };
                }
                expected.pc += 4;
                assert_eq!(after, expected);
            }
        }
    }
}

#[test]
fn an_address_that_is_not_told_is_translated() {
    let fault = fault(23, 0x7ffe, 0, transformed(0x23, 1, 10, 0, 2));
    let mut machine = Machine::new(&[(0x7000, 0x1000_0000)]);
    let mut after = registers();
    let store = fault.instruction().unwrap().unwrap();
    store.execute(&mut after, Mode::default(), &fault, &mut machine).unwrap();
    let written = Asked::Write(0x1000_0ffe, vec![0x0a, 0x87]);
    assert_eq!(machine.asked, [Asked::Translate(0x7ffe, Write), written]);
    assert_eq!(after, Registers { pc: 0x8020_0002, ..registers() });
}

/// Another hart wrote another instruction before its bytes were read: it is executed where it belongs. The same holds for a
/// pointer whose upper bits are masked.
#[test]
fn an_operand_that_the_fault_is_not_of_is_translated() {
    let mut before = registers();
    before.x[11] = 0x6000;
    before.x[12] = 0xff00_0000_0000_6000;
    for (scause, word, address, kind) in [
        (21, encoded(0x03, 0, 10, 12, 0), 0xff00_0000_0000_6000, Read),
        (23, encoded(0x03, 0, 10, 11, 0), 0x6000, Read),
        (21, encoded(0x23, 0, 10, 11, 0), 0x6000, Write),
        (20, encoded(0x03, 0, 10, 11, 0), 0x6000, Read),
        (21, encoded(0x03, 0, 10, 11, -1), 0x5fff, Read),
    ] {
        let fault = fault(scause, 0x6000, 0x1000_0000 >> 2, 0);
        let mut machine = Machine::new(&[(0x5000, 0xa000), (0x6000, 0xb000), (0xff00_0000_0000_6000, 0xb000)]);
        of(word).unwrap().execute(&mut before.clone(), Mode::default(), &fault, &mut machine).unwrap();
        assert_eq!(machine.asked[0], Asked::Translate(address, kind), "{word:#x}");
        assert_eq!(machine.asked.len(), 2);
    }
}

#[test]
fn an_instruction_is_fetched_in_its_pieces() {
    let long = encoded(0x03, 2, 10, 11, 4).to_le_bytes();
    let pages = [(0x7000, 0x1000_0000), (0x8000, 0x2000_0000)];
    let fetched = |pc, bytes: &[u8], pages: &[(u64, u64)]| {
        let mut machine = Machine::new(pages);
        machine.bytes = bytes
            .iter()
            .enumerate()
            .map(|(offset, byte)| {
                let address = pc + offset as u64;
                (if address < 0x8000 { 0x1000_0000 | address & 0xfff } else { 0x2000_0000 | address & 0xfff }, *byte)
            })
            .collect();
        let bytes = fetch(&Registers { pc, ..Registers::default() }, &mut machine);
        (bytes.map(|bytes| decode(&bytes)), machine.asked)
    };
    // In one page, all that it can have is read at once.
    let (told, asked) = fetched(0x7ffc, &long, &pages);
    assert_eq!((told, asked), (Ok(decode(&long)), vec![Asked::Translate(0x7ffc, Fetch), Asked::Read(0x1000_0ffc, 4)]));
    // Across two pages, it is read in pieces.
    let (told, asked) = fetched(0x7ffe, &long, &pages);
    let first = [Asked::Translate(0x7ffe, Fetch), Asked::Read(0x1000_0ffe, 2)];
    assert_eq!((told, &asked[..2]), (Ok(decode(&long)), &first[..]));
    assert_eq!(asked[2..], [Asked::Translate(0x8000, Fetch), Asked::Read(0x2000_0000, 2)]);
    // The second page may be missing only if the instruction ends before.
    let (told, asked) = fetched(0x7ffe, &0x41c8_u16.to_le_bytes(), &pages[..1]);
    assert_eq!((told, &asked[..]), (Ok(of_compressed(0x41c8)), &first[..]));
    let (told, _) = fetched(0x7ffe, &long, &pages[..1]);
    assert_eq!(told, Err(0x8000));
}

/// The fault is in the first page or in the second, the instruction told or decoded; the pieces lie apart, and neither a value nor an
/// access goes beyond its piece.
#[test]
fn an_operand_over_two_pages_is_read_and_written_in_its_pieces() {
    let bytes = [0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98];
    for (opcode, width, operation, size) in WIDTHS {
        let scause = if operation == Store { 23 } else { 21 };
        for first in 1..size.bytes() {
            let start = 0x8000 - first as u64;
            let place = 0x1000_1000 - first as u64;
            let rest = size.bytes() - first;
            for (stval, htval, distance) in [(start, place >> 2, 0), (0x8000, 0x2000_0000 >> 2, first as u32)] {
                let told = fault(scause, stval, htval, transformed(opcode, width, 10, distance, 4));
                let mut before = registers();
                before.x[11] = start;
                let decoded = of(encoded(opcode, width, 10, 11, 0)).unwrap();
                for instruction in [told.instruction().unwrap().unwrap(), decoded] {
                    assert_eq!(instruction.address(&before, &told), start);
                    let mut machine = Machine::new(&[(0x7000, 0x1000_0000), (0x8000, 0x2000_0000)])
                        .with(place, &bytes[..first])
                        .with(0x2000_0000, &bytes[first..]);
                    let mut after = before;
                    instruction.execute(&mut after, Mode::default(), &told, &mut machine).unwrap();
                    let kind = if instruction.writes() { Write } else { Read };
                    let mut asked = vec![Asked::Translate(start, kind), Asked::Translate(0x8000, kind)];
                    let mut expected = before;
                    if operation == Store {
                        let value = before.x[10].to_le_bytes();
                        asked.push(Asked::Write(place, value[..first].to_vec()));
                        asked.push(Asked::Write(0x2000_0000, value[first..first + rest].to_vec()));
                    } else {
                        asked.extend([Asked::Read(place, first), Asked::Read(0x2000_0000, rest)]);
                        let value = size.truncate(u64::from_le_bytes(bytes));
                        expected.x[10] = if operation == Load { size.sign_extend(value) } else { value };
                    }
                    expected.pc += 4;
                    assert_eq!((machine.asked, after), (asked, expected), "{size:?} {first}");
                }
            }
        }
    }
}

#[test]
fn a_fault_in_the_second_piece_leaves_everything_as_it_was() {
    for (opcode, width) in [(0x03, 3), (0x23, 3)] {
        let scause = if opcode == 0x23 { 23 } else { 21 };
        let told = fault(scause, 0x7ffc, 0x1000_0ffc >> 2, transformed(opcode, width, 10, 0, 4));
        let mut machine = Machine::new(&[(0x7000, 0x1000_0000)]);
        let mut after = registers();
        let instruction = told.instruction().unwrap().unwrap();
        let outcome = instruction.execute(&mut after, Mode::default(), &told, &mut machine);
        assert_eq!((outcome, after), (Err(ExecuteError::Fault(0x8000)), registers()));
        let kind = if instruction.writes() { Write } else { Read };
        assert_eq!(machine.asked, [Asked::Translate(0x7ffc, kind), Asked::Translate(0x8000, kind)]);
    }
}

/// The machine refuses the access itself: what was written stays, and the registers are as they were.
#[test]
fn a_refused_access_leaves_the_registers_as_they_were() {
    for (opcode, refused) in [(0x03, 0x1000_0ffe), (0x03, 0x2000_0000), (0x23, 0x1000_0ffe), (0x23, 0x2000_0000)] {
        let scause = if opcode == 0x23 { 23 } else { 21 };
        let told = fault(scause, 0x7ffe, 0x1000_0ffc >> 2, transformed(opcode, 2, 10, 0, 4));
        let pages = [(0x7000, 0x1000_0000), (0x8000, 0x2000_0000)];
        let mut machine = Machine { refused: Some(refused), ..Machine::new(&pages) };
        let mut after = registers();
        let instruction = told.instruction().unwrap().unwrap();
        let outcome = instruction.execute(&mut after, Mode::default(), &told, &mut machine);
        assert_eq!((outcome, after), (Err(ExecuteError::Fault(refused)), registers()));
        assert_eq!(machine.asked.len(), if refused == 0x2000_0000 { 4 } else { 3 });
    }
}

/// At the last byte of the virtual addresses the second piece is at 0; at the last of the physical ones, the address is that.
#[test]
fn both_ends_of_the_address_space_are_reached() {
    let load = |offset| of(encoded(0x03, 1, 10, 0, offset)).unwrap();
    let mut machine =
        Machine::new(&[(0xffff_ffff_ffff_f000, 0x1000), (0, 0x2000)]).with(0x1fff, &[1]).with(0x2000, &[2]);
    let mut after = registers();
    let told = fault(21, 0, 0x2000 >> 2, 0);
    load(-1).execute(&mut after, Mode::default(), &told, &mut machine).unwrap();
    assert_eq!(after.get(10), 0x0201);
    let expected =
        [Asked::Translate(u64::MAX, Read), Asked::Translate(0, Read), Asked::Read(0x1fff, 1), Asked::Read(0x2000, 1)];
    assert_eq!(machine.asked, expected);

    for (stval, htval, word, place) in [
        (u64::MAX - 1, u64::MAX >> 2, load(-2), u64::MAX - 1),
        (0, 0x1000 >> 2, load(0), 0x1000),
        (u64::MAX, u64::MAX, of(encoded(0x03, 4, 10, 0, -1)).unwrap(), u64::MAX),
    ] {
        let mut machine = Machine::default();
        word.execute(&mut after, Mode::default(), &fault(21, stval, htval, 0), &mut machine).unwrap();
        assert_eq!(machine.asked, [Asked::Read(place, word.size().bytes())]);
    }

    // The base and the offset wrap.
    let mut registers = Registers::default();
    registers.set(11, u64::MAX);
    assert_eq!(of(encoded(0x03, 0, 10, 11, 2047)).unwrap().address(&registers, &told), 2046);
    registers.set(11, 0);
    assert_eq!(of(encoded(0x23, 0, 10, 11, -2048)).unwrap().address(&registers, &told), u64::MAX - 2047);
    // So does the distance to the operand's start.
    let told = fault(23, 1, 1, transformed(0x23, 3, 10, 7, 4));
    assert_eq!(told.instruction().unwrap().unwrap().address(&registers, &told), u64::MAX - 5);
}

#[test]
fn data_of_a_big_endian_guest_has_its_highest_byte_first() {
    let mode = Mode { big_endian: true };
    for (opcode, width, operation, size) in WIDTHS {
        let scause = if operation == Store { 23 } else { 21 };
        let told = fault(scause, 0x7000, 0x1000_0000 >> 2, transformed(opcode, width, 10, 0, 4));
        let mut machine = Machine::default().with(0x1000_0000, &[0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98]);
        let mut after = registers();
        told.instruction().unwrap().unwrap().execute(&mut after, mode, &told, &mut machine).unwrap();
        if operation == Store {
            let bytes = registers().x[10].to_be_bytes()[8 - size.bytes()..].to_vec();
            assert_eq!(machine.asked, [Asked::Write(0x1000_0000, bytes)]);
        } else {
            let value = 0x9192_9394_9596_9798 >> (64 - size.bits());
            assert_eq!(after.get(10), if operation == Load { size.sign_extend(value) } else { value });
        }
    }
    // Over two pages, the first piece has the upper bytes.
    let told = fault(23, 0x7fff, 0x1000_0ffc >> 2, transformed(0x23, 1, 10, 0, 4));
    let mut machine = Machine::new(&[(0x7000, 0x1000_0000), (0x8000, 0x2000_0000)]);
    told.instruction().unwrap().unwrap().execute(&mut registers(), mode, &told, &mut machine).unwrap();
    assert_eq!(machine.asked[2..], [Asked::Write(0x1000_0fff, vec![0x87]), Asked::Write(0x2000_0000, vec![0x0a])]);
}

#[test]
fn the_byte_order_is_that_of_the_privilege_that_ran() {
    const VSBE: u64 = 1 << 5;
    const SPVP: u64 = 1 << 8;
    const UBE: u64 = 1 << 6;
    for (hstatus, vsstatus, big_endian) in [
        (0, 0, false),
        (SPVP | VSBE, 0, true),
        (SPVP, UBE, false),
        (VSBE, 0, false),
        (VSBE, UBE, true),
        (0, UBE, true),
        (!(SPVP | VSBE), !UBE, false),
        (u64::MAX, 0, true),
    ] {
        assert_eq!(Mode::new(hstatus, vsstatus), Mode { big_endian }, "{hstatus:#x} {vsstatus:#x}");
    }
}
