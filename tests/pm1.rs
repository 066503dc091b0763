//! The fixed hardware of ACPI, as a guest sees it.
#![cfg(feature = "devices")]

mod fixture;

use vm_device::devices::pm1::{ACPI_DISABLE, ACPI_ENABLE, Event, Pm1};
use vm_device::{Device, DeviceManager, Gsi, IoType, IrqResource};

use fixture::{Asked, Log, PC, Told, manager};

const STATUS: u16 = 0x600;
const ENABLE: u16 = 0x602;
const CONTROL: u16 = 0x604;
const COMMAND: u16 = 0xb2;

struct Machine<'m> {
    manager: &'m DeviceManager<'m>,
    pm1: &'m Pm1<'m, &'m Asked>,
    power: &'m Asked,
    log: &'m Log,
}

fn machine(make: impl for<'m> FnOnce(&'m Asked) -> Pm1<'m, &'m Asked>, test: impl FnOnce(&Machine<'_>)) {
    let (power, log) = (Asked::default(), Log::default());
    let pm1 = make(&power);
    manager!(let manager = PC, with_interrupt_controller(&log));
    let ranges = [pm1.registers(STATUS), pm1.command_port()];
    manager.register_device(&pm1, None, &ranges, &[IrqResource::Fixed(Gsi(9))]).unwrap();
    test(&Machine { manager: &manager, pm1: &pm1, power: &power, log: &log });
}

fn piix4(test: impl FnOnce(&Machine<'_>)) {
    machine(|power| Pm1::new(power), test);
}

impl Machine<'_> {
    fn read(&self, port: u16) -> u16 {
        let mut data = [0; 2];
        self.manager.read(port.into(), &mut data, IoType::Pio).unwrap();
        u16::from_le_bytes(data)
    }

    fn write(&self, port: u16, value: u16) {
        self.manager.write(port.into(), &value.to_le_bytes(), IoType::Pio).unwrap();
    }

    fn write_byte(&self, port: u16, value: u8) {
        self.manager.write(port.into(), &[value], IoType::Pio).unwrap();
    }

    fn registers(&self) -> [u16; 4] {
        [STATUS, ENABLE, CONTROL, COMMAND].map(|port| self.read(port))
    }
}

#[test]
fn registers_are_as_after_power_on_and_a_reset_makes_them_so_again() {
    piix4(|machine| {
        assert_eq!(machine.registers(), [0; 4]);
        machine.write(ENABLE, 0xffff);
        machine.write(CONTROL, 0xdfff);
        machine.write(COMMAND, 0x5a12);
        machine.pm1.raise(0xffff);
        assert_eq!(machine.registers(), [0x8721, 0x0721, 0x1c03, 0x5a12]);
        machine.log.take();
        machine.manager.reset().unwrap();
        assert_eq!((machine.registers(), machine.log.take()), ([0; 4], vec![Told::Level(9, false)]));
        assert_eq!(machine.power.take(), (0, 0));
    });
}

#[test]
fn the_command_port_gives_the_registers_to_the_operating_system_and_back() {
    piix4(|machine| {
        machine.write_byte(COMMAND, ACPI_ENABLE);
        assert_eq!((machine.read(CONTROL), machine.read(COMMAND)), (1, ACPI_ENABLE.into()));
        // The byte beside it is no command.
        machine.write_byte(COMMAND + 1, ACPI_DISABLE);
        machine.write_byte(COMMAND, 0x33);
        assert_eq!(machine.registers(), [0, 0, 1, 0xf033]);
        machine.write_byte(COMMAND, ACPI_DISABLE);
        machine.write_byte(COMMAND + 1, 7);
        assert_eq!(machine.registers(), [0, 0, 0, 0x07f0]);
    });
    machine(
        |power| Pm1::without_command_port(power),
        |machine| {
            assert_eq!(machine.read(CONTROL), 1);
            machine.write(CONTROL, 0);
            machine.manager.reset().unwrap();
            assert_eq!(machine.read(CONTROL), 1);
        },
    );
}

