//! The two 8259As of a PC, the second connected to the first.

use super::chip::{CASCADE, Chip, SPURIOUS};

/// How many lines one controller has.
const LINES: u8 = 8;
/// Which lines can be triggered by level: not those of the timer, the keyboard, the second controller, the clock and the numeric
/// processor (Intel 82371FB PIIX data sheet 290550, ELCR1 and ELCR2).
const CAN_BE_LEVEL: [u8; 2] = [0xf8, 0xde];
/// What a slave that is not asked leaves on the bus.
const NOBODY: u8 = 0xff;

/// A register.
#[derive(Clone, Copy)]
pub(super) enum Register {
    Command,
    Data,
    /// The edge/level control register.
    Trigger,
}

pub(super) struct Pair {
    master: Chip,
    slave: Chip,
    /// The line of the master for which its output was high last, and which was not acknowledged.
    selected: Option<u8>,
}

impl Pair {
    pub(super) const fn new() -> Self {
        let [master, slave] = [Chip::new(1 << CASCADE, 1 << CASCADE), Chip::new(0, CASCADE)];
        Self { master, slave, selected: None }
    }

    pub(super) fn reset(&mut self) {
        *self = Self { master: self.master.reset(1 << CASCADE), slave: self.slave.reset(CASCADE), selected: None };
    }

    fn chip(&mut self, is_slave: bool) -> &mut Chip {
        if is_slave { &mut self.slave } else { &mut self.master }
    }

    /// Drives a line, from 0 to 15.
    pub(super) fn set_input(&mut self, line: u8, asserted: bool) {
        self.chip(line >= LINES).set_input(line % LINES, asserted);
    }

    /// Signals an edge on a line, from 0 to 15.
    pub(super) fn pulse(&mut self, line: u8) {
        self.chip(line >= LINES).pulse(line % LINES);
    }

    /// Whether the output INTR is high. It follows each change.
    pub(super) fn settle(&mut self) -> bool {
        self.master.set_input(CASCADE, self.slave.pending().is_some());
        let pending = self.master.pending();
        self.selected = pending.or(self.selected);
        pending.is_some()
    }

    /// The acknowledgement of the processor: the vector, and the line whose interrupt has ended by it.
    pub(super) fn acknowledge(&mut self) -> (u8, Option<u8>) {
        // A slave whose request has gone is asked all the same if it was the one that interrupted.
        let withdrawn = self.selected.take().filter(|line| *line == CASCADE && self.master.has_slave(*line));
        let line = self.master.acknowledge().or_else(|| withdrawn.inspect(|line| self.master.serve(*line)));
        match line {
            None => (self.master.vector(SPURIOUS), None),
            Some(line) if !self.master.has_slave(line) => {
                (self.master.vector(line), ended(false, line, self.master.ends_automatically()))
            }
            Some(line) if !self.slave.is_slave_at(line) => (NOBODY, None),
            Some(_) => match self.slave.acknowledge() {
                None => (self.slave.vector(SPURIOUS), None),
                Some(line) => (self.slave.vector(line), ended(true, line, self.slave.ends_automatically())),
            },
        }
    }

    /// Reads a register. Returns its value, and the line whose interrupt has ended by that.
    pub(super) fn read(&mut self, is_slave: bool, register: Register) -> (u8, Option<u8>) {
        let chip = self.chip(is_slave);
        let is_data = match register {
            Register::Trigger => return (chip.levels(), None),
            Register::Data => true,
            Register::Command => false,
        };
        let (value, acknowledged) = chip.read(is_data);
        let has_ended = chip.ends_automatically();
        (value, acknowledged.and_then(|line| ended(is_slave, line, has_ended)))
    }

    /// Writes a register. Returns the line whose interrupt has ended by that.
    pub(super) fn write(&mut self, is_slave: bool, register: Register, value: u8) -> Option<u8> {
        let [of_master, of_slave] = CAN_BE_LEVEL;
        let chip = self.chip(is_slave);
        match register {
            Register::Trigger => chip.set_levels(value & if is_slave { of_slave } else { of_master }),
            Register::Data => chip.write_data(value),
            Register::Command => {
                let line = chip.write_command(value)?;
                return ended(is_slave, line, true);
            }
        }
        None
    }
}

/// The number among both controllers of a line that has ended. The second controller is no source of interrupts.
fn ended(is_slave: bool, line: u8, has_ended: bool) -> Option<u8> {
    let line = match is_slave {
        true => line.wrapping_add(LINES),
        false => Some(line).filter(|line| *line != CASCADE)?,
    };
    has_ended.then_some(line)
}
