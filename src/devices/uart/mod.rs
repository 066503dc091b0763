//! A serial port: the UART 16550A.

mod registers;

use embedded_io::{Read, ReadReady, Write, WriteReady};
use spin::Mutex;

use super::line;
use super::output::Output;
use super::time::Clock;
use crate::access::Access;
use crate::description::{Description, Part, Property, Role, UartKind};
use crate::device::{Device, Failed, Rejected};
use crate::resource::{IoResource, Resources};
use registers::{DATA, DEPTH, Registers};

/// A UART 16550A (PC16550D data sheet, Texas Instruments SNLS378), on ports or in memory, with one interrupt, which is
/// level-triggered.
///
/// `L` is the other end of its line: the bytes that the guest sends are written to it, and bytes are read from it when there is room
/// for them. It is asked whether it is ready before each call, so that a callback does not wait. While it takes nothing, the
/// transmitter stays full. An error of it loses what was to be sent, as a line does that nobody listens to. It is called under the
/// UART's own lock, and so is the interrupt controller: neither may call the UART.
///
/// Bytes travel at once and whole, whatever the guest programs as their rate and length, so that a guest can print that has programmed
/// nothing. Only the time-out of the receiver's FIFO is that of the rate, by the clock `C`. The interrupt falls when its reason ends, if
/// for a moment only: each byte that is received or sent at once after another is an edge of its own. On the boards of PCs it depends on
/// the output OUT2; here it does not.
///
/// ```
/// # use core::convert::Infallible;
/// use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
/// use spin::Mutex;
/// use vm_device::devices::time::HandClock;
/// use vm_device::devices::uart::Uart16550;
/// use vm_device::{DeviceManager, Gsi, IoRange, IoType, IrqResource, Storage, SystemAllocator};
///
/// /// Keeps what the guest sends, and sends nothing.
/// struct Log<'l>(&'l Mutex<String>);
/// # impl ErrorType for Log<'_> {
/// #     type Error = Infallible;
/// # }
/// # impl Read for Log<'_> {
/// #     fn read(&mut self, _: &mut [u8]) -> Result<usize, Infallible> {
/// #         Ok(0)
/// #     }
/// # }
/// # impl ReadReady for Log<'_> {
/// #     fn read_ready(&mut self) -> Result<bool, Infallible> {
/// #         Ok(false)
/// #     }
/// # }
/// # impl WriteReady for Log<'_> {
/// #     fn write_ready(&mut self) -> Result<bool, Infallible> {
/// #         Ok(true)
/// #     }
/// # }
///
/// impl Write for Log<'_> {
///     fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
///         self.0.lock().extend(bytes.iter().map(|byte| char::from(*byte)));
///         Ok(bytes.len())
///     }
///     # fn flush(&mut self) -> Result<(), Infallible> {
///     #     Ok(())
///     # }
/// }
///
/// let (log, clock) = (Mutex::default(), HandClock::new());
/// let com1 = Uart16550::new("serial", Log(&log), &clock);
/// let storage = Storage::<8, 16, 2>::new();
/// let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
/// let manager = DeviceManager::new(&storage, allocator);
/// let irq = [IrqResource::Fixed(Gsi(4))];
/// manager.register_device(&com1, None, &[com1.ports(0x3f8)], &irq).unwrap();
/// manager.write_string(0x3f8, 1, b"Hello").unwrap();
/// assert_eq!(*log.lock(), "Hello");
/// ```
pub struct Uart16550<'d, L, C> {
    name: &'d str,
    shift: u8,
    clock: C,
    state: Mutex<State<'d, L>>,
}

struct State<'d, L> {
    registers: Registers,
    line: L,
    /// The level of the interrupt.
    level: bool,
    output: Output<'d>,
}

/// How many registers there are.
const REGISTERS: u64 = 8;

impl<'d, L, C> Uart16550<'d, L, C> {
    /// A UART as after power-on, with registers one byte apart. `name` is that of the device.
    pub const fn new(name: &'d str, line: L, clock: C) -> Self {
        let state = State { registers: Registers::new(), line, level: false, output: Output::DISCONNECTED };
        Self { name, shift: 0, clock, state: Mutex::new(state) }
    }

    /// The same UART with registers `1 << shift` bytes apart, as `reg-shift` in a device tree says: 0 to 3, and more is 3. The bytes
    /// between them read as 0.
    #[must_use]
    pub const fn with_register_shift(mut self, shift: u8) -> Self {
        self.shift = if shift < 3 { shift } else { 3 };
        self
    }

