//! A device with two interrupts, each on a line of its own.

use kvm_ioctls::Kvm;
use vm_device::devices::i8042::I8042;
use vm_device::{DeviceManager, Gsi, IoRange, SystemAllocator};

use super::recorded::Recorded;
use super::scenario::{ABOVE_RAM, Failure, Room, Scenario, expect};
use super::verdict::run_guest;
use crate::devices::verdict::Verdict;
use crate::guest_side::interrupts::{Trigger, enable, route, wait_for};
use crate::guest_side::{mmio, pass, port};
use crate::vmm::irq::KvmIrqchip;
use crate::vmm::machine::{self, Machine};
use crate::vmm::power::Power;
use crate::vmm::run::Tally;
use crate::{check, interrupt_handler};

/// The guests of this topic.
pub const ALL: &[Scenario] = &[Scenario {
    name: "i8042/two-lines",
    about: "bytes of a keyboard and of a mouse, which interrupt on two lines of one device",
    run: two_lines,
}];

/// The ports of data, and of status and commands (IBM PS/2 Hardware Interface Technical Reference).
const DATA: u16 = 0x60;
const COMMAND: u16 = 0x64;
/// The lines.
const KEYBOARD: Gsi = Gsi(1);
const MOUSE: Gsi = Gsi(12);
/// Commands with data: the configuration, and bytes as if they came from the keyboard or the mouse.
const WRITE_CONFIGURATION: u8 = 0x60;
const FROM_KEYBOARD: u8 = 0xd2;
const FROM_MOUSE: u8 = 0xd3;
/// In the configuration: the interrupts.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
const MOUSE_INTERRUPT: u8 = 1 << 1;
/// The status without a byte to read, and with one of the mouse.
const IDLE: u8 = 0x10;
const OF_MOUSE: u8 = 0x31;
/// A keyboard is asked for its name, and does not answer: the status, and the byte in the place of the answer.
const IDENTIFY: u8 = 0xf2;
const TIMED_OUT: u8 = 0x51;
const NO_ANSWER: u8 = 0xfe;

const KEYBOARD_VECTOR: u8 = 0x43;
const MOUSE_VECTOR: u8 = 0x44;
/// Where the handler of the keyboard counts, and puts the byte that it has read.
const KEYS: u64 = machine::DATA;
const KEY: u64 = machine::DATA + 8;
/// The same of the mouse.
const MOVES: u64 = machine::DATA + 0x10;
const MOVE: u64 = machine::DATA + 0x18;
/// How many bytes come of each.
const BYTES: u8 = 5;

interrupt_handler!(
    /// Reads a byte of the keyboard.
    key: "in al, {data}", "mov byte ptr [{byte}], al", "inc qword ptr [{count}]";
    data = const DATA, byte = const KEY, count = const KEYS
);

interrupt_handler!(
    /// Reads a byte of the mouse.
    moved: "in al, {data}", "mov byte ptr [{byte}], al", "inc qword ptr [{count}]";
    data = const DATA, byte = const MOVE, count = const MOVES
);

/// A command with data.
#[inline(always)]
fn command(command: u8, data: u8) {
    port::write(COMMAND, command);
    port::write(DATA, data);
}

extern "C" fn guest(_: u64) {
    enable();
    route(KEYBOARD.0, KEYBOARD_VECTOR, Trigger::Edge);
    route(MOUSE.0, MOUSE_VECTOR, Trigger::Edge);
    // Without an interrupt, the status tells of a byte.
    command(FROM_MOUSE, 0xaa);
    check!(port::read::<u8>(COMMAND), OF_MOUSE);
    check!(port::read::<u8>(DATA), 0xaau8);
    check!(port::read::<u8>(COMMAND), IDLE);
    // No keyboard is there.
    port::write(DATA, IDENTIFY);
    check!(port::read::<u8>(COMMAND), TIMED_OUT);
    check!(port::read::<u8>(DATA), NO_ANSWER);

    command(WRITE_CONFIGURATION, KEYBOARD_INTERRUPT | MOUSE_INTERRUPT);
    for n in 1..=BYTES {
        command(FROM_KEYBOARD, n);
        check!(wait_for(KEYS, n.into()), true);
        check!(mmio::read::<u8>(KEY), n);
        check!(mmio::read::<u64>(MOVES), n - 1);
        command(FROM_MOUSE, !n);
        check!(wait_for(MOVES, n.into()), true);
        check!(mmio::read::<u8>(MOVE), !n);
        check!(mmio::read::<u64>(KEYS), n);
    }
    check!(port::read::<u8>(COMMAND), IDLE);
    pass()
}

fn two_lines(kvm: &Kvm) -> Result<Tally, Failure> {
    let machine = Machine::with_irqchip(kvm)?;
    machine.set_interrupt_gate(KEYBOARD_VECTOR, key as *const () as u64);
    machine.set_interrupt_gate(MOUSE_VECTOR, moved as *const () as u64);
    let irqchip = KvmIrqchip::new();
    irqchip.connect(machine.vm());
    let (room, controller) = (Room::new(), Recorded::new(&irqchip));
    let allocator = SystemAllocator::new(ABOVE_RAM).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
    let manager = DeviceManager::new(&room, allocator).with_interrupt_controller(&controller);
    let (verdict, power) = (Verdict::new(), Power::new());
    let i8042 = I8042::new(&power);
    let id = manager.register_device(&i8042, None, &i8042.ports(), &i8042.interrupts())?;
    let lines: Vec<Option<Gsi>> = [0, 1].iter().filter_map(|index| Some(manager.irq(id, *index)?.gsi)).collect();
    expect("the lines of the device", lines, [Some(KEYBOARD), Some(MOUSE)])?;
    let tally = run_guest(&machine, &manager, &verdict, guest, 0)?;
    let levels = [(KEYBOARD, true), (KEYBOARD, false), (MOUSE, true), (MOUSE, false)];
    expect("the levels of the lines", controller.levels(), levels.repeat(BYTES.into()))?;
    Ok(tally)
}
