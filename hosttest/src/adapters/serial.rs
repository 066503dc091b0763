//! The serial port of `vm-superio`, a 16550A, as a device.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_device::{Access, Device, Failed, InterruptError, IrqLine, Rejected, Resources};
use vm_superio::serial::{self, NoEvents, SerialEvents, SerialState};

/// How many registers there are, one byte each.
pub const REGISTERS: u64 = 8;

/// Offsets of registers (National Semiconductor PC16550D data sheet, table II). Offsets 0 and 1 are the divisor latch while bit 7
/// of the line control register is set.
const DATA: u8 = 0;
const INTERRUPT_ENABLE: u8 = 1;
const INTERRUPT_IDENTIFICATION: u8 = 2;
const LINE_CONTROL: u8 = 3;
const MODEM_CONTROL: u8 = 4;
const LINE_STATUS: u8 = 5;
const SCRATCH: u8 = 7;

/// In the line control register: offsets 0 and 1 are the divisor latch.
const DIVISOR_LATCH: u8 = 0x80;
/// In the line status register: there is input.
const DATA_READY: u8 = 0x01;
/// What interrupts: its bit in the interrupt identification register, as `vm-superio` keeps that, and in the interrupt enable
/// register.
const SOURCES: [(u8, u8); 2] = [(0b100, 0b001), (0b010, 0b010)];

/// A serial port that writes what the guest sends to a `W`, and flushes it after each byte.
///
/// It is registered with one range of [`REGISTERS`] ports or bytes of memory, `IoResource::pio(0x3f8, 8)` for one, and with an
/// interrupt, or with none if the guest polls it.
///
/// **Accesses.** A register is a byte. A wider access is one of each of its bytes, at their own offsets and from the lowest on, as
/// an ISA bus takes it apart for an 8-bit device. In a range that is larger, what is behind the last register reads as open
/// bus, and writes there are ignored.
///
/// **Interrupts.** `vm-superio` calls its `Trigger` when a condition becomes pending, and nothing when it is served: enough for an
/// edge, but a line that is shared or triggered by level has to fall as well. So its trigger is not used. After each access that
/// can change it, the port drives its line to the level that a 16550 has: asserted while a condition is both pending and enabled.
/// An edge-triggered input takes the rise as its edge. The port works with every [`IrqResource`](vm_device::IrqResource), and a
/// level that the interrupt controller refuses is told again at the next access. What is pending is up to `vm-superio`: it serves
/// all conditions by a read of the interrupt identification register.
///
/// **Errors.** A byte that the writer does not take is lost, and the access ends as [`Failed`] with the writer's `errno`, or `EIO`
/// if there is none: the VMM decides whether the guest goes on. For the guest the byte is sent, since a 16550 has no way to say
/// otherwise. A VMM that never wants to stop for its console gives it a writer that takes everything.
///
/// An access waits as long as the writer does, and accesses of other vCPUs wait for it.
///
/// ```
/// use hosttest::adapters::serial::Serial;
/// use vm_device::{DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator};
///
/// let port = Serial::new(Vec::new());
/// let storage = Storage::<8, 16, 2>::new();
/// let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS);
/// let manager = DeviceManager::new(&storage, allocator);
/// manager.register_device(&port, None, &[IoResource::pio(0x3f8, 8)], &[]).unwrap();
///
/// let mut vcpu = manager.dispatcher(0).unwrap();
/// for byte in b"hello" {
///     vcpu.write(GuestAddress(0x3f8), &[*byte], IoType::Pio).unwrap();
/// }
/// assert_eq!(port.with_writer(|sent| sent.clone()), b"hello");
///
/// assert_eq!(port.enqueue_raw_bytes(b"y"), 1);
/// let mut byte = [0];
/// vcpu.read(GuestAddress(0x3f8), &mut byte, IoType::Pio).unwrap();
/// assert_eq!(&byte, b"y");
/// ```
pub struct Serial<'d, W: Write, EV: SerialEvents = NoEvents> {
    port: Mutex<Port<'d, W, EV>>,
}

struct Port<'d, W: Write, EV: SerialEvents> {
    serial: serial::Serial<Unused, EV, W>,
    irq: IrqLine<'d>,
    refused: Option<InterruptError>,
}

/// What `vm-superio` triggers.
struct Unused;

impl vm_superio::Trigger for Unused {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<W: Write> Serial<'_, W> {
    /// In the state after power-on.
    pub fn new(out: W) -> Self {
        Self::with_events(NoEvents, out)
    }
}

