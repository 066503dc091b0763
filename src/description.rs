//! What a device says of itself to a guest, in the words of the tables that describe a machine.

/// Takes down what a device says of itself in [`Device::describe`](crate::Device::describe). The writers in
/// `tables` implement it, and so does an embedder who writes another format.
///
/// Where the device lies, and which lines it has, is not said: that is what the manager has given to it. The device of a PCI function
/// says nothing, because a guest finds it in configuration space.
///
/// ```
/// use vm_device::{Description, Device, Part, Property};
///
/// /// A real-time clock.
/// struct Clock;
///
/// impl Device<'_> for Clock {
///     fn name(&self) -> &str {
///         "rtc"
///     }
///     fn describe(&self, description: &mut dyn Description) {
///         description.acpi("PNP0B00", Part::ALL);
///         description.compatible(&["motorola,mc146818"]);
///         description.property("century", Property::Cells(&[0x32]));
///     }
/// }
///
/// /// Keeps the first name that a device tree knows the device by.
/// #[derive(Default)]
/// struct First(String);
///
/// impl Description for First {
///     fn compatible(&mut self, names: &[&str]) {
///         self.0 = names.first().map(|name| String::from(*name)).unwrap_or_default();
///     }
/// }
///
/// let mut first = First::default();
/// Clock.describe(&mut first);
/// assert_eq!(first.0, "motorola,mc146818");
/// ```
pub trait Description {
    /// The device is one of these in ACPI's namespace: `id` is its hardware id (ACPI 6.5, 6.1.5), such as `PNP0501`, and `part` is
    /// what of its ranges and lines is this one's. A device that is several calls it several times: a keyboard controller has two.
    /// While `part` has ranges, and none of them has addresses, the tables leave it out.
    fn acpi(&mut self, id: &str, part: Part) {
        let _ = (id, part);
    }

    /// The names in the property `compatible` of a device tree, the most specific first (Devicetree Specification 0.4, 2.3.1).
    /// A device that has none has no node. It is called once, before any [`property`](Self::property).
    fn compatible(&mut self, names: &[&str]) {
        let _ = names;
    }

    /// A further property of the node in a device tree. `reg` and `interrupts` are the writer's matter.
    fn property(&mut self, name: &str, value: Property<'_>) {
        let _ = (name, value);
    }

    /// These lines of the device are edge-triggered, if they are of the 16 of ISA, even where they are shared: bit N stands for number N.
    /// A timer says so whose line is another timer's too.
    fn edge_triggered(&mut self, irqs: u16) {
        let _ = irqs;
    }

    /// What the device is for the machine. A device may be several things.
    fn role(&mut self, role: Role) {
        let _ = role;
    }
}

/// Some of the ranges and lines of a device: bit N stands for number N, in the order of its requests.
///
/// ```
/// use vm_device::Part;
///
/// // The keyboard has the ports and the first line of the controller, and the mouse has the second line.
/// let keyboard = Part { irqs: 0b01, ..Part::ALL };
/// let mouse = Part { ranges: 0, irqs: 0b10 };
/// assert_eq!(keyboard.ranges, Part::ALL.ranges);
/// assert_eq!(keyboard.irqs & mouse.irqs, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Which ranges.
    pub ranges: u16,
    /// Which lines.
    pub irqs: u16,
}

impl Part {
    /// All that the device has.
    pub const ALL: Self = Self { ranges: u16::MAX, irqs: u16::MAX };
}

/// The value of a property in a device tree (Devicetree Specification 0.4, 2.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Property<'a> {
    /// None: that the property is there is all that it says.
    Empty,
    /// Cells of 32 bits.
    Cells(&'a [u32]),
    /// A text.
    Text(&'a str),
    /// A list of texts.
    Texts(&'a [&'a str]),
    /// Bytes.
    Bytes(&'a [u8]),
    /// So many references to the clock of the board, whose rate the embedder says. Without such a clock, the property is left out.
    Clocks(u8),
}

/// Some bytes of a range of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceRegister {
    /// Which of the device's ranges.
    pub range_index: usize,
    /// Where in that range, in bytes from its base.
    pub offset: u64,
    /// How many bytes: 1, 2, 4 or 8.
    pub size: u8,
}

/// What a device is for the machine, besides a device among others: the tables have places of their own for these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Role {
    /// A serial port with its registers in range 0 and its interrupt as line 0. The first one is the console.
    Uart {
        /// Which.
        kind: UartKind,
        /// Its registers are `1 << shift` bytes apart: 0 to 3.
        shift: u8,
    },
    /// A host bridge: a range of ports is that of configuration mechanism 1, and one of memory is that of the enhanced mechanism, from bus
    /// 0 on.
    PciHost,
    /// An IOAPIC with its registers in range 0.
    IoApic {
        /// The id in its register.
        id: u8,
        /// The GSI of its first line.
        first_gsi: u32,
    },
    /// The pair of 8259A of a PC.
    Pic,
    /// The real-time clock of a PC.
    Rtc {
        /// At which index the century is; 0 for none.
        century: u8,
    },
    /// The keyboard controller of a PC.
    KeyboardController,
    /// A high precision event timer with its registers in range 0.
    Hpet {
        /// The lower 32 bits of its capabilities (IA-PC HPET 1.0a, 2.3.4).
        capabilities: u32,
        /// The shortest period in ticks that it keeps up with in periodic mode.
        minimum_tick: u16,
    },
    /// The power management timer of ACPI in range 0 (ACPI 6.5, 4.8.3.3).
    PmTimer {
        /// It has 32 bits, and not 24.
        is_wide: bool,
    },
    /// The fixed hardware of ACPI (ACPI 6.5, 4.8.3). Line 0 is the system control interrupt: without one, the tables leave the device out.
    Pm1 {
        /// Status and enable registers, as PM1a_EVT_BLK.
        event: DeviceRegister,
        /// The control register, as PM1a_CNT_BLK.
        control: DeviceRegister,
        /// How the guest turns ACPI on and off, if it has to.
        command: Option<AcpiCommand>,
        /// What the guest writes to SLP_TYP to power off.
        power_off: u8,
        /// Whether there is a power button among the fixed events.
        has_power_button: bool,
    },
    /// A register that resets the machine.
    Reset {
        /// Which.
        register: DeviceRegister,
        /// What the guest writes there.
        value: u8,
    },
}

/// The kind of a serial port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UartKind {
    /// A 16550 and those that are compatible with it.
    Ns16550,
    /// The PrimeCell UART of Arm.
    Pl011,
}

/// How a guest turns ACPI on and off: SMI_CMD of the FADT (ACPI 6.5, 5.2.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcpiCommand {
    /// The port that the values are written to.
    pub port: DeviceRegister,
    /// The value that turns it on.
    pub enable: u8,
    /// The value that turns it off.
    pub disable: u8,
}
