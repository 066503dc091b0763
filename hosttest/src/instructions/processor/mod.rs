//! The processor that this program runs on, as the judge: one instruction at a time, with every register given.
//!
//! An instruction lies in a page of its own, and the trap flag or INT3 ends it. So it ends with a signal whatever it does, a
//! fault or the trap after it, and the handler takes the registers from there. It is entered by `iretq`, which loads the last of the
//! registers, the flags and the code segment at once. 16- and 32-bit code, and segments with a base, come from the local
//! descriptor table (`modify_ldt(2)`), if the kernel has that.

mod enter;
mod segments;

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::io;
use std::mem::zeroed;
use std::ptr::{self, null_mut};
use std::slice;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_device::exit::x86::{Mode, Registers};

use enter::{RUNNING, State, enter_avx, enter_sse, on_signal};
use segments::{CODE16, CODE32, FAR, NEAR, Selectors, host_segments, load_segments, load_table};

use super::cases::{Case, LENGTH, Places};
use super::memory::{Bases, DATA, DATA_PAGES, PAGE, READ_ONLY};

/// The data and the code, each with a page before and after it that is not mapped.
const PAGES: usize = DATA_PAGES + 4;
/// Where the instruction lies in its page.
const CODE: usize = 0x800;
/// The trap flag of RFLAGS.
const TF: u64 = 1 << 8;
const INT3: u8 = 0xcc;
/// The number of its exception.
const BREAKPOINT: u64 = 3;
/// The bits of RFLAGS that code outside the kernel cannot choose: one that is always 1, and IF.
const ALWAYS: u64 = 0x202;
/// What of RFLAGS comes back: all but TF, RF and the two above.
const FLAGS: u64 = 0xcd5;
const SIGNALS: [c_int; 5] = [libc::SIGTRAP, libc::SIGSEGV, libc::SIGILL, libc::SIGBUS, libc::SIGFPE];
const ALTERNATE_STACK: usize = 0x1_0000;

/// How an instruction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It was executed, or one element of a string was.
    Done,
    /// #UD.
    Undefined,
    /// #PF, with the address.
    PageFault(u64),
    /// #GP or #SS.
    Protection,
    /// Another exception, by its number.
    Other(u64),
}

/// All that an instruction can change but memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Machine {
    pub(super) registers: Registers,
    pub(super) vectors: [[u8; 32]; 16],
}

/// There is one set of handlers, so one processor at a time.
static IN_USE: Mutex<()> = Mutex::new(());

/// Pages below 4 GiB, and handlers for the signals.
pub(super) struct Processor {
    code: *mut u8,
    data: *mut u8,
    has_segments: bool,
    has_avx: bool,
    state: Box<UnsafeCell<State>>,
    before: [libc::sigaction; SIGNALS.len()],
    before_stack: libc::stack_t,
    _stack: Vec<u8>,
    _in_use: MutexGuard<'static, ()>,
}

