//! A64 loads and stores that no syndrome describes: what they do to registers, memory and devices.

mod arm64;

use arm64::{EL1H, Event, Machine, Refusal, big, fault, little};
use vm_device::GuestAddress;
use vm_device::exit::arm64::instruction::{DecodeError, Form, decode, fetch};
use vm_device::exit::arm64::{Mode, Registers, Stage2Fault};
use vm_device::exit::{ExecuteError, MemoryAccessKind};

use MemoryAccessKind::{Fetch, Read, Write};

/// The device's page, where it is in the guest's addresses, and the page after it.
const DEVICE: u64 = 0x900_0000;
const VIRTUAL: u64 = 0xffff_0000_0000_5000;
const NEXT: u64 = VIRTUAL + 0x1000;
/// Memory, which the page after the device's leads to.
const MEMORY: u64 = 0x20_0000;

fn machine() -> Machine {
    let mut guest = Machine::with_pages(&[(VIRTUAL, DEVICE), (NEXT, MEMORY)]);
    let bytes: Vec<u8> = (0..=255).map(|byte| byte ^ 0x80).collect();
    guest.fill(DEVICE, &bytes);
    guest
}

/// X0 to X30 tell their number in every byte; X2 is at `base`.
fn numbered(base: u64) -> Registers {
    let mut x = core::array::from_fn(|number| 0x0101_0101_0101_0101 * number as u64);
    x[2] = base;
    Registers { x, sp: VIRTUAL + 0x80, pc: 0x8000, spsr: EL1H }
}

/// Executes `word` in a `mode` and returns the registers, the error, and the machine.
fn run_in(
    word: u32,
    registers: Registers,
    mut guest: Machine,
    mode: Mode,
    fault: Stage2Fault,
) -> (Registers, Result<(), ExecuteError<Refusal>>, Machine) {
    let mut after = registers;
    let instruction = decode(word, mode).unwrap_or_else(|error| panic!("{error}"));
    let result = instruction.execute(&mut after, mode, &fault, &mut guest);
    (after, result, guest)
}

/// The same of a little-endian guest, which succeeds, with X2 at an offset into the device's page.
fn run(word: u32, offset: u64) -> (Registers, Machine) {
    let kind = if decode(word, little()).is_ok_and(|instruction| instruction.writes()) { Write } else { Read };
    let fault = fault(kind, VIRTUAL, DEVICE);
    let (registers, result, guest) = run_in(word, numbered(VIRTUAL.wrapping_add(offset)), machine(), little(), fault);
    assert_eq!(result, Ok(()));
    assert_eq!((registers.pc, registers.spsr), (0x8004, EL1H));
    (registers, guest)
}

/// What a load at `offset` leaves in X0.
fn loaded(word: u32, offset: u64) -> u64 {
    run(word, offset).0.x[0]
}

#[test]
fn loads_of_every_size_extend_as_their_mnemonics_say() {
    // ldrb w0, [x2]; ldrsb x0; ldrsb w0
    assert_eq!(loaded(0x3940_0040, 4), 0x84);
    assert_eq!(loaded(0x3980_0040, 4), 0xffff_ffff_ffff_ff84);
    assert_eq!(loaded(0x39c0_0040, 4), 0xffff_ff84);
    // ldrh w0; ldrsh x0; ldrsh w0
    assert_eq!(loaded(0x7940_0040, 4), 0x8584);
    assert_eq!(loaded(0x7980_0040, 4), 0xffff_ffff_ffff_8584);
    assert_eq!(loaded(0x79c0_0040, 4), 0xffff_8584);
    // ldr w0; ldrsw x0; ldr x0
    assert_eq!(loaded(0xb940_0040, 4), 0x8786_8584);
    assert_eq!(loaded(0xb980_0040, 4), 0xffff_ffff_8786_8584);
    assert_eq!(loaded(0xf940_0040, 4), 0x8b8a_8988_8786_8584);
}

