//! The keyboard and mouse controller of a PC.

mod registers;

use spin::Mutex;

use super::output::Output;
use crate::access::Access;
use crate::description::{Description, Part, Role};
use crate::device::{Device, Rejected};
use crate::interrupt::Gsi;
use crate::power::PowerControl;
use crate::resource::{IoResource, IrqResource, Resources};
use registers::{Registers, Source};

/// The keyboard and mouse controller of a PC, an Intel 8042 (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary
/// Device Controller"), at ports 0x60 and 0x64, with two interrupts: 0 is asserted while a byte of the keyboard or of the
/// controller itself is in the output buffer, 1 while one of the mouse is.
///
/// No keyboard and no mouse is connected. A byte that the guest sends to one is not answered: the controller gives 0xfe in its place, with the
/// time-out bit of the status, so that a driver finds at once that nothing is there. The embedder may give bytes as if they came
/// from one ([`receive_from_keyboard`](Self::receive_from_keyboard)).
///
/// The reset line, by a pulse or in the output port, asks `P` for a reset. The gate of address line 20 is kept, and what it means
/// for the guest's memory is the embedder's to decide ([`is_a20_open`](Self::is_a20_open)). The password is not installed. The
/// interrupt controller is called under the controller's own lock, and may not call it.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use vm_device::devices::i8042::I8042;
/// use vm_device::{DeviceManager, IoRange, IoType, PowerControl, Storage, SystemAllocator};
///
/// struct Machine(AtomicBool);
///
/// impl PowerControl for Machine {
///     fn reset(&self) {
///         self.0.store(true, Ordering::Release);
///     }
///     fn power_off(&self) {}
/// }
///
/// let machine = Machine(AtomicBool::new(false));
/// let i8042 = I8042::new(&machine);
/// let storage = Storage::<8, 16, 2>::new();
/// let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
/// let manager = DeviceManager::new(&storage, allocator);
/// manager.register_device(&i8042, None, &i8042.ports(), &i8042.interrupts()).unwrap();
/// // The self-test.
/// let mut data = [0];
/// manager.write(0x64_u16.into(), &[0xaa], IoType::Pio).unwrap();
/// manager.read(0x60_u16.into(), &mut data, IoType::Pio).unwrap();
/// assert_eq!(data, [0x55]);
/// // A pulse of the reset line.
/// manager.write(0x64_u16.into(), &[0xfe], IoType::Pio).unwrap();
/// assert!(machine.0.load(Ordering::Acquire));
/// ```
pub struct I8042<'d, P> {
    power: P,
    state: Mutex<State<'d>>,
}

struct State<'d> {
    registers: Registers,
    keyboard: Output<'d>,
    mouse: Output<'d>,
}

/// The data register is range 0; status and commands are range 1.
const DATA_RANGE: usize = 0;

impl<P> I8042<'_, P> {
    /// A controller as after power-on, which asks `power` for resets.
    pub const fn new(power: P) -> Self {
        let state = State { registers: Registers::new(), keyboard: Output::DISCONNECTED, mouse: Output::DISCONNECTED };
        Self { power, state: Mutex::new(state) }
    }

    /// The requests for its ports: data at 0x60, status and commands at 0x64.
    pub const fn ports(&self) -> [IoResource; 2] {
        [IoResource::pio(0x60, 1), IoResource::pio(0x64, 1)]
    }

    /// The requests for its interrupts on a PC: line 1 for the keyboard, line 12 for the mouse.
    pub const fn interrupts(&self) -> [IrqResource; 2] {
        [IrqResource::Fixed(Gsi(1)), IrqResource::Fixed(Gsi(12))]
    }

    /// Bytes come from the keyboard, as the guest is to read them: they are not translated between sets of scan codes. Returns how
    /// many are taken: those that the guest has not read yet are 16 at most. It may be called from any thread.
    pub fn receive_from_keyboard(&self, bytes: &[u8]) -> usize {
        self.receive(Source::Keyboard, bytes)
    }

    /// Bytes come from the mouse: as [`receive_from_keyboard`](Self::receive_from_keyboard).
    pub fn receive_from_mouse(&self, bytes: &[u8]) -> usize {
        self.receive(Source::Mouse, bytes)
    }

    /// Whether address line 20 is open, as it is after power-on. On hardware it is open if this controller or system control
    /// port A opens it.
    pub fn is_a20_open(&self) -> bool {
        self.state.lock().registers.is_a20_open()
    }

    fn receive(&self, source: Source, bytes: &[u8]) -> usize {
        self.with_registers(|registers| registers.receive(source, bytes))
    }

    /// Calls `act` with the registers, and then moves what can be moved to the output buffer.
    fn with_registers<R>(&self, act: impl FnOnce(&mut Registers) -> R) -> R {
        let mut state = self.state.lock();
        let result = act(&mut state.registers);
        // The line falls between two bytes, so that each of them is an edge.
        state.drive();
        state.registers.fill();
        state.drive();
        result
    }
}

impl State<'_> {
    /// Drives both lines as the registers say.
    fn drive(&mut self) {
        self.keyboard.set(self.registers.interrupts(Source::Keyboard));
        self.mouse.set(self.registers.interrupts(Source::Mouse));
    }
}

impl<'d, P: PowerControl + Sync> Device<'d> for I8042<'d, P> {
    fn name(&self) -> &str {
        "i8042"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let byte = self.with_registers(|registers| match access.range_index() {
            DATA_RANGE => registers.read_data(),
            _ => registers.status(),
        });
        access.load(&[byte], data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let (0, Some(byte)) = (access.offset(), data.first()) else { return };
        let resets = self.with_registers(|registers| match access.range_index() {
            DATA_RANGE => registers.write_data(*byte),
            _ => registers.write_command(*byte),
        });
        if resets {
            self.power.reset();
        }
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        let mut state = self.state.lock();
        state.keyboard = Output::new(resources.irq(0));
        state.mouse = Output::new(resources.irq(1));
        Ok(())
    }

    fn reset(&self) {
        self.with_registers(|registers| *registers = Registers::new());
    }

    /// Nothing is due at a time, but a level that the interrupt controller has refused is told again.
    fn tick(&self, _: u64) -> Option<u64> {
        self.with_registers(|_| None)
    }

    fn describe(&self, description: &mut dyn Description) {
        // The keyboard has the ports and the first line, the mouse the second line.
        description.acpi("PNP0303", Part { irqs: 0b01, ..Part::ALL });
        description.acpi("PNP0F13", Part { ranges: 0, irqs: 0b10 });
        description.role(Role::KeyboardController);
    }
}