impl<'d, W: Write, EV: SerialEvents> Serial<'d, W, EV> {
    /// The same, with `events` told of what happens.
    pub fn with_events(events: EV, out: W) -> Self {
        Self::around(serial::Serial::with_events(Unused, events, out))
    }

    /// With the state of another. An interrupt that is pending in it is asserted at the registration.
    ///
    /// # Errors
    /// [`FullFifo`](serial::Error::FullFifo) if the state has more input than there is room for.
    pub fn from_state(state: &SerialState, events: EV, out: W) -> Result<Self, serial::Error<Infallible>> {
        serial::Serial::from_state(state, Unused, events, out).map(Self::around)
    }

    fn around(serial: serial::Serial<Unused, EV, W>) -> Self {
        Self { port: Mutex::new(Port { serial, irq: IrqLine::DISCONNECTED, refused: None }) }
    }

    /// The state, for [`from_state`](Self::from_state).
    pub fn state(&self) -> SerialState {
        self.lock().serial.state()
    }

    /// Input for the guest, from any thread. Returns how many bytes of it were taken, from the first on: as many as there is
    /// [room](Self::fifo_capacity) for, and none while the guest has the port in loopback mode.
    pub fn enqueue_raw_bytes(&self, input: &[u8]) -> usize {
        let mut port = self.lock();
        // The only error is that there is no room.
        let taken = port.serial.enqueue_raw_bytes(input).unwrap_or(0);
        port.drive();
        taken
    }

    /// How many bytes of input there is room for: 64 at most.
    pub fn fifo_capacity(&self) -> usize {
        self.lock().serial.fifo_capacity()
    }

    /// Calls `act` with the writer. Accesses wait meanwhile.
    pub fn with_writer<R>(&self, act: impl FnOnce(&mut W) -> R) -> R {
        act(self.lock().serial.writer_mut())
    }

    /// The last error that the interrupt gave.
    pub fn refused(&self) -> Option<InterruptError> {
        self.lock().refused
    }

    /// A writer that panics has lost its byte, and leaves the port as it was.
    fn lock(&self) -> MutexGuard<'_, Port<'d, W, EV>> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write, EV: SerialEvents> Port<'_, W, EV> {
    /// Drives the line as the registers say.
    fn drive(&mut self) {
        let SerialState { interrupt_identification, interrupt_enable, .. } = self.serial.state();
        let asserted = SOURCES
            .iter()
            .any(|(pending, enabled)| interrupt_identification & pending != 0 && interrupt_enable & enabled != 0);
        match if asserted { self.irq.assert() } else { self.irq.deassert() } {
            // The port is polled, is not registered, or another call tells the controller.
            Ok(()) | Err(InterruptError::NoLine | InterruptError::Removed | InterruptError::Pending) => {}
            Err(error) => self.refused = Some(error),
        }
    }

    fn read(&mut self, register: u8) -> u8 {
        let value = self.serial.read(register);
        if matches!(register, DATA | INTERRUPT_IDENTIFICATION) {
            self.drive();
        }
        value
    }

    fn write(&mut self, register: u8, value: u8) -> Result<(), Failed> {
        let outcome = self.serial.write(register, value);
        if matches!(register, DATA | INTERRUPT_ENABLE) {
            self.drive();
        }
        outcome.map_err(|error| match error {
            serial::Error::IOError(error) => failed(&error),
            serial::Error::Trigger(never) => match never {},
            serial::Error::FullFifo => Failed::new(libc::EIO as u32),
        })
    }

    /// The state after power-on, of which each register can be written. Only a write to the data register can fail.
    fn reset(&mut self) {
        let _ = self.serial.read(INTERRUPT_IDENTIFICATION);
        let SerialState { baud_divisor_low, baud_divisor_high, .. } = SerialState::default();
        let SerialState { interrupt_enable, line_control, modem_control, scratch, .. } = SerialState::default();
        let registers = [
            (LINE_CONTROL, line_control | DIVISOR_LATCH),
            (DATA, baud_divisor_low),
            (INTERRUPT_ENABLE, baud_divisor_high),
            (LINE_CONTROL, line_control),
            (INTERRUPT_ENABLE, interrupt_enable),
            (MODEM_CONTROL, modem_control),
            (SCRATCH, scratch),
        ];
        for (register, value) in registers {
            let _ = self.serial.write(register, value);
        }
        while self.serial.read(LINE_STATUS) & DATA_READY != 0 {
            let _ = self.serial.read(DATA);
        }
        self.drive();
    }
}

