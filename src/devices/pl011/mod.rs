//! A serial port: the Arm PrimeCell UART PL011.

mod registers;

use embedded_io::{Read, ReadReady, Write, WriteReady};
use spin::Mutex;

use super::line;
use super::output::Output;
use super::time::Clock;
use crate::access::Access;
use crate::description::{Description, Part, Property, Role, UartKind};
use crate::device::{Device, Rejected};
use crate::resource::{IoResource, Resources};
use registers::{DEPTH, REGISTER_SIZE, Registers};

/// An Arm PrimeCell UART PL011, revision r1p1 with FIFOs of 16 characters (Arm DDI 0183), in 4 KiB of memory. Its interrupt is the
/// combined one, level-triggered. DMA is not offered: its register is kept.
///
/// `L` is the other end of its line, as of a [`Uart16550`](super::uart::Uart16550): bytes are written to it and read from it when it
/// is ready, under the UART's own lock, under which the interrupt controller is called too. Neither may call the UART. Its modem lines say that
/// another machine is there and ready. An error of it loses what was to be sent.
///
/// Bytes travel at once and whole, whatever the guest programs as their rate and length, and while UARTEN is 0 too, so that a guest can
/// print that has programmed nothing; TXE and RXE hold them. So the FIFO falls through its trigger level with each write that the
/// line takes, and that is an interrupt of the transmitter. The time-out of the receiver is that of the rate, by the clock `C`.
///
/// An access reaches each register that it has a byte of. Bytes of a register that a write does not have are 0, and a write
/// without its lowest byte does not reach it.
///
/// ```
/// # use core::convert::Infallible;
/// use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
/// use spin::Mutex;
/// use vm_device::devices::pl011::Pl011;
/// use vm_device::devices::time::HandClock;
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
/// let uart = Pl011::new("serial", Log(&log), &clock);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(32, 63));
/// let irq = [IrqResource::Fixed(Gsi(33))];
/// manager.register_device(&uart, None, &[uart.mmio(0x900_0000)], &irq).unwrap();
/// for byte in b"Hello" {
///     manager.write(0x900_0000_u64.into(), &[*byte], IoType::Mmio).unwrap();
/// }
/// assert_eq!(*log.lock(), "Hello");
/// ```
pub struct Pl011<'d, L, C> {
    name: &'d str,
    reference: u32,
    clock: C,
    state: Mutex<State<'d, L>>,
}

struct State<'d, L> {
    registers: Registers,
    line: L,
    output: Output<'d>,
}

/// UARTCLK of most boards, in Hz.
const REFERENCE: u32 = 24_000_000;

impl<'d, L, C> Pl011<'d, L, C> {
    /// A UART as after power-on, with a reference clock of 24 MHz. `name` is that of the device.
    pub const fn new(name: &'d str, line: L, clock: C) -> Self {
        let state = State { registers: Registers::new(), line, output: Output::DISCONNECTED };
        Self { name, reference: REFERENCE, clock, state: Mutex::new(state) }
    }

    /// The same UART with a reference clock (UARTCLK) of `hertz`, by which the guest computes its rate.
    #[must_use]
    pub const fn with_reference_clock(mut self, hertz: u32) -> Self {
        self.reference = hertz;
        self
    }

    /// The request for its registers in memory from `base` on: 4 KiB.
    pub const fn mmio(&self, base: u64) -> IoResource {
        IoResource::mmio(base, 0x1000)
    }
}

impl<L: Read + ReadReady + Write + WriteReady, C: Clock> Pl011<'_, L, C> {
    /// The other end of the line has bytes, or room for some: they are moved, and the guest is interrupted if it has asked for that.
    /// It may be called from any thread, and is called by every access and by [`tick`](Device::tick) too.
    pub fn poll(&self) {
        self.with_registers(|_, _| ());
    }

    /// Calls `act` with the registers and the time, and then moves what can be moved.
    fn with_registers<R>(&self, act: impl FnOnce(&mut Registers, u64) -> R) -> R {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.registers.time_out(now, self.reference);
        let result = act(&mut state.registers, now);
        if let Some(deadline) = state.settle(now, self.reference) {
            self.clock.deadline(deadline);
        }
        result
    }
}

impl<L: Read + ReadReady + Write + WriteReady> State<'_, L> {
    /// Moves what can be moved, and drives the interrupt. Returns when the receiver times out, or what was refused is to be told again.
    fn settle(&mut self, now: u64, reference: u32) -> Option<u64> {
        self.registers.time_out(now, reference);
        if self.registers.is_looped_back() {
            self.registers.loop_back(now);
        } else {
            self.send();
            self.receive(now);
        }
        self.output.set(self.registers.interrupts());
        self.output.deadline(self.registers.times_out_at(reference), now)
    }

    fn send(&mut self) {
        while let count @ 1.. = line::send(&mut self.line, self.registers.to_send()) {
            self.registers.sent(count);
        }
    }

    fn receive(&mut self, now: u64) {
        let mut bytes = [0; DEPTH];
        // Each turn fills at least a place.
        while let received @ [_, ..] = line::receive(&mut self.line, &mut bytes, self.registers.takes()) {
            for byte in received {
                self.registers.receive((*byte).into(), now);
            }
        }
    }
}

impl<'d, L, C> Device<'d> for Pl011<'d, L, C>
where
    L: Read + ReadReady + Write + WriteReady + Send,
    C: Clock + Sync,
{
    fn name(&self) -> &str {
        self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.with_registers(|registers, _| {
            for register in access.registers::<REGISTER_SIZE>(data.len()) {
                access.load_at(register, &registers.read(register).to_le_bytes(), data);
            }
        });
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.with_registers(|registers, now| {
            for register in access.registers::<REGISTER_SIZE>(data.len()).filter(|first| *first >= access.offset()) {
                let mut value = [0; REGISTER_SIZE];
                access.store_at(register, &mut value, data);
                registers.write(register, u32::from_le_bytes(value) as u16, now);
            }
        });
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.state.lock().output = Output::new(resources.irq(0));
        Ok(())
    }

    fn reset(&self) {
        self.with_registers(|registers, _| *registers = Registers::new());
    }

    fn tick(&self, now: u64) -> Option<u64> {
        self.state.lock().settle(now, self.reference)
    }

    fn describe(&self, description: &mut dyn Description) {
        description.acpi("ARMH0011", Part::ALL);
        description.compatible(&["arm,pl011", "arm,primecell"]);
        description.property("clocks", Property::Clocks(2));
        description.property("clock-names", Property::Texts(&["uartclk", "apb_pclk"]));
        description.role(Role::Uart { kind: UartKind::Pl011, shift: 2 });
    }
}