#[test]
fn every_way_of_addressing_reaches_its_own_address() {
    // str x0, [x2, #32760] and strb w0, [x2, #4095]: the largest offsets.
    for (word, offset, length) in [(0xf93f_fc40, 32760, 8), (0x393f_fc40, 4095, 1)] {
        let (after, guest) = run(word, 0_u64.wrapping_sub(offset));
        assert_eq!(guest.accesses(), [Event::Write(DEVICE, vec![0; length])]);
        assert_eq!(after.x[2], VIRTUAL.wrapping_sub(offset));
    }
    // ldur w0, [x2, #-3]
    assert_eq!(loaded(0xb85f_d040, 7), 0x8786_8584);
    // ldtrsb w0, [x2, #1]; sttrh w0, [x2]
    assert_eq!(loaded(0x38c0_1840, 3), 0xffff_ff84);
    assert_eq!(run(0x7800_0840, 4).1.accesses(), [Event::Write(DEVICE + 4, vec![0, 0])]);
    // ldrsw x0, [x2, x3, lsl #2]; the index is 0x0303...: its low bits reach the page.
    let at = |word, index: u64| {
        let registers = Registers {
            x: {
                let mut x = numbered(VIRTUAL + 8).x;
                x[3] = index;
                x
            },
            ..numbered(0)
        };
        let (after, result, _) = run_in(word, registers, machine(), little(), fault(Read, VIRTUAL, DEVICE));
        assert_eq!(result, Ok(()));
        after.x[0]
    };
    assert_eq!(at(0xb8a3_7840, 2), 0xffff_ffff_9392_9190);
    // ldr x0, [x2, w3, uxtw]: the upper half of the index is nothing.
    assert_eq!(at(0xf863_4840, 0xffff_ffff_0000_0001), 0x908f_8e8d_8c8b_8a89);
    // ldr x0, [x2, w3, sxtw #3]
    assert_eq!(at(0xf863_d840, 0xffff_ffff), 0x8786_8584_8382_8180);
    // ldr x0, [x2, x3, sxtx #3]
    assert_eq!(at(0xf863_f840, u64::MAX), 0x8786_8584_8382_8180);
    // ldr x0, [sp, xzr]: 31 is the stack pointer as a base, and zero as an index.
    assert_eq!(loaded(0xf87f_6be0, 0), 0x0706_0504_0302_0100);
    // ldr w0, [pc + 0x2000]; ldrsw x0, [pc - 8]
    for (word, pc, value) in
        [(0x1801_0000, VIRTUAL - 0x2000 + 4, 0x8786_8584), (0x98ff_ffc0, VIRTUAL + 12, 0xffff_ffff_8786_8584)]
    {
        let registers = Registers { pc, ..numbered(0) };
        let (after, result, _) = run_in(word, registers, machine(), little(), fault(Read, VIRTUAL, DEVICE));
        assert_eq!((result, after.x[0], after.pc), (Ok(()), value, pc + 4));
    }
}

/// "Post-index stores without ISV come from real drivers; a hypervisor that takes ISV for granted writes garbage."
#[test]
fn writeback_comes_after_the_access_and_uses_the_old_base() {
    // str w3, [x2], #4
    let (after, guest) = run(0xb800_4443, 8);
    assert_eq!((guest.accesses(), after.x[2]), (vec![Event::Write(DEVICE + 8, vec![3; 4])], VIRTUAL + 12));
    // str x3, [x2, #-16]!
    let (after, guest) = run(0xf81f_0c43, 24);
    assert_eq!((guest.accesses(), after.x[2]), (vec![Event::Write(DEVICE + 8, vec![3; 8])], VIRTUAL + 8));
    // ldr w3, [x2], #-256
    let (after, _) = run(0xb850_0443, 4);
    assert_eq!((after.x[3], after.x[2]), (0x8786_8584, VIRTUAL + 4 - 256));
    // str w3, [sp], #4
    let (after, guest) = run(0xb800_47e3, 0);
    assert_eq!((guest.accesses(), after.sp), (vec![Event::Write(DEVICE + 0x80, vec![3; 4])], VIRTUAL + 0x84));
    // strb wzr, [x2], #1; ldrb wzr, [x2], #1
    let (after, guest) = run(0x3800_145f, 8);
    assert_eq!((guest.accesses(), after.x[2]), (vec![Event::Write(DEVICE + 8, vec![0])], VIRTUAL + 9));
    let (after, guest) = run(0x3840_145f, 8);
    assert_eq!((guest.accesses(), after.x[2]), (vec![Event::Read(DEVICE + 8, 1)], VIRTUAL + 9));
    assert_eq!(Registers { pc: 0x8000, ..after }, numbered(VIRTUAL + 9));
}

