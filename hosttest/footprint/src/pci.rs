//! PCI devices, and a guest that programs them.

use core::hint::black_box;

use vm_device::devices::pci::{Bar, Bridge, Config, Function, HostBridge, InBar, Pin, PinLines, Serial, Slot};
use vm_device::devices::time::HandClock;
use vm_device::{Access, Device, Gsi, IrqLine, IrqResource, Messages, Resources};

use crate::uart::Line;
use crate::{MANAGER, Manager};

static PIIX3: Function<'static> = Function::new(Config::piix3());
static HOST: HostBridge<'static> = HostBridge::new("pci", &MANAGER).with_pirq_router(&PIIX3);
static CLOCK: HandClock = HandClock::new();
static SERIAL: Serial<'static, Line, &HandClock> = Serial::in_memory("serial", Line, &CLOCK);
static BRIDGE: Bridge<'static> = Bridge::new("bridge", 0x1b36, 1);
static MESSAGES: [Messages<'static, 4>; 2] = [Messages::new(), Messages::new()];
static FUNCTION: Function<'static> = Function::new(Config::new(0x1234, 1).bar(0, Bar::memory(0x1000)));

pub fn all(manager: &'static Manager, access: &Access<'_>, data: &mut [u8]) {
    let (host, bridge, function) = black_box((&HOST, &BRIDGE, &FUNCTION));
    let ranges = [HostBridge::PORTS, call!(HostBridge::ecam, 0xe000_0000, 255)];
    let slot = call!(Slot::new, 3, 0);
    let ids = [
        manager.register_device(host, None, &ranges, &[]),
        manager.register_device(bridge, None, &call!(Bridge::requests, bridge), &[]),
    ];
    for id in ids.into_iter().flatten() {
        let _ = (host.bus().plug(bridge.function(), slot, id), bridge.bus().plug(function, slot, id));
    }
    host.read(access, data);
    host.write(access, data);
    bridge.read(access, data);
    bridge.write(access, data);
    call!(Function::register, function, 0);
    call!(Function::set_register, function, 0, 0, 0);
    call!(Function::command, function);
    call!(Function::may_use_pin, function);
    call!(Function::reset, function, manager);
    let bar = call!(Bar::sizes, call!(Bar::memory64, 1 << 20), black_box(vm_device::AccessSizes::ANY));
    let config = call!(Config::bar, call!(Config::i440fx), 2, call!(Bar::physical, call!(Bar::prefetchable, bar)));
    let config = call!(Config::bar, config, 1, call!(Bar::ports, 4)).rom(0x800).class(1).revision(1).subsystem(1, 1);
    let config = config.interrupt_pin(1).capabilities(0x40);
    black_box(call!(Config::requests, &config).len());
    let [msi, msix] = black_box(&MESSAGES);
    let (table, pending) = (call!(InBar::new, 2, 0), call!(InBar::new, 2, 0x800));
    let function = call!(Function::with_msi, call!(Function::new, config), 0x50, msi);
    black_box(call!(Function::with_msix, function, 0x70, msix, table, pending));
    let _ = host.bus().unplug(bridge.function());
}

/// The pins, the chipset, and a serial port.
pub fn pins(manager: &'static Manager, access: &Access<'_>, data: &mut [u8]) {
    let (host, serial, slot) = (black_box(&HOST), black_box(&SERIAL), black_box(Slot::new(3, 0)));
    black_box([call!(Slot::device, slot), call!(Slot::function, slot)]);
    if let Some(pin) = call!(Pin::from_register, 1) {
        black_box(call!(PinLines::line, &call!(PinLines::new, Gsi(16), 8), slot, pin));
        black_box(call!(HostBridge::line, host, slot, call!(Pin::through_bridge, pin, slot)));
        call!(Pin::pirq, pin, slot);
    }
    let other = HostBridge::with_lines(HostBridge::new("pci", manager), black_box(PinLines::new(Gsi(16), 8)));
    black_box(other.bus());
    black_box(call!(Config::piix4_power));
    let function = call!(Function::with_message, call!(Function::new, call!(Config::piix3)), 0x50);
    call!(Function::connect, &function, &Resources::new(&[], &[IrqLine::DISCONNECTED]), 0);
    call!(Function::set_interrupt, &function, true);
    if let Ok(id) = manager.register_device(serial, None, &serial.requests(), &[IrqResource::Unrouted]) {
        let _ = host.bus().plug(serial.function(), slot, id);
    }
    call!(HostBridge::route, host);
    serial.read(access, data);
    serial.write(access, data);
    serial.write_string(access, 1, data).ok();
    serial.reset();
    serial.poll();
    serial.tick(1);
    black_box(call!(Serial::on_ports, "serial", 1, 2, Line, &CLOCK).requests());
}
