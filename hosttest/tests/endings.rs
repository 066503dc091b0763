//! Guests that end otherwise than they should, and what is told of them. Those of the bare-metal hypervisor count as ignored
//! without their emulator or the image's target, those of KVM without `/dev/kvm`; where `CI` is set, as failed.

mod needs;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use hosttest::qemu::Error;
use hosttest::type1::{Guest, Machine, available, boot};
use hosttest::vmm::host::kvm;
use libtest_mimic::{Arguments, Failed, Trial};

use needs::{Need, test};

/// Of each small kernel: its name, its code, and what the hypervisor has to say of it: why it ended, and where.
const KERNELS: [(&str, &[u8], &str, &str); 12] = [
    ("powers_off", POWER_OFF, "verdict: passed", ""),
    // ud2, without an interrupt descriptor table
    ("triple_fault", &[0x0f, 0x0b], "a triple fault", "at rip 0x1000400, bytes: 0f 0b"),
    ("reboots_by_the_reset_register", REBOOT, "the guest rebooted", ""),
    // mov al, 0xfe; out 0x64, al; jmp $
    ("reboots_by_the_keyboard", &[0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe], "the guest rebooted", ""),
    // mov dword ptr [0xfee00310], 0; mov dword ptr [0xfee00300], 0x4500; jmp $: INIT, by the local APIC
    (
        "resets_its_processor",
        &[
            0xc7, 0x05, 0x10, 0x03, 0xe0, 0xfe, 0, 0, 0, 0, 0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0, 0x45, 0, 0, 0xeb,
            0xfe,
        ],
        "the guest rebooted",
        "",
    ),
    ("lets_a_timer_reset_its_processor", TIMED_INIT, "verdict: passed", ""),
    // mov eax, 0xd0000000; jmp eax
    (
        "runs_where_no_memory_is",
        &[0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0],
        "no instruction can be fetched at 0xd0000000",
        "at rip 0xd0000000, where no memory is",
    ),
    // fld dword ptr [0xd0000000]
    (
        "unknown_instruction",
        &[0xd9, 0x05, 0, 0, 0, 0xd0],
        "fld is not executed here: d9 05 00 00 00 d0",
        "at rip 0x1000400, bytes: d9 05",
    ),
    // mov ecx, 0xc0010114; rdmsr
    (
        "hidden_register",
        &[0xb9, 0x14, 0x01, 0x01, 0xc0, 0x0f, 0x32],
        "a triple fault",
        "after exception 13 for the instruction at 0x1000405, at rip 0x1000405, bytes: 0f 32",
    ),
    // mov eax, 0xd0001000; mov cr3, eax; mov eax, cr0; bts eax, 31; mov cr0, eax
    (
        "page_tables_where_no_memory_is",
        &[0xb8, 0, 0x10, 0, 0xd0, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xc0, 0x0f, 0xba, 0xe8, 0x1f, 0x0f, 0x22, 0xc0],
        "page tables at 0xd0001010, where no memory is",
        "at rip 0x1000412",
    ),
    ("identifies_the_processor_at_the_last_address", LAST_ADDRESS, "verdict: passed", ""),
    ("stack_where_no_memory_is", NO_STACK, "an access to no memory while vector 0x3 was delivered", "bytes: cc"),
];

/// What differs with AMD's processors.
const KERNELS_OF_SVM: [(&str, &[u8], &str, &str); 5] = [
    ("sends_itself_nmis", NMIS, "a triple fault while vector 0x2 was delivered", ""),
    ("moves_the_local_apic", MOVED_APIC, "verdict: passed", ""),
    // invlpga
    (
        "invalidates_a_translation_of_the_hypervisor",
        &[0x0f, 0x01, 0xdf],
        "a triple fault",
        "after exception 6 for the instruction at 0x1000400, at rip 0x1000400, bytes: 0f 01 df",
    ),
    // vmmcall
    (
        "calls_the_hypervisor",
        &[0x0f, 0x01, 0xd9],
        "a triple fault",
        "after exception 6 for the instruction at 0x1000400, at rip 0x1000400, bytes: 0f 01 d9",
    ),
    // mov eax, 0x2000; mov cr4, eax: QEMU calls the guest's state wrong, where a processor has an exception
    (
        "sets_a_bit_that_cr4_has_not",
        &[0xb8, 0, 0x20, 0, 0, 0x0f, 0x22, 0xe0],
        "the processor refuses the guest's state",
        "at rip 0x1000405, bytes: 0f 22 e0",
    ),
];