#[test]
fn pairs_make_an_access_for_each_register() {
    // ldp x0, x1, [x2, #16]
    let (after, guest) = run(0xa941_0440, 0);
    assert_eq!(guest.accesses(), [Event::Read(DEVICE + 16, 8), Event::Read(DEVICE + 24, 8)]);
    assert_eq!((after.x[0], after.x[1]), (0x9796_9594_9392_9190, 0x9f9e_9d9c_9b9a_9998));
    // ldp w0, w1, [sp], #8
    let (after, guest) = run(0x28c1_07e0, 0);
    assert_eq!(guest.accesses(), [Event::Read(DEVICE + 0x80, 4), Event::Read(DEVICE + 0x84, 4)]);
    assert_eq!((after.x[0], after.x[1], after.sp), (0x0302_0100, 0x0706_0504, VIRTUAL + 0x88));
    // ldpsw x0, x1, [x2]
    let (after, _) = run(0x6940_0440, 4);
    assert_eq!((after.x[0], after.x[1]), (0xffff_ffff_8786_8584, 0xffff_ffff_8b8a_8988));
    // stp x0, xzr, [x2, #-16]!
    let (after, guest) = run(0xa9bf_7c40, 32);
    assert_eq!(guest.accesses(), [Event::Write(DEVICE + 16, vec![0; 8]), Event::Write(DEVICE + 24, vec![0; 8])]);
    assert_eq!(after.x[2], VIRTUAL + 16);
    // stp w0, w1, [x2]
    let (_, guest) = run(0x2900_0440, 0);
    assert_eq!(guest.accesses(), [Event::Write(DEVICE, vec![0; 4]), Event::Write(DEVICE + 4, vec![1; 4])]);
    // stnp x0, x1, [x2, #-512]; ldnp w0, w1, [x2, #252]
    let (_, guest) = run(0xa820_0440, 512);
    assert_eq!(guest.accesses(), [Event::Write(DEVICE, vec![0; 8]), Event::Write(DEVICE + 8, vec![1; 8])]);
    let (after, _) = run(0x285f_8440, 0_u64.wrapping_sub(252));
    assert_eq!((after.x[0], after.x[1]), (0x8382_8180, 0x8786_8584));
}

#[test]
fn where_the_manual_leaves_a_choice_one_is_made() {
    // ldr x2, [x2], #8: what was loaded stays.
    assert_eq!(run(0xf840_8442, 0).0.x[2], 0x8786_8584_8382_8180);
    // ldp x2, x3, [x2], #16
    assert_eq!(run(0xa8c1_0c42, 0).0.x[2..4], [0x8786_8584_8382_8180, 0x8f8e_8d8c_8b8a_8988]);
    // str x2, [x2, #8]!: the old value is stored.
    let (after, guest) = run(0xf800_8c42, 0);
    assert_eq!(guest.accesses(), [Event::Write(DEVICE + 8, VIRTUAL.to_le_bytes().to_vec())]);
    assert_eq!(after.x[2], VIRTUAL + 8);
    // stp x3, x2, [x2], #16
    let (after, guest) = run(0xa881_0843, 0);
    assert_eq!(guest.accesses()[1], Event::Write(DEVICE + 8, VIRTUAL.to_le_bytes().to_vec()));
    assert_eq!(after.x[2], VIRTUAL + 16);
    // ldp x0, x0, [x2]: the second counts.
    assert_eq!(loaded(0xa940_0040, 0), 0x8f8e_8d8c_8b8a_8988);
}

