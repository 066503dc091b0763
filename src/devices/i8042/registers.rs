//! What the controller keeps, and its commands.
//!
//! Names, bits and commands are those of the IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
//! Controller".

use heapless::Deque;

/// Status: a byte is in the output buffer; the self-test has passed; the last write was a command; the keyboard is not locked; the
/// byte is the mouse's; a byte that was sent was not answered.
const OUTPUT_FULL: u8 = 1 << 0;
const SYSTEM: u8 = 1 << 2;
const LAST_IS_COMMAND: u8 = 1 << 3;
const NOT_LOCKED: u8 = 1 << 4;
const OF_MOUSE: u8 = 1 << 5;
const TIMED_OUT: u8 = 1 << 6;

/// Configuration: interrupts, the system flag that the status shows, and the clock lines that are held.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
const MOUSE_INTERRUPT: u8 = 1 << 1;
const KEYBOARD_DISABLED: u8 = 1 << 4;
const MOUSE_DISABLED: u8 = 1 << 5;

/// The commands. To those that end here with a byte for, that byte is written to the data register.
const READ_MEMORY: u8 = 0x20;
const READ_MEMORY_LAST: u8 = 0x3f;
const WRITE_MEMORY_FOR: u8 = 0x60;
const WRITE_MEMORY_FOR_LAST: u8 = 0x7f;
const TEST_PASSWORD: u8 = 0xa4;
const DISABLE_MOUSE: u8 = 0xa7;
const ENABLE_MOUSE: u8 = 0xa8;
const TEST_MOUSE: u8 = 0xa9;
const SELF_TEST: u8 = 0xaa;
const TEST_KEYBOARD: u8 = 0xab;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;
const READ_INPUT_PORT: u8 = 0xc0;
const READ_OUTPUT_PORT: u8 = 0xd0;
const WRITE_OUTPUT_PORT_FOR: u8 = 0xd1;
const FROM_KEYBOARD_FOR: u8 = 0xd2;
const FROM_MOUSE_FOR: u8 = 0xd3;
const TO_MOUSE_FOR: u8 = 0xd4;
const PULSE: u8 = 0xf0;

/// Answers: no password, a test that has passed, the self-test that has, a keyboard without a lock, a device that is not there.
const NO_PASSWORD: u8 = 0xf1;
const PASSED: u8 = 0;
const SELF_TEST_PASSED: u8 = 0x55;
const INPUT_PORT: u8 = 1 << 7;
const NO_ANSWER: u8 = 0xfe;

/// Output port: the processor runs, address line 20 is open, the two interrupts; the data line of the keyboard, and the clock
/// lines, which are high while their devices are not held.
const NO_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;
const MOUSE_CLOCK: u8 = 1 << 3;
const OUTPUT_OF_KEYBOARD: u8 = 1 << 4;
const OUTPUT_OF_MOUSE: u8 = 1 << 5;
const KEYBOARD_CLOCK: u8 = 1 << 6;
const KEYBOARD_DATA: u8 = 1 << 7;

/// How many bytes wait in each queue.
const DEPTH: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Keyboard,
    Mouse,
}

/// A byte for the output buffer, and the bits of the status that come with it.
#[derive(Clone, Copy)]
struct Output {
    byte: u8,
    source: Source,
    status: u8,
}

/// The state after power-on.
pub(super) struct Registers {
    /// The controller's RAM: its first byte is the configuration.
    memory: [u8; 32],
    a20: bool,
    last_is_command: bool,
    /// The command whose byte is to follow.
    command: Option<u8>,
    /// What is in the output buffer, if it has not been read.
    output: Option<Output>,
    /// What was there last.
    byte: u8,
    /// What waits for the output buffer: of the controller, which comes first, and of the devices.
    answers: Deque<Output, DEPTH>,
    keyboard: Deque<u8, DEPTH>,
    mouse: Deque<u8, DEPTH>,
}

impl Registers {
    pub(super) const fn new() -> Self {
        Self {
            memory: [0; 32],
            a20: true,
            last_is_command: false,
            command: None,
            output: None,
            byte: 0,
            answers: Deque::new(),
            keyboard: Deque::new(),
            mouse: Deque::new(),
        }
    }

    const fn configuration(&self) -> u8 {
        let [configuration, ..] = self.memory;
        configuration
    }

    /// Sets or clears a bit of the configuration.
    fn configure(&mut self, bit: u8, is_set: bool) {
        let [configuration, ..] = &mut self.memory;
        *configuration = *configuration & !bit | if is_set { bit } else { 0 };
    }

    pub(super) const fn is_a20_open(&self) -> bool {
        self.a20
    }

    pub(super) fn status(&self) -> u8 {
        let command = if self.last_is_command { LAST_IS_COMMAND } else { 0 };
        NOT_LOCKED | self.configuration() & SYSTEM | command | self.output.map_or(0, |output| output.status)
    }

    /// Whether the interrupt of a device is asserted.
    pub(super) fn interrupts(&self, source: Source) -> bool {
        let enabled = match source {
            Source::Keyboard => KEYBOARD_INTERRUPT,
            Source::Mouse => MOUSE_INTERRUPT,
        };
        self.is_of(source) && self.configuration() & enabled != 0
    }