impl Processor {
    /// Takes the signals of this process, and the segment registers of this thread, until it is dropped.
    pub(super) fn new() -> io::Result<Self> {
        let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let data = map()?.wrapping_add(PAGE);
        let code = data.wrapping_add((DATA_PAGES + 1) * PAGE);
        protect(data, DATA_PAGES, libc::PROT_READ | libc::PROT_WRITE)?;
        protect(code, 1, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;

        let mut stack = vec![0_u8; ALTERNATE_STACK];
        let new_stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
        // SAFETY: zeros are a value of both types, which are plain numbers and pointers.
        let (mut before_stack, mut before): (libc::stack_t, [libc::sigaction; SIGNALS.len()]) = unsafe { zeroed() };
        // SAFETY: the stack lives as long as this value, which takes it back when it is dropped.
        check(unsafe { libc::sigaltstack(&new_stack, &mut before_stack) })?;
        for (signal, before) in SIGNALS.into_iter().zip(&mut before) {
            // SAFETY: as above.
            let mut action: libc::sigaction = unsafe { zeroed() };
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: the handler does only what a handler may do: it calls nothing that allocates or locks.
            check(unsafe { libc::sigaction(signal, &action, before) })?;
        }
        // SAFETY: zeros are a value of a structure of numbers.
        let state: State = unsafe { zeroed() };
        Ok(Self {
            code,
            data,
            has_segments: load_table(data as u64).is_ok(),
            has_avx: is_x86_feature_detected!("avx"),
            state: Box::new(UnsafeCell::new(state)),
            before,
            before_stack,
            _stack: stack,
            _in_use: in_use,
        })
    }

    /// Where code and data lie.
    pub(super) fn places(&self) -> Places {
        Places { rip: self.code as u64 + CODE as u64, data: self.data as u64, has_avx: self.has_avx }
    }

    /// Whether it executes code of this mode, and segments with a base.
    pub(super) fn executes(&self, mode: Mode, based: bool) -> bool {
        self.has_segments || mode == Mode::Bits64 && !based
    }

    /// The data, to read.
    pub(super) fn data(&self) -> &[u8] {
        // SAFETY: the pages are mapped and belong to this value; the slice ends before it can change them.
        unsafe { slice::from_raw_parts(self.data, DATA) }
    }

    /// Sets the data.
    pub(super) fn set_data(&mut self, data: &[u8; DATA]) -> io::Result<()> {
        protect(self.data, DATA_PAGES, libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: the pages are mapped and writable, and nothing else points into them.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.data, DATA) };
        protect(self.data.wrapping_add(READ_ONLY * PAGE), 1, libc::PROT_READ)
    }

    /// Sets a part of the data that lies in the pages that can be written.
    pub(super) fn write_data(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= READ_ONLY * PAGE, "the last page is read-only");
        // SAFETY: the range is in the pages that are mapped writable, and nothing else points into them.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.data.wrapping_add(offset), bytes.len()) };
    }

    /// Executes one instruction, or one element of a string. It must touch no memory but through the registers and
    /// segments given here, and must be none that enters the kernel, or changes a segment register.
    pub(super) fn step(&mut self, case: &Case, machine: &Machine) -> (End, Machine) {
        self.run(case, case.bytes.len(), TF, machine)
    }

    /// Executes all of an instruction of so many bytes: all elements of a string without a stop between them.
    pub(super) fn whole(&mut self, case: &Case, length: usize, machine: &Machine) -> (End, Machine) {
        let (end, mut after) = self.run(case, length, 0, machine);
        if end != End::Other(BREAKPOINT) {
            return (end, after);
        }
        // INT3 comes after the instruction, and RIP is after that.
        after.registers.rip = after.registers.rip.wrapping_sub(1);
        (End::Done, after)
    }

    fn run(&mut self, case: &Case, length: usize, trap: u64, machine: &Machine) -> (End, Machine) {
        let Case { bytes, mode, bases, .. } = *case;
        let bytes = &bytes[..length];
        let code = self.code.wrapping_add(CODE);
        // SAFETY: the page is mapped, writable, and belongs to this value; 30 bytes lie in it.
        unsafe {
            ptr::write_bytes(code, INT3, 2 * LENGTH);
            ptr::copy_nonoverlapping(bytes.as_ptr(), code, bytes.len());
        }
        let (host_cs, host_ss) = host_segments();
        let selectors = if bases == Bases::far(self.data as u64) { FAR } else { NEAR };
        if self.has_segments {
            load_segments(selectors);
        }
        let rip = self.places().rip(mode);
        let (cs, ss) = match mode {
            Mode::Bits16 => (CODE16, selectors.ss),
            Mode::Bits32 => (CODE32, selectors.ss),
            Mode::Bits64 => (host_cs, host_ss),
        };
        let Registers { gpr, rflags, .. } = machine.registers;
        let state = self.state.get_mut();
        state.frame = [rip, cs, rflags & FLAGS | ALWAYS | trap, gpr[4], ss];
        (state.gpr, state.vectors) = (gpr, machine.vectors);
        (state.host_cs, state.host_ss) = (host_cs, host_ss);
        let pointer = self.state.get();
        RUNNING.store(pointer, Ordering::SeqCst);
        // SAFETY: the handler of the signal that ends the instruction returns to the end of `enter`, with the stack as it was.
        // What the instruction touches is said above.
        unsafe { if self.has_avx { enter_avx(pointer) } else { enter_sse(pointer) } }
        let state = self.state.get_mut();
        let (rip, rflags) = (state.frame[0], state.frame[2] & FLAGS);
        let end = match state.end {
            (1, _) => End::Done,
            (6, _) => End::Undefined,
            (14, address) => End::PageFault(address),
            (12 | 13, _) => End::Protection,
            (number, _) => End::Other(number),
        };
        let registers = Registers { gpr: state.gpr, rip, rflags };
        (end, Machine { registers, vectors: state.vectors })
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        for (signal, before) in SIGNALS.into_iter().zip(&self.before) {
            // SAFETY: these are the handlers that were there.
            unsafe { libc::sigaction(signal, before, null_mut()) };
        }
        // SAFETY: this is the stack that was there; the pages were mapped by `map`, and nothing uses them.
        unsafe {
            libc::sigaltstack(&self.before_stack, null_mut());
            libc::munmap(self.data.wrapping_sub(PAGE).cast(), PAGES * PAGE);
        }
        if self.has_segments {
            load_segments(Selectors { ds: 0, es: 0, gs: 0, ss: 0 });
        }
    }
}