#[test]
fn ordered_loads_and_stores_are_loads_and_stores() {
    // ldar w0; ldaprb w0; ldlarh w0; ldapursw x0, [x2, #-4]
    assert_eq!(loaded(0x88df_fc40, 4), 0x8786_8584);
    assert_eq!(loaded(0x38bf_c040, 4), 0x84);
    assert_eq!(loaded(0x48df_7c40, 4), 0x8584);
    assert_eq!(loaded(0x999f_c040, 8), 0xffff_ffff_8786_8584);
    // stlr x0; stllr w0; stlurb w0, [x2, #1]
    for (word, at, length) in [(0xc89f_fc40, 0, 8), (0x889f_7c40, 0, 4), (0x1900_1040, 1, 1)] {
        assert_eq!(run(word, 0).1.accesses(), [Event::Write(DEVICE + at, vec![0; length])]);
    }
}

#[test]
fn a_prefetch_does_nothing() {
    // prfm pldl1keep, [x2]
    assert_eq!(decode(0xf980_0040, little()).map(|instruction| instruction.form()), Ok(Form::Prefetch));
    let (after, guest) = run(0xf980_0040, 0);
    assert_eq!((after, guest.events), (Registers { pc: 0x8004, ..numbered(VIRTUAL) }, vec![]));
}

#[test]
fn the_bytes_of_a_big_endian_guest_are_reversed_in_each_register() {
    // stp w0, w1, [x2]; ldp x0, x1, [x2, #16]; ldrsh w0, [x2]
    let mut registers = numbered(VIRTUAL);
    (registers.x[0], registers.x[1]) = (0x1122_3344, 0x5566_7788);
    let (_, result, guest) = run_in(0x2900_0440, registers, machine(), big(), fault(Write, VIRTUAL, DEVICE));
    assert_eq!(result, Ok(()));
    let written = [vec![0x11, 0x22, 0x33, 0x44], vec![0x55, 0x66, 0x77, 0x88]];
    let [first, second] = written;
    assert_eq!(guest.accesses(), [Event::Write(DEVICE, first), Event::Write(DEVICE + 4, second)]);
    let (after, ..) = run_in(0xa941_0440, registers, machine(), big(), fault(Read, VIRTUAL, DEVICE));
    assert_eq!((after.x[0], after.x[1]), (0x9091_9293_9495_9697, 0x9899_9a9b_9c9d_9e9f));
    let (after, ..) = run_in(0x79c0_0040, registers, machine(), big(), fault(Read, VIRTUAL, DEVICE));
    assert_eq!(after.x[0], 0xffff_8081);
}

#[test]
fn instructions_are_little_endian_in_every_guest_and_may_lie_across_pages() {
    let mut guest = Machine::with_pages(&[(0x8000, MEMORY), (0x9000, DEVICE)]);
    guest.fill(MEMORY + 0xffc, &0xb800_4443_u32.to_le_bytes());
    let registers = Registers { pc: 0x8ffc, ..Registers::default() };
    assert_eq!(fetch(&registers, &mut guest), Ok(0xb800_4443));
    assert_eq!(guest.events, [Event::Translate(0x8ffc, Fetch), Event::Read(MEMORY + 0xffc, 4)]);
    // No processor fetches from such an address; this does, and reads no byte that is not there.
    let registers = Registers { pc: 0x8ffe, ..Registers::default() };
    guest.fill(DEVICE, &[0x12, 0x34]);
    assert_eq!(fetch(&registers, &mut guest), Ok(0x3412_b800));
    assert_eq!(fetch(&Registers::default(), &mut guest), Err(Refusal::Unmapped(0)));
}

