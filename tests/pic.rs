//! The two 8259As of a PC, as a guest and a processor see them.
#![cfg(feature = "devices")]

mod fixture;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

use spin::Mutex;
use vm_device::devices::pic::{IntrPin, Pic};
use vm_device::{Device, DeviceManager, Gsi, GuestAddress, InterruptController, InterruptError, IoType, IrqResource};

use fixture::{Source, manager, wait_until, within_limit};

const COMMAND: u16 = 0x20;
const DATA: u16 = 0x21;
const SLAVE_COMMAND: u16 = 0xa0;
const SLAVE_DATA: u16 = 0xa1;
const ELCR: u16 = 0x4d0;

// OCW2.
const EOI: u8 = 0x20;
const SPECIFIC_EOI: u8 = 0x60;
const ROTATE_EOI: u8 = 0xa0;
const ROTATE_SPECIFIC_EOI: u8 = 0xe0;
const SET_PRIORITY: u8 = 0xc0;
const ROTATE_AUTOMATICALLY: u8 = 0x80;
const ROTATE_NO_MORE: u8 = 0x00;
// OCW3.
const READ_REQUESTS: u8 = 0x0a;
const READ_IN_SERVICE: u8 = 0x0b;
const POLL: u8 = 0x0c;
const SPECIAL_MASK: u8 = 0x68;
const NORMAL_MASK: u8 = 0x48;

// ICW4.
const X86: u8 = 0x01;
const AUTOMATIC_END: u8 = 0x03;
const SPECIAL_FULLY_NESTED: u8 = 0x11;

/// Keeps what it was told.
#[derive(Default)]
struct Intr {
    asserted: AtomicBool,
    told: Mutex<Vec<bool>>,
    ended: Mutex<Vec<u32>>,
}

impl IntrPin for Intr {
    fn set(&self, asserted: bool) {
        self.asserted.store(asserted, SeqCst);
        self.told.lock().push(asserted);
    }
    fn ended(&self, gsi: Gsi) {
        self.ended.lock().push(gsi.0);
    }
}

struct Machine<'m> {
    manager: &'m DeviceManager<'m>,
    pic: &'m Pic<&'m Intr>,
    intr: &'m Intr,
}

