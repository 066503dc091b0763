//! The serial port of `vm-superio`, which a guest uses as its console.

use kvm_ioctls::Kvm;
use vm_device::{DeviceManager, Gsi, InterruptError, IoRange, IoResource, IrqResource, SystemAllocator};

use super::recorded::Recorded;
use super::scenario::{ABOVE_RAM, Failure, Room, Scenario, expect};
use super::verdict::run_guest;
use crate::adapters::serial::Serial;
use crate::devices::verdict::Verdict;
use crate::guest_side::interrupts::{Trigger, enable, route, wait_for};
use crate::guest_side::serial::{COM1, LINE_CONTROL, LINE_STATUS, TRANSMIT, TRANSMITTER_EMPTY};
use crate::guest_side::{mmio, pass, port};
use crate::vmm::irq::KvmIrqchip;
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::run::Tally;
use crate::{check, interrupt_handler};

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "serial/edge",
        about: "a console on vm-superio's serial port, whose input interrupts on an edge-triggered line",
        run: edge,
    },
    Scenario { name: "serial/level", about: "the same, on a level-triggered line that is shared", run: level },
];

/// The line of the first serial port of a PC.
const LINE: Gsi = Gsi(4);
const VECTOR: u8 = 0x45;
/// Where the handler counts the bytes that it has read.
const COUNT: u64 = DATA;

/// Offsets of registers (National Semiconductor PC16550D data sheet, table II).
const INTERRUPT_ENABLE: u16 = 1;
const INTERRUPT_IDENTIFICATION: u16 = 2;
/// In the interrupt enable register: input interrupts.
const ON_INPUT: u8 = 0b01;

const GREETING: &[u8; 7] = b"hello, ";
const INPUT: &[u8; 6] = b"serial";

interrupt_handler!(
    /// Asks what interrupts, and sends back all input there is.
    echo:
    "mov dx, {identification}",
    "in al, dx",
    "2:",
    "mov dx, {status}",
    "in al, dx",
    "test al, 1",
    "jz 3f",
    "mov dx, {data}",
    "in al, dx",
    "out dx, al",
    "inc qword ptr [{count}]",
    "jmp 2b",
    "3:";
    identification = const COM1 + INTERRUPT_IDENTIFICATION, status = const COM1 + LINE_STATUS, data = const COM1 + TRANSMIT,
    count = const COUNT
);

extern "C" fn guest(is_level: u64) {
    // 8 bits, no parity, at 115,200 baud.
    port::write(COM1 + LINE_CONTROL, 0x83u8);
    port::write(COM1 + TRANSMIT, 1u16);
    port::write(COM1 + LINE_CONTROL, 0x03u8);
    for byte in GREETING {
        check!(port::read::<u8>(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY, TRANSMITTER_EMPTY);
        port::write(COM1 + TRANSMIT, *byte);
    }
    enable();
    route(LINE.0, VECTOR, if is_level == 0 { Trigger::Edge } else { Trigger::Level });
    check!(mmio::read::<u64>(COUNT), 0u64);
    port::write(COM1 + INTERRUPT_ENABLE, ON_INPUT);
    check!(wait_for(COUNT, INPUT.len() as u64), true);
    check!(mmio::read::<u64>(COUNT), INPUT.len() as u64);
    pass()
}

fn edge(kvm: &Kvm) -> Result<Tally, Failure> {
    console(kvm, IrqResource::Fixed(LINE), false)
}

fn level(kvm: &Kvm) -> Result<Tally, Failure> {
    console(kvm, IrqResource::Shared(LINE), true)
}

fn console(kvm: &Kvm, irq: IrqResource, is_level: bool) -> Result<Tally, Failure> {
    let machine = Machine::with_irqchip(kvm)?;
    machine.set_interrupt_gate(VECTOR, echo as *const () as u64);
    let irqchip = KvmIrqchip::new();
    irqchip.connect(machine.vm());
    let (room, controller) = (Room::new(), Recorded::new(&irqchip));
    let allocator = SystemAllocator::new(ABOVE_RAM).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
    let manager = DeviceManager::new(&room, allocator).with_interrupt_controller(&controller);
    let (verdict, serial) = (Verdict::new(), Serial::new(Vec::new()));
    manager.register_device(&serial, None, &[IoResource::pio(COM1, 8)], &[irq])?;
    // It waits until the guest wants to be interrupted for it.
    expect("the input taken", serial.enqueue_raw_bytes(INPUT), INPUT.len())?;
    let tally = run_guest(&machine, &manager, &verdict, guest, is_level.into())?;
    expect("the output", serial.with_writer(|sent| sent.clone()), [&GREETING[..], INPUT].concat())?;
    expect("the levels of the line", controller.levels(), [(LINE, true), (LINE, false)])?;
    expect("the refusal of an interrupt", serial.refused(), None::<InterruptError>)?;
    Ok(tally)
}