#[test]
fn an_operand_across_two_pages_is_written_in_its_pieces() {
    // str x3, [x2, #-16]! at 5 bytes before the end of the page.
    let (after, guest) = run(0xf81f_0c43, 0xffb + 16);
    assert_eq!(guest.accesses(), [Event::Write(DEVICE + 0xffb, vec![3; 5]), Event::Write(MEMORY, vec![3; 3])]);
    assert_eq!(after.x[2], VIRTUAL + 0xffb);
    // The second register of a pair in the other page; and itself across.
    let (_, guest) = run(0x2900_0440, 0xffc);
    assert_eq!(guest.accesses(), [Event::Write(DEVICE + 0xffc, vec![0; 4]), Event::Write(MEMORY, vec![1; 4])]);
    assert_eq!(guest.translations(), [NEXT]);
    let (_, guest) = run(0x2900_0440, 0xffa);
    assert_eq!(
        guest.accesses(),
        [
            Event::Write(DEVICE + 0xffa, vec![0; 4]),
            Event::Write(DEVICE + 0xffe, vec![1; 2]),
            Event::Write(MEMORY, vec![1; 2]),
        ]
    );
}

#[test]
fn the_fault_may_be_in_the_second_piece_alone() {
    // ldr x0, [x2] begins in memory, and the exit is of the device in the page after it.
    let mut guest = Machine::with_pages(&[(VIRTUAL, MEMORY), (NEXT, DEVICE)]);
    guest.fill(MEMORY + 0xffe, &[1, 2]);
    guest.fill(DEVICE, &[3, 4, 5, 6, 7, 8]);
    let registers = numbered(VIRTUAL + 0xffe);
    let (after, result, guest) = run_in(0xf940_0040, registers, guest, little(), fault(Read, NEXT, DEVICE));
    assert_eq!((result, after.x[0]), (Ok(()), 0x0807_0605_0403_0201));
    assert_eq!(guest.accesses(), [Event::Read(MEMORY + 0xffe, 2), Event::Read(DEVICE, 6)]);
}

#[test]
fn a_fault_of_any_piece_leaves_registers_memory_and_devices_as_they_were() {
    // str w3, [x2], #4; ldr w3, [x2], #-256; stp and ldp: nothing is mapped after the device's page.
    for word in [0xb800_4443, 0xb850_0443, 0xa9bf_7c40, 0x2900_0440, 0xa941_0440, 0x3cc1_0440, 0xad00_0440] {
        let mut guest = machine();
        guest.vectors = Some([[7; 32]; 32]);
        guest.pages.remove(&NEXT);
        let kind = if decode(word, little()).is_ok_and(|instruction| instruction.writes()) { Write } else { Read };
        let base =
            VIRTUAL + 0xffe + if word == 0xa9bf_7c40 { 16 } else { 0 } - if word == 0xa941_0440 { 24 } else { 0 };
        let registers = numbered(base);
        let (after, result, guest) = run_in(word, registers, guest, little(), fault(kind, VIRTUAL, DEVICE));
        assert!(matches!(result, Err(ExecuteError::Fault(Refusal::Unmapped(_)))), "{word:#x}: {result:?}");
        assert_eq!((after, guest.accesses(), guest.vectors), (registers, vec![], Some([[7; 32]; 32])), "{word:#x}");
    }
}

#[test]
fn a_device_that_stops_the_guest_in_the_second_register_leaves_the_registers() {
    for word in [0xa8c1_0440, 0xa881_0440] {
        // ldp x0, x1, [x2], #16; stp x0, x1, [x2], #16
        let mut guest = machine();
        guest.stops = Some(MEMORY);
        let registers = numbered(VIRTUAL + 0xff8);
        let (after, result, guest) = run_in(word, registers, guest, little(), fault(Read, VIRTUAL, DEVICE));
        assert_eq!((after, result), (registers, Err(ExecuteError::Fault(Refusal::Stop(MEMORY)))));
        assert_eq!(guest.accesses().len(), 1);
    }
}

