//! The way into an instruction, and out of it by a signal.

use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::mem::{offset_of, zeroed};
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::ALWAYS;

/// What is loaded before the instruction, and what the handler and the way back store.
#[repr(C, align(64))]
pub(super) struct State {
    /// As `iretq` takes them: RIP, CS, RFLAGS, RSP, SS.
    pub(super) frame: [u64; 5],
    pub(super) gpr: [u64; 16],
    pub(super) vectors: [[u8; 32]; 16],
    host_rsp: u64,
    resume: u64,
    pub(super) host_cs: u64,
    pub(super) host_ss: u64,
    pub(super) end: (u64, u64),
}

/// The state of the instruction that runs, for the handler.
pub(super) static RUNNING: AtomicPtr<State> = AtomicPtr::new(null_mut());
/// Takes the registers of the instruction, and returns to the end of `enter`.
pub(super) extern "C" fn on_signal(signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    let state = RUNNING.swap(null_mut(), Ordering::SeqCst);
    if state.is_null() {
        // A fault of this program itself: it ends as it would without a handler.
        // SAFETY: zeros are the default action; the signal comes again when this returns.
        unsafe { libc::sigaction(signal, &zeroed(), null_mut()) };
        return;
    }
    // SAFETY: the kernel gives the context of the signal, and `run` the state, which nothing else uses meanwhile.
    let (state, context) = unsafe { (&mut *state, &mut *context.cast::<libc::ucontext_t>()) };
    let saved = &mut context.uc_mcontext.gregs;
    const ORDER: [c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    state.gpr = ORDER.map(|register| saved[register as usize] as u64);
    state.frame[0] = saved[libc::REG_RIP as usize] as u64;
    state.frame[2] = saved[libc::REG_EFL as usize] as u64;
    state.end = (saved[libc::REG_TRAPNO as usize] as u64, saved[libc::REG_CR2 as usize] as u64);
    saved[libc::REG_RIP as usize] = state.resume as i64;
    saved[libc::REG_RSP as usize] = state.host_rsp as i64;
    saved[libc::REG_EFL as usize] = ALWAYS as i64;
    saved[libc::REG_RAX as usize] = ptr::from_mut(state) as i64;
    // CS, GS, FS and SS, 16 bits each.
    let segments = saved[libc::REG_CSGSFS as usize] as u64;
    saved[libc::REG_CSGSFS as usize] = (segments & 0x0000_ffff_ffff_0000 | state.host_cs | state.host_ss << 48) as i64;
}

/// Loads what `State` says, goes there, and comes back when the handler returns. `$load` and `$store` move the 16 vector
/// registers.
macro_rules! enter {
    ($name:ident, $move:literal, $register:literal, $end:literal) => {
        /// # Safety
        /// The handler must be in place, and the instruction must end with a signal.
        pub(super) unsafe fn $name(state: *mut State) {
            // SAFETY: as the caller has it. Every register is given up; RBX and RBP are kept on the stack, to which the handler
            // returns.
            unsafe {
                asm!(
                    "push rbx",
                    "push rbp",
                    "mov [rdi + {host_rsp}], rsp",
                    "lea rax, [rip + 2f]",
                    "mov [rdi + {resume}], rax",
                    "mov rsp, rdi",
                    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                    concat!($move, " ", $register, "\\n, [rsp + {vectors} + 32 * \\n]"),
                    ".endr",
                    "mov rax, [rsp + {gpr}]",
                    "mov rcx, [rsp + {gpr} + 8]",
                    "mov rdx, [rsp + {gpr} + 16]",
                    "mov rbx, [rsp + {gpr} + 24]",
                    "mov rbp, [rsp + {gpr} + 40]",
                    "mov rsi, [rsp + {gpr} + 48]",
                    "mov rdi, [rsp + {gpr} + 56]",
                    ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
                    "mov r\\n, [rsp + {gpr} + 8 * \\n]",
                    ".endr",
                    "iretq",
                    "2:",
                    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                    concat!($move, " [rax + {vectors} + 32 * \\n], ", $register, "\\n"),
                    ".endr",
                    $end,
                    "pop rbp",
                    "pop rbx",
                    host_rsp = const offset_of!(State, host_rsp),
                    resume = const offset_of!(State, resume),
                    vectors = const offset_of!(State, vectors),
                    gpr = const offset_of!(State, gpr),
                    inout("rdi") state => _,
                    lateout("r12") _,
                    lateout("r13") _,
                    lateout("r14") _,
                    lateout("r15") _,
                    clobber_abi("sysv64"),
                );
            }
        }
    };
}

enter!(enter_avx, "vmovdqu", "ymm", "vzeroupper");
enter!(enter_sse, "movdqu", "xmm", "");
