//! Machines that say what they are: a PC and an Arm machine, of devices that do nothing else, and of those of the crate.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use vm_device::devices::pci::{Config, Function, HostBridge, Slot};
use vm_device::devices::time::HandClock;
use vm_device::devices::uart::Uart16550;
use vm_device::tables::{PciInterrupts, PciRoot, acpi, fdt};
use vm_device::{
    AcpiCommand, Description, Device, DeviceManager, DeviceRegister, Gsi, GuestAddress, GuestUsize, IoRange,
    IoResource, IoType, IrqResource, Part, Property, Role, UartKind,
};

/// A device that only says what it is.
pub(crate) struct Sign {
    name: &'static str,
    describe: fn(&mut dyn Description),
    ranges: &'static [IoResource],
    irqs: &'static [IrqResource],
}

impl Device<'_> for Sign {
    fn name(&self) -> &str {
        self.name
    }
    fn describe(&self, description: &mut dyn Description) {
        (self.describe)(description);
    }
}

impl Sign {
    pub(crate) const fn new(
        name: &'static str,
        ranges: &'static [IoResource],
        irqs: &'static [IrqResource],
        describe: fn(&mut dyn Description),
    ) -> Self {
        Self { name, describe, ranges, irqs }
    }

    pub(crate) fn register<'d>(&'d self, manager: &'d DeviceManager<'d>) {
        manager.register_device(self, None, self.ranges, self.irqs).unwrap();
    }
}

/// The end of a serial line that nobody listens to.
pub(crate) struct Nobody;

impl ErrorType for Nobody {
    type Error = Infallible;
}

impl Read for Nobody {
    fn read(&mut self, _: &mut [u8]) -> Result<usize, Infallible> {
        Ok(0)
    }
}

impl ReadReady for Nobody {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(false)
    }
}

impl Write for Nobody {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl WriteReady for Nobody {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(true)
    }
}

pub(crate) type Uart<'d> = Uart16550<'d, Nobody, HandClock>;

pub(crate) const fn uart<'d>(name: &'static str) -> Uart<'d> {
    Uart16550::new(name, Nobody, HandClock::new())
}

const fn register(range_index: usize, offset: u64, size: u8) -> DeviceRegister {
    DeviceRegister { range_index, offset, size }
}

const fn fixed(gsi: u32) -> IrqResource {
    IrqResource::Fixed(Gsi(gsi))
}

// Devices that boards of PCs have alike.
pub(crate) const PIC: Sign = Sign::new(
    "pic",
    &[IoResource::pio(0x20, 2), IoResource::pio(0xa0, 2), IoResource::pio(0x4d0, 2)],
    &[],
    |description| {
        description.acpi("PNP0000", Part::ALL);
        description.role(Role::Pic);
    },
);
pub(crate) const RTC: Sign = Sign::new("rtc", &[IoResource::pio(0x70, 2)], &[fixed(8)], |description| {
    description.acpi("PNP0B00", Part::ALL);
    description.compatible(&["motorola,mc146818"]);
    description.property("ctrl-reg", Property::Cells(&[2]));
    description.role(Role::Rtc { century: 0x32 });
});
pub(crate) const KEYBOARD: Sign = Sign::new(
    "keyboard",
    &[IoResource::pio(0x60, 1), IoResource::pio(0x64, 1)],
    &[fixed(1), fixed(12)],
    |description| {
        description.acpi("PNP0303", Part { irqs: 0b01, ..Part::ALL });
        description.acpi("PNP0F13", Part { ranges: 0, irqs: 0b10 });
        description.role(Role::KeyboardController);
    },
);
pub(crate) const PM_TIMER: Sign = Sign::new("pm timer", &[IoResource::pio(0x608, 4)], &[], |description| {
    description.role(Role::PmTimer { is_wide: true });
});