/// The register that byte number `index` of an access is for, if there is one.
fn register(access: &Access<'_>, index: usize) -> Option<u8> {
    let offset = access.offset().checked_add(index as u64)?;
    if offset < REGISTERS { u8::try_from(offset).ok() } else { None }
}

/// What a guest's access ends with if the host has an error.
fn failed(error: &io::Error) -> Failed {
    let code = error.raw_os_error().and_then(|code| u32::try_from(code).ok());
    Failed::new(code.unwrap_or(libc::EIO as u32))
}

impl<'d, W: Write + Send, EV: SerialEvents + Send> Device<'d> for Serial<'d, W, EV> {
    fn name(&self) -> &str {
        "serial"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let mut port = self.lock();
        for (index, byte) in data.iter_mut().enumerate() {
            let Some(register) = register(access, index) else { return };
            *byte = port.read(register);
        }
    }

    fn try_write(&self, access: &Access<'_>, data: &[u8]) -> Result<(), Failed> {
        let mut port = self.lock();
        for (index, byte) in data.iter().enumerate() {
            let Some(register) = register(access, index) else { break };
            port.write(register, *byte)?;
        }
        Ok(())
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        let mut port = self.lock();
        port.irq = resources.irq(0);
        port.drive();
        Ok(())
    }

    /// Input that the guest has not read is lost, as it is on hardware.
    fn reset(&self) {
        self.lock().reset();
    }
}

#[cfg(test)]
mod tests {
    use vm_device::{
        DeviceManager, Gsi, GuestAddress, InterruptController, IoError, IoRange, IoResource, IoType, IrqResource,
        Storage, SystemAllocator,
    };

    use super::*;

    const PORT: u64 = 0x3f8;
    const LINE: Gsi = Gsi(4);
    /// The interrupt enable register of a port that interrupts for input, and for a byte that was sent.
    const ON_INPUT: u8 = 0b01;
    const ON_SENT: u8 = 0b10;

    fn manager<'d>(storage: &'d Storage<'d, 4, 4, 2>) -> DeviceManager<'d> {
        let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
        DeviceManager::new(storage, allocator)
    }

    fn write(manager: &DeviceManager<'_>, offset: u64, data: &[u8]) -> Result<(), IoError> {
        manager.write(GuestAddress(PORT + offset), data, IoType::Pio)
    }

    fn read<const SIZE: usize>(manager: &DeviceManager<'_>, offset: u64) -> [u8; SIZE] {
        let mut data = [0; SIZE];
        manager.read(GuestAddress(PORT + offset), &mut data, IoType::Pio).expect("a read that reaches the port");
        data
    }

    /// Remembers levels, and refuses them while it is told to.
    #[derive(Default)]
    struct Levels(Mutex<(Vec<bool>, bool)>);

    impl Levels {
        fn take(&self) -> Vec<bool> {
            std::mem::take(&mut self.0.lock().unwrap().0)
        }
    }

