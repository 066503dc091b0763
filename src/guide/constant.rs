use vm_device::{Access, Device};

/// A device that the examples of the documentation register: its name, and what each of its bytes reads as.
pub struct Constant(pub &'static str, pub u8);

impl Device<'_> for Constant {
    fn name(&self) -> &str {
        self.0
    }
    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(self.1);
    }
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}
