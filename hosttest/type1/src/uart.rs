//! A 16550A UART whose wire is the machine's own serial port (National Semiconductor PC16550D datasheet, section 8). It
//! sends; nothing is ever received.

use spin::Mutex;
use vm_device::{Access, Device, IrqLine, Rejected, Resources};

use crate::serial::Serial;

/// The UART. Its registers lie where its ranges do, ports or memory.
pub struct Uart<'d> {
    name: &'static str,
    state: Mutex<State<'d>>,
}

struct State<'d> {
    irq: IrqLine<'d>,
    divisor: [u8; 2],
    interrupt_enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    /// The transmitter became empty, and the guest has not been told.
    emptied: bool,
    transcript: Transcript,
}

/// The first characters that were sent.
#[derive(Clone, Copy)]
pub struct Transcript {
    text: [u8; 64],
    length: usize,
}

impl Transcript {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    /// The characters.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

/// Line control: the divisor latch is seen in place of the first two registers.
const DIVISOR_LATCH: u8 = 1 << 7;
/// Modem control: what is sent is received, and the outputs are the modem's inputs.
const LOOPBACK: u8 = 1 << 4;
/// Interrupt enable: the transmitter is empty.
const TRANSMITTER_EMPTY: u8 = 1 << 1;

impl<'d> Uart<'d> {
    /// A UART after reset.
    pub const fn new(name: &'static str) -> Self {
        let state = State {
            irq: IrqLine::DISCONNECTED,
            divisor: [12, 0],
            interrupt_enable: 0,
            fifo_control: 0,
            line_control: 0,
            modem_control: 0,
            scratch: 0,
            emptied: false,
            transcript: Transcript { text: [0; 64], length: 0 },
        };
        Self { name, state: Mutex::new(state) }
    }

    /// The first characters that the guest sent.
    pub fn transcript(&self) -> Transcript {
        self.state.lock().transcript
    }
}

impl State<'_> {
    fn read(&mut self, register: u64) -> u8 {
        let latch = self.line_control & DIVISOR_LATCH != 0;
        match register {
            0 | 1 if latch => self.divisor[register as usize],
            0 => 0,
            1 => self.interrupt_enable,
            2 => {
                let fifos = if self.fifo_control & 1 != 0 { 0xc0 } else { 0 };
                let pending = self.pending();
                self.emptied = false;
                fifos | if pending { 2 } else { 1 }
            }
            3 => self.line_control,
            4 => self.modem_control,
            5 => 0x60,
            // In loopback the modem's inputs CTS, DSR, RI, DCD are the outputs RTS, DTR, OUT1, OUT2.
            6 if self.modem_control & LOOPBACK != 0 => {
                let outputs = self.modem_control;
                (outputs & 0x0c) << 4 | (outputs & 2) << 3 | (outputs & 1) << 5
            }
            6 => 0xb0,
            7 => self.scratch,
            _ => 0xff,
        }
    }

    fn write(&mut self, register: u64, value: u8) {
        let latch = self.line_control & DIVISOR_LATCH != 0;
        match register {
            0 | 1 if latch => self.divisor[register as usize] = value,
            0 => {
                if self.modem_control & LOOPBACK == 0 {
                    Serial::send(value);
                    self.transcript.push(value);
                }
                self.emptied = true;
            }
            1 => {
                // Enabling the interrupt of an empty transmitter raises it.
                self.emptied |= value & !self.interrupt_enable & TRANSMITTER_EMPTY != 0;
                self.interrupt_enable = value & 0xf;
            }
            2 => self.fifo_control = value,
            3 => self.line_control = value,
            4 => self.modem_control = value & 0x1f,
            7 => self.scratch = value,
            _ => {}
        }
    }

    fn pending(&self) -> bool {
        self.emptied && self.interrupt_enable & TRANSMITTER_EMPTY != 0
    }

    fn drive_interrupt(&self) {
        // A UART without a line is polled.
        let _ = if self.pending() { self.irq.assert() } else { self.irq.deassert() };
    }
}

impl<'d> Device<'d> for Uart<'d> {
    fn name(&self) -> &str {
        self.name
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.state.lock().irq = resources.irq(0);
        Ok(())
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let mut state = self.state.lock();
        data[0] = state.read(access.offset());
        state.drive_interrupt();
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let mut state = self.state.lock();
        state.write(access.offset(), data[0]);
        state.drive_interrupt();
    }
}