/// What differs with Intel's.
const KERNELS_OF_VMX: [(&str, &[u8], &str, &str); 5] = [
    // vmcall
    (
        "calls_the_hypervisor",
        &[0x0f, 0x01, 0xc1],
        "a triple fault",
        "after exception 6 for the instruction at 0x1000400, at rip 0x1000400, bytes: 0f 01 c1",
    ),
    // mov eax, 0x2000; mov cr4, eax
    (
        "sets_a_bit_that_cr4_has_not",
        &[0xb8, 0, 0x20, 0, 0, 0x0f, 0x22, 0xe0],
        "a triple fault",
        "after exception 13 for the instruction at 0x1000405, at rip 0x1000405, bytes: 0f 22 e0",
    ),
    // mov eax, cr0; bts eax, 29; mov cr0, eax: the cache is not written through, and is on
    (
        "sets_bits_of_cr0_that_do_not_go_together",
        &[0x0f, 0x20, 0xc0, 0x0f, 0xba, 0xe8, 0x1d, 0x0f, 0x22, 0xc0],
        "a triple fault",
        "after exception 13 for the instruction at 0x1000407, at rip 0x1000407, bytes: 0f 22 c0",
    ),
    ("sends_itself_nmis", NMIS, "exit 0, an exception or NMI", ""),
    ("switches_tasks", TASK_SWITCH, "exit 9, a task switch", "at rip 0x100044b, bytes: ea"),
];

/// The same for Arm: each Image is entered at EL1 without translation, and with its handlers of exceptions where no memory is.
const IMAGES: [(&str, &[u32], &str, &str); 9] = [
    ("powers_off", &[CALL, SYSTEM_OFF, HVC, STAY], "verdict: passed", ""),
    ("reboots", &[CALL, SYSTEM_RESET, SMC, STAY], "the guest rebooted", ""),
    ("turns_its_processor_off", &[CALL, CPU_OFF, HVC, STAY], "the guest did not turn the machine off", ""),
    // mov x0, #0xd000000; br x0
    (
        "runs_where_no_memory_is",
        &[0xd2a1_a000, 0xd61f_0000],
        "nothing but exceptions, the last with syndrome 0x86000010",
        "at pc 0x200, where no memory is",
    ),
    // mov x1, #0xd000000; ldxr w0, [x1]
    (
        "unknown_instruction",
        &[0xd2a1_a001, 0x885f_7c20],
        "ldxr is not executed here: 0x885f7c20",
        "at pc 0x40200204, instruction 0x885f7c20",
    ),
    // adr x0, . - 0x200; msr vbar_el1, x0; mrs x0, actlr_el1; and the handler is here
    (
        "hidden_register",
        &[0x10ff_f000, 0xd518_c000, 0xd538_1020],
        "nothing but exceptions, the last with syndrome 0x2000000",
        "at pc 0x40200208, instruction 0xd5381020",
    ),
    // mov x0, #0xd000000; msr ttbr0_el1, x0; mov x0, #0x3519; movk x0, #0x80, lsl #16; msr tcr_el1, x0; isb;
    // mrs x0, sctlr_el1; orr x0, x0, #1; msr sctlr_el1, x0; isb
    (
        "page_tables_where_no_memory_is",
        &[
            0xd2a1_a000,
            0xd518_2000,
            0xd286_a320,
            0xf2a0_1000,
            0xd518_2040,
            0xd503_3fdf,
            0xd538_1000,
            0xb240_0000,
            0xd518_1000,
            0xd503_3fdf,
        ],
        "nothing but exceptions, the last with syndrome 0x86000010",
        "at pc 0x200, where no memory is",
    ),
    // mov x0, #0x8000000; msr ttbr0_el1, x0; mov x0, #0x3519; movk x0, #0x80, lsl #16; msr tcr_el1, x0; isb;
    // mrs x0, sctlr_el1; orr x0, x0, #1; msr sctlr_el1, x0; isb
    (
        "page_tables_in_the_interrupt_controller",
        &[
            0xd2a1_0000,
            0xd518_2000,
            0xd286_a320,
            0xf2a0_1000,
            0xd518_2040,
            0xd503_3fdf,
            0xd538_1000,
            0xb240_0000,
            0xd518_1000,
            0xd503_3fdf,
        ],
        "nothing but exceptions, the last with syndrome 0x86000010",
        "at pc 0x200, where no memory is",
    ),
    // hlt #0xf000, by which QEMU would serve its guests if it was asked to
    (
        "asks_the_emulator",
        &[0xd45e_0000],
        "nothing but exceptions, the last with syndrome 0x86000010",
        "at pc 0x200, where no memory is",
    ),
];

