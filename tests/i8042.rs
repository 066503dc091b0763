//! The keyboard and mouse controller, as a guest sees it.
#![cfg(feature = "devices")]

mod fixture;

use std::thread;

use vm_device::devices::i8042::I8042;
use vm_device::{Device, DeviceManager, IoType};

use fixture::{Asked, Log, PC, Told, manager, within_limit};

const DATA: u16 = 0x60;
const COMMAND: u16 = 0x64;

/// The status without a byte in the output buffer: the keyboard is not locked.
const IDLE: u8 = 0x10;
/// The same after a command.
const COMMANDED: u8 = 0x18;

struct Machine<'m> {
    manager: &'m DeviceManager<'m>,
    i8042: &'m I8042<'m, &'m Asked>,
    power: &'m Asked,
    log: &'m Log,
}

fn machine(test: impl FnOnce(&Machine<'_>)) {
    let (power, log) = (Asked::default(), Log::default());
    let i8042 = I8042::new(&power);
    manager!(let manager = PC, with_interrupt_controller(&log));
    manager.register_device(&i8042, None, &i8042.ports(), &i8042.interrupts()).unwrap();
    test(&Machine { manager: &manager, i8042: &i8042, power: &power, log: &log });
}

impl Machine<'_> {
    fn read(&self, port: u16) -> u8 {
        let mut data = [0];
        self.manager.read(port.into(), &mut data, IoType::Pio).unwrap();
        data[0]
    }

    fn write(&self, port: u16, value: u8) {
        self.manager.write(port.into(), &[value], IoType::Pio).unwrap();
    }

    fn command(&self, command: u8, data: u8) {
        self.write(COMMAND, command);
        self.write(DATA, data);
    }

    /// The answer to a command.
    fn ask(&self, command: u8) -> u8 {
        self.write(COMMAND, command);
        assert_eq!(self.read(COMMAND) & 0x21, 0x01, "{command:#x}");
        let answer = self.read(DATA);
        assert_eq!(self.read(COMMAND) & 0x01, 0, "{command:#x}");
        answer
    }

    /// The configuration, the output port and the status.
    fn state(&self) -> [u8; 3] {
        [self.ask(0x20), self.ask(0xd0), self.read(COMMAND)]
    }
}

/// The output port is read while its own answer is not in the output buffer yet: nothing interrupts.
const AFTER_RESET: [u8; 3] = [0, 0xcb, COMMANDED];

#[test]
fn it_is_as_after_power_on_and_a_reset_makes_it_so_again() {
    machine(|machine| {
        assert_eq!((machine.read(COMMAND), machine.read(DATA)), (IDLE, 0));
        assert_eq!(machine.state(), AFTER_RESET);
        assert!(machine.i8042.is_a20_open());
        machine.command(0x60, 0x75);
        machine.command(0x6f, 0x12);
        machine.command(0xd1, 0x01);
        machine.i8042.receive_from_keyboard(&[1, 2]);
        machine.i8042.receive_from_mouse(&[3]);
        machine.command(0xd2, 4);
        machine.write(COMMAND, 0x60);
        assert!(!machine.i8042.is_a20_open());
        machine.log.take();
        machine.manager.reset().unwrap();
        assert_eq!(machine.log.take(), [Told::Level(1, false)]);
        assert_eq!((machine.read(COMMAND), machine.read(DATA)), (IDLE, 0));
        // What follows a command that the reset has forgotten is for the keyboard.
        machine.write(DATA, 0xff);
        assert_eq!((machine.read(COMMAND), machine.read(DATA)), (0x51, 0xfe));
        assert_eq!((machine.state(), machine.ask(0x2f)), (AFTER_RESET, 0));
        assert!(machine.i8042.is_a20_open());
    });
}

#[test]
fn tests_are_passed_and_the_self_test_sets_the_system_flag_and_forgets_what_was_not_read() {
    machine(|machine| {
        assert_eq!([0xab, 0xa9, 0xa4, 0xc0].map(|command| machine.ask(command)), [0, 0, 0xf1, 0x80]);
        machine.command(0x60, 0x41);
        machine.command(0xd2, 1);
        machine.command(0xd3, 2);
        machine.log.take();
        assert_eq!(machine.ask(0xaa), 0x55);
        // The line falls between the byte that is forgotten and the answer.
        assert_eq!(machine.log.take(), [false, true, false].map(|level| Told::Level(1, level)));
        assert_eq!((machine.read(COMMAND), machine.ask(0x20)), (COMMANDED | 0x04, 0x45));
        // The flag is a bit of the configuration.
        machine.command(0x60, 0x41);
        assert_eq!(machine.read(COMMAND), IDLE);
    });
}