#[test]
fn the_known_address_is_used_for_its_own_page_and_kind_alone() {
    // The same page: no translation.
    assert_eq!(run(0xb800_4443, 8).1.translations(), []);
    // Another page.
    assert_eq!(run(0xb800_4443, 0x1008).1.translations(), [NEXT + 8]);
    // Another vCPU exchanged the load that faulted for a store: the guest's page tables may forbid it.
    let registers = numbered(VIRTUAL + 8);
    let (_, result, guest) = run_in(0xb800_4443, registers, machine(), little(), fault(Read, VIRTUAL, DEVICE));
    assert_eq!((result, guest.events.first()), (Ok(()), Some(&Event::Translate(VIRTUAL + 8, Write))));
    // After a permission fault none is known.
    let unknown = Stage2Fault { address: None, ..fault(Write, VIRTUAL, DEVICE) };
    let (_, result, guest) = run_in(0xb800_4443, registers, machine(), little(), unknown);
    assert_eq!((result, guest.translations()), (Ok(()), vec![VIRTUAL + 8]));
}

#[test]
fn a_tag_in_the_top_byte_goes_to_the_translation_as_it_is() {
    let tagged = 0x5a00_0000_0000_5008;
    let mut guest = machine();
    guest.pages.insert(0x5a00_0000_0000_5000, MEMORY);
    let (_, result, guest) = run_in(0xb800_4443, numbered(tagged), guest, little(), fault(Write, 0x5000, DEVICE));
    assert_eq!((result, guest.translations()), (Ok(()), vec![tagged]));
}

#[test]
fn addresses_wrap_at_both_ends_of_the_address_space() {
    let last = 0xffff_ffff_ffff_f000;
    // str w0, [x2], #4 across the end; ldp x0, x1 with the second register at 0.
    let mut guest = Machine::with_pages(&[(last, DEVICE), (0, MEMORY)]);
    guest.fill(MEMORY, &[9; 8]);
    let (after, result, guest) =
        run_in(0xb800_4440, numbered(u64::MAX - 1), guest, little(), fault(Write, last, DEVICE));
    assert_eq!((result, after.x[2]), (Ok(()), 2));
    assert_eq!(guest.accesses(), [Event::Write(DEVICE + 0xffe, vec![0; 2]), Event::Write(MEMORY, vec![0; 2])]);
    let (after, result, _) = run_in(0xa941_0440, numbered(u64::MAX - 23), guest, little(), fault(Read, last, DEVICE));
    assert_eq!((result, after.x[1]), (Ok(()), 0x0909_0909_0909_0000));
    // str x3, [x2, #-16]! from 0.
    let guest = Machine::with_pages(&[(last, DEVICE)]);
    let (after, result, _) = run_in(0xf81f_0c43, numbered(0), guest, little(), fault(Write, last, DEVICE));
    assert_eq!((result, after.x[2]), (Ok(()), u64::MAX - 15));
    // The program counter too.
    let registers = Registers { pc: u64::MAX - 3, ..numbered(VIRTUAL) };
    let (after, ..) = run_in(0xb800_4443, registers, machine(), little(), fault(Write, VIRTUAL, DEVICE));
    assert_eq!(after.pc, 0);
}

/// Registers of vectors: byte `n` of register `r` is `16 * r + n`.
fn vectors() -> [[u8; 32]; 32] {
    core::array::from_fn(|register| core::array::from_fn(|byte| (16 * register + byte) as u8))
}