/// The same for RISC-V: each Image is entered in VS-mode without translation, and with its handler of exceptions at 0, where no memory
/// is.
const RISCV_IMAGES: [(&str, &[u32], &str, &str); 16] = [
    ("powers_off", &[LUI_SRST, ADD_SRST, LI_A6_0, 0x0513, ECALL, RISCV_STAY], "verdict: passed", ""),
    // li a0, 1
    ("reboots", &[LUI_SRST, ADD_SRST, LI_A6_0, 0x0010_0513, ECALL, RISCV_STAY], "the guest rebooted", ""),
    // wfi, without an interrupt that is enabled
    ("waits_for_nothing", &[0x1050_0073], "the guest did not turn the machine off", ""),
    // lui t0, 0x14000; jr t0
    (
        "runs_where_no_memory_is",
        &[0x1400_02b7, 0x0002_8067],
        "an exception (1) at the exception's own handler",
        "at pc 0x0, where no memory is",
    ),
    // no instruction
    (
        "unknown_instruction",
        &[AUIPC_T0, ADD_12, SET_HANDLER, 0xffff_ffff],
        "an exception (2) at the exception's own handler",
        "at pc 0x4020004c, instruction 0xffffffff",
    ),
    // hlv.w t0, (t0)
    (
        "hypervisor_instruction",
        &[AUIPC_T0, ADD_12, SET_HANDLER, 0x6802_c2f3],
        "an exception (2) at the exception's own handler",
        "at pc 0x4020004c, instruction 0x6802c2f3",
    ),
    // csrr t0, hgatp
    (
        "hidden_register",
        &[AUIPC_T0, ADD_12, SET_HANDLER, 0x6800_22f3],
        "an exception (2) at the exception's own handler",
        "at pc 0x4020004c, instruction 0x680022f3",
    ),
    // lui a0, 0x14000; amoadd.w a1, a2, (a0); the hypervisor may see it as a load
    (
        "atomic_operation_where_no_memory_is",
        &[AUIPC_T0, ADD_16, SET_HANDLER, 0x1400_0537, 0x00c5_25af],
        "at the exception's own handler",
        "at pc 0x40200050, instruction 0xc525af",
    ),
    // auipc t0, 0; lui a0, 0x14000; li t1, 0x13; sw t1, 16(t0): a nop where sw a0, (a0) was, which the processor has fetched before
    (
        "changes_the_next_instruction",
        &[
            AUIPC_T0,
            0x1400_0537,
            0x0130_0313,
            0x0062_a823,
            0x00a5_2023,
            LUI_SRST,
            ADD_SRST,
            LI_A6_0,
            0x0513,
            ECALL,
            RISCV_STAY,
        ],
        "verdict: passed",
        "",
    ),
    // lui t0, 0x14; li t1, 8 << 60; or t0, t0, t1; csrw satp, t0; sfence.vma
    (
        "page_tables_where_no_memory_is",
        &[0x0001_42b7, 0xfff0_0313, 0x03f3_1313, 0x0062_e2b3, 0x1802_9073, 0x1200_0073],
        "at the exception's own handler",
        "at pc 0x0, where no memory is",
    ),
    // auipc t0, 0x10; srli t0, t0, 12; li t1, 8 << 60; or t0, t0, t1; csrw satp, t0; sfence.vma: the table is all zeros
    (
        "page_tables_that_map_nothing",
        &[0x0001_0297, 0x00c2_d293, 0xfff0_0313, 0x03f3_1313, 0x0062_e2b3, 0x1802_9073, 0x1200_0073],
        "an exception (12) at the exception's own handler",
        "at pc 0x0, where no memory is",
    ),
    // li a7, 0x123; ecall; j . - 8
    ("calls_nobody", &[0x1230_0893, ECALL, 0xff9f_f06f], NO_PROGRESS, "at pc 0x40200"),
    // The handler: nop; no instruction
    ("exceptions_without_end", &[AUIPC_T0, ADD_12, SET_HANDLER, 0x13, 0], NO_PROGRESS, "at pc 0x4020004c"),
    // The handler: lui sp, 0x14000; sd ra, -8(sp); ld ra, -8(sp); ret
    (
        "stack_where_no_memory_is",
        &[AUIPC_T0, ADD_12, SET_HANDLER, 0x1400_0137, 0xfe11_3c23, 0xff81_3083, 0x0000_8067],
        NO_PROGRESS,
        "at pc 0x402000",
    ),
    // slli zero, zero, 0x1f; ebreak; srai zero, zero, 7: by which QEMU would serve its guests if it was asked to
    (
        "asks_the_emulator",
        &[0x01f0_1013, 0x0010_0073, 0x4070_5013],
        "an exception (1) at the exception's own handler",
        "at pc 0x0, where no memory is",
    ),
    // lui a0, 0x100; lui a1, 5; addi a1, a1, 0x555; sw a1, (a0): what ends QEMU, were it the machine's
    (
        "ends_the_machine",
        &[AUIPC_T0, ADD_12, SET_HANDLER, 0x0010_0537, 0x0000_55b7, 0x5555_8593, 0x00b5_2023, RISCV_STAY],
        NO_PROGRESS,
        "at pc 0x4020005c, instruction 0x6f",
    ),
];