#[test]
fn each_byte_of_its_memory_is_written_and_read() {
    machine(|machine| {
        (0..32).for_each(|place| machine.command(0x60 + place, 0xff - place));
        for place in 0..32 {
            assert_eq!(machine.ask(0x20 + place), 0xff - place);
        }
    });
}

#[test]
fn devices_are_held_and_let_go() {
    machine(|machine| {
        for (hold, let_go, bit, clock) in [(0xad, 0xae, 0x10, 0x40), (0xa7, 0xa8, 0x20, 0x08)] {
            machine.write(COMMAND, hold);
            assert_eq!((machine.ask(0x20), machine.ask(0xd0)), (bit, 0xcb & !clock));
            machine.i8042.receive_from_keyboard(&[7]);
            machine.i8042.receive_from_mouse(&[7]);
            assert_eq!((machine.read(COMMAND) & 0x01, machine.read(DATA)), (0x01, 7));
            // The one that is held sends when it is let go.
            assert_eq!(machine.read(COMMAND) & 0x01, 0);
            machine.write(COMMAND, let_go);
            assert_eq!((machine.read(COMMAND) & 0x01, machine.read(DATA)), (0x01, 7));
            assert_eq!(machine.state(), AFTER_RESET);
        }
    });
}

#[test]
fn a_keyboard_and_a_mouse_that_are_not_there_time_out_at_once() {
    machine(|machine| {
        machine.command(0x60, 0x30);
        machine.write(DATA, 0xf2);
        assert_eq!((machine.read(COMMAND), machine.read(DATA)), (0x51, 0xfe));
        // A device that is sent a byte is held no longer.
        assert_eq!(machine.ask(0x20), 0x20);
        machine.command(0xd4, 0xf2);
        assert_eq!((machine.read(COMMAND), machine.read(DATA)), (0x71, 0xfe));
        assert_eq!(machine.ask(0x20), 0);
        // The bits are the byte's.
        assert_eq!(machine.read(COMMAND), COMMANDED);
    });
}

#[test]
fn bytes_as_if_of_a_device_come_back_as_its_own_and_the_status_says_what_was_written_last() {
    machine(|machine| {
        machine.command(0xd3, 0x5a);
        assert_eq!((machine.read(COMMAND), machine.read(DATA)), (0x31, 0x5a));
        machine.command(0xd2, 0xa5);
        assert_eq!((machine.read(COMMAND), machine.read(DATA)), (0x11, 0xa5));
        machine.write(COMMAND, 0xd2);
        assert_eq!(machine.read(COMMAND), COMMANDED);
        // Another command in between, and the byte is the keyboard's.
        machine.write(COMMAND, 0xa8);
        machine.write(DATA, 1);
        assert_eq!((machine.read(COMMAND), machine.read(DATA)), (0x51, 0xfe));
        // It stays readable.
        assert_eq!((machine.read(DATA), machine.read(COMMAND)), (0xfe, IDLE));
    });
}

#[test]
fn each_byte_is_an_edge_of_its_own_line_if_that_is_enabled() {
    machine(|machine| {
        machine.i8042.receive_from_keyboard(&[1]);
        assert!(machine.log.take().is_empty());
        // Enabled while a byte is there.
        machine.command(0x60, 0x03);
        assert_eq!(machine.log.take(), [Told::Level(1, true)]);
        machine.i8042.receive_from_mouse(&[2, 3]);
        machine.i8042.receive_from_keyboard(&[4]);
        assert!(machine.log.take().is_empty());
        machine.write(COMMAND, 0xd0);
        // The answer comes before what waits of the devices, of which the keyboard is the first. The port is of the moment of
        // the command, and shows the byte that was there.
        assert_eq!([(); 5].map(|()| machine.read(DATA)), [1, 0xdb, 4, 2, 3]);
    });
    machine(|machine| {
        machine.command(0x60, 0x03);
        machine.log.take();
        machine.i8042.receive_from_keyboard(&[1, 2]);
        assert_eq!(machine.read(DATA), 1);
        let keyboard = [true, false, true].map(|level| Told::Level(1, level));
        assert_eq!(machine.log.take(), keyboard);
        machine.i8042.receive_from_mouse(&[3]);
        assert_eq!(machine.read(DATA), 2);
        assert_eq!(machine.log.take(), [Told::Level(1, false), Told::Level(12, true)]);
        machine.write(COMMAND, 0xd0);
        assert_eq!((machine.read(DATA), machine.read(DATA)), (3, 0xeb));
        // Disabled while a byte is there.
        machine.i8042.receive_from_keyboard(&[4]);
        machine.log.take();
        machine.command(0x60, 0);
        assert_eq!(machine.log.take(), [Told::Level(1, false)]);
    });
}