#[test]
fn the_power_button_interrupts_until_its_status_is_cleared() {
    piix4(|machine| {
        machine.pm1.press_power_button();
        assert_eq!(machine.read(STATUS), 0x0100);
        machine.write(ENABLE, Event::POWER_BUTTON);
        // While the registers are the firmware's, nothing interrupts.
        assert!(machine.log.take().is_empty());
        machine.write_byte(COMMAND, ACPI_ENABLE);
        assert_eq!(machine.log.take(), [Told::Level(9, true)]);
        // Only a written 1 clears a bit, and only its own.
        machine.pm1.raise(Event::RTC | Event::TIMER);
        machine.write(STATUS, 0xfeff);
        assert_eq!((machine.read(STATUS), machine.log.take()), (0x0100, vec![]));
        machine.write_byte(STATUS, 0xff);
        assert_eq!(machine.read(STATUS), 0x0100);
        machine.write_byte(STATUS + 1, 0x01);
        assert_eq!((machine.read(STATUS), machine.log.take()), (0, vec![Told::Level(9, false)]));
        // A status whose bit is not enabled does not interrupt, and does so when it is.
        machine.pm1.raise(Event::TIMER);
        assert!(machine.log.take().is_empty());
        machine.write_byte(ENABLE, 0x01);
        assert_eq!((machine.read(ENABLE), machine.log.take()), (0x0101, vec![Told::Level(9, true)]));
        // Waking up is no event that can be enabled, and what is none is not set.
        machine.pm1.raise(!Event::TIMER);
        machine.write(STATUS, 0x7fff);
        assert_eq!(
            (machine.registers()[..2].to_vec(), machine.log.take()),
            (vec![0x8000, 0x0101], vec![Told::Level(9, false)])
        );
    });
}

#[test]
fn a_level_that_is_refused_is_told_again() {
    piix4(|machine| {
        machine.write_byte(COMMAND, ACPI_ENABLE);
        machine.write(ENABLE, Event::POWER_BUTTON);
        machine.log.refuse(true);
        machine.pm1.press_power_button();
        machine.log.refuse(false);
        machine.log.take();
        assert_eq!((machine.pm1.tick(0), machine.log.take()), (None, vec![Told::Level(9, true)]));
    });
}

#[test]
fn the_type_of_the_sleeping_state_that_is_off_switches_the_machine_off_and_no_other_does() {
    for off_type in [0, 5, 7] {
        machine(
            |power| Pm1::new(power).with_off_type(off_type | 0xf8),
            |machine| {
                assert_eq!(machine.pm1.off_type(), off_type);
                for sleep_type in 0..8_u16 {
                    machine.write(CONTROL, sleep_type << 10);
                    assert_eq!(machine.power.take(), (0, 0));
                    machine.write(CONTROL, 0x2001 | sleep_type << 10);
                    let ends = usize::from(sleep_type == off_type.into());
                    assert_eq!((machine.power.take(), machine.read(CONTROL)), ((0, ends), 1 | sleep_type << 10));
                }
                // By the highest byte alone, and by an access to all registers. Not by the lowest.
                machine.write_byte(CONTROL + 1, 0x20 | off_type << 2);
                assert_eq!(machine.power.take(), (0, 1));
                machine.write_byte(CONTROL, 0xff);
                assert_eq!(machine.power.take(), (0, 0));
                let all = [0, 0, 0, 0, 0, 0x20 | off_type << 2];
                machine.manager.write(STATUS.into(), &all, IoType::Pio).unwrap();
                assert_eq!(machine.power.take(), (0, 1));
            },
        );
    }
}

#[test]
fn an_access_of_any_size_reaches_the_bytes_that_it_has() {
    piix4(|machine| {
        machine.pm1.raise(Event::POWER_BUTTON | Event::TIMER);
        machine.manager.write((STATUS + 1).into(), &[0x00, 0x21, 0x05, 0x03, 0x0c], IoType::Pio).unwrap();
        let mut data = [0xff; 6];
        machine.manager.read(STATUS.into(), &mut data, IoType::Pio).unwrap();
        assert_eq!(data, [0x01, 0x01, 0x21, 0x05, 0x03, 0x0c]);
        let mut data = [0xff; 3];
        machine.manager.read((STATUS + 3).into(), &mut data, IoType::Pio).unwrap();
        assert_eq!(data, [0x05, 0x03, 0x0c]);
    });
}