fn run_vector(word: u32, offset: u64, mode: Mode) -> (Registers, Machine) {
    let mut guest = machine();
    guest.vectors = Some(vectors());
    let kind = if decode(word, mode).is_ok_and(|instruction| instruction.writes()) { Write } else { Read };
    let (after, result, guest) = run_in(word, numbered(VIRTUAL + offset), guest, mode, fault(kind, VIRTUAL, DEVICE));
    assert_eq!((result, after.pc), (Ok(()), 0x8004));
    (after, guest)
}

#[test]
fn vector_registers_are_stored_by_their_low_bytes() {
    // str s1, [x2, #4]!
    let (after, guest) = run_vector(0xbc00_4c41, 0, little());
    assert_eq!((guest.accesses(), after.x[2]), (vec![Event::Write(DEVICE + 4, vec![16, 17, 18, 19])], VIRTUAL + 4));
    // str q0, [x2]: at most 8 bytes an access.
    let (_, guest) = run_vector(0x3d80_0040, 0, little());
    assert_eq!(
        guest.accesses(),
        [Event::Write(DEVICE, (0..8).collect()), Event::Write(DEVICE + 8, (8..16).collect()),]
    );
    // stp q0, q1, [x2], of a big-endian guest: each register is reversed by itself.
    let (_, guest) = run_vector(0xad00_0440, 0, big());
    assert_eq!(guest.bytes(DEVICE, 32), (0..16).rev().chain((16..32).rev()).collect::<Vec<_>>());
}

#[test]
fn a_load_clears_the_rest_of_a_vector_register() {
    let loaded = |word, mode, register: usize| run_vector(word, 0, mode).1.vectors.unwrap()[register];
    let expected = |bytes: &[u8]| {
        let mut value = [0; 32];
        value[..bytes.len()].copy_from_slice(bytes);
        value
    };
    let device: Vec<u8> = (0x80..0x90).collect();
    let reversed: Vec<u8> = device.iter().rev().copied().collect();
    // ldr b1, [x2]; ldur d1, [x2, #1]; ldr q0, [x2], #16
    assert_eq!(loaded(0x3d40_0041, little(), 1), expected(&device[..1]));
    assert_eq!(loaded(0xfc40_1041, little(), 1), expected(&device[1..9]));
    assert_eq!(loaded(0x3cc1_0440, little(), 0), expected(&device));
    assert_eq!(loaded(0x3cc1_0440, big(), 0), expected(&reversed));
    assert_eq!(run_vector(0x3cc1_0440, 0, little()).0.x[2], VIRTUAL + 16);
    // ldp s0, s1, [x2]; ldp d0, d1, [x2], #16
    assert_eq!(loaded(0x2d40_0440, little(), 1), expected(&device[4..8]));
    assert_eq!(loaded(0x6cc1_0440, little(), 0), expected(&device[..8]));
    assert_eq!(loaded(0x6cc1_0440, little(), 1), expected(&device[8..]));
    // ldr h1, [x2, x3, lsl #1]; ldr d1, [pc + 16]
    let mut registers = numbered(VIRTUAL);
    (registers.x[3], registers.pc) = (2, VIRTUAL - 16);
    for (word, bytes) in [(0x7c63_7841, &device[4..6]), (0x5c00_0081, &device[..8])] {
        let guest = Machine { vectors: Some(vectors()), ..machine() };
        let (_, result, guest) = run_in(word, registers, guest, little(), fault(Read, VIRTUAL, DEVICE));
        assert_eq!((result, guest.vectors.unwrap()[1]), (Ok(()), expected(bytes)));
    }
}

#[test]
fn without_vector_registers_nothing_is_read_or_written() {
    for word in [0x3cc1_0440, 0x3d80_0040, 0xad00_0440] {
        let registers = numbered(VIRTUAL);
        let (after, result, guest) = run_in(word, registers, machine(), little(), fault(Read, VIRTUAL, DEVICE));
        assert_eq!((after, result, guest.events), (registers, Err(ExecuteError::NoVectorRegisters), vec![]));
    }
}

