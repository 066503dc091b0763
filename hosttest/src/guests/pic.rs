//! The crate's PIC, whose interrupts the VMM injects: KVM has no interrupt controller there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kvm_ioctls::Kvm;
use vm_device::devices::pic::Pic;
use vm_device::{Gsi, InterruptController, InterruptError, IoRange, IoResource, IrqResource, SystemAllocator};

use super::scenario::{Failure, LIMIT, Room, Scenario, expect, manager_over};
use super::shown::keep_map;
use crate::devices::interrupter::{ASSERT, Interrupter, PULSE};
use crate::devices::verdict::{VERDICT_PORT, Verdict};
use crate::guest_side::interrupts::{initialise_pics, trigger_pics_by_level, unmask_pics, wait_for};
use crate::guest_side::{mmio, pass, port};
use crate::vmm::injection::{Injection, Intr};
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::run::{Tally, run_with};
use crate::vmm::vcpu::Ring;
use crate::{check, pic_interrupt_handler};

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "pic/edge",
        about: "edges on lines of both 8259As, which wait while they are masked, and while another is served",
        run: edge,
    },
    Scenario {
        name: "pic/level",
        about: "two devices on a level-triggered line, which hear of the ends of its interrupts",
        run: level,
    },
    Scenario { name: "pic/thread", about: "interrupts of another thread, for a guest that does not exit", run: thread },
    Scenario { name: "pic/halt", about: "interrupts of another thread, for a guest that has halted", run: halt },
];

const BASE: u8 = 0x50;
/// A line of the first 8259A, and two of the second.
const LINE: Gsi = Gsi(5);
const UPPER: Gsi = Gsi(10);
const SHARED: Gsi = Gsi(11);
const FIRST: u16 = 0x500;
const SECOND: u16 = 0x510;

/// Where the handlers count, and where each notes how far the other was.
const COUNT: u64 = DATA;
const UPPER_COUNT: u64 = DATA + 8;
const SEEN: u64 = DATA + 16;
/// Where the guest says that it waits for interrupts of another thread.
const READY: u64 = DATA + 24;

const fn bit(line: Gsi) -> u16 {
    1 << line.0
}

const fn vector(line: Gsi) -> u8 {
    BASE + line.0 as u8
}

pic_interrupt_handler!(
    /// Counts, and notes how often the other has.
    count: "inc qword ptr [{count}]", "mov rax, [{upper}]", "mov [{seen}], rax";
    count = const COUNT, upper = const UPPER_COUNT, seen = const SEEN
);

pic_interrupt_handler!(
    /// Counts.
    count_alone: "inc qword ptr [{count}]"; count = const COUNT
);

pic_interrupt_handler!(
    /// Counts for the other line.
    count_upper: "inc qword ptr [{count}]"; count = const UPPER_COUNT
);

pic_interrupt_handler!(
    /// Serves one of the devices that assert the line: lets it take its assertion back, and counts.
    serve_one:
    "inc qword ptr [{count}]",
    "mov dx, {first}",
    "in al, dx",
    "test al, al",
    "jnz 2f",
    "mov dx, {second}",
    "2:",
    "xor eax, eax",
    "out dx, al";
    count = const COUNT, first = const FIRST, second = const SECOND
);

/// A guest with two devices on lines of an 8259A, in this ring, and what acts meanwhile on a thread of its own until it is told to
/// stop. Returns how many ends each device has heard of.
fn run(
    kvm: &Kvm,
    (ring, guest): (Ring, extern "C" fn(u64)),
    lines: [Gsi; 2],
    handlers: &[(Gsi, extern "C" fn())],
    beside: impl FnOnce(&Pic<&Intr>, &Machine, &AtomicBool) + Send,
) -> Result<(Tally, [u64; 2]), Failure> {
    let machine = Machine::new(kvm)?;
    for (line, handler) in handlers {
        machine.set_interrupt_gate(vector(*line), *handler as *const () as u64);
    }
    let (intr, devices) = (Intr::new(), ["first", "second"].map(Interrupter::new));
    let pic = Pic::new(&intr);
    let (room, verdict, stop) = (Room::new(), Verdict::new(), AtomicBool::new(false));
    let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
    let manager = manager_over(&room, allocator).with_interrupt_controller(&pic);
    manager.register_device(&pic, None, &pic.ports(), &[])?;
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;
    let irq = |line| if lines[0] == lines[1] { IrqResource::Shared(line) } else { IrqResource::Fixed(line) };
    for ((device, at), line) in devices.iter().zip([FIRST, SECOND]).zip(lines) {
        manager.register_device(device, None, &[IoResource::pio(at, 8)], &[irq(line)])?;
    }
    let mut wrong = None;
    let mut vcpu = machine.start(0, ring, guest, 0)?;
    let mut accesses = manager.dispatcher(0)?;
    let tally = thread::scope(|scope| {
        scope.spawn(|| beside(&pic, &machine, &stop));
        // After each exit, and not within a call of the controller.
        let has_ended = || {
            for gsi in intr.take_ended() {
                match manager.end_of_interrupt(gsi) {
                    Ok(()) | Err(InterruptError::Pending | InterruptError::NoLine) => {}
                    Err(error) => wrong = Some(error),
                }
            }
            verdict.given().is_some()
        };
        let mut injection = Injection::new(&pic, &intr);
        let tally = run_with(&mut vcpu, &mut accesses, LIMIT, has_ended, &mut injection);
        stop.store(true, Ordering::Release);
        tally
    })?;
    keep_map(&manager);
    if let Some(Err(finding)) = verdict.given() {
        return Err(Failure(format!("the guest failed: {finding}")));
    }
    expect("what an end has met", wrong, None::<InterruptError>)?;
    let refused = devices.iter().find_map(Interrupter::refused);
    expect("the refusal of an interrupt", refused, None::<InterruptError>)?;
    Ok((tally, [0, 1].map(|device| devices[device].ends())))
}

