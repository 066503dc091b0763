//! The interrupt lines of a PC, which lead to two controllers.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::address::GuestAddress;
use crate::interrupt::{Gsi, InterruptController, InterruptError};

/// The interrupt lines of a PC: GSI 0 to 15 lead both to a pair of 8259As and to an IOAPIC, the others to the IOAPIC alone (Intel
/// MultiProcessor Specification 1.4, 3.6.2). The guest uses one of the two and masks the other.
///
/// Line 0, the timer's, is at input 2 of the IOAPIC, whose input 0 stays free; a guest is told so by an interrupt source override of
/// the MADT (ACPI 6.5, 5.2.12.5). Line 2 is refused: it is the wire between the two 8259As. Messages go to the IOAPIC.
///
/// ```
/// use vm_device::devices::ioapic::{Ioapic, LocalApics};
/// use vm_device::devices::pc_interrupts::PcInterrupts;
/// use vm_device::devices::pic::{IntrPin, Pic};
/// use vm_device::{DeviceManager, GuestAddress, InterruptError, IoRange, Storage, SystemAllocator};
///
/// /// The processor of a machine.
/// struct Processor;
/// # impl IntrPin for Processor {
/// #     fn set(&self, _: bool) {}
/// # }
/// # impl LocalApics for Processor {
/// #     fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
/// #         Ok(())
/// #     }
/// # }
///
/// static PIC: Pic<&Processor> = Pic::new(&Processor);
/// static IOAPIC: Ioapic<&Processor> = Ioapic::new(&Processor);
/// static LINES: PcInterrupts<&Pic<&Processor>, &Ioapic<&Processor>> = PcInterrupts::new(&PIC, &IOAPIC);
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 23))
///         .with_interrupt_controller(&LINES);
/// MANAGER.register_device(&PIC, None, &PIC.ports(), &[])?;
/// MANAGER.register_device(&IOAPIC, None, &[IOAPIC.mmio(0xfec0_0000)], &[])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PcInterrupts<P, I> {
    pic: P,
    ioapic: I,
    /// The lines of the 8259As that both controllers have taken as asserted.
    asserted: AtomicU32,
}

/// How many lines lead to both.
const SHARED: u32 = 16;
const TIMER: Gsi = Gsi(0);
/// The line of the second 8259A, and the input of the IOAPIC that the timer has.
const CASCADE: Gsi = Gsi(2);

impl<P, I> PcInterrupts<P, I> {
    /// The lines to these two controllers.
    pub const fn new(pic: P, ioapic: I) -> Self {
        Self { pic, ioapic, asserted: AtomicU32::new(0) }
    }

    /// The line that leads to an input of the IOAPIC: what
    /// [`DeviceManager::end_of_interrupt`](crate::DeviceManager::end_of_interrupt) takes where the IOAPIC tells of the end of an
    /// interrupt. `None` for input 0, which is free.
    ///
    /// ```
    /// use vm_device::Gsi;
    /// use vm_device::devices::pc_interrupts::PcInterrupts;
    ///
    /// let lines = PcInterrupts::new((), ());
    /// assert_eq!([0, 2, 17].map(|input| lines.line_at_input(Gsi(input))), [None, Some(Gsi(0)), Some(Gsi(17))]);
    /// ```
    pub const fn line_at_input(&self, input: Gsi) -> Option<Gsi> {
        match input {
            TIMER => None,
            CASCADE => Some(TIMER),
            line => Some(line),
        }
    }
}

/// Where a line leads: whether to the 8259As too, and to which input of the IOAPIC.
fn route(gsi: Gsi) -> Result<(bool, Gsi), InterruptError> {
    match gsi {
        CASCADE => Err(InterruptError::Refused),
        TIMER => Ok((true, CASCADE)),
        Gsi(line) => Ok((line < SHARED, gsi)),
    }
}

impl<P: InterruptController, I: InterruptController> InterruptController for PcInterrupts<P, I> {
    /// A level that one controller refuses, neither keeps.
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let (is_shared, input) = route(gsi)?;
        if !is_shared {
            return self.ioapic.set_level(input, asserted);
        }
        let bit = 1_u32.wrapping_shl(gsi.0);
        let before = self.asserted.load(Ordering::Relaxed) & bit != 0;
        self.pic.set_level(gsi, asserted)?;
        if let Err(error) = self.ioapic.set_level(input, asserted) {
            let _ = self.pic.set_level(gsi, before);
            return Err(error);
        }
        if asserted {
            self.asserted.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.asserted.fetch_and(!bit, Ordering::Relaxed);
        }
        Ok(())
    }

    /// It is signalled if one controller takes it.
    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        let (is_shared, input) = route(gsi)?;
        let of_ioapic = self.ioapic.pulse(input);
        if is_shared { self.pic.pulse(gsi).or(of_ioapic) } else { of_ioapic }
    }

    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.ioapic.message(address, data)
    }
}
