//! The machine that a test runs on, as one that executes an instruction with registers and memory of the test's choice.

#![allow(unreachable_pub, reason = "a test file includes this")]

use core::arch::asm;

use vm_device::exit::x86::{Registers, Rflags};

pub const PAGE: usize = 0x1000;
/// The bytes of memory: two pages.
pub const MEMORY: usize = 2 * PAGE;

/// In the page of the state: where RFLAGS, the caller's RSP and the vector registers are kept. The registers are at its start.
const RFLAGS: u32 = 0x80;
const RSP: u32 = 0x88;
const VECTORS: u32 = 0x100;

/// The vector registers of AVX. Of a processor without, the upper halves are zero.
pub type Vectors = [[u8; 32]; 16];

/// What an instruction has left.
pub struct After {
    /// RIP is that from before.
    pub registers: Registers,
    pub memory: Vec<u8>,
    pub vectors: Vectors,
}

/// Pages below 2 GiB, where an absolute address of 32 bits reaches them: code, state, and two of memory.
pub struct Machine {
    base: u32,
    has_avx: bool,
    /// The code before and after the instruction.
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Machine {
    /// Maps the pages at `base`. Every machine needs a base of its own, since tests run at the same time.
    pub fn new(base: u32) -> Self {
        const PROT_READ_WRITE_EXEC: usize = 7;
        const MAP_PRIVATE_ANONYMOUS_FIXED_NOREPLACE: usize = 0x10_0022;
        let mapped: usize;
        // SAFETY: mmap of new pages; with MAP_FIXED_NOREPLACE it fails rather than touch a mapping that exists.
        unsafe {
            asm!("syscall", inlateout("rax") 9_usize => mapped, in("rdi") base as usize, in("rsi") 4 * PAGE,
                in("rdx") PROT_READ_WRITE_EXEC, in("r10") MAP_PRIVATE_ANONYMOUS_FIXED_NOREPLACE, in("r8") -1_isize,
                in("r9") 0, lateout("rcx") _, lateout("r11") _);
        }
        assert_eq!(mapped, base as usize, "mmap");
        let has_avx = std::is_x86_feature_detected!("avx2");
        let mut machine = Self { base, has_avx, before: Vec::new(), after: Vec::new() };
        (machine.before, machine.after) = (machine.code_before(), machine.code_after());
        machine
    }

    fn page(&mut self, number: usize) -> &mut [u8] {
        self.pages(number, 1)
    }

    fn pages(&mut self, number: usize, count: usize) -> &mut [u8] {
        let page = (self.base as usize + number * PAGE) as *mut u8;
        // SAFETY: the pages are mapped, belong to this machine, and nothing else points into them.
        unsafe { core::slice::from_raw_parts_mut(page, count * PAGE) }
    }

    /// The address of the memory.
    pub fn memory(&self) -> u32 {
        self.base + 2 * PAGE as u32
    }

    /// Where the instruction lies: always at the same place.
    pub fn start_of_instruction(&self) -> u32 {
        self.base + self.before.len() as u32
    }

    /// Whether the processor has the instruction.
    pub fn has(&self, instruction: &[u8]) -> bool {
        match instruction {
            [0xc4 | 0xc5, ..] => self.has_avx,
            _ => std::is_x86_feature_detected!("movbe") && std::is_x86_feature_detected!("cmpxchg16b"),
        }
    }

    /// `opcode` with a register and an absolute address.
    fn absolute(code: &mut Vec<u8>, opcode: &[u8], register: usize, address: u32) {
        code.extend_from_slice(opcode);
        code.extend_from_slice(&[(register as u8 & 7) << 3 | 4, 0x25]);
        code.extend_from_slice(&address.to_le_bytes());
    }

    /// Loads or stores every vector register: VMOVDQU of 32 bytes, or MOVDQU of 16.
    fn move_vectors(&self, code: &mut Vec<u8>, opcode: u8) {
        let state = self.base + PAGE as u32;
        for number in 0..16_usize {
            let inverted_r = !(number as u8) << 4 & 0x80;
            let rex = 0x40 | (number >> 3 << 2) as u8;
            let opcode: &[u8] =
                if self.has_avx { &[0xc5, 0x7e | inverted_r, opcode] } else { &[0xf3, rex, 0x0f, opcode] };
            Self::absolute(code, opcode, number, state + VECTORS + 32 * number as u32);
        }
    }

    /// What is executed before the instruction: push rbx, rbp, r12 to r15; pushfq; mov [RSP], rsp; push [RFLAGS]; popfq; every
    /// register is loaded.
    fn code_before(&self) -> Vec<u8> {
        let state = self.base + PAGE as u32;
        let mut code = vec![0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x9c];
        Self::absolute(&mut code, &[0x48, 0x89], 4, state + RSP);
        self.move_vectors(&mut code, 0x6f);
        Self::absolute(&mut code, &[0xff], 6, state + RFLAGS);
        code.push(0x9d);
        for number in 0..16 {
            let rex = 0x48 | (number >> 3 << 2) as u8;
            Self::absolute(&mut code, &[rex, 0x8b], number, state + 8 * number as u32);
        }
        code
    }

    /// What is executed after it: every register is stored; mov rsp, [RSP]; pushfq; pop [RFLAGS]; the vector registers are
    /// stored; popfq; pop r15 to r12, rbp, rbx; ret.
    fn code_after(&self) -> Vec<u8> {
        let state = self.base + PAGE as u32;
        let mut code = Vec::new();
        for number in 0..16 {
            let rex = 0x48 | (number >> 3 << 2) as u8;
            Self::absolute(&mut code, &[rex, 0x89], number, state + 8 * number as u32);
        }
        Self::absolute(&mut code, &[0x48, 0x8b], 4, state + RSP);
        code.push(0x9c);
        Self::absolute(&mut code, &[0x8f], 0, state + RFLAGS);
        self.move_vectors(&mut code, 0x7f);
        code.extend_from_slice(&[0x9d, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3]);
        code
    }

    /// Executes one instruction, which touches nothing but the memory, the flags and registers.
    pub fn execute(&mut self, instruction: &[u8], registers: &Registers, memory: &[u8], vectors: &Vectors) -> After {
        let code = [&self.before, instruction, &self.after].concat();
        self.page(0)[..code.len()].copy_from_slice(&code);
        for (number, value) in registers.gpr.iter().enumerate() {
            self.page(1)[8 * number..][..8].copy_from_slice(&value.to_le_bytes());
        }
        self.page(1)[RFLAGS as usize..][..8].copy_from_slice(&registers.rflags.to_le_bytes());
        self.page(1)[VECTORS as usize..][..16 * 32].copy_from_slice(vectors.as_flattened());
        self.pages(2, 2).copy_from_slice(memory);
        // SAFETY: the code is that of a function that keeps the registers and flags the ABI wants kept. No signal is handled
        // on the stack that the test gives the instruction.
        unsafe { core::mem::transmute::<usize, extern "sysv64" fn()>(self.base as usize)() };

        let state = self.page(1);
        let word = |offset: usize| u64::from_le_bytes(state[offset..][..8].try_into().unwrap());
        let mut after = Registers { rflags: word(RFLAGS as usize), ..*registers };
        for (number, value) in after.gpr.iter_mut().enumerate() {
            *value = word(8 * number);
        }
        let mut vectors = [[0; 32]; 16];
        vectors.as_flattened_mut().copy_from_slice(&state[VECTORS as usize..][..16 * 32]);
        After { registers: after, vectors, memory: self.pages(2, 2).to_vec() }
    }
}

/// xorshift64: the same numbers in every run.
pub struct Random {
    state: u64,
    /// Random bytes to cut memory from.
    bytes: Vec<u8>,
}

impl Random {
    pub fn new() -> Self {
        let mut random = Self { state: 0x9e37_79b9_7f4a_7c15, bytes: Vec::new() };
        random.bytes = (0..2 * MEMORY / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        random
    }

    pub fn next(&mut self) -> u64 {
        let Self { state, .. } = self;
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        // Numbers at the ends of each size set more flags than others.
        match *state >> 60 {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (*state & 63),
            3 => 0x8080_8080_8080_8080,
            4 => 0x7f7f_7f7f_7f7f_7fff,
            _ => state.rotate_left(17),
        }
    }

    /// RIP is 0.
    pub fn registers(&mut self) -> Registers {
        Registers {
            gpr: core::array::from_fn(|_| self.next()),
            rip: 0,
            // Bit 1 is always 1, and so is IF outside the kernel.
            rflags: self.next() & Rflags::STATUS.bits() | 0x202,
        }
    }

    pub fn memory(&mut self) -> Vec<u8> {
        let start = self.next() as usize % MEMORY;
        self.bytes[start..][..MEMORY].to_vec()
    }

    /// Vector registers as the machine has them.
    pub fn vectors(&mut self, machine: &Machine) -> Vectors {
        let mut vectors = [[0; 32]; 16];
        let held = if machine.has_avx { 32 } else { 16 };
        for vector in &mut vectors {
            for word in vector[..held].chunks_exact_mut(8) {
                word.copy_from_slice(&self.next().to_le_bytes());
            }
        }
        vectors
    }
}