const NO_PROGRESS: &str = "no device was accessed, no firmware called and nothing waited for in 3 s";
/// auipc t0, 0; addi t0, t0, 12 or 16; csrw stvec, t0: exceptions go on behind it, or one instruction further.
const AUIPC_T0: u32 = 0x0000_0297;
const ADD_12: u32 = 0x00c2_8293;
const ADD_16: u32 = 0x0102_8293;
const SET_HANDLER: u32 = 0x1052_9073;
/// li a7, 0x53525354 (SRST); li a6, 0; ecall; j .
const LUI_SRST: u32 = 0x5352_58b7;
const ADD_SRST: u32 = 0x3548_889b;
const LI_A6_0: u32 = 0x0000_0813;
const ECALL: u32 = 0x0000_0073;
const RISCV_STAY: u32 = 0x0000_006f;

/// Half of the number of a call to the firmware: movk w0, #0x8400, lsl #16.
const CALL: u32 = 0x72b0_8000;
/// The other half: movk w0, #...
const SYSTEM_OFF: u32 = 0x7280_0100;
const SYSTEM_RESET: u32 = 0x7280_0120;
const CPU_OFF: u32 = 0x7280_0040;
/// hvc #0; smc #0; b .
const HVC: u32 = 0xd400_0002;
const SMC: u32 = 0xd400_0003;
const STAY: u32 = 0x1400_0000;