    /// Whether the output buffer has a byte of the device.
    fn is_of(&self, source: Source) -> bool {
        self.output.is_some_and(|output| output.source == source)
    }

    /// Puts the next byte that waits into the output buffer, if that is empty.
    pub(super) fn fill(&mut self) {
        if self.output.is_none() {
            self.output = self.next();
            self.byte = self.output.map_or(self.byte, |output| output.byte);
        }
    }

    fn next(&mut self) -> Option<Output> {
        let is_held = |bit| self.configuration() & bit != 0;
        let (holds_keyboard, holds_mouse) = (is_held(KEYBOARD_DISABLED), is_held(MOUSE_DISABLED));
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        let byte = if holds_keyboard { None } else { self.keyboard.pop_front() };
        if let Some(byte) = byte {
            return Some(Output { byte, source: Source::Keyboard, status: OUTPUT_FULL });
        }
        let byte = if holds_mouse { None } else { self.mouse.pop_front() };
        byte.map(|byte| Output { byte, source: Source::Mouse, status: OUTPUT_FULL | OF_MOUSE })
    }

    /// Reads the output buffer: the last byte once more, if it is empty.
    pub(super) fn read_data(&mut self) -> u8 {
        self.output = None;
        self.byte
    }

    /// Bytes come from a device. Returns how many there is room for.
    pub(super) fn receive(&mut self, source: Source, bytes: &[u8]) -> usize {
        let queue = match source {
            Source::Keyboard => &mut self.keyboard,
            Source::Mouse => &mut self.mouse,
        };
        bytes.iter().take_while(|byte| queue.push_back(**byte).is_ok()).count()
    }

    /// The controller has a byte for the guest. One that the guest leaves no room for is lost.
    fn answer(&mut self, source: Source, byte: u8, status: u8) {
        let of_mouse = if source == Source::Mouse { OF_MOUSE } else { 0 };
        let _ = self.answers.push_back(Output { byte, source, status: OUTPUT_FULL | of_mouse | status });
    }

    /// A command. Returns whether it resets the processor.
    pub(super) fn write_command(&mut self, command: u8) -> bool {
        self.last_is_command = true;
        self.command = None;
        let place = usize::from(command & 0x1f);
        let answer = match command {
            READ_MEMORY..=READ_MEMORY_LAST => self.memory.get(place).copied(),
            TEST_PASSWORD => Some(NO_PASSWORD),
            TEST_MOUSE | TEST_KEYBOARD => Some(PASSED),
            SELF_TEST => {
                self.output = None;
                self.answers.clear();
                self.configure(SYSTEM, true);
                Some(SELF_TEST_PASSED)
            }
            READ_INPUT_PORT => Some(INPUT_PORT),
            READ_OUTPUT_PORT => Some(self.output_port()),
            _ => None,
        };
        if let Some(byte) = answer {
            self.answer(Source::Keyboard, byte, 0);
        }
        match command {
            WRITE_MEMORY_FOR..=WRITE_MEMORY_FOR_LAST | WRITE_OUTPUT_PORT_FOR..=TO_MOUSE_FOR => {
                self.command = Some(command)
            }
            DISABLE_MOUSE | ENABLE_MOUSE => self.configure(MOUSE_DISABLED, command == DISABLE_MOUSE),
            DISABLE_KEYBOARD | ENABLE_KEYBOARD => self.configure(KEYBOARD_DISABLED, command == DISABLE_KEYBOARD),
            // The outputs whose bits are 0 are low for a moment.
            PULSE.. => return command & NO_RESET == 0,
            _ => {}
        }
        false
    }

    fn output_port(&self) -> u8 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let runs = |bit| self.configuration() & bit == 0;
        NO_RESET
            | KEYBOARD_DATA
            | bit(self.a20, A20)
            | bit(runs(MOUSE_DISABLED), MOUSE_CLOCK)
            | bit(self.is_of(Source::Keyboard), OUTPUT_OF_KEYBOARD)
            | bit(self.is_of(Source::Mouse), OUTPUT_OF_MOUSE)
            | bit(runs(KEYBOARD_DISABLED), KEYBOARD_CLOCK)
    }

    /// The byte of a command, or else one for the keyboard. Returns whether it resets the processor.
    pub(super) fn write_data(&mut self, byte: u8) -> bool {
        self.last_is_command = false;
        match self.command.take() {
            Some(command @ WRITE_MEMORY_FOR..=WRITE_MEMORY_FOR_LAST) => {
                if let Some(place) = self.memory.get_mut(usize::from(command & 0x1f)) {
                    *place = byte;
                }
            }
            Some(WRITE_OUTPUT_PORT_FOR) => {
                self.a20 = byte & A20 != 0;
                return byte & NO_RESET == 0;
            }
            Some(FROM_KEYBOARD_FOR) => self.answer(Source::Keyboard, byte, 0),
            Some(FROM_MOUSE_FOR) => self.answer(Source::Mouse, byte, 0),
            // A device that is sent a byte is held no longer.
            Some(TO_MOUSE_FOR) => {
                self.configure(MOUSE_DISABLED, false);
                self.answer(Source::Mouse, NO_ANSWER, TIMED_OUT);
            }
            _ => {
                self.configure(KEYBOARD_DISABLED, false);
                self.answer(Source::Keyboard, NO_ANSWER, TIMED_OUT);
            }
        }
        false
    }
}