    /// Whether it has a reason to interrupt, as far as that was known at the last access, [`poll`](Self::poll) or
    /// [`tick`](Device::tick): for a device that is made of a UART and interrupts in its own way, as one on a PCI bus does.
    ///
    /// ```
    /// use vm_device::devices::time::HandClock;
    /// use vm_device::devices::uart::Uart16550;
    ///
    /// let uart = Uart16550::new("serial", (), HandClock::new());
    /// assert!(!uart.is_interrupting());
    /// ```
    pub fn is_interrupting(&self) -> bool {
        self.state.lock().level
    }

    /// The request for its registers as ports from `base` on: 8, or more where they are further apart.
    pub const fn ports(&self, base: u16) -> IoResource {
        IoResource::pio(base, (REGISTERS << self.shift) as u32)
    }

    /// The request for its registers in memory from `base` on.
    pub const fn mmio(&self, base: u64) -> IoResource {
        IoResource::mmio(base, REGISTERS << self.shift)
    }
}

impl<L: Read + ReadReady + Write + WriteReady, C: Clock> Uart16550<'_, L, C> {
    /// The other end of the line has bytes, or room for some: they are moved, and the guest is interrupted if it has asked for that.
    /// It may be called from any thread, and is called by every access and by [`tick`](Device::tick) too.
    pub fn poll(&self) {
        self.with_registers(|_, _| ());
    }

    /// Calls `act` with the registers and the time, and then moves what can be moved.
    fn with_registers<R>(&self, act: impl FnOnce(&mut State<'_, L>, u64) -> R) -> R {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let result = act(&mut state, now);
        // What the guest has ended falls before the next follows, so that a controller that waits for edges sees both.
        state.drive(now);
        if let Some(deadline) = state.settle(now) {
            self.clock.deadline(deadline);
        }
        result
    }

    /// The register at an offset, if one is there.
    fn register(&self, offset: u64) -> Option<u8> {
        let register = offset >> self.shift;
        (register << self.shift == offset && register < REGISTERS).then_some(register as u8)
    }
}

impl<L: Read + ReadReady + Write + WriteReady> State<'_, L> {
    /// Moves what can be moved, and drives the interrupt. Returns when the receiver's FIFO times out, or what was refused is to be told
    /// again.
    fn settle(&mut self, now: u64) -> Option<u64> {
        if !self.registers.is_looped_back() {
            self.send();
            self.receive(now);
        }
        self.drive(now);
        self.output.deadline(self.registers.times_out_at().filter(|time| *time > now), now)
    }

    fn drive(&mut self, now: u64) {
        self.level = self.registers.interrupts(now);
        self.output.set(self.level);
    }

    fn send(&mut self) {
        while let count @ 1.. = line::send(&mut self.line, self.registers.to_send()) {
            self.registers.sent(count);
        }
    }

    fn receive(&mut self, now: u64) {
        let mut bytes = [0; DEPTH];
        // Each turn fills at least a place.
        while let received @ [_, ..] = line::receive(&mut self.line, &mut bytes, self.registers.room()) {
            for byte in received {
                self.registers.receive(*byte, 0, now);
            }
        }
    }
}

impl<'d, L, C> Device<'d> for Uart16550<'d, L, C>
where
    L: Read + ReadReady + Write + WriteReady + Send,
    C: Clock + Sync,
{
    fn name(&self) -> &str {
        self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.with_registers(|state, now| {
            for (offset, byte) in (access.offset()..).zip(data) {
                *byte = self.register(offset).map_or(0, |register| state.registers.read(register, now));
            }
        });
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.with_registers(|state, now| {
            for (offset, byte) in (access.offset()..).zip(data) {
                if let Some(register) = self.register(offset) {
                    state.registers.write(register, *byte, now);
                }
            }
        });
    }

    /// All of the string in one call, as far as the line takes it.
    fn write_string(&self, access: &Access<'_>, element: usize, data: &[u8]) -> Result<(), Failed> {
        if element != 1 || self.register(access.offset()) != Some(DATA) {
            data.chunks(element.max(1)).for_each(|item| self.write(access, item));
            return Ok(());
        }
        self.with_registers(|state, now| {
            for byte in data {
                if state.registers.is_full() {
                    state.settle(now);
                }
                state.registers.write(DATA, *byte, now);
            }
        });
        Ok(())
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.state.lock().output = Output::new(resources.irq(0));
        Ok(())
    }

    fn reset(&self) {
        self.with_registers(|state, _| state.registers = Registers::new());
    }

    fn tick(&self, now: u64) -> Option<u64> {
        self.state.lock().settle(now)
    }

    fn describe(&self, description: &mut dyn Description) {
        description.acpi("PNP0501", Part::ALL);
        description.compatible(&["ns16550a"]);
        description.property("clock-frequency", Property::Cells(&[registers::CLOCK]));
        description.property("reg-shift", Property::Cells(&[self.shift.into()]));
        description.role(Role::Uart { kind: UartKind::Ns16550, shift: self.shift });
    }
}