/// Runs a test with controllers as after power-on.
fn machine(test: impl FnOnce(&Machine<'_>)) {
    let intr = Intr::default();
    let pic = Pic::new(&intr);
    manager!(let manager);
    manager.register_device(&pic, None, &pic.ports(), &[]).unwrap();
    test(&Machine { manager: &manager, pic: &pic, intr: &intr });
}

/// Runs a test with controllers that were initialised as those of PCs are.
fn initialised(test: impl FnOnce(&Machine<'_>)) {
    machine(|machine| {
        machine.initialise(X86, X86);
        test(machine);
    });
}

impl Machine<'_> {
    fn write(&self, port: u16, value: u8) {
        self.manager.write(port.into(), &[value], IoType::Pio).unwrap();
    }

    fn read(&self, port: u16) -> u8 {
        let mut data = [0x5a];
        self.manager.read(port.into(), &mut data, IoType::Pio).unwrap();
        data[0]
    }

    /// Vectors from 0x20 and 0x28 on.
    fn initialise(&self, master_icw4: u8, slave_icw4: u8) {
        let words = [(COMMAND, DATA, 0x20, 0x04, master_icw4), (SLAVE_COMMAND, SLAVE_DATA, 0x28, 0x02, slave_icw4)];
        for (command, data, icw2, icw3, icw4) in words {
            self.write(command, 0x11);
            [icw2, icw3, icw4].into_iter().for_each(|word| self.write(data, word));
        }
    }

    fn assert(&self, line: u32) {
        self.pic.set_level(Gsi(line), true).unwrap();
    }

    fn deassert(&self, line: u32) {
        self.pic.set_level(Gsi(line), false).unwrap();
    }

    fn pulse(&self, line: u32) {
        self.pic.pulse(Gsi(line)).unwrap();
    }

    /// The vectors of the interrupts that the processor gets, none of which the guest ends.
    fn accepted(&self) -> Vec<u8> {
        let next = || self.pic.has_interrupt().then(|| self.pic.acknowledge());
        let accepted = std::iter::from_fn(next).take(20).collect();
        assert!(!self.intr.asserted.load(SeqCst));
        accepted
    }

    fn requests(&self) -> (u8, u8) {
        [COMMAND, SLAVE_COMMAND].into_iter().for_each(|port| self.write(port, READ_REQUESTS));
        (self.read(COMMAND), self.read(SLAVE_COMMAND))
    }

    fn in_service(&self) -> (u8, u8) {
        [COMMAND, SLAVE_COMMAND].into_iter().for_each(|port| self.write(port, READ_IN_SERVICE));
        (self.read(COMMAND), self.read(SLAVE_COMMAND))
    }

    fn ended(&self) -> Vec<u32> {
        std::mem::take(&mut self.intr.ended.lock())
    }
}

#[test]
fn after_power_on_nothing_interrupts_before_both_are_initialised() {
    machine(|machine| {
        let registers = [COMMAND, DATA, SLAVE_COMMAND, SLAVE_DATA, ELCR, ELCR + 1];
        assert_eq!(registers.map(|port| machine.read(port)), [0; 6]);
        machine.write(DATA, 0xfe);
        assert_eq!(machine.read(DATA), 0xfe);
        machine.write(DATA, 0);
        machine.pulse(1);
        machine.pulse(9);
        assert_eq!((machine.requests(), machine.accepted()), ((0x02, 0x02), vec![]));
        for (port, word) in [(COMMAND, 0x11), (DATA, 0x20), (DATA, 0x04)] {
            machine.write(port, word);
            machine.pulse(1);
            assert!(!machine.pic.has_interrupt());
        }
        machine.write(DATA, X86);
        assert_eq!(machine.accepted(), [0x21]);
        // Its request is not the first one's as long as it is not initialised.
        machine.write(COMMAND, EOI);
        assert_eq!((machine.requests(), machine.accepted()), ((0, 0x02), vec![]));
    });
}

#[test]
fn an_initialisation_clears_masks_edges_service_and_modes() {
    initialised(|machine| {
        machine.write(COMMAND, SET_PRIORITY | 3);
        machine.write(COMMAND, SPECIAL_MASK);
        machine.pulse(4);
        assert_eq!(machine.accepted(), [0x24]);
        machine.write(DATA, 0x10);
        machine.pulse(7);
        machine.assert(6);
        machine.write(COMMAND, READ_IN_SERVICE);
        machine.write(COMMAND, 0x11);
        assert_eq!((machine.read(DATA), machine.read(COMMAND)), (0, 0));
        [0x40, 0x04, X86].into_iter().for_each(|word| machine.write(DATA, word));
        // A line that was asserted before needs another edge.
        assert_eq!(machine.accepted(), []);
        machine.deassert(6);
        machine.assert(6);
        // The vectors are others; the highest priority is that of line 0 again, and special mask mode is off.
        machine.pulse(3);
        assert_eq!(machine.accepted(), [0x43]);
        machine.write(DATA, 0x08);
        assert_eq!(machine.accepted(), []);
        machine.write(COMMAND, EOI);
        assert_eq!(machine.accepted(), [0x46]);
    });
}

#[test]
fn an_initialisation_has_as_many_words_as_it_says() {
    machine(|machine| {
        // No ICW4: what it would say is off.
        machine.initialise(AUTOMATIC_END, X86);
        [(COMMAND, 0x10), (DATA, 0x33), (DATA, 0x04), (DATA, 0x02)]
            .into_iter()
            .for_each(|(port, word)| machine.write(port, word));
        assert_eq!(machine.read(DATA), 0x02);
        machine.pulse(0);
        assert_eq!((machine.accepted(), machine.in_service()), (vec![0x30], (1, 0)));
        // A single controller has no slave, and answers for line 2 itself.
        [(COMMAND, 0x13), (DATA, 0x50), (DATA, X86), (DATA, 0xf0)]
            .into_iter()
            .for_each(|(port, word)| machine.write(port, word));
        assert_eq!(machine.read(DATA), 0xf0);
        machine.pulse(8);
        assert_eq!(machine.accepted(), [0x52]);
    });
}

#[test]
fn a_slave_answers_only_where_both_say_so() {
    initialised(|machine| {
        // The slave has another number.
        [(SLAVE_COMMAND, 0x11), (SLAVE_DATA, 0x28), (SLAVE_DATA, 5), (SLAVE_DATA, X86)]
            .into_iter()
            .for_each(|(port, word)| machine.write(port, word));
        machine.pulse(8);
        assert_eq!((machine.pic.acknowledge(), machine.in_service()), (0xff, (0x04, 0)));
        machine.initialise(X86, X86);
        // The master knows no slave.
        [(COMMAND, 0x11), (DATA, 0x20), (DATA, 0), (DATA, X86)]
            .into_iter()
            .for_each(|(port, word)| machine.write(port, word));
        machine.pulse(8);
        assert_eq!(machine.accepted(), [0x22]);
        assert_eq!((machine.in_service(), machine.ended()), ((0x04, 0), vec![]));
    });
}

#[test]
fn each_line_has_its_vector_and_its_bits() {
    initialised(|machine| {
        for line in (0..16).filter(|line| *line != 2) {
            machine.assert(line);
            let bits = 1_u16 << line;
            let [master, slave] = bits.to_le_bytes();
            let master = master | if slave != 0 { 4 } else { 0 };
            assert_eq!(machine.requests(), (master, slave), "{line}");
            let vector = 0x20 + line as u8;
            assert_eq!(machine.accepted(), [vector]);
            assert_eq!((machine.requests(), machine.in_service()), ((0, 0), (master, slave)));
            machine.deassert(line);
            if slave != 0 {
                machine.write(SLAVE_COMMAND, EOI);
            }
            machine.write(COMMAND, EOI);
            assert_eq!((machine.in_service(), machine.ended()), ((0, 0), vec![line]));
        }
    });
}

#[test]
fn the_lines_that_are_not_there_are_refused_and_so_are_messages() {
    machine(|machine| {
        for line in [2, 16, 258, u32::MAX] {
            assert_eq!(machine.pic.set_level(Gsi(line), true), Err(InterruptError::Refused));
            assert_eq!(machine.pic.pulse(Gsi(line)), Err(InterruptError::Refused));
        }
        assert_eq!(machine.pic.message(GuestAddress(0xfee0_0000), 0), Err(InterruptError::Refused));
        assert_eq!(machine.requests(), (0, 0));
    });
}

#[test]
fn an_edge_interrupts_once_and_waits_where_its_line_goes_before() {
    initialised(|machine| {
        machine.assert(5);
        machine.assert(5);
        assert_eq!(machine.accepted(), [0x25]);
        machine.write(COMMAND, EOI);
        machine.assert(5);
        assert_eq!((machine.requests(), machine.accepted()), ((0, 0), vec![]));
        machine.deassert(5);
        // As of a timer that shares its line.
        machine.assert(5);
        machine.deassert(5);
        assert_eq!((machine.requests(), machine.accepted()), ((0x20, 0), vec![0x25]));
        machine.write(COMMAND, EOI);
        assert_eq!((machine.requests(), machine.accepted()), ((0, 0), vec![]));
        // So does one that is signalled without a level.
        machine.pulse(5);
        machine.deassert(5);
        assert_eq!((machine.requests(), machine.accepted()), ((0x20, 0), vec![0x25]));
        machine.write(COMMAND, EOI);
        assert_eq!(machine.accepted(), []);
    });
}

#[test]
fn a_level_interrupts_until_it_goes() {
    initialised(|machine| {
        machine.write(ELCR, 0x20);
        machine.write(ELCR + 1, 0x02);
        for (line, ends) in [(5, &[COMMAND][..]), (9, &[SLAVE_COMMAND, COMMAND])] {
            machine.assert(line);
            for _ in 0..3 {
                assert_eq!(machine.accepted(), [0x20 + line as u8]);
                assert_ne!(machine.requests(), (0, 0));
                ends.iter().for_each(|port| machine.write(*port, EOI));
            }
            assert!(machine.intr.asserted.load(SeqCst));
            machine.deassert(line);
            assert_eq!((machine.requests(), machine.accepted()), ((0, 0), vec![]));
            // An edge without a level interrupts once all the same.
            machine.pulse(line);
            assert_eq!(machine.accepted().len(), 1);
            ends.iter().for_each(|port| machine.write(*port, EOI));
            assert_eq!(machine.accepted(), []);
        }
    });
}

#[test]
fn a_line_that_becomes_edge_triggered_needs_an_edge_and_one_that_becomes_level_triggered_does_not() {
    initialised(|machine| {
        machine.write(ELCR, 0x20);
        machine.assert(5);
        machine.write(ELCR, 0);
        assert_eq!(machine.accepted(), []);
        machine.write(ELCR, 0x20);
        assert_eq!(machine.accepted(), [0x25]);
    });
}

#[test]
fn the_trigger_registers_keep_the_bits_of_the_lines_that_can_be_level_triggered() {
    machine(|machine| {
        machine.manager.write(ELCR.into(), &[0xff, 0xff], IoType::Pio).unwrap();
        let mut word = [0; 2];
        machine.manager.read(ELCR.into(), &mut word, IoType::Pio).unwrap();
        assert_eq!(word, [0xf8, 0xde]);
        // An initialisation keeps them.
        machine.initialise(X86, X86);
        assert_eq!(machine.read(ELCR), 0xf8);
    });
}

#[test]
fn a_masked_line_requests_and_interrupts_when_it_is_unmasked() {
    initialised(|machine| {
        machine.write(DATA, 0x18);
        machine.write(SLAVE_DATA, 0x80);
        [3, 4, 15].into_iter().for_each(|line| machine.pulse(line));
        assert_eq!((machine.requests(), machine.accepted()), ((0x18, 0x80), vec![]));
        machine.write(DATA, 0x10);
        assert_eq!(machine.accepted(), [0x23]);
        // The slave's line of the master masks all of the slave's.
        machine.write(DATA, 0x14);
        machine.write(SLAVE_DATA, 0);
        machine.write(COMMAND, EOI);
        assert_eq!((machine.requests(), machine.accepted()), ((0x14, 0x80), vec![]));
        machine.write(DATA, 0x00);
        assert_eq!(machine.accepted(), [0x2f]);
    });
}

#[test]
fn a_higher_line_interrupts_the_service_of_a_lower_one() {
    initialised(|machine| {
        for (line, vector) in [(7, 0x27), (5, 0x25), (12, 0x2c), (9, 0x29), (1, 0x21), (0, 0x20)] {
            machine.pulse(line);
            if line == 9 {
                // The master holds all of the slave's back while it serves one.
                assert_eq!(machine.accepted(), []);
                continue;
            }
            assert_eq!(machine.accepted(), [vector]);
        }
        assert_eq!(machine.in_service(), (0xa7, 0x10));
        // Not the same line, and no lower one.
        [0, 3, 6].into_iter().for_each(|line| machine.pulse(line));
        assert_eq!(machine.accepted(), []);
        machine.write(COMMAND, EOI);
        assert_eq!(machine.accepted(), [0x20]);
        [0, 1].into_iter().for_each(|_| machine.write(COMMAND, EOI));
        assert_eq!((machine.in_service(), machine.accepted()), ((0xa4, 0x10), vec![]));
        machine.write(COMMAND, EOI);
        assert_eq!((machine.accepted(), machine.in_service()), (vec![0x29], (0xa4, 0x12)));
        machine.write(SLAVE_COMMAND, EOI);
        machine.write(COMMAND, EOI);
        assert_eq!(machine.accepted(), [0x23]);
        assert_eq!(machine.ended(), [0, 0, 1, 9]);
    });
}

#[test]
fn in_special_fully_nested_mode_a_higher_line_of_the_slave_interrupts_a_lower_one_of_it() {
    machine(|machine| {
        machine.initialise(SPECIAL_FULLY_NESTED, X86);
        machine.pulse(12);
        assert_eq!(machine.accepted(), [0x2c]);
        // Those below the slave wait, and so do those of the master that are served themselves.
        [13, 5].into_iter().for_each(|line| machine.pulse(line));
        assert_eq!(machine.accepted(), []);
        machine.pulse(8);
        assert_eq!((machine.accepted(), machine.in_service()), (vec![0x28], (0x04, 0x11)));
        // The slave waits for what is above it, and so does a line that is served itself.
        machine.pulse(1);
        assert_eq!(machine.accepted(), [0x21]);
        machine.write(SLAVE_COMMAND, EOI);
        machine.pulse(8);
        assert_eq!((machine.accepted(), machine.requests()), (vec![], (0x24, 0x21)));
        machine.pulse(1);
        assert_eq!(machine.accepted(), []);
    });
}

#[test]
fn ends_are_of_the_line_that_they_name_or_of_the_highest() {
    initialised(|machine| {
        [6, 3].into_iter().for_each(|line| machine.pulse(line));
        machine.accepted();
        machine.pulse(1);
        assert_eq!((machine.accepted(), machine.in_service()), (vec![0x21], (0x0a, 0)));
        machine.write(COMMAND, SPECIFIC_EOI | 3);
        assert_eq!((machine.in_service(), machine.ended()), ((0x02, 0), vec![3]));
        // Of a line that is not in service, and the command that does nothing.
        machine.write(COMMAND, SPECIFIC_EOI | 4);
        machine.write(COMMAND, 0x41);
        assert_eq!((machine.in_service(), machine.ended()), ((0x02, 0), vec![]));
        machine.write(COMMAND, EOI);
        assert_eq!((machine.in_service(), machine.ended()), ((0, 0), vec![1]));
        machine.write(COMMAND, EOI);
        assert_eq!((machine.accepted(), machine.ended()), (vec![0x26], vec![]));
    });
}

#[test]
fn priorities_rotate() {
    initialised(|machine| {
        let all = |machine: &Machine<'_>| [0, 1, 3, 4, 5, 6, 7].into_iter().for_each(|line| machine.pulse(line));
        machine.write(COMMAND, SET_PRIORITY | 4);
        all(machine);
        assert_eq!(machine.accepted(), [0x25]);
        machine.write(COMMAND, ROTATE_EOI);
        // 5 is the lowest now.
        assert_eq!(machine.accepted(), [0x26]);
        machine.write(COMMAND, ROTATE_SPECIFIC_EOI | 6);
        assert_eq!(machine.accepted(), [0x27]);
        machine.write(COMMAND, EOI);
        assert_eq!(machine.accepted(), [0x20]);
        machine.write(COMMAND, EOI);
        // Nothing is in service: there is nothing to rotate.
        machine.write(DATA, 0xff);
        machine.write(COMMAND, ROTATE_EOI);
        machine.write(DATA, 0);
        machine.pulse(6);
        machine.pulse(7);
        assert_eq!(machine.accepted(), [0x27]);
        // A command that names a line makes it the lowest, whether it is in service or not.
        machine.write(COMMAND, ROTATE_SPECIFIC_EOI | 1);
        assert_eq!(machine.in_service(), (0x80, 0));
        machine.write(COMMAND, EOI);
        assert_eq!(machine.accepted(), [0x23]);
    });
}

#[test]
fn an_automatic_end_leaves_nothing_in_service_and_may_rotate() {
    machine(|machine| {
        machine.initialise(AUTOMATIC_END, AUTOMATIC_END);
        [1, 3, 9, 14].into_iter().for_each(|line| machine.pulse(line));
        assert_eq!(machine.accepted(), [0x21, 0x29, 0x2e, 0x23]);
        assert_eq!((machine.in_service(), machine.ended()), ((0, 0), vec![1, 9, 14, 3]));
        machine.write(COMMAND, ROTATE_AUTOMATICALLY);
        machine.pulse(3);
        assert_eq!(machine.accepted(), [0x23]);
        [1, 3, 4].into_iter().for_each(|line| machine.pulse(line));
        assert_eq!(machine.accepted(), [0x24, 0x21, 0x23]);
        machine.write(COMMAND, ROTATE_NO_MORE);
        machine.pulse(5);
        assert_eq!(machine.accepted(), [0x25]);
        [4, 3, 6].into_iter().for_each(|line| machine.pulse(line));
        assert_eq!(machine.accepted(), [0x24, 0x26, 0x23]);
    });
}

#[test]
fn in_special_mask_mode_a_masked_line_in_service_holds_nothing_back() {
    initialised(|machine| {
        machine.pulse(1);
        assert_eq!(machine.accepted(), [0x21]);
        machine.pulse(6);
        machine.write(DATA, 0x02);
        assert_eq!(machine.accepted(), []);
        machine.write(COMMAND, SPECIAL_MASK);
        assert_eq!((machine.accepted(), machine.in_service()), (vec![0x26], (0x42, 0)));
        // An end that names no line is not that of the masked one.
        machine.write(COMMAND, EOI);
        assert_eq!(machine.in_service(), (0x02, 0));
        machine.write(COMMAND, EOI);
        assert_eq!(machine.in_service(), (0x02, 0));
        machine.pulse(6);
        assert_eq!(machine.accepted(), [0x26]);
        machine.pulse(7);
        machine.write(COMMAND, EOI);
        assert_eq!(machine.accepted(), [0x27]);
        // The mode stays unless a command says that it changes.
        machine.write(COMMAND, 0x28);
        machine.write(COMMAND, EOI);
        machine.pulse(7);
        assert_eq!(machine.accepted(), [0x27]);
        machine.write(COMMAND, NORMAL_MASK);
        machine.write(COMMAND, EOI);
        assert_eq!(machine.in_service(), (0x80, 0));
    });
}

#[test]
fn a_poll_acknowledges_and_only_the_next_read_is_one() {
    initialised(|machine| {
        machine.write(COMMAND, POLL);
        assert_eq!((machine.read(COMMAND) & 0x80, machine.read(COMMAND)), (0, 0));
        machine.pulse(5);
        machine.write(COMMAND, POLL);
        assert!(machine.pic.has_interrupt());
        assert_eq!((machine.read(COMMAND), machine.read(COMMAND)), (0x85, 0));
        assert!(!machine.intr.asserted.load(SeqCst));
        assert_eq!(machine.in_service(), (0x20, 0));
        // From the data register too. A slave is polled by itself.
        machine.pulse(8);
        machine.write(COMMAND, POLL);
        assert_eq!((machine.read(DATA), machine.read(DATA)), (0x82, 0));
        machine.write(SLAVE_COMMAND, POLL);
        assert_eq!((machine.read(SLAVE_DATA), machine.read(SLAVE_DATA)), (0x80, 0));
        assert_eq!(machine.in_service(), (0x24, 0x01));
    });
}

#[test]
fn a_request_that_has_gone_is_a_spurious_interrupt_of_its_controller() {
    initialised(|machine| {
        assert_eq!(machine.pic.acknowledge(), 0x27);
        machine.write(ELCR, 0x08);
        machine.write(ELCR + 1, 0x10);
        machine.assert(3);
        machine.deassert(3);
        assert_eq!((machine.pic.acknowledge(), machine.in_service()), (0x27, (0, 0)));
        // The second controller's, which was the last to go: the first one serves it.
        machine.assert(3);
        machine.deassert(3);
        machine.assert(12);
        machine.deassert(12);
        assert!(!machine.pic.has_interrupt());
        assert_eq!((machine.pic.acknowledge(), machine.in_service()), (0x2f, (0x04, 0)));
        machine.write(COMMAND, EOI);
        assert_eq!((machine.ended(), machine.pic.acknowledge()), (vec![], 0x27));
        // A request of the first one comes in the place of that.
        machine.pulse(12);
        machine.write(SLAVE_DATA, 0x10);
        machine.pulse(3);
        assert_eq!(machine.accepted(), [0x23]);
        assert_eq!(machine.pic.acknowledge(), 0x27);
    });
}

#[test]
fn accesses_of_several_bytes_are_one_to_each_register() {
    initialised(|machine| {
        machine.manager.write(COMMAND.into(), &[READ_IN_SERVICE, 0xf0], IoType::Pio).unwrap();
        machine.pulse(1);
        machine.accepted();
        let mut word = [0; 2];
        machine.manager.read(COMMAND.into(), &mut word, IoType::Pio).unwrap();
        assert_eq!(word, [0x02, 0xf0]);
        // Initialised by a string of words.
        machine.manager.write_string(SLAVE_DATA, 1, &[1, 2, 3]).unwrap();
        assert_eq!(machine.read(SLAVE_DATA), 3);
        assert!(machine.manager.read(COMMAND.into(), &mut [0; 4], IoType::Pio).is_err());
        // Through a device that no manager made the access of: a byte behind the registers is left alone.
        let access = vm_device::Access::new(IoType::Pio, GuestAddress(0x21), GuestAddress(0x20), 0);
        let mut behind = [0, 0x5a];
        machine.pic.read(&access, &mut behind);
        machine.pic.write(&access, &[0xf0, 0xff]);
        assert_eq!(behind, [0xf0, 0x5a]);
    });
}

#[test]
fn a_reset_is_power_on_but_for_what_asserts_the_lines() {
    initialised(|machine| {
        machine.write(ELCR, 0x20);
        machine.assert(5);
        machine.pulse(6);
        machine.write(DATA, 0xf);
        machine.accepted();
        machine.pulse(4);
        assert!(machine.intr.asserted.load(SeqCst));
        machine.manager.reset().unwrap();
        assert_eq!((machine.requests(), machine.accepted()), ((0, 0), vec![]));
        assert_eq!([DATA, ELCR].map(|port| machine.read(port)), [0, 0]);
        machine.initialise(X86, X86);
        assert_eq!(machine.accepted(), []);
        machine.write(ELCR, 0x20);
        assert_eq!(machine.accepted(), [0x25]);
    });
}

#[test]
fn the_pin_is_told_each_change_once() {
    initialised(|machine| {
        machine.write(ELCR, 0x28);
        [1, 3, 5].into_iter().for_each(|line| machine.assert(line));
        machine.deassert(3);
        assert_eq!(*machine.intr.told.lock(), [true]);
        machine.accepted();
        machine.write(COMMAND, EOI);
        machine.deassert(5);
        assert_eq!(*machine.intr.told.lock(), [true, false, true, false]);
    });
}

/// The end reaches the devices of the line, and a line that is asserted still stays so.
#[test]
fn the_guest_s_end_is_passed_on_to_the_devices() {
    struct PassesOn<'d>(OnceLock<&'d DeviceManager<'d>>, Mutex<Vec<Result<(), InterruptError>>>);
    impl IntrPin for PassesOn<'_> {
        fn set(&self, _: bool) {}
        fn ended(&self, gsi: Gsi) {
            if let Some(manager) = self.0.get() {
                self.1.lock().push(manager.end_of_interrupt(gsi));
            }
        }
    }
    let pin = PassesOn(OnceLock::new(), Mutex::default());
    let pic = Pic::new(&pin);
    let device = Source::new("device");
    manager!(let manager, with_interrupt_controller(&pic));
    manager.register_device(&pic, None, &pic.ports(), &[]).unwrap();
    manager.register_device(&device, None, &[], &[IrqResource::Fixed(Gsi(9))]).unwrap();
    assert!(pin.0.set(&manager).is_ok());
    let write = |port: u16, value: u8| manager.write(port.into(), &[value], IoType::Pio).unwrap();
    for (command, data, icw2, icw3) in [(COMMAND, DATA, 0x20, 4), (SLAVE_COMMAND, SLAVE_DATA, 0x28, 2)] {
        [(command, 0x11), (data, icw2), (data, icw3), (data, X86)]
            .into_iter()
            .for_each(|(port, value)| write(port, value));
    }
    write(ELCR + 1, 0x02);
    device.line().assert().unwrap();
    for _ in 0..2 {
        assert_eq!(pic.acknowledge(), 0x29);
        [SLAVE_COMMAND, COMMAND].into_iter().for_each(|port| write(port, EOI));
        assert!(pic.has_interrupt());
    }
    assert_eq!(*pin.1.lock(), [Ok(()), Ok(())]);
}