/// Pages below 4 GiB, none of which can be touched yet: at an address that is the same in every run, if it is free, so that
/// the cases are too.
fn map() -> io::Result<*mut u8> {
    let wanted = ptr::without_provenance_mut(0x6000_0000);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    // SAFETY: a new mapping, at an address where nothing is.
    let address = unsafe { libc::mmap(wanted, PAGES * PAGE, libc::PROT_NONE, flags, -1, 0) };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
}

fn protect(address: *mut u8, pages: usize, protection: c_int) -> io::Result<()> {
    // SAFETY: the pages were mapped by `map`, and no reference into them is alive.
    check(unsafe { libc::mprotect(address.cast(), pages * PAGE, protection) })
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(mode: Mode, start: &[u8], places: &Places) -> Case {
        let mut case = Case::new(0, 0, places);
        case.mode = mode;
        case.bytes[..start.len()].copy_from_slice(start);
        let gpr = std::array::from_fn(|number| 0x1111_1111_1111_1111 * number as u64);
        let vectors = std::array::from_fn(|number| [number as u8; 32]);
        case.machine = Machine { registers: Registers { gpr, rip: 0, rflags: 0x202 }, vectors };
        case
    }

    #[test]
    fn an_instruction_is_executed_alone_in_every_mode() {
        let mut processor = Processor::new().unwrap();
        let places = processor.places();
        for mode in [Mode::Bits16, Mode::Bits32, Mode::Bits64] {
            if !processor.executes(mode, false) {
                continue;
            }
            // add cl, dl; and what follows is not executed
            let case = case(mode, &[0x00, 0xd1, 0x0f, 0x0b], &places);
            let (end, after) = processor.step(&case, &case.machine);
            assert_eq!(end, End::Done, "{mode:?}");
            assert_eq!(after.registers.rip, places.rip(mode) + 2);
            assert_eq!(after.registers.gpr[1] as u32, 0x1111_1133);
            assert_eq!(after.registers.gpr[4] as u32, 0x4444_4444);
            assert_eq!(after.vectors, case.machine.vectors);
        }
    }

    #[test]
    fn a_fault_changes_nothing_and_says_where_it_was() {
        let mut processor = Processor::new().unwrap();
        let places = processor.places();
        // add [rbx], rcx
        let mut case = case(Mode::Bits64, &[0x48, 0x01, 0x0b], &places);
        case.machine.registers.gpr[3] = places.data - 8;
        let (end, after) = processor.step(&case, &case.machine);
        assert_eq!(end, End::PageFault(places.data - 8));
        assert_eq!(after.registers.gpr, case.machine.registers.gpr);
        assert_eq!(after.registers.rip, places.rip(Mode::Bits64));
        // ud2
        case.bytes[..2].copy_from_slice(&[0x0f, 0x0b]);
        assert_eq!(processor.step(&case, &case.machine).0, End::Undefined);
    }
}
