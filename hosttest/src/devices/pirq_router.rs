//! The router of a PC's chipset, through which a guest programs where the interrupt pins of slots go.

use spin::Mutex;
use vm_device::{Access, Device, DeviceManager, Gsi, InstanceId, IoResource};

/// In a register: its pins are not routed.
pub const NOT_ROUTED: u8 = 1 << 7;

/// In a register: the line that its pins are routed to.
const LINE: u8 = 0x0f;
/// Lines of the board's own devices, to which no pin can be routed: timer, keyboard, cascade, clock and coprocessor.
const RESERVED: [u8; 5] = [0, 1, 2, 8, 13];
/// The chipset's inputs, PIRQA# to PIRQD#. Each has a register.
const INPUTS: usize = 4;

/// Four registers of a byte, one for each input (Intel 82371SB, PIIX3, "PIRQx Route Control Registers"). There they are in
/// configuration space, at 0x60 to 0x63, and here in ports. Until a guest programs it, a register is [`NOT_ROUTED`].
pub struct PirqRouter<'d> {
    manager: &'d DeviceManager<'d>,
    state: Mutex<State>,
}

struct State {
    registers: [u8; INPUTS],
    pins: Vec<Pin>,
    refused: Option<String>,
}

/// A device's interrupt that leads to an input.
#[derive(Clone, Copy)]
struct Pin {
    input: usize,
    device: InstanceId,
    index: usize,
}

impl<'d> PirqRouter<'d> {
    /// A router without pins, for the devices of `manager`.
    pub const fn new(manager: &'d DeviceManager<'d>) -> Self {
        let state = State { registers: [NOT_ROUTED; INPUTS], pins: Vec::new(), refused: None };
        Self { manager, state: Mutex::new(state) }
    }

    /// The ports that it has to be registered with.
    pub const fn ports(first: u16) -> IoResource {
        IoResource::pio(first, INPUTS as u32)
    }

    /// Lets interrupt number `index` of a device lead to an input, 0 to 3, to which others may lead as well. The device was
    /// registered with [`IrqResource::Unrouted`](vm_device::IrqResource::Unrouted) there.
    pub fn connect(&self, input: usize, device: InstanceId, index: usize) {
        self.state.lock().pins.push(Pin { input, device, index });
    }

    /// The last move of an interrupt that the manager has refused, and why.
    pub fn refused(&self) -> Option<String> {
        self.state.lock().refused.clone()
    }

    /// Sets a register. Its pins move while the router is locked, so that the last write decides. No call that the move waits
    /// for comes here.
    fn set(&self, state: &mut State, input: usize, value: u8) {
        let Some(register) = state.registers.get_mut(input) else { return };
        *register = value;
        let line = value & LINE;
        let is_routed = value & NOT_ROUTED == 0 && !RESERVED.contains(&line);
        let line = is_routed.then_some(Gsi(line.into()));
        for pin in state.pins.iter().filter(|pin| pin.input == input) {
            if let Err(error) = self.manager.reroute(pin.device, pin.index, line) {
                state.refused = Some(error.to_string());
            }
        }
    }
}

impl Device<'_> for PirqRouter<'_> {
    fn name(&self) -> &str {
        "pirq router"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load_at(0, &self.state.lock().registers, data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let mut state = self.state.lock();
        for (input, value) in (access.offset() as usize..).zip(data) {
            self.set(&mut state, input, *value);
        }
    }

    /// No pin is routed.
    fn reset(&self) {
        let mut state = self.state.lock();
        for input in 0..INPUTS {
            self.set(&mut state, input, NOT_ROUTED);
        }
    }
}