#[test]
fn a_pin_that_unwinds_is_told_again() {
    struct Unwinding(AtomicBool, AtomicU32);
    impl IntrPin for Unwinding {
        fn set(&self, _: bool) {
            assert!(!self.0.load(SeqCst), "it was told to");
            self.1.fetch_add(1, SeqCst);
        }
    }
    within_limit(|| {
        let pin = Unwinding(AtomicBool::new(true), AtomicU32::new(0));
        let pic = Pic::new(&pin);
        let write = |port: u64, value| {
            let access = vm_device::Access::new(IoType::Pio, GuestAddress(port), GuestAddress(0x20), 0);
            pic.write(&access, &[value]);
        };
        [(0x20, 0x13), (0x21, 0x20), (0x21, 0x01)].into_iter().for_each(|(port, value)| write(port, value));
        assert!(catch_unwind(AssertUnwindSafe(|| pic.pulse(Gsi(1)))).is_err());
        pin.0.store(false, SeqCst);
        assert_eq!(pin.1.load(SeqCst), 0);
        pic.pulse(Gsi(3)).unwrap();
        assert_eq!((pin.1.load(SeqCst), pic.acknowledge()), (1, 0x21));
    });
}

/// A change that another thread makes during a call of the pin is told after that call, by the thread that makes the call. During the
/// last call that this thread makes, the other one waits, and then tells it itself.
#[test]
fn calls_of_the_pin_come_one_at_a_time() {
    #[derive(Default)]
    struct Slow<'d> {
        pic: OnceLock<&'d Pic<&'d Slow<'d>>>,
        is_called: AtomicBool,
        told: Mutex<Vec<(bool, thread::ThreadId)>>,
        is_last: AtomicBool,
    }
    impl IntrPin for Slow<'_> {
        fn set(&self, asserted: bool) {
            assert!(!self.is_called.swap(true, SeqCst), "a call within a call");
            self.told.lock().push((asserted, thread::current().id()));
            let calls = self.told.lock().len();
            let pic = *self.pic.get().unwrap();
            if calls < 4 {
                let change = |asserts: bool| match asserts {
                    true => pic.pulse(Gsi(3)).unwrap(),
                    false => assert_eq!(pic.acknowledge(), 0x23),
                };
                let changes = || [!asserted, asserted, !asserted].into_iter().for_each(change);
                thread::scope(|scope| scope.spawn(changes).join().unwrap());
            } else if calls == 4 {
                self.is_last.store(true, SeqCst);
                // The other thread makes its change, and waits.
                wait_until(|| pic.has_interrupt());
            }
            self.is_called.store(false, SeqCst);
        }
    }
    within_limit(|| {
        let pin = Slow::default();
        let pic = Pic::new(&pin);
        assert!(pin.pic.set(&pic).is_ok());
        let write = |port: u64, value| {
            let access = vm_device::Access::new(IoType::Pio, GuestAddress(port), GuestAddress(0x20), 0);
            pic.write(&access, &[value]);
        };
        [(0x20, 0x13), (0x21, 0x20), (0x21, 0x03)].into_iter().for_each(|(port, value)| write(port, value));
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                wait_until(|| pin.is_last.load(SeqCst));
                pic.pulse(Gsi(3)).unwrap();
                thread::current().id()
            });
            pic.pulse(Gsi(3)).unwrap();
            let (here, other) = (thread::current().id(), other.join().unwrap());
            let told = [(true, here), (false, here), (true, here), (false, here), (true, other)];
            assert_eq!(*pin.told.lock(), told);
        });
    });
}