#[test]
fn what_the_guest_does_not_read_waits_as_far_as_there_is_room() {
    machine(|machine| {
        let bytes: Vec<u8> = (0..40).collect();
        // One is in the output buffer.
        assert_eq!(machine.i8042.receive_from_keyboard(&bytes), 16);
        assert_eq!(machine.i8042.receive_from_keyboard(&bytes[16..]), 1);
        assert_eq!(machine.i8042.receive_from_keyboard(&[]), 0);
        assert_eq!(machine.i8042.receive_from_mouse(&bytes), 16);
        let read: Vec<u8> =
            std::iter::from_fn(|| (machine.read(COMMAND) & 0x01 != 0).then(|| machine.read(DATA))).collect();
        assert_eq!(read, (0..17).chain(0..16).collect::<Vec<u8>>());
        // Answers that are not read are lost, when their room is full too.
        (0..40).for_each(|byte| machine.command(0xd2, byte));
        let read: Vec<u8> =
            std::iter::from_fn(|| (machine.read(COMMAND) & 0x01 != 0).then(|| machine.read(DATA))).collect();
        assert_eq!(read, (0..17).collect::<Vec<u8>>());
    });
}

#[test]
fn the_reset_line_resets_the_machine() {
    machine(|machine| {
        for command in 0xe0..=0xff {
            machine.write(COMMAND, command);
            let resets = usize::from(command >= 0xf0 && command & 1 == 0);
            assert_eq!(machine.power.take(), (resets, 0), "{command:#x}");
        }
        machine.command(0xd1, 0x01);
        assert_eq!((machine.power.take(), machine.i8042.is_a20_open(), machine.ask(0xd0)), ((0, 0), false, 0xc9));
        machine.command(0xd1, 0x02);
        assert_eq!((machine.power.take(), machine.i8042.is_a20_open(), machine.ask(0xd0)), ((1, 0), true, 0xcb));
    });
}

#[test]
fn a_level_that_is_refused_is_told_again() {
    machine(|machine| {
        machine.command(0x60, 0x01);
        machine.log.refuse(true);
        machine.i8042.receive_from_keyboard(&[1]);
        machine.log.refuse(false);
        machine.log.take();
        assert_eq!(machine.i8042.tick(0), None);
        assert_eq!(machine.log.take(), [Told::Level(1, true)]);
        machine.manager.tick(0);
        assert!(machine.log.take().is_empty());
    });
}

#[test]
fn several_vcpus_and_a_keyboard_lose_no_byte() {
    within_limit(|| {
        machine(|machine| {
            let count: u32 = if cfg!(miri) { 20 } else { 5_000 };
            machine.command(0x60, 0x01);
            let Machine { i8042, .. } = machine;
            let read = thread::scope(|scope| {
                scope.spawn(move || {
                    (0..count).for_each(|byte| {
                        while i8042.receive_from_keyboard(&[byte as u8]) == 0 {
                            thread::yield_now();
                        }
                    });
                });
                let mut read = Vec::new();
                while read.len() < count as usize {
                    match machine.read(COMMAND) & 0x01 {
                        0 => thread::yield_now(),
                        _ => read.push(machine.read(DATA)),
                    }
                }
                read
            });
            assert!(read.into_iter().eq((0..count).map(|byte| byte as u8)));
            assert_eq!(machine.log.take().last(), Some(&Told::Level(1, false)));
        });
    });
}
