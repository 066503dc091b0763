//! An IOAPIC that is the VMM's, over local APICs that are KVM's.

use kvm_ioctls::Kvm;
use vm_device::devices::ioapic::Ioapic;
use vm_device::{Gsi, InterruptError, IoResource, IrqResource};

use super::scenario::{Failure, LIMIT, Room, Scenario, expect, manager};
use super::shown::keep_map;
use crate::devices::interrupter::{Interrupter, PULSE};
use crate::devices::verdict::Verdict;
use crate::guest_side::interrupts::{Trigger, enable, read_ioapic, redirection, route, wait_for, write_ioapic};
use crate::guest_side::{mmio, pass, port};
use crate::vmm::ioapic::{self, KvmLocalApics};
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::run::{Tally, run_with_ends};
use crate::vmm::vcpu::Ring;
use crate::vmm::vm::Vm;
use crate::{check, interrupt_handler};

/// The guests of this topic.
pub const ALL: &[Scenario] = &[Scenario {
    name: "ioapic/edge",
    about: "edges, each delivered once where the line is not masked, without an exit at the end",
    run: edge,
}];

const LINE: Gsi = Gsi(20);
const VECTOR: u8 = 0x48;
const COUNT: u64 = DATA;
const DEVICE: u16 = 0x500;

interrupt_handler!(
    /// Counts.
    count: "inc qword ptr [{count}]"; count = const COUNT
);

extern "C" fn guest(_: u64) {
    const VERSION: u32 = 1;
    const MASKED: u32 = 1 << 16;
    enable();
    check!(read_ioapic(VERSION), 0x0017_0011u32);
    check!(read_ioapic(redirection(LINE.0)), MASKED);
    // An edge that comes while the line is masked is lost.
    write_ioapic(redirection(LINE.0), MASKED | u32::from(VECTOR));
    port::write(DEVICE, PULSE);
    route(LINE.0, VECTOR, Trigger::Edge);
    check!(read_ioapic(redirection(LINE.0)), VECTOR);
    for interrupts in 1..=10 {
        port::write(DEVICE, PULSE);
        check!(wait_for(COUNT, interrupts), true);
    }
    check!(mmio::read::<u64>(COUNT), 10u64);
    pass()
}

fn edge(kvm: &Kvm) -> Result<Tally, Failure> {
    let vm = Vm::new(kvm)?;
    vm.create_split_irqchip(ioapic::LINES)?;
    let machine = Machine::around(vm)?;
    machine.set_interrupt_gate(VECTOR, count as *const () as u64);
    let apics = KvmLocalApics::new();
    apics.connect(machine.vm());
    let ioapic = Ioapic::new(&apics);
    let (room, verdict, device) = (Room::new(), Verdict::new(), Interrupter::new("timer"));
    let manager = manager(&room).with_interrupt_controller(&ioapic);
    manager.register_device(&ioapic, None, &[ioapic.mmio(ioapic::BASE)], &[])?;
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;
    manager.register_device(&device, None, &[IoResource::pio(DEVICE, 8)], &[IrqResource::Fixed(LINE)])?;
    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let (has_ended, mut ends) = (|| verdict.given().is_some(), Vec::new());
    let tally = run_with_ends(&mut vcpu, &mut manager.dispatcher(0)?, LIMIT, has_ended, |vector| ends.push(vector))?;
    keep_map(&manager);
    if let Some(Err(finding)) = verdict.given() {
        return Err(Failure(format!("the guest failed: {finding}")));
    }
    expect("exits at ends", ends, Vec::<u8>::new())?;
    expect("the refusal of a route", apics.refused(), None::<kvm_ioctls::Error>)?;
    expect("the refusal of an interrupt", device.refused(), None::<InterruptError>)?;
    Ok(tally)
}
