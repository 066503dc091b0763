//! The power management registers that ACPI calls fixed hardware.

use spin::Mutex;

use super::output::Output;
use crate::access::Access;
use crate::description::{AcpiCommand, Description, DeviceRegister, Role};
use crate::device::{Device, Rejected};
use crate::power::PowerControl;
use crate::resource::{IoResource, Resources};

/// The PM1a event and control registers of ACPI's fixed hardware (ACPI 6.5, 4.8.3.1 and 4.8.3.2), laid out as at PMBA of the PIIX4
/// (Intel 82371AB data sheet 290562), and the command port by which an operating system takes them over (ACPI 6.5, 4.8.3.2.5;
/// the PIIX4's APMC and APMS at 0xb2 and 0xb3).
///
/// | offset | register | bits |
/// |---|---|---|
/// | 0 | PM1 status, 2 bytes | a written 1 clears a bit |
/// | 2 | PM1 enable, 2 bytes | timer, global, power button, sleep button, clock |
/// | 4 | PM1 control, 2 bytes | SCI_EN, BM_RLD, SLP_TYP; SLP_EN, which reads 0 |
///
/// Interrupt 0 is the SCI, level-triggered: it is asserted while a status bit and its enable bit are set, and SCI_EN is. SLP_EN with
/// the type of S5 asks `P` to switch the machine off; other types do nothing, so the tables should offer no other state. `P` is
/// called without the device's lock, the interrupt controller under it.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use vm_device::devices::pm1::Pm1;
/// use vm_device::{DeviceManager, Gsi, IoRange, IoType, IrqResource, PowerControl, Storage, SystemAllocator};
///
/// struct Machine(AtomicBool);
///
/// impl PowerControl for Machine {
///     fn reset(&self) {}
///     fn power_off(&self) {
///         self.0.store(true, Ordering::Release);
///     }
/// }
///
/// let machine = Machine(AtomicBool::new(false));
/// let pm1 = Pm1::new(&machine);
/// let storage = Storage::<8, 16, 2>::new();
/// let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
/// let manager = DeviceManager::new(&storage, allocator);
/// let ranges = [pm1.registers(0x600), pm1.command_port()];
/// manager.register_device(&pm1, None, &ranges, &[IrqResource::Fixed(Gsi(9))]).unwrap();
/// // SLP_EN, with 0 as the type.
/// manager.write(0x604_u16.into(), &0x2000_u16.to_le_bytes(), IoType::Pio).unwrap();
/// assert!(machine.0.load(Ordering::Acquire));
/// ```
pub struct Pm1<'d, P> {
    power: P,
    off_type: u8,
    is_acpi: bool,
    state: Mutex<State<'d>>,
}

struct State<'d> {
    registers: Registers,
    sci: Output<'d>,
}

#[derive(Clone, Copy)]
struct Registers {
    status: u16,
    enable: u16,
    control: u16,
    /// The last command, and the byte beside it.
    command: [u8; 2],
}

/// In the enable register, what the guest can set.
const ENABLE_BITS: u16 = Event::TIMER | Event::GLOBAL | Event::POWER_BUTTON | Event::SLEEP_BUTTON | Event::RTC;

/// Control: events raise the SCI; a bus master's request ends C3; the type of a sleeping state; the machine enters it.
const SCI_EN: u16 = 1 << 0;
const BM_RLD: u16 = 1 << 1;
const SLP_TYP: u16 = 0b111 << SLP_TYP_SHIFT;
const SLP_TYP_SHIFT: u32 = 10;
const SLP_EN: u16 = 1 << 13;

/// What an operating system writes to the command port to take the registers over (ACPI_ENABLE in the FADT): SCI_EN is set.
pub const ACPI_ENABLE: u8 = 0xf1;
/// What it writes to give them back (ACPI_DISABLE in the FADT): SCI_EN is cleared.
pub const ACPI_DISABLE: u8 = 0xf0;

/// The registers are range 0; the command port is range 1.
const REGISTERS_RANGE: usize = 0;

/// Bits of the PM1 status register, and of the enable register (ACPI 6.5, table 4.13 and 4.14).
#[derive(Debug)]
pub struct Event;

impl Event {
    /// TMR_STS: the highest bit of the PM timer has changed.
    pub const TIMER: u16 = 1 << 0;
    /// GBL_STS: the firmware wants the operating system's attention.
    pub const GLOBAL: u16 = 1 << 5;
    /// PWRBTN_STS: the power button was pressed.
    pub const POWER_BUTTON: u16 = 1 << 8;
    /// SLPBTN_STS: the sleep button was pressed.
    pub const SLEEP_BUTTON: u16 = 1 << 9;
    /// RTC_STS: the alarm of the real-time clock.
    pub const RTC: u16 = 1 << 10;
    /// WAK_STS: the machine has woken up.
    pub const WAKE: u16 = 1 << 15;
}

