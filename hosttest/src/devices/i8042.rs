//! The keyboard and mouse controller of a PC: a device with two interrupts.

use spin::Mutex;
use vm_device::{Access, Device, Gsi, InterruptError, IoResource, IrqLine, IrqResource, Rejected, Resources};

/// The port of the data register: the output buffer for reading, the data of a command for writing.
pub const DATA: u16 = 0x60;
/// The port of the status register for reading, and of commands for writing.
pub const COMMAND: u16 = 0x64;
/// The line of the keyboard.
pub const KEYBOARD: Gsi = Gsi(1);
/// The line of the mouse.
pub const MOUSE: Gsi = Gsi(12);

/// A command: the data that follows is the configuration.
pub const WRITE_CONFIGURATION: u8 = 0x60;
/// A command: the data that follows goes to the output buffer, as if it came from the keyboard.
pub const FROM_KEYBOARD: u8 = 0xd2;
/// A command: the data that follows goes to the output buffer, as if it came from the mouse.
pub const FROM_MOUSE: u8 = 0xd3;

/// In the configuration: bytes of the keyboard interrupt.
pub const KEYBOARD_INTERRUPT: u8 = 1 << 0;
/// In the configuration: bytes of the mouse interrupt.
pub const MOUSE_INTERRUPT: u8 = 1 << 1;

/// In the status: the output buffer is full.
pub const OUTPUT_FULL: u8 = 1 << 0;
/// In the status: the byte in it is the mouse's.
pub const OUTPUT_OF_MOUSE: u8 = 1 << 5;

/// The data register is range 0; status and commands are range 1.
const DATA_RANGE: usize = 0;

/// Interrupt 0 is asserted while a byte of the keyboard is in the output buffer, interrupt 1 while one of the mouse is, if the
/// configuration allows it (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller").
/// Nothing is connected to it: all bytes come by [`FROM_KEYBOARD`] and [`FROM_MOUSE`]. A second byte replaces the first.
pub struct I8042<'d> {
    state: Mutex<State<'d>>,
}

struct State<'d> {
    lines: [IrqLine<'d>; 2],
    registers: Registers,
    refused: Option<InterruptError>,
}

#[derive(Default)]
struct Registers {
    configuration: u8,
    /// The command whose data is to follow.
    command: Option<u8>,
    /// Whose byte is in the output buffer.
    output: Option<Source>,
    /// The byte that was put there last.
    byte: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Keyboard,
    Mouse,
}

impl<'d> I8042<'d> {
    /// One that is not connected yet.
    pub const fn new() -> Self {
        let registers = Registers { configuration: 0, command: None, output: None, byte: 0 };
        Self { state: Mutex::new(State { lines: [IrqLine::DISCONNECTED; 2], registers, refused: None }) }
    }

    /// The ports that it has to be registered with.
    pub const fn ports() -> [IoResource; 2] {
        [IoResource::pio(DATA, 1), IoResource::pio(COMMAND, 1)]
    }

    /// The interrupts that it has to be registered with.
    pub const fn interrupts() -> [IrqResource; 2] {
        [IrqResource::Fixed(KEYBOARD), IrqResource::Fixed(MOUSE)]
    }

    /// The last error that one of its interrupts gave.
    pub fn refused(&self) -> Option<InterruptError> {
        self.state.lock().refused
    }
}

impl Default for I8042<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl State<'_> {
    /// Drives both lines as the registers say.
    fn drive(&mut self) {
        let Registers { configuration, output, .. } = self.registers;
        let sources = [(Source::Keyboard, KEYBOARD_INTERRUPT), (Source::Mouse, MOUSE_INTERRUPT)];
        for (line, (source, enabled)) in self.lines.iter().zip(sources) {
            let asserted = output == Some(source) && configuration & enabled != 0;
            if let Err(error) = if asserted { line.assert() } else { line.deassert() }
                && error != InterruptError::Pending
            {
                self.refused = Some(error);
            }
        }
    }
}

impl Registers {
    fn status(&self) -> u8 {
        match self.output {
            None => 0,
            Some(Source::Keyboard) => OUTPUT_FULL,
            Some(Source::Mouse) => OUTPUT_FULL | OUTPUT_OF_MOUSE,
        }
    }

    fn write_data(&mut self, byte: u8) {
        match self.command.take() {
            Some(WRITE_CONFIGURATION) => self.configuration = byte,
            Some(FROM_KEYBOARD) => (self.output, self.byte) = (Some(Source::Keyboard), byte),
            Some(FROM_MOUSE) => (self.output, self.byte) = (Some(Source::Mouse), byte),
            _ => {}
        }
    }
}

impl<'d> Device<'d> for I8042<'d> {
    fn name(&self) -> &str {
        "i8042"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let mut state = self.state.lock();
        if access.range_index() != DATA_RANGE {
            data.fill(state.registers.status());
            return;
        }
        data.fill(state.registers.byte);
        state.registers.output = None;
        state.drive();
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let Some(byte) = data.first() else { return };
        let mut state = self.state.lock();
        if access.range_index() == DATA_RANGE {
            state.registers.write_data(*byte);
            state.drive();
        } else {
            state.registers.command = Some(*byte);
        }
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.state.lock().lines = [0, 1].map(|index| resources.irq(index));
        Ok(())
    }

    /// The buffer is empty, and nothing interrupts.
    fn reset(&self) {
        let mut state = self.state.lock();
        state.registers = Registers::default();
        state.drive();
    }
}
