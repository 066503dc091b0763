//! One 8259A, without what its pins are connected to.
//!
//! Names, commands and the order of initialisation are those of the Intel 8259A data sheet (231468), "Initialization Command
//! Words" and "Operation Command Words".

/// The line of the first controller that the second is connected to.
pub(super) const CASCADE: u8 = 2;
/// The line whose vector stands for a request that has gone before it was acknowledged.
pub(super) const SPURIOUS: u8 = 7;

/// In a write to the command register: this is ICW1; otherwise OCW3 or OCW2.
const IS_ICW1: u8 = 1 << 4;
const IS_OCW3: u8 = 1 << 3;

/// ICW1: ICW4 follows, and ICW3 does not.
const ICW4_FOLLOWS: u8 = 1 << 0;
const SINGLE: u8 = 1 << 1;

/// ICW4: an interrupt ends when it is acknowledged; requests of a slave that is served are not held back.
const AUTOMATIC_END: u8 = 1 << 1;
const SPECIAL_FULLY_NESTED: u8 = 1 << 4;

/// OCW2: rotate, specific, end.
const ROTATE: u8 = 0b100;
const SPECIFIC: u8 = 0b010;
const END: u8 = 0b001;

/// OCW3: which register is read, and whether that is to change; poll; special mask mode, and whether that is to change.
const READ_IN_SERVICE: u8 = 1 << 0;
const READ_REGISTER: u8 = 1 << 1;
const POLL: u8 = 1 << 2;
const SPECIAL_MASK: u8 = 1 << 5;
const ENABLE_SPECIAL_MASK: u8 = 1 << 6;

/// The lines from 0 to 7, as bits of a byte.
const LINE: u8 = 0b111;

/// What a write to the data register is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A mask, before any initialisation: no request leads to an interrupt.
    Initialisation,
    Icw2,
    Icw3,
    Icw4,
    /// A mask.
    Ocw1,
}

pub(super) struct Chip {
    /// The lines that other controllers are wired to. They have no edges: an output that is high requests.
    wired: u8,
    /// The lines that are asserted.
    inputs: u8,
    /// The lines whose edge was seen, and not acknowledged.
    edges: u8,
    /// The lines that an edge without a level was signalled on, which requests however the line is triggered.
    pulses: u8,
    /// The lines that are triggered by level (the ELCR).
    levels: u8,
    masked: u8,
    in_service: u8,
    /// The line of the lowest priority; that behind it has the highest.
    lowest: u8,
    icw1: u8,
    /// ICW2: the vector of line 0.
    base: u8,
    /// ICW3: of a master the lines that have slaves, of a slave its number.
    icw3: u8,
    icw4: u8,
    expected: Expected,
    rotates_automatically: bool,
    special_mask: bool,
    reads_in_service: bool,
    /// The next read acknowledges.
    polled: bool,
}

impl Chip {
    /// After power-on. `icw3` is what an initialisation without ICW3 leaves.
    pub(super) const fn new(wired: u8, icw3: u8) -> Self {
        Self {
            wired,
            inputs: 0,
            edges: 0,
            pulses: 0,
            levels: 0,
            masked: 0,
            in_service: 0,
            lowest: 7,
            icw1: 0,
            base: 0,
            icw3,
            icw4: 0,
            expected: Expected::Initialisation,
            rotates_automatically: false,
            special_mask: false,
            reads_in_service: false,
            polled: false,
        }
    }

    /// The same after power-on, with lines that are asserted as they are.
    pub(super) const fn reset(&self, icw3: u8) -> Self {
        let mut chip = Self::new(self.wired, icw3);
        chip.inputs = self.inputs;
        chip
    }

    /// Asserts a line, or takes the assertion back. An edge waits for its acknowledgement all the same.
    pub(super) const fn set_input(&mut self, line: u8, asserted: bool) {
        let bit = bit(line);
        if asserted {
            self.edges |= bit & !self.inputs;
            self.inputs |= bit;
        } else {
            self.inputs &= !bit;
        }
    }

    /// Signals an edge that lasts until it is acknowledged.
    pub(super) const fn pulse(&mut self, line: u8) {
        self.pulses |= bit(line);
    }

    pub(super) const fn levels(&self) -> u8 {
        self.levels
    }

    /// Sets which lines are triggered by level.
    pub(super) const fn set_levels(&mut self, levels: u8) {
        // A line that was triggered by level needs an edge from now on.
        self.edges &= !(self.levels & !levels);
        self.levels = levels;
    }

    /// The interrupt request register.
    const fn requests(&self) -> u8 {
        let levels = self.levels | self.wired;
        self.pulses | self.inputs & levels | self.edges & !levels
    }

    /// The line that interrupts, if the output is high.
    pub(super) fn pending(&self) -> Option<u8> {
        if self.expected != Expected::Ocw1 {
            return None;
        }
        let line = self.first(self.requests() & !self.masked)?;
        let Some(served) = self.first(self.blocking()) else { return Some(line) };
        let is_of_slave = self.icw4 & SPECIAL_FULLY_NESTED != 0 && self.has_slave(line);
        let is_nested = self.priority(line) < self.priority(served) || line == served && is_of_slave;
        is_nested.then_some(line)
    }