    impl InterruptController for Levels {
        fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
            assert_eq!(gsi, LINE);
            let (levels, refuses) = &mut *self.0.lock().unwrap();
            if *refuses {
                return Err(InterruptError::Refused);
            }
            levels.push(asserted);
            Ok(())
        }
        fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
            panic!("an edge, where a level was to come");
        }
        fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
            panic!("a message, where a level was to come");
        }
    }

    #[test]
    fn the_line_is_asserted_while_a_condition_is_pending_and_enabled() {
        for irq in [IrqResource::Fixed(LINE), IrqResource::Shared(LINE)] {
            let (controller, port, storage) = (Levels::default(), Serial::new(Vec::new()), Storage::new());
            let manager = manager(&storage).with_interrupt_controller(&controller);
            manager.register_device(&port, None, &[IoResource::pio(PORT as u16, 8)], &[irq]).unwrap();
            assert_eq!(port.enqueue_raw_bytes(b"abc"), 3);
            assert!(controller.take().is_empty());
            // Input that waits interrupts once that is enabled, and no more once the guest has seen what it is.
            write(&manager, 1, &[ON_INPUT]).unwrap();
            assert_eq!(controller.take(), [true]);
            assert_eq!(read::<1>(&manager, 2), [0xc4]);
            assert_eq!(controller.take(), [false]);
            // Masked while it is pending, it is asserted again when it is enabled again.
            assert_eq!(port.enqueue_raw_bytes(b"d"), 1);
            write(&manager, 1, &[0]).unwrap();
            write(&manager, 1, &[ON_INPUT]).unwrap();
            assert_eq!(controller.take(), [true, false, true]);
            // A guest that reads what there is, without asking, is not interrupted for it.
            assert_eq!(read::<1>(&manager, 0), *b"a");
            assert_eq!(controller.take(), [false]);
            write(&manager, 1, &[ON_SENT]).unwrap();
            assert_eq!(controller.take(), [true]);
            assert_eq!(read::<1>(&manager, 2), [0xc2]);
            write(&manager, 0, b"x").unwrap();
            assert_eq!(controller.take(), [false, true]);
            assert_eq!(port.refused(), None);
        }
    }

    #[test]
    fn a_level_that_is_refused_is_told_again() {
        let (controller, port, storage) = (Levels::default(), Serial::new(Vec::new()), Storage::new());
        let manager = manager(&storage).with_interrupt_controller(&controller);
        let resources = ([IoResource::pio(PORT as u16, 8)], [IrqResource::Fixed(LINE)]);
        manager.register_device(&port, None, &resources.0, &resources.1).unwrap();
        write(&manager, 1, &[ON_INPUT]).unwrap();
        controller.0.lock().unwrap().1 = true;
        port.enqueue_raw_bytes(b"a");
        assert_eq!(port.refused(), Some(InterruptError::Refused));
        controller.0.lock().unwrap().1 = false;
        port.enqueue_raw_bytes(b"b");
        assert_eq!(controller.take(), [true]);
    }

    #[test]
    fn a_wide_access_is_one_of_each_of_its_bytes() {
        let (port, storage) = (Serial::new(Vec::new()), Storage::new());
        let manager = manager(&storage);
        // More than the registers.
        manager.register_device(&port, None, &[IoResource::pio(PORT as u16, 16)], &[]).unwrap();
        port.enqueue_raw_bytes(b"in");
        // Receiver, interrupts, identification, line control.
        assert_eq!(read(&manager, 0), [b'i', 0, 0xc1, 3]);
        assert_eq!(read(&manager, 5), [0x61, 0xb0, 0]);
        // The transmitter, and the enable register.
        write(&manager, 0, &[b'o', 0xf3]).unwrap();
        assert_eq!(read(&manager, 1), [3]);
        // Every byte behind the registers is open bus.
        write(&manager, 7, &[0x5a, 1, 2, 3]).unwrap();
        assert_eq!(read(&manager, 7), [0x5a, 0xff, 0xff]);
        assert_eq!(read(&manager, 8), [0xff; 8]);
        write(&manager, 8, &[1; 8]).unwrap();
        assert_eq!(port.with_writer(|sent| sent.clone()), b"o");
        // A string is for one register.
        let mut vcpu = manager.dispatcher(0).unwrap();
        vcpu.write_string(PORT as u16, 1, b"ut").unwrap();
        assert_eq!(port.with_writer(|sent| sent.clone()), b"out");
    }

    #[test]
    fn offsets_and_lengths_of_any_size_do_no_harm() {
        for offset in [0, 1, 6, 7, 8, 0xff, 0x100, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            for length in 1..=20 {
                let (port, base) = (Serial::new(Vec::new()), GuestAddress(0));
                let access = Access::new(IoType::Mmio, GuestAddress(offset), base, 0);
                port.try_write(&access, &vec![0; length]).unwrap();
                let mut data = vec![0xaa; length];
                port.read(&access, &mut data);
                let read = data.iter().take_while(|byte| **byte != 0xaa).count();
                assert_eq!(
                    read as u64,
                    8_u64.saturating_sub(offset).min(length as u64),
                    "{length} bytes at {offset:#x}"
                );
            }
        }
    }

    #[test]
    fn it_is_the_same_in_memory() {
        let (port, storage) = (Serial::new(Vec::new()), Storage::new());
        let manager = manager(&storage);
        manager.register_device(&port, None, &[IoResource::mmio(0x900_0000, 0x1000)], &[]).unwrap();
        manager.write(GuestAddress(0x900_0000), b"m", IoType::Mmio).unwrap();
        let mut status = [0];
        manager.read(GuestAddress(0x900_0005), &mut status, IoType::Mmio).unwrap();
        assert_eq!((status, port.with_writer(|sent| sent.clone())), ([0x60], b"m".to_vec()));
    }

    /// A writer that has an error for each byte.
    struct Broken(fn() -> io::Error);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_error_of_the_writer_is_told_with_its_number() {
        let errors: [(fn() -> io::Error, i32); 2] = [
            (|| io::Error::from_raw_os_error(libc::ENOSPC), libc::ENOSPC),
            (|| io::Error::other("without a number"), libc::EIO),
        ];
        for (error, code) in errors {
            let (controller, port, storage) = (Levels::default(), Serial::new(Broken(error)), Storage::new());
            let manager = manager(&storage).with_interrupt_controller(&controller);
            let requests = [IoResource::pio(PORT as u16, 8)];
            manager.register_device(&port, None, &requests, &[IrqResource::Fixed(LINE)]).unwrap();
            write(&manager, 1, &[ON_SENT]).unwrap();
            assert_eq!(read::<1>(&manager, 2), [0xc2]);
            assert_eq!(controller.take(), [true, false]);
            // The byte behind the one that failed is not written.
            let outcome = write(&manager, 0, &[b'x', 0]);
            assert_eq!(outcome, Err(IoError::Failed { code: code as u32 }));
            assert_eq!(read(&manager, 1), [ON_SENT]);
            // The guest takes its byte for sent, and goes on.
            assert_eq!(controller.take(), [true]);
        }
    }

    #[test]
    fn a_writer_that_unwinds_leaves_the_port_usable() {
        let (port, storage) = (Serial::new(Broken(|| panic!("the writer"))), Storage::new());
        let manager = manager(&storage);
        manager.register_device(&port, None, &[IoResource::pio(PORT as u16, 8)], &[]).unwrap();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| write(&manager, 0, b"x")));
        assert!(unwound.is_err());
        assert_eq!(read(&manager, 5), [0x60]);
    }

    #[test]
    fn a_reset_brings_the_state_after_power_on() {
        let (controller, port, storage) = (Levels::default(), Serial::new(Vec::new()), Storage::new());
        let manager = manager(&storage).with_interrupt_controller(&controller);
        let requests = [IoResource::pio(PORT as u16, 8)];
        manager.register_device(&port, None, &requests, &[IrqResource::Fixed(LINE)]).unwrap();
        port.enqueue_raw_bytes(&[0x55; 100]);
        assert_eq!(port.fifo_capacity(), 0);
        assert_eq!(port.enqueue_raw_bytes(b"x"), 0);
        // Divisor, interrupts, modem in loopback mode, scratch; and the divisor latch stays selected.
        for (register, value) in [(3, 0x9b), (0, 1), (1, 2), (3, 0x1b), (1, 3), (4, 0x1f), (7, 0x5a), (3, 0x9b)] {
            write(&manager, register, &[value]).unwrap();
        }
        assert_eq!(port.enqueue_raw_bytes(b"x"), 0);
        assert_eq!(controller.take(), [true]);
        manager.reset().unwrap();
        assert_eq!(port.state(), SerialState::default());
        assert_eq!(controller.take(), [false]);
        assert_eq!(port.with_writer(|sent| sent.clone()), b"");
    }

    #[test]
    fn a_state_goes_on_in_another_port() {
        let (controller, storage, old) = (Levels::default(), Storage::new(), Serial::new(Vec::new()));
        let enabled = Access::new(IoType::Pio, GuestAddress(PORT + 1), GuestAddress(PORT), 0);
        old.try_write(&enabled, &[ON_INPUT]).unwrap();
        old.enqueue_raw_bytes(b"ab");
        let port = Serial::from_state(&old.state(), NoEvents, Vec::new()).unwrap();
        let manager = manager(&storage).with_interrupt_controller(&controller);
        let requests = [IoResource::pio(PORT as u16, 8)];
        let id = manager.register_device(&port, None, &requests, &[IrqResource::Fixed(LINE)]).unwrap();
        assert_eq!(controller.take(), [true]);
        assert_eq!([read::<1>(&manager, 0), read::<1>(&manager, 0)], [*b"a", *b"b"]);
        assert_eq!(controller.take(), [false]);
        manager.unregister_device(id).unwrap();
        // Input without a manager waits.
        assert_eq!((port.enqueue_raw_bytes(b"c"), port.refused()), (1, None));
        let mut state = old.state();
        state.in_buffer = vec![0; 65];
        assert!(Serial::from_state(&state, NoEvents, Vec::new()).is_err());
    }
}