impl<P> Pm1<'_, P> {
    /// Registers as after power-on. The type of S5 is 0, as the PIIX4 has it.
    pub const fn new(power: P) -> Self {
        Self::after_power_on(power, false)
    }

    /// Registers that are the operating system's from power-on: SCI_EN is set. They are for a machine without the command port,
    /// whose FADT has 0 in SMI_CMD (ACPI 6.5, 5.2.9).
    pub const fn without_command_port(power: P) -> Self {
        Self::after_power_on(power, true)
    }

    const fn after_power_on(power: P, is_acpi: bool) -> Self {
        let state = State { registers: Registers::after_power_on(is_acpi), sci: Output::DISCONNECTED };
        Self { power, off_type: 0, is_acpi, state: Mutex::new(state) }
    }

    /// The same registers with another SLP_TYP for S5, 0 to 7, of which the lowest 3 bits count.
    #[must_use]
    pub const fn with_off_type(mut self, off_type: u8) -> Self {
        self.off_type = off_type & 0b111;
        self
    }

    /// The SLP_TYP of S5, for the tables.
    pub const fn off_type(&self) -> u8 {
        self.off_type
    }

    /// The request for the registers as ports from `base` on: 6. PM1a_EVT_BLK in the FADT is `base`, 4 long, and PM1a_CNT_BLK is
    /// `base + 4`, 2 long.
    pub const fn registers(&self, base: u16) -> IoResource {
        IoResource::pio(base, 6)
    }

    /// The request for the command port: commands at 0xb2, which is SMI_CMD in the FADT, and a byte that is kept at 0xb3.
    pub const fn command_port(&self) -> IoResource {
        IoResource::pio(0xb2, 2)
    }

    /// The power button is pressed for a moment: the guest is asked to switch the machine off, if it has enabled that event. It may be
    /// called from any thread.
    pub fn press_power_button(&self) {
        self.raise(Event::POWER_BUTTON);
    }

    /// Sets bits of the status ([`Event`]): for what other devices of the machine find. It may be called from any thread.
    pub fn raise(&self, events: u16) {
        self.with_registers(|registers| registers.status |= events & (ENABLE_BITS | Event::WAKE));
    }

    fn with_registers<R>(&self, act: impl FnOnce(&mut Registers) -> R) -> R {
        let mut state = self.state.lock();
        let result = act(&mut state.registers);
        let Registers { status, enable, control, .. } = state.registers;
        state.sci.set(status & enable != 0 && control & SCI_EN != 0);
        result
    }
}

impl Registers {
    const fn after_power_on(is_acpi: bool) -> Self {
        Self { status: 0, enable: 0, control: if is_acpi { SCI_EN } else { 0 }, command: [0; 2] }
    }

    /// Returns the type of the sleeping state that the guest enters.
    fn write(&mut self, access: &Access<'_>, data: &[u8]) -> Option<u8> {
        let mut cleared = [0; 2];
        access.store_at(0, &mut cleared, data);
        self.status &= !u16::from_le_bytes(cleared);
        let mut enable = self.enable.to_le_bytes();
        access.store_at(2, &mut enable, data);
        self.enable = u16::from_le_bytes(enable) & ENABLE_BITS;
        // SLP_EN is not kept: where it is set, it is written now.
        let mut control = self.control.to_le_bytes();
        access.store_at(4, &mut control, data);
        let control = u16::from_le_bytes(control);
        self.control = control & (SCI_EN | BM_RLD | SLP_TYP);
        (control & SLP_EN != 0).then_some(((control & SLP_TYP) >> SLP_TYP_SHIFT) as u8)
    }

    fn write_command(&mut self, access: &Access<'_>, data: &[u8]) {
        access.store(&mut self.command, data);
        match self.command {
            [ACPI_ENABLE, _] if access.offset() == 0 => self.control |= SCI_EN,
            [ACPI_DISABLE, _] if access.offset() == 0 => self.control &= !SCI_EN,
            _ => {}
        }
    }
}

impl<'d, P: PowerControl + Sync> Device<'d> for Pm1<'d, P> {
    fn name(&self) -> &str {
        "pm1"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let Registers { status, enable, control, command } = self.with_registers(|registers| *registers);
        if access.range_index() != REGISTERS_RANGE {
            return access.load(&command, data);
        }
        for (place, register) in [(0, status), (2, enable), (4, control)] {
            access.load_at(place, &register.to_le_bytes(), data);
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let sleeps = self.with_registers(|registers| {
            if access.range_index() == REGISTERS_RANGE {
                return registers.write(access, data);
            }
            registers.write_command(access, data);
            None
        });
        if sleeps == Some(self.off_type) {
            self.power.power_off();
        }
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.state.lock().sci = Output::new(resources.irq(0));
        Ok(())
    }

    fn reset(&self) {
        self.with_registers(|registers| *registers = Registers::after_power_on(self.is_acpi));
    }

    /// Nothing is due at a time, but a level that the interrupt controller has refused is told again.
    fn tick(&self, _: u64) -> Option<u64> {
        self.with_registers(|_| None)
    }

    fn describe(&self, description: &mut dyn Description) {
        let port = DeviceRegister { range_index: 1, offset: 0, size: 1 };
        description.role(Role::Pm1 {
            event: DeviceRegister { range_index: REGISTERS_RANGE, offset: 0, size: 4 },
            control: DeviceRegister { range_index: REGISTERS_RANGE, offset: 4, size: 2 },
            command: (!self.is_acpi).then_some(AcpiCommand { port, enable: ACPI_ENABLE, disable: ACPI_DISABLE }),
            power_off: self.off_type,
            has_power_button: true,
        });
    }
}
