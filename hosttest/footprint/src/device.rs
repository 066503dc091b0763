//! A device, an interrupt controller and a listener that do nothing, but call what is there for them to call.

use vm_device::{Access, Device, Gsi, GuestAddress, InterruptController, InterruptError, IrqLine, Rejected, Resources};
#[cfg(feature = "all")]
use vm_device::{AccessObserver, Failed, IoError, ObservedAccess, PlacedRange, RangeListener};

pub struct Nothing;

impl Device<'_> for Nothing {
    fn name(&self) -> &str {
        "nothing"
    }

    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}

    fn write(&self, _: &Access<'_>, _: &[u8]) {}

    #[cfg(feature = "all")]
    fn try_read(&self, access: &Access<'_>, _: &mut [u8]) -> Result<(), Failed> {
        call!(Access::device, access);
        call!(Access::vcpu, access);
        let failed = call!(Failed::new, 0);
        call!(Failed::code, failed);
        call!(Rejected::code, Rejected::new(0));
        call!(Failed::pass_on, Err(call!(IoError::from, failed)))
    }

    fn set_resources(&self, resources: &Resources<'_, '_>) -> Result<(), Rejected> {
        let irq = call!(Resources::irq, resources, 0);
        let outcome = call!(IrqLine::assert, &irq).and(call!(IrqLine::deassert, &irq));
        #[cfg(feature = "all")]
        {
            call!(Resources::ranges, resources);
            call!(Resources::id, resources);
            call!(Resources::new, &[], &[irq]);
            call!(IrqLine::gsi, &irq);
            call!(IrqLine::pulse, &irq).ok();
            call!(IrqLine::message, &irq, GuestAddress(0xfee0_0000), 0).ok();
        }
        outcome.map_err(|_| Rejected::new(0))
    }
}

pub static DEVICE: Nothing = Nothing;

pub struct NoController;

impl InterruptController for NoController {
    fn set_level(&self, _: Gsi, _: bool) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }

    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }

    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }
}

pub static CONTROLLER: NoController = NoController;

#[cfg(feature = "all")]
pub struct NoListener;

#[cfg(feature = "all")]
impl RangeListener for NoListener {
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        for doorbell in PlacedRange::doorbells(range) {
            core::hint::black_box(&doorbell);
        }
        Err(Rejected::new(0))
    }

    fn leaving(&self, _: &PlacedRange<'_>) {}
}

#[cfg(feature = "all")]
pub static LISTENER: NoListener = NoListener;

#[cfg(feature = "all")]
pub struct NoObserver;

#[cfg(feature = "all")]
impl AccessObserver for NoObserver {
    fn observe(&self, access: &ObservedAccess<'_>) {
        core::hint::black_box(access);
        #[cfg(feature = "texts")]
        crate::texts::observed(access);
    }
}

#[cfg(feature = "all")]
pub static OBSERVER: NoObserver = NoObserver;