/// A processor that sleeps until INTR is high misses nothing, whatever the threads do that interrupt it.
#[test]
fn the_level_told_last_is_the_true_one_with_several_threads() {
    within_limit(|| {
        machine(|machine| {
            machine.initialise(AUTOMATIC_END, AUTOMATIC_END);
            let rounds = if cfg!(miri) { 10 } else { 5_000 };
            let Machine { pic, intr, .. } = machine;
            let (done, served) = (AtomicU32::new(0), <[AtomicU32; 16]>::default());
            let served = &served;
            thread::scope(|scope| {
                let sources = [3, 5, 9, 12];
                for line in sources {
                    let done = &done;
                    scope.spawn(move || {
                        for round in 0..rounds {
                            pic.pulse(Gsi(line)).unwrap();
                            wait_until(|| served[line as usize].load(SeqCst) > round);
                        }
                        done.fetch_add(1, SeqCst);
                    });
                }
                while done.load(SeqCst) != sources.len() as u32 {
                    if intr.asserted.load(SeqCst) && pic.has_interrupt() {
                        let vector = pic.acknowledge();
                        served[usize::from(vector - 0x20)].fetch_add(1, SeqCst);
                    } else {
                        thread::yield_now();
                    }
                }
            });
            assert!(!intr.asserted.load(SeqCst) && !pic.has_interrupt());
        });
    });
}
