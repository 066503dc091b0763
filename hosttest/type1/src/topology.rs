//! The topology, printed.

use vm_device::DeviceInfo;

use crate::manager::MANAGER;
use crate::println;
use crate::serial::Serial;

/// Prints every device below its bus, with its ranges and its interrupt line.
pub fn print() {
    MANAGER.walk().for_each(|device| print_device(&device));
}

fn print_device(device: &DeviceInfo<'_>) {
    use core::fmt::Write;
    // Serial never fails.
    let _ = write!(Serial, "{:indent$}{}:", "", device.name, indent = 2 + 2 * device.depth);
    for range in (0..).map_while(|index| MANAGER.range(device.id, index)) {
        let _ = write!(Serial, " {range}");
    }
    for irq in (0..).map_while(|index| MANAGER.irq(device.id, index)) {
        let _ = write!(Serial, " {irq}");
    }
    println!();
}
