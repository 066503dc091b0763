//! A card that asserts its interrupt pin when it is told to.

use vm_device::devices::pci::{Config, Function};
use vm_device::{Access, Device, Rejected, Resources};

use super::interrupter::{ASSERT, DEASSERT};

/// A register of a byte: [`ASSERT`] asserts the pin INTA# of the card's function, [`DEASSERT`] deasserts it. It reads as what was
/// written last.
pub struct PinCard<'d> {
    name: &'static str,
    function: Function<'d>,
}

impl<'d> PinCard<'d> {
    /// One that is not plugged in. `name` is that of the device.
    pub const fn new(name: &'static str) -> Self {
        Self { name, function: Function::new(Config::new(0x1234, 1).interrupt_pin(1)) }
    }

    /// What is plugged into a bus.
    pub const fn function(&self) -> &Function<'d> {
        &self.function
    }
}

impl<'d> Device<'d> for PinCard<'d> {
    fn name(&self) -> &str {
        self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        const INTERRUPT: u32 = 1 << 19;
        let asserted = self.function.register(4) & INTERRUPT != 0;
        access.load(&[if asserted { ASSERT } else { DEASSERT }], data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        match (access.offset(), data) {
            (0, [ASSERT]) => self.function.set_interrupt(true),
            (0, [DEASSERT]) => self.function.set_interrupt(false),
            _ => {}
        }
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.function.connect(resources, 0);
        Ok(())
    }
}
