//! Ends of interrupts, of which the devices of a line are told.

use std::sync::Mutex;
use std::thread;

use kvm_ioctls::Kvm;
use vm_device::devices::ioapic::Ioapic;
use vm_device::{DeviceManager, Gsi, InterruptController, InterruptError, IoResource, IrqResource};

use super::recorded::Recorded;
use super::scenario::{self, Failure, LIMIT, Room, Scenario, expect};
use super::shown::keep_map;
use super::verdict::run_guest;
use crate::devices::interrupter::{ASSERT, Interrupter};
use crate::devices::verdict::Verdict;
use crate::guest_side::interrupts::{Trigger, enable, mask, route, wait_for};
use crate::guest_side::{mmio, pass, port};
use crate::vmm::ioapic::{self, KvmLocalApics};
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::resample::ResampledLines;
use crate::vmm::run::{Tally, run_with_ends};
use crate::vmm::vcpu::Ring;
use crate::vmm::vm::Vm;
use crate::{check, interrupt_handler};

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "ends/resample",
        about: "two devices on one line, of whose interrupts' ends KVM tells by a resample eventfd",
        run: resample,
    },
    Scenario {
        name: "ends/split-irqchip",
        about: "the same by exits, where the IOAPIC is not KVM's",
        run: split_irqchip,
    },
];

const LINE: Gsi = Gsi(20);
const VECTOR: u8 = 0x47;
const FIRST: u16 = 0x500;
const SECOND: u16 = 0x510;
/// How often the handler has served each device.
const FIRST_SERVED: u64 = DATA;
const SECOND_SERVED: u64 = DATA + 8;
/// How often the guest lets both assert the line.
const ROUNDS: u64 = 3;

interrupt_handler!(
    /// Serves one of the devices that assert the line, if any does: lets it take its assertion back, and counts.
    serve_one:
    "mov dx, {first}",
    "in al, dx",
    "test al, al",
    "jz 2f",
    "inc qword ptr [{first_served}]",
    "jmp 3f",
    "2:",
    "mov dx, {second}",
    "in al, dx",
    "test al, al",
    "jz 4f",
    "inc qword ptr [{second_served}]",
    "3:",
    "xor eax, eax",
    "out dx, al",
    "4:";
    first = const FIRST, second = const SECOND, first_served = const FIRST_SERVED, second_served = const SECOND_SERVED
);

/// As [`wait_for`], long enough for a thread of the host that is late.
fn wait_long_for(address: u64, count: u64) -> bool {
    (0..300).any(|_| wait_for(address, count))
}

extern "C" fn guest(_: u64) {
    enable();
    for round in 1..=ROUNDS {
        // While the IOAPIC masks the line, both devices come to assert it.
        port::write(FIRST, ASSERT);
        port::write(SECOND, ASSERT);
        check!(mmio::read::<u64>(FIRST_SERVED), round - 1);
        route(LINE.0, VECTOR, Trigger::Level);
        // An interrupt serves one device. Only because its end lets the line be asserted once more, the other is served.
        check!(wait_long_for(FIRST_SERVED, round), true);
        check!(wait_long_for(SECOND_SERVED, round), true);
        check!(port::read::<u8>(FIRST), 0u8);
        check!(port::read::<u8>(SECOND), 0u8);
        mask(LINE.0, VECTOR);
    }
    check!(mmio::read::<u64>(FIRST_SERVED), ROUNDS);
    check!(mmio::read::<u64>(SECOND_SERVED), ROUNDS);
    pass()
}

/// The two devices that share the line.
struct Devices<'d>([Interrupter<'d>; 2]);

impl<'d> Devices<'d> {
    fn new() -> Self {
        Self(["first", "second"].map(Interrupter::new))
    }

    fn register(&'d self, manager: &'d DeviceManager<'d>) -> Result<(), Failure> {
        for (device, at) in self.0.iter().zip([FIRST, SECOND]) {
            manager.register_device(device, None, &[IoResource::pio(at, 8)], &[IrqResource::Shared(LINE)])?;
        }
        Ok(())
    }