#[test]
fn without_the_second_register_of_a_pair_nothing_is_read_or_written() {
    // stp q0, q1, [x2]; ldp s0, s1, [x2]
    for (word, lacks) in [(0xad00_0440, 1), (0x2d40_0440, 1), (0xad00_0440, 0)] {
        let guest = Machine { vectors: Some(vectors()), lacks: Some(lacks), ..machine() };
        let registers = numbered(VIRTUAL);
        let (after, result, guest) = run_in(word, registers, guest, little(), fault(Write, VIRTUAL, DEVICE));
        assert_eq!((after, result, guest.events), (registers, Err(ExecuteError::NoVectorRegisters), vec![]));
        assert_eq!(guest.vectors, Some(vectors()));
    }
}

#[test]
fn a_small_vector_register_of_a_big_endian_guest_is_reversed_in_its_size() {
    // str d1, [x2]; ldr s1, [x2]
    let (_, guest) = run_vector(0xfd00_0041, 0, big());
    assert_eq!(guest.accesses(), [Event::Write(DEVICE, (16..24).rev().collect())]);
    let (_, guest) = run_vector(0xbd40_0041, 0, big());
    assert_eq!(guest.vectors.unwrap()[1][..5], [0x83, 0x82, 0x81, 0x80, 0]);
}

#[test]
fn a_vector_register_across_a_page_is_moved_in_pieces_of_at_most_eight_bytes() {
    let (_, guest) = run_vector(0x3d80_0040, 0xff5, little());
    assert_eq!(
        guest.accesses(),
        [
            Event::Write(DEVICE + 0xff5, (0..8).collect()),
            Event::Write(DEVICE + 0xffd, (8..11).collect()),
            Event::Write(MEMORY, (11..16).collect()),
        ]
    );
}

#[test]
fn what_is_not_executed_is_refused_by_its_name() {
    for (word, expected) in [
        (0x8801_fc40, "stlxr"),
        (0xc85f_7c40, "ldxr"),
        (0xb8e1_0040, "ldadd"),
        (0x88e1_fc40, "cas"),
        (0x4c40_7040, "ld1"),
        (0xd50b_7422, "dc zva"),
        (0xd960_0040, "ldg"),
        (0xf820_0440, "ldraa"),
        (0xa540_a000, "an instruction of SVE"),
        (0xe100_0000, "an instruction of SME"),
    ] {
        let error = decode(word, little()).unwrap_err();
        assert_eq!((error, error.mnemonic()), (DecodeError::Unsupported(word), Some(expected)));
        assert_eq!(error.to_string(), format!("{expected} is not executed here: {word:#010x}"));
    }
    // nop; add x0, x0, #1; udf #0; `ldp` of size 1 without an access
    for (word, error) in [
        (0xd503_201f, DecodeError::NoMemoryOperand(0xd503_201f)),
        (0x9100_0400, DecodeError::NoMemoryOperand(0x9100_0400)),
        (0, DecodeError::Unallocated(0)),
        (0x6800_0000, DecodeError::Unallocated(0x6800_0000)),
    ] {
        assert_eq!((decode(word, little()), error.mnemonic()), (Err(error), None));
        assert!(error.to_string().ends_with(&format!("{word:#010x}")));
    }
    // An AArch32 guest: the same word is another instruction.
    let aarch32 = Mode::new(0x1d3, 0);
    assert_eq!(decode(0xb800_4443, aarch32), Err(DecodeError::Aarch32(0xb800_4443)));
}

#[test]
fn the_address_of_a_fault_keeps_its_place_in_the_page() {
    // The fault is at another byte of the page than the operand.
    let known = fault(Read, VIRTUAL + 0x345, DEVICE + 0x345);
    let (_, result, guest) = run_in(0xf940_0040, numbered(VIRTUAL + 8), machine(), little(), known);
    assert_eq!((result, guest.events), (Ok(()), vec![Event::Read(DEVICE + 8, 8)]));
    assert_eq!(known.address, Some(GuestAddress(DEVICE + 0x345)));
}