/// The devices of a PC's board.
static BOARD: [Sign; 11] = [
    PIC,
    Sign::new("pit", &[IoResource::pio(0x40, 4), IoResource::pio(0x61, 1)], &[fixed(0)], |description| {
        description.acpi("PNP0100", Part { ranges: 0b01, ..Part::ALL });
        description.acpi("PNP0800", Part { ranges: 0b10, irqs: 0 });
    }),
    RTC,
    KEYBOARD,
    Sign::new("hpet", &[IoResource::mmio(0xfed0_0000, 0x400)], &[], |description| {
        description.acpi("PNP0103", Part { irqs: 0, ..Part::ALL });
        description.compatible(&["intel,ce4100-hpet"]);
        description.role(Role::Hpet { capabilities: 0x8086_a201, minimum_tick: 0x80 });
    }),
    Sign::new("interrupt-controller", &[IoResource::mmio(0xfec0_0000, 0x1000)], &[], |description| {
        description.compatible(&["intel,ce4100-ioapic"]);
        description.role(Role::IoApic { id: 2, first_gsi: 0 });
    }),
    Sign::new(
        "pm1",
        &[IoResource::pio(0x600, 6), IoResource::pio(0xb2, 2)],
        &[IrqResource::Shared(Gsi(9))],
        |description| {
            description.role(Role::Pm1 {
                event: register(0, 0, 4),
                control: register(0, 4, 2),
                command: Some(AcpiCommand { port: register(1, 0, 1), enable: 0xf1, disable: 0xf0 }),
                power_off: 5,
                has_power_button: true,
            });
        },
    ),
    PM_TIMER,
    Sign::new("post", &[IoResource::pio(0x80, 1)], &[], |description| {
        description.acpi("PNP0C02", Part::ALL);
    }),
    Sign::new("fw_cfg", &[IoResource::pio(0xa000, 0x200)], &[], |description| {
        description.acpi("QEMU0002", Part::ALL);
    }),
    // A function's device, which is told of by its configuration space.
    Sign::new("disk", &[IoResource::mmio(0, 0x1000).unplaced()], &[IrqResource::Unrouted], |_| ()),
];

static RESET: Sign = Sign::new("reset", &[IoResource::pio(0xcf9, 1)], &[], |description| {
    description.role(Role::Reset { register: register(0, 0, 1), value: 6 });
});

/// What a PC has that needs its manager.
pub(crate) struct Pc<'d> {
    host: HostBridge<'d>,
    bridge: Function<'d>,
    serial: [Uart<'d>; 2],
}

pub(crate) const RAM: IoRange = IoRange::of::<0, 0x7fff_ffff>();

impl<'d> Pc<'d> {
    pub(crate) fn new(manager: &'d DeviceManager<'d>) -> Self {
        let serial = [uart("serial"), uart("serial")];
        Self { host: HostBridge::new("pci", manager), bridge: Function::new(Config::i440fx()), serial }
    }

    pub(crate) fn register(&'d self, manager: &'d DeviceManager<'d>) {
        manager.reserve(IoType::Mmio, vm_device::Placement::Fixed(RAM)).unwrap();
        let ranges = [HostBridge::PORTS, HostBridge::ecam(0xe000_0000, 255)];
        let host = manager.register_device(&self.host, None, &ranges, &[]).unwrap();
        self.host.bus().plug(&self.bridge, Slot::new(0, 0), host).unwrap();
        manager.register_device(&RESET, Some(host), RESET.ranges, &[]).unwrap();
        for (uart, port, irq) in [(&self.serial[0], 0x3f8, 4), (&self.serial[1], 0x2f8, 3)] {
            manager.register_device(uart, None, &[uart.ports(port)], &[fixed(irq)]).unwrap();
        }
        BOARD.iter().for_each(|device| device.register(manager));
    }
}

/// The windows of the PC's host bridge.
pub(crate) const ROOT: PciRoot<'static> = PciRoot {
    ports: &PciRoot::PC_PORTS,
    memory: &[IoRange::of::<0xc000_0000, 0xdfff_ffff>(), IoRange::of::<0x10_0000_0000, 0x1f_ffff_ffff>()],
    interrupts: PciInterrupts::Swizzled([Gsi(16), Gsi(17), Gsi(18), Gsi(19)]),
    ..PciRoot::NOTHING
};

pub(crate) const PC_ACPI: acpi::Config<'static> = acpi::Config {
    cpus: acpi::Cpus::Sequential(2),
    overrides: &[acpi::IrqOverride { irq: 0, gsi: 2 }],
    pci: &[ROOT],
    ..acpi::Config::new()
};

pub(crate) const PC_FDT: fdt::Config<'static> = fdt::Config {
    model: "a PC",
    compatible: &["vm-device,pc"],
    interrupts: Some(fdt::InterruptParent { phandle: 1, kind: fdt::ControllerKind::IoApic }),
    memory: &[RAM],
    bootargs: Some("console=ttyS0"),
    initrd: Some(IoRange::of::<0x400_0000, 0x4ff_ffff>()),
    pci: &[ROOT],
    ..fdt::Config::new()
};