/// Descriptors at 0x2100: code at 0x10, data at 0x18; those of interrupts at 0x2300, of which 3 is a gate.
/// mov word ptr [0x2200], 0xff; mov dword ptr [0x2202], 0x2300; lidt [0x2200]; mov dword ptr [0x2318], 0x100000;
/// mov dword ptr [0x231c], 0x8e00; mov word ptr [0x2000], 0x1f; mov dword ptr [0x2002], 0x2100; lgdt [0x2000];
/// mov dword ptr [0x2110], 0xffff; mov dword ptr [0x2114], 0xcf9b00; mov dword ptr [0x2118], 0xffff;
/// mov dword ptr [0x211c], 0xcf9300; mov esp, 0xd0001000; int3
#[rustfmt::skip]
const NO_STACK: &[u8] = &[
    0x66, 0xc7, 0x05, 0x00, 0x22, 0x00, 0x00, 0xff, 0x00, 0xc7, 0x05, 0x02, 0x22, 0x00, 0x00, 0x00, 0x23, 0x00, 0x00,
    0x0f, 0x01, 0x1d, 0x00, 0x22, 0x00, 0x00, 0xc7, 0x05, 0x18, 0x23, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00,
    0xc7, 0x05, 0x1c, 0x23, 0x00, 0x00, 0x00, 0x8e, 0x00, 0x00, 0x66, 0xc7, 0x05, 0x00, 0x20, 0x00, 0x00, 0x1f, 0x00,
    0xc7, 0x05, 0x02, 0x20, 0x00, 0x00, 0x00, 0x21, 0x00, 0x00, 0x0f, 0x01, 0x15, 0x00, 0x20, 0x00, 0x00,
    0xc7, 0x05, 0x10, 0x21, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0xc7, 0x05, 0x14, 0x21, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00,
    0xc7, 0x05, 0x18, 0x21, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0xc7, 0x05, 0x1c, 0x21, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00,
    0xbc, 0x00, 0x10, 0x00, 0xd0, 0xcc,
];
/// CPUID at the last two bytes of the addresses of 64-bit code, behind which the guest turns the machine off at 0:
/// mov dword ptr [0x10000], 0x11003; mov dword ptr [0x10ff8], 0x12003; mov dword ptr [0x11000], 0x83;
/// mov dword ptr [0x12ff8], 0x13003; mov dword ptr [0x13ff8], 0x200083; mov dword ptr [0], 0x604ba66;
/// mov dword ptr [4], 0x2000b866; mov dword ptr [8], 0xfeebef66; mov word ptr [0x3ffffe], 0xa20f;
/// mov dword ptr [0x2108], 0xffff; mov dword ptr [0x210c], 0xaf9b00; mov word ptr [0x2000], 0x1f; mov dword ptr [0x2002], 0x2100;
/// lgdt [0x2000]; mov eax, 0x20; mov cr4, eax; mov eax, 0x10000; mov cr3, eax; mov ecx, 0xc0000080; rdmsr; or eax, 0x100; wrmsr;
/// mov eax, cr0; bts eax, 31; mov cr0, eax; jmp 8:. + 7; mov rax, -2; jmp rax
#[rustfmt::skip]
const LAST_ADDRESS: &[u8] = &[
    0xc7, 0x05, 0x00, 0x00, 0x01, 0x00, 0x03, 0x10, 0x01, 0x00, 0xc7, 0x05, 0xf8, 0x0f, 0x01, 0x00, 0x03, 0x20, 0x01, 0x00,
    0xc7, 0x05, 0x00, 0x10, 0x01, 0x00, 0x83, 0x00, 0x00, 0x00, 0xc7, 0x05, 0xf8, 0x2f, 0x01, 0x00, 0x03, 0x30, 0x01, 0x00,
    0xc7, 0x05, 0xf8, 0x3f, 0x01, 0x00, 0x83, 0x00, 0x20, 0x00, 0xc7, 0x05, 0x00, 0x00, 0x00, 0x00, 0x66, 0xba, 0x04, 0x06,
    0xc7, 0x05, 0x04, 0x00, 0x00, 0x00, 0x66, 0xb8, 0x00, 0x20, 0xc7, 0x05, 0x08, 0x00, 0x00, 0x00, 0x66, 0xef, 0xeb, 0xfe,
    0x66, 0xc7, 0x05, 0xfe, 0xff, 0x3f, 0x00, 0x0f, 0xa2, 0xc7, 0x05, 0x08, 0x21, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0xc7,
    0x05, 0x0c, 0x21, 0x00, 0x00, 0x00, 0x9b, 0xaf, 0x00, 0x66, 0xc7, 0x05, 0x00, 0x20, 0x00, 0x00, 0x1f, 0x00, 0xc7, 0x05,
    0x02, 0x20, 0x00, 0x00, 0x00, 0x21, 0x00, 0x00, 0x0f, 0x01, 0x15, 0x00, 0x20, 0x00, 0x00, 0xb8, 0x20, 0x00, 0x00, 0x00,
    0x0f, 0x22, 0xe0, 0xb8, 0x00, 0x00, 0x01, 0x00, 0x0f, 0x22, 0xd8, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00,
    0x01, 0x00, 0x00, 0x0f, 0x30, 0x0f, 0x20, 0xc0, 0x0f, 0xba, 0xe8, 0x1f, 0x0f, 0x22, 0xc0, 0xea, 0xb6, 0x04, 0x00, 0x01,
    0x08, 0x00, 0x48, 0xc7, 0xc0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xe0,
];
/// mov ecx, 0x1b; rdmsr; mov ebx, eax; xor eax, 0x1000; wrmsr; rdmsr; cmp eax, ebx; je . + 4; ud2; and as in [`POWER_OFF`]
#[rustfmt::skip]
const MOVED_APIC: &[u8] = &[
    0xb9, 0x1b, 0, 0, 0, 0x0f, 0x32, 0x89, 0xc3, 0x35, 0x00, 0x10, 0, 0, 0x0f, 0x30, 0x0f, 0x32, 0x39, 0xd8, 0x74, 0x02, 0x0f, 0x0b,
    0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xeb, 0xfe,
];
/// The timer sends NMIs by the IOAPIC, while the hypervisor has much to do:
/// mov dword ptr [0xfec00000], 0x15; mov dword ptr [0xfec00010], 0; mov dword ptr [0xfec00000], 0x14;
/// mov dword ptr [0xfec00010], 0x400; mov al, 0x34; out 0x43, al; mov al, 0x20; out 0x40, al; mov al, 0; out 0x40, al;
/// mov esi, 0x1000000; mov edx, 0x80; mov ecx, -1; rep outsb
#[rustfmt::skip]
const NMIS: &[u8] = &[
    0xc7, 0x05, 0x00, 0x00, 0xc0, 0xfe, 0x15, 0x00, 0x00, 0x00, 0xc7, 0x05, 0x10, 0x00, 0xc0, 0xfe, 0x00, 0x00, 0x00, 0x00,
    0xc7, 0x05, 0x00, 0x00, 0xc0, 0xfe, 0x14, 0x00, 0x00, 0x00, 0xc7, 0x05, 0x10, 0x00, 0xc0, 0xfe, 0x00, 0x04, 0x00, 0x00,
    0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x20, 0xe6, 0x40, 0xb0, 0x00, 0xe6, 0x40, 0xbe, 0x00, 0x00, 0x00, 0x01, 0xba, 0x80, 0x00,
    0x00, 0x00, 0xb9, 0xff, 0xff, 0xff, 0xff, 0xf3, 0x6e,
];
/// The timer would reset the processor by the IOAPIC, which keeps the entry that it has; then the machine is turned off:
/// mov dword ptr [0xfec00000], 0x15; mov dword ptr [0xfec00010], 0; mov dword ptr [0xfec00000], 0x14;
/// mov dword ptr [0xfec00010], 0x500; mov al, 0x34; out 0x43, al; mov al, 0x20; out 0x40, al; mov al, 0; out 0x40, al;
/// mov ecx, 0x1000000; loop $; mov dx, 0x604; mov ax, 0x2000; out dx, ax; jmp $
#[rustfmt::skip]
const TIMED_INIT: &[u8] = &[
    0xc7, 0x05, 0x00, 0x00, 0xc0, 0xfe, 0x15, 0x00, 0x00, 0x00, 0xc7, 0x05, 0x10, 0x00, 0xc0, 0xfe, 0x00, 0x00, 0x00, 0x00,
    0xc7, 0x05, 0x00, 0x00, 0xc0, 0xfe, 0x14, 0x00, 0x00, 0x00, 0xc7, 0x05, 0x10, 0x00, 0xc0, 0xfe, 0x00, 0x05, 0x00, 0x00,
    0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x20, 0xe6, 0x40, 0xb0, 0x00, 0xe6, 0x40, 0xb9, 0x00, 0x00, 0x00, 0x01, 0xe2, 0xfe,
    0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xeb, 0xfe,
];
/// Descriptors at 0x2100: of the task that runs at 0x20, of another at 0x28.
/// mov dword ptr [0x2000], 0x2f; mov dword ptr [0x2002], 0x2100; lgdt [0x2000]; mov dword ptr [0x2120], 0x30000067;
/// mov dword ptr [0x2124], 0x8900; mov dword ptr [0x2128], 0x31000067; mov dword ptr [0x212c], 0x8900; mov eax, 0x20; ltr ax;
/// jmp 0x28:0
#[rustfmt::skip]
const TASK_SWITCH: &[u8] = &[
    0xc7, 0x05, 0x00, 0x20, 0x00, 0x00, 0x2f, 0x00, 0x00, 0x00, 0xc7, 0x05, 0x02, 0x20, 0x00, 0x00, 0x00, 0x21, 0x00, 0x00,
    0x0f, 0x01, 0x15, 0x00, 0x20, 0x00, 0x00, 0xc7, 0x05, 0x20, 0x21, 0x00, 0x00, 0x67, 0x00, 0x00, 0x30,
    0xc7, 0x05, 0x24, 0x21, 0x00, 0x00, 0x00, 0x89, 0x00, 0x00, 0xc7, 0x05, 0x28, 0x21, 0x00, 0x00, 0x67, 0x00, 0x00, 0x31,
    0xc7, 0x05, 0x2c, 0x21, 0x00, 0x00, 0x00, 0x89, 0x00, 0x00, 0xb8, 0x20, 0x00, 0x00, 0x00, 0x0f, 0x00, 0xd8,
    0xea, 0x00, 0x00, 0x00, 0x00, 0x28, 0x00,
];

