//! The interrupt controllers of a PC, and a guest that programs them.

use core::hint::black_box;

use vm_device::devices::ioapic::{Ioapic, LocalApics};
use vm_device::devices::pc_interrupts::PcInterrupts;
use vm_device::devices::pic::{IntrPin, Pic};
use vm_device::{Access, Device, Gsi, GuestAddress, InterruptController, InterruptError};

use crate::Manager;

/// A processor, of which the compiler knows nothing.
struct Processor;

impl IntrPin for Processor {
    fn set(&self, asserted: bool) {
        black_box(asserted);
    }
}

impl LocalApics for Processor {
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        black_box((address, data));
        black_box(Err(InterruptError::Refused))
    }
}

static PIC: Pic<&Processor> = Pic::new(&Processor);
static IOAPIC: Ioapic<&Processor> = Ioapic::new(&Processor);
static SECOND: Ioapic<&Processor, 120> = Ioapic::with_lines(&Processor).with_first_gsi(Gsi(24)).with_eoi_register();
static LINES: PcInterrupts<&Pic<&Processor>, &Ioapic<&Processor>> = PcInterrupts::new(&PIC, &IOAPIC);

pub fn all(manager: &'static Manager, access: &Access<'_>, data: &mut [u8]) {
    let (pic, ioapic, second) = (black_box(&PIC), black_box(&IOAPIC), black_box(&SECOND));
    manager.register_device(pic, None, &pic.ports(), &[]).ok();
    manager.register_device(ioapic, None, &[ioapic.mmio(0xfec0_0000)], &[]).ok();
    manager.register_device(second, None, &[second.mmio(0xfec0_1000)], &[]).ok();
    for device in black_box::<[&dyn Device<'_>; 3]>([pic, ioapic, second]) {
        device.read(access, data);
        device.write(access, data);
        device.reset();
        device.tick(black_box(0));
    }
    for controller in black_box::<[&dyn InterruptController; 4]>([pic, ioapic, second, &LINES]) {
        controller.set_level(Gsi(black_box(4)), black_box(true)).ok();
        controller.pulse(Gsi(black_box(4))).ok();
        controller.message(GuestAddress(black_box(0xfee0_0000)), black_box(0)).ok();
    }
    black_box(black_box(&LINES).line_at_input(Gsi(black_box(2))));
    black_box(pic.has_interrupt());
    black_box(pic.acknowledge());
    second.ended(black_box(0x31), |gsi| {
        black_box(gsi);
    });
    let redirections = second.redirections();
    black_box(redirections.get(Gsi(black_box(30))));
    for (gsi, redirection) in redirections.iter() {
        black_box((gsi, redirection.message(), redirection.vector(), redirection.is_level_triggered()));
    }
}