fn edge(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        initialise_pics(BASE);
        // An edge that comes while its line is masked waits.
        port::write(FIRST, PULSE);
        port::write(SECOND, PULSE);
        check!(mmio::read::<u64>(COUNT) + mmio::read::<u64>(UPPER_COUNT), 0u64);
        unmask_pics(bit(LINE) | bit(UPPER));
        check!(wait_for(COUNT, 1), true);
        check!(wait_for(UPPER_COUNT, 1), true);
        // The second 8259A was first, since it is on line 2; the other waited until the processor could take it.
        check!(mmio::read::<u64>(SEEN), 1u64);
        for interrupts in 2..=10 {
            port::write(FIRST, PULSE);
            check!(wait_for(COUNT, interrupts), true);
            port::write(SECOND, PULSE);
            check!(wait_for(UPPER_COUNT, interrupts), true);
        }
        unmask_pics(0);
        port::write(FIRST, PULSE);
        check!(port::read::<u8>(0x20) & 1 << LINE.0, 1u8 << LINE.0);
        check!(mmio::read::<u64>(COUNT), 10u64);
        check!(mmio::read::<u64>(UPPER_COUNT), 10u64);
        pass()
    }
    let (tally, ends) =
        run(kvm, (Ring::User, guest), [LINE, UPPER], &[(LINE, count), (UPPER, count_upper)], |_, _, _| ())?;
    expect("the ends that the devices have heard of", ends, [10, 10])?;
    Ok(tally)
}

fn level(kvm: &Kvm) -> Result<Tally, Failure> {
    const ROUNDS: u64 = 5;
    extern "C" fn guest(_: u64) {
        initialise_pics(BASE);
        trigger_pics_by_level(bit(SHARED));
        for round in 1..=ROUNDS {
            unmask_pics(0);
            port::write(FIRST, ASSERT);
            port::write(SECOND, ASSERT);
            unmask_pics(bit(SHARED));
            // An interrupt serves one device. Because the line is asserted still at its end, the other is served.
            check!(wait_for(COUNT, 2 * round), true);
            check!(port::read::<u8>(FIRST), 0u8);
            check!(port::read::<u8>(SECOND), 0u8);
        }
        check!(mmio::read::<u64>(COUNT), 2 * ROUNDS);
        pass()
    }
    let (tally, ends) = run(kvm, (Ring::User, guest), [SHARED; 2], &[(SHARED, serve_one)], |_, _, _| ())?;
    expect("the ends that the devices have heard of", ends, [2 * ROUNDS; 2])?;
    Ok(tally)
}

/// How many interrupts another thread sends.
const SENT: u64 = 50;

/// Sends an interrupt whenever the guest has counted the one before.
fn send(pic: &Pic<&Intr>, machine: &Machine, stop: &AtomicBool) {
    for sent in 0..SENT {
        while machine.ram().read_u64(COUNT) < sent || machine.ram().read_u64(READY) == 0 {
            if stop.load(Ordering::Acquire) {
                return;
            }
            thread::sleep(Duration::from_micros(50));
        }
        // Time to get back into the guest, or into its halt.
        thread::sleep(Duration::from_micros(100 * (sent % 4)));
        let _ = pic.pulse(LINE);
    }
}

fn thread(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        initialise_pics(BASE);
        unmask_pics(bit(LINE));
        mmio::write(READY, 1u64);
        // It reads nothing but memory, and does not exit.
        for interrupts in 1..=SENT {
            check!(wait_for(COUNT, interrupts), true);
        }
        check!(mmio::read::<u64>(COUNT), SENT);
        pass()
    }
    run(kvm, (Ring::User, guest), [UPPER, SHARED], &[(LINE, count_alone)], send).map(|(tally, _)| tally)
}

fn halt(kvm: &Kvm) -> Result<Tally, Failure> {
    /// In ring 0, which alone may halt. It unmasks the line and says so before its first halt.
    #[unsafe(naked)]
    extern "C" fn guest(_: u64) {
        core::arch::naked_asm!(
            "mov al, 0x11",
            "out 0x20, al",
            "mov al, {base}",
            "out 0x21, al",
            "mov al, 4",
            "out 0x21, al",
            "mov al, 1",
            "out 0x21, al",
            "xor eax, eax",
            "out 0x21, al",
            "mov qword ptr [{ready}], 1",
            "2:",
            "cli",
            "cmp qword ptr [{count}], {sent}",
            "jae 3f",
            // An interrupt is held back until the halt has begun.
            "sti",
            "hlt",
            "jmp 2b",
            "3:",
            "mov dx, {verdict}",
            "xor eax, eax",
            "out dx, eax",
            "4: jmp 4b",
            base = const BASE,
            ready = const READY,
            count = const COUNT,
            sent = const SENT,
            verdict = const VERDICT_PORT,
        )
    }
    run(kvm, (Ring::Kernel, guest), [UPPER, SHARED], &[(LINE, count_alone)], send).map(|(tally, _)| tally)
}