/// What the guest `ports/reset_register` does, its verdict included.
const RESET_REGISTER: &[&str] = &[
    "vcpu 0 port write 0xcf8 4 00000080 /pci ok",
    "vcpu 0 port read 0xcfc 4 86803712 /pci ok",
    "vcpu 0 port write 0xcf9 1 06 /pci/reset ok",
    "vcpu 0 port read 0xcf9 1 06 /pci/reset ok",
    "vcpu 0 port read 0xcf8 4 00000080 /pci ok",
    "vcpu 0 port read 0xcfc 4 86803712 /pci ok",
    "vcpu 0 port write 0xcf8 4 08080080 /pci ok",
    "vcpu 0 port read 0xcf9 1 06 /pci/reset ok",
    "vcpu 0 port read 0xcf8 4 08080080 /pci ok",
    "vcpu 0 port write 0xcf9 2 1111 /pci ok",
    "vcpu 0 port write 0xcf8 2 2222 /pci ok",
    "vcpu 0 port read 0xcf9 1 06 /pci/reset ok",
    "vcpu 0 port write 0x600 4 00000000 /verdict ok",
];

/// mov dx, 0x604; mov ax, 0x2000; out dx, ax; jmp $
const POWER_OFF: &[u8] = &[0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xeb, 0xfe];
/// mov dx, 0xcf9; mov al, 6; out dx, al; jmp $
const REBOOT: &[u8] = &[0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xeb, 0xfe];