/// The devices of an Arm machine's board, which are those of QEMU's machine `virt`.
pub(crate) static ARM: [Sign; 2] = [
    Sign::new("pl011", &[IoResource::mmio(0x900_0000, 0x1000)], &[fixed(33)], |description| {
        description.acpi("ARMH0011", Part::ALL);
        description.compatible(&["arm,pl011", "arm,primecell"]);
        description.property("clocks", Property::Clocks(2));
        description.property("clock-names", Property::Texts(&["uartclk", "apb_pclk"]));
        description.role(Role::Uart { kind: UartKind::Pl011, shift: 2 });
    }),
    Sign::new("rtc", &[IoResource::mmio(0x901_0000, 0x1000)], &[fixed(34)], |description| {
        description.compatible(&["arm,pl031", "arm,primecell"]);
        description.property("clocks", Property::Clocks(1));
        description.property("clock-names", Property::Text("apb_pclk"));
    }),
];

pub(crate) fn register_arm<'d>(manager: &'d DeviceManager<'d>, host: &'d HostBridge<'d>) {
    ARM.iter().for_each(|device| device.register(manager));
    let any = IoResource::any(IoType::Mmio, GuestUsize(0x1000_0000)).aligned(0x1000_0000);
    let ecam = any.within(IoRange::new(GuestAddress(0x3000_0000), GuestAddress(0x3fff_ffff)).unwrap());
    manager.register_device(host, None, &[ecam], &[]).unwrap();
}

/// What an Arm machine has besides: processors, PSCI, the interrupt controller and the timer.
fn arm_nodes(root: &mut fdt::Nodes<'_, '_>) {
    root.node("cpus", |cpus| {
        cpus.property("#address-cells", Property::Cells(&[1]));
        cpus.property("#size-cells", Property::Cells(&[0]));
        for (name, number) in [("cpu@0", 0), ("cpu@1", 1)] {
            cpus.node(name, |cpu| {
                cpu.property("device_type", Property::Text("cpu"));
                cpu.property("compatible", Property::Text("arm,cortex-a57"));
                cpu.property("reg", Property::Cells(&[number]));
                cpu.property("enable-method", Property::Text("psci"));
            });
        }
    });
    root.node("psci", |psci| {
        psci.property("compatible", Property::Texts(&["arm,psci-1.0", "arm,psci-0.2"]));
        psci.property("method", Property::Text("hvc"));
    });
    root.node("interrupt-controller@8000000", |gic| {
        gic.property("compatible", Property::Text("arm,gic-v3"));
        gic.property("reg", Property::Cells(&[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0xf6_0000]));
        gic.property("interrupt-controller", Property::Empty);
        gic.property("#interrupt-cells", Property::Cells(&[3]));
        gic.property("#address-cells", Property::Cells(&[0]));
        gic.property("phandle", Property::Cells(&[1]));
    });
    root.node("timer", |timer| {
        timer.property("compatible", Property::Text("arm,armv8-timer"));
        timer.property("interrupts", Property::Cells(&[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]));
        timer.property("always-on", Property::Empty);
    });
}

const ARM_RAM: [IoRange; 1] = [IoRange::of::<0x4000_0000, 0x5fff_ffff>()];
const ARM_RESERVED: [IoRange; 1] = [IoRange::of::<0x4000_0000, 0x4000_ffff>()];
const ARM_PORTS: [IoRange; 1] = [IoRange::of::<0, 0xffff>()];
const ARM_WINDOWS: [IoRange; 1] = [IoRange::of::<0x1000_0000, 0x2fff_ffff>()];

pub(crate) fn arm_fdt<'a>(pci: &'a [PciRoot<'a>]) -> fdt::Config<'a> {
    fdt::Config {
        interrupts: Some(fdt::InterruptParent { phandle: 1, kind: fdt::ControllerKind::Gic }),
        memory: &ARM_RAM,
        reserved: &ARM_RESERVED,
        clock: Some(fdt::Clock { phandle: 2, hertz: 24_000_000 }),
        pci,
        nodes: Some(&arm_nodes),
        ..fdt::Config::new()
    }
}

/// The windows of the Arm machine's host bridge: ports are in memory.
pub(crate) fn arm_root(route: &dyn Fn(u8, u8) -> Option<Gsi>) -> PciRoot<'_> {
    PciRoot { ports: &ARM_PORTS, ports_at: 0x3eff_0000, memory: &ARM_WINDOWS, interrupts: PciInterrupts::Routed(route) }
}