    /// Both devices have heard of the same ends, `at_least` so many. The controller was told once more of a line that it had let
    /// go.
    fn expect_ends(&self, at_least: u64, levels: &[(Gsi, bool)]) -> Result<(), Failure> {
        let [first, second] = [0, 1].map(|device| self.0[device].ends());
        expect("ends that the second device has heard of", second, first)?;
        expect("enough ends", first >= at_least, true)?;
        let asserted_once_more = levels.windows(2).any(|levels| levels[0] == (LINE, true) && levels[1] == (LINE, true));
        expect("a line asserted once more after an end", asserted_once_more, true)?;
        expect("the level at the end", levels.last(), Some(&(LINE, false)))?;
        let refused = self.0.iter().find_map(Interrupter::refused);
        expect("the refusal of an interrupt", refused, None::<InterruptError>)
    }
}

fn manager<'d>(room: &'d Room<'d>, controller: &'d dyn InterruptController) -> DeviceManager<'d> {
    scenario::manager(room).with_interrupt_controller(controller)
}

/// Passes an end on to the devices of its line. Notes what goes wrong.
fn pass_on(manager: &DeviceManager<'_>, gsi: Gsi, wrong: &Mutex<Option<InterruptError>>) {
    if let Err(error) = manager.end_of_interrupt(gsi)
        && error != InterruptError::Pending
        && let Ok(mut wrong) = wrong.lock()
    {
        *wrong = Some(error);
    }
}

fn resample(kvm: &Kvm) -> Result<Tally, Failure> {
    let machine = Machine::with_irqchip(kvm)?;
    machine.set_interrupt_gate(VECTOR, serve_one as *const () as u64);
    let lines = ResampledLines::new(machine.vm(), &[LINE])?;
    let (room, controller, devices, wrong) = (Room::new(), Recorded::new(&lines), Devices::new(), Mutex::new(None));
    let (manager, verdict) = (manager(&room, &controller), Verdict::new());
    devices.register(&manager)?;
    let tally = thread::scope(|scope| {
        let server = scope.spawn(|| lines.serve(|gsi| pass_on(&manager, gsi, &wrong)));
        let tally = run_guest(&machine, &manager, &verdict, guest, 0);
        lines.stop();
        server.join().map_err(|_| Failure("the thread that serves ends of interrupts panicked".into()))??;
        tally
    })?;
    expect("what an end has met", wrong.into_inner()?, None::<InterruptError>)?;
    // One in each round, before the second device was served, and one at last: others may have become one with the next.
    devices.expect_ends(ROUNDS + 1, &controller.levels())?;
    Ok(tally)
}

fn split_irqchip(kvm: &Kvm) -> Result<Tally, Failure> {
    let vm = Vm::new(kvm)?;
    vm.create_split_irqchip(ioapic::LINES)?;
    let machine = Machine::around(vm)?;
    machine.set_interrupt_gate(VECTOR, serve_one as *const () as u64);
    let apics = KvmLocalApics::new();
    apics.connect(machine.vm());
    let ioapic = Ioapic::new(&apics);
    let (room, controller, devices, wrong) = (Room::new(), Recorded::new(&ioapic), Devices::new(), Mutex::new(None));
    let (manager, verdict) = (manager(&room, &controller), Verdict::new());
    devices.register(&manager)?;
    manager.register_device(&ioapic, None, &[ioapic.mmio(ioapic::BASE)], &[])?;
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;
    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let has_ended = || verdict.given().is_some();
    // After an exit, and not within a call of the controller.
    let interrupt_ended = |vector| ioapic.ended(vector, |gsi| pass_on(&manager, gsi, &wrong));
    let tally = run_with_ends(&mut vcpu, &mut manager.dispatcher(0)?, LIMIT, has_ended, interrupt_ended)?;
    keep_map(&manager);
    if let Some(Err(finding)) = verdict.given() {
        return Err(Failure(format!("the guest failed: {finding}")));
    }
    expect("the refusal of a route", apics.refused(), None::<kvm_ioctls::Error>)?;
    expect("what an end has met", wrong.into_inner()?, None::<InterruptError>)?;
    // One for each time that a device was served.
    devices.expect_ends(2 * ROUNDS, &controller.levels())?;
    Ok(tally)
}