fn main() -> ExitCode {
    let hypervisor = [&Need::new("QEMU and the image's target", available(Machine::Svm))];
    let on_vmx = [&Need::new("Bochs and the image's target", available(Machine::Vmx))];
    let on_arm = [&Need::new("QEMU for Arm and the image's target", available(Machine::Arm64))];
    let on_riscv = [&Need::new("QEMU for RISC-V and the image's target", available(Machine::Riscv64))];
    let guests = [&Need::new("KVM", kvm())];
    let mut trials: Vec<Trial> = Vec::new();
    for (machine, needs, others) in
        [(Machine::Svm, hypervisor, &KERNELS_OF_SVM[..]), (Machine::Vmx, on_vmx, &KERNELS_OF_VMX[..])]
    {
        trials.extend(KERNELS.into_iter().chain(others.iter().copied()).map(|(name, code, why, position)| {
            let test_name = format!("{}/{name}", machine.name());
            test(&test_name, &needs, move || tells(machine, &kernel(name, code), why, position))
        }));
    }
    trials.extend(IMAGES.into_iter().map(|(name, code, why, position)| {
        test(&format!("arm64/{name}"), &on_arm, move || tells(Machine::Arm64, &arm_image(name, code), why, position))
    }));
    trials.extend(RISCV_IMAGES.into_iter().map(|(name, code, why, position)| {
        let tells = move || tells(Machine::Riscv64, &riscv_image(name, code), why, position);
        test(&format!("riscv64/{name}"), &on_riscv, tells)
    }));
    trials.push(test("svm/no_kernel", &hypervisor, no_kernel));
    trials.push(test("trace", &guests, a_trace_has_each_access_of_the_guest));
    trials.push(test("watchdog", &guests, a_guest_that_was_stopped_took_time));
    // One at a time: an emulator uses a processor or two.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A bzImage (Linux, Documentation/arch/x86/boot.rst) of one sector of setup code, and of this code.
fn kernel(name: &str, code: &[u8]) -> PathBuf {
    let mut image = vec![0; 0x400];
    image[0x1f1] = 1;
    image[0x201] = 0x6a;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image.extend_from_slice(code);
    written(&format!("{name}.kernel"), &image)
}

/// An Image for Arm (Linux, Documentation/arch/arm64/booting.rst), of this code.
fn arm_image(name: &str, code: &[u32]) -> PathBuf {
    image(&format!("{name}.image"), 0x200, 0x1400_0080, b"ARM\x64", code)
}

/// An Image for RISC-V (Linux, Documentation/arch/riscv/boot-image-header.rst), of this code.
fn riscv_image(name: &str, code: &[u32]) -> PathBuf {
    image(&format!("{name}.riscv"), 0x40, 0x0400_006f, b"RSC\x05", code)
}

/// An Image whose header of so many bytes begins with a jump over itself.
fn image(name: &str, header: usize, jump: u32, magic: &[u8; 4], code: &[u32]) -> PathBuf {
    let mut image = vec![0; header];
    image[..4].copy_from_slice(&jump.to_le_bytes());
    image[56..60].copy_from_slice(magic);
    image.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    written(name, &image)
}

fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, bytes).expect("the temporary directory can be written");
    file
}