    /// The lines in service that hold others back: in special mask mode those that are masked do not.
    const fn blocking(&self) -> u8 {
        if self.special_mask { self.in_service & !self.masked } else { self.in_service }
    }

    /// Whether a slave answers for a line of this master.
    pub(super) const fn has_slave(&self, line: u8) -> bool {
        self.icw1 & SINGLE == 0 && self.icw3 & self.wired & bit(line) != 0
    }

    /// Whether this slave answers for a line of its master.
    pub(super) const fn is_slave_at(&self, line: u8) -> bool {
        self.icw3 & LINE == line
    }

    /// Acknowledges the line that interrupts.
    pub(super) fn acknowledge(&mut self) -> Option<u8> {
        let line = self.pending()?;
        self.edges &= !bit(line);
        self.pulses &= !bit(line);
        self.serve(line);
        Some(line)
    }

    /// A line is in service from now on, unless interrupts end by themselves.
    pub(super) const fn serve(&mut self, line: u8) {
        if !self.ends_automatically() {
            self.in_service |= bit(line);
        } else if self.rotates_automatically {
            self.lowest = line;
        }
    }

    pub(super) const fn ends_automatically(&self) -> bool {
        self.icw4 & AUTOMATIC_END != 0
    }

    pub(super) const fn vector(&self, line: u8) -> u8 {
        self.base | line & LINE
    }

    /// Reads the command register, or the data register: in both a poll is answered, with the line that it has acknowledged.
    pub(super) fn read(&mut self, is_data: bool) -> (u8, Option<u8>) {
        match (self.polled, is_data) {
            (true, _) => {
                self.polled = false;
                let line = self.acknowledge();
                (line.map_or(SPURIOUS, |line| 1 << 7 | line), line)
            }
            (_, true) => (self.masked, None),
            _ if self.reads_in_service => (self.in_service, None),
            _ => (self.requests(), None),
        }
    }

    /// Writes the command register. Returns the line whose interrupt has ended.
    pub(super) fn write_command(&mut self, value: u8) -> Option<u8> {
        if value & IS_ICW1 != 0 {
            self.initialise(value);
            return None;
        }
        if value & IS_OCW3 == 0 {
            return self.operate(value >> 5, value & LINE);
        }
        if value & ENABLE_SPECIAL_MASK != 0 {
            self.special_mask = value & SPECIAL_MASK != 0;
        }
        self.polled = value & POLL != 0;
        if value & READ_REGISTER != 0 {
            self.reads_in_service = value & READ_IN_SERVICE != 0;
        }
        None
    }

    /// ICW1: masks, edges and modes go.
    const fn initialise(&mut self, icw1: u8) {
        let before = (self.wired, self.inputs, self.levels, self.base, self.icw3, self.icw4);
        *self = Self::new(self.wired, self.icw3);
        (self.wired, self.inputs, self.levels, self.base, self.icw3, self.icw4) = before;
        self.icw1 = icw1;
        self.expected = Expected::Icw2;
        if icw1 & ICW4_FOLLOWS == 0 {
            self.icw4 = 0;
        }
    }

    /// OCW2.
    fn operate(&mut self, command: u8, line: u8) -> Option<u8> {
        let rotates = command & ROTATE != 0;
        let ended = match command & (SPECIFIC | END) {
            0 => {
                self.rotates_automatically = rotates;
                return None;
            }
            END => self.first(self.blocking())?,
            _ => line,
        };
        if rotates {
            self.lowest = ended;
        }
        let was_served = command & END != 0 && self.in_service & bit(ended) != 0;
        if was_served {
            self.in_service &= !bit(ended);
        }
        was_served.then_some(ended)
    }

    pub(super) const fn write_data(&mut self, value: u8) {
        self.expected = match self.expected {
            Expected::Initialisation | Expected::Ocw1 => {
                self.masked = value;
                return;
            }
            Expected::Icw2 => {
                self.base = value & !LINE;
                if self.icw1 & SINGLE == 0 { Expected::Icw3 } else { self.behind_icw3() }
            }
            Expected::Icw3 => {
                self.icw3 = value;
                self.behind_icw3()
            }
            Expected::Icw4 => {
                self.icw4 = value;
                Expected::Ocw1
            }
        };
    }

    const fn behind_icw3(&self) -> Expected {
        if self.icw1 & ICW4_FOLLOWS != 0 { Expected::Icw4 } else { Expected::Ocw1 }
    }

    /// The line of the highest priority among some.
    const fn first(&self, lines: u8) -> Option<u8> {
        let highest = self.lowest.wrapping_add(1) & LINE;
        match lines.rotate_right(highest as u32) {
            0 => None,
            rotated => Some((rotated.trailing_zeros() as u8).wrapping_add(highest) & LINE),
        }
    }

    /// The priority of a line: 0 is the highest.
    const fn priority(&self, line: u8) -> u8 {
        line.wrapping_sub(self.lowest).wrapping_sub(1) & LINE
    }
}

const fn bit(line: u8) -> u8 {
    1 << (line & LINE)
}