fn run(machine: Machine, kernel: &Path) -> (Result<String, Error>, String) {
    let mut output = Vec::new();
    // No greeting is expected of an initial RAM disk that is given.
    let guest = Guest::Linux { kernel: kernel.into(), initrd: Some(kernel.into()), append: String::new() };
    let ended = boot(machine, &guest, &mut output);
    (ended, String::from_utf8_lossy(&output).into_owned())
}

fn tells(machine: Machine, kernel: &Path, why: &str, position: &str) -> Result<(), Failed> {
    let (ended, output) = run(machine, kernel);
    let verdict = output.lines().find(|line| line.starts_with("verdict: ")).unwrap_or_default();
    let passed = verdict == "verdict: passed";
    if (passed && ended.is_ok() || !passed && matches!(ended, Err(Error::Failed)))
        && verdict.contains(why)
        && verdict.contains(position)
    {
        return Ok(());
    }
    Err(format!("{ended:?} instead of {why:?} {position:?}\n{output}").into())
}

/// What QEMU itself says is shown.
fn no_kernel() -> Result<(), Failed> {
    let (ended, output) = run(Machine::Svm, Path::new(env!("CARGO_TARGET_TMPDIR")));
    let told = ended.err().map(|error| error.to_string()).unwrap_or_default();
    if told.contains("exit status: 1") && told.contains("qemu-system-x86_64: ") {
        return Ok(());
    }
    Err(format!("{told:?}\n{output}").into())
}

/// The guest is the function `reset_register`: each line is a line of it, in order.
fn a_trace_has_each_access_of_the_guest() -> Result<(), Failed> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reset_register.trace");
    let arguments = ["run", "ports/reset_register", "--trace"];
    let output = Command::new(env!("CARGO_BIN_EXE_hosttest")).args(arguments).arg(&file).output()?;
    let trace = std::fs::read_to_string(&file)?;
    let lines: Vec<_> = trace.lines().collect();
    if output.status.success() && lines == RESET_REGISTER {
        return Ok(());
    }
    Err(format!("{}\n{trace}", String::from_utf8_lossy(&output.stdout)).into())
}

fn a_guest_that_was_stopped_took_time() -> Result<(), Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_hosttest")).args(["run", "watchdog"]).output()?;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let passed = |line: &str| line.contains("passed, ") && !line.contains(" in 0.0ns");
    if lines.lines().count() == 4 && lines.lines().all(passed) { Ok(()) } else { Err(lines.into()) }
}
