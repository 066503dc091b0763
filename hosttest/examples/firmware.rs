//! A firmware, or a hypervisor in the style of a unikernel: everything stands in statics, and nothing is allocated.
//!
//! A serial port of the crate's and a timer of the program's own, which interrupts, are registered, accessed as a guest would, moved
//! and removed. What the guest prints goes to a buffer, and what is typed for it raises the interrupt of its serial port.
//! The program's allocator counts, and in the end it has to have counted nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use spin::Mutex;
use vm_device::IoType::{Mmio, Pio};
use vm_device::devices::time::HandClock;
use vm_device::devices::uart::Uart16550;
use vm_device::{
    Access, AccessSizes, Device, DeviceManager, Gsi, GuestAddress, GuestUsize, InterruptController, InterruptError,
    IoError, IoRange, IoResource, IrqLine, IrqResource, Rejected, Relocation, Resources, Storage, SystemAllocator,
};

/// The interrupt lines of the guest, a bit each.
struct Lines(AtomicU32);

impl InterruptController for Lines {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let line = 1u32.checked_shl(gsi.0).ok_or(InterruptError::Refused)?;
        match asserted {
            true => self.0.fetch_or(line, Ordering::AcqRel),
            false => self.0.fetch_and(!line, Ordering::AcqRel),
        };
        Ok(())
    }

    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }

    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }
}

/// The other end of the serial port: what the guest has printed, up to 32 bytes, and a key that was pressed.
struct Terminal {
    printed: Mutex<(usize, [u8; 32])>,
    key: Mutex<Option<u8>>,
}

impl ErrorType for &Terminal {
    type Error = Infallible;
}

impl WriteReady for &Terminal {
    /// A guest that prints more finds its port not ready.
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        let (length, text) = &*self.printed.lock();
        Ok(*length < text.len())
    }
}

impl Write for &Terminal {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let (length, text) = &mut *self.printed.lock();
        let room = &mut text[*length..];
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        *length += count;
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl ReadReady for &Terminal {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.key.lock().is_some())
    }
}

impl Read for &Terminal {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let Some(place) = bytes.first_mut() else { return Ok(0) };
        let Some(key) = self.key.lock().take() else { return Ok(0) };
        *place = key;
        Ok(1)
    }
}

/// One register of 4 bytes. While it is not 0, the timer asserts its line.
struct Timer {
    register: Mutex<[u8; 4]>,
    irq: Mutex<IrqLine<'static>>,
}

impl Device<'static> for Timer {
    fn name(&self) -> &str {
        "timer"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load(&*self.register.lock(), data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let mut register = self.register.lock();
        access.store(&mut *register, data);
        let irq = self.irq.lock();
        // The lines here refuse nothing; a controller that does is told again by the next write.
        let _ = if *register == [0; 4] { irq.deassert() } else { irq.assert() };
    }

    fn set_resources(&self, resources: &Resources<'_, 'static>) -> Result<(), Rejected> {
        *self.irq.lock() = resources.irq(0);
        Ok(())
    }
}

const DEVICE_MEMORY: IoRange = IoRange::of::<0xc000_0000, 0xffff_ffff>();
const COM1: u16 = 0x3f8;
/// The line of COM1.
const COM1_LINE: Gsi = Gsi(4);

static LINES: Lines = Lines(AtomicU32::new(0));
static TERMINAL: Terminal = Terminal { printed: Mutex::new((0, [0; 32])), key: Mutex::new(None) };
/// Firmware reads the processor's time stamp counter. Here no time has to pass: it is for bytes that wait in the FIFO of the port.
static CLOCK: HandClock = HandClock::new();
static SERIAL: Uart16550<'static, &Terminal, &HandClock> = Uart16550::new("serial", &TERMINAL, &CLOCK);
static TIMER: Timer = Timer { register: Mutex::new([0; 4]), irq: Mutex::new(IrqLine::DISCONNECTED) };
static STORAGE: Storage<'static, 8, 16, 2> = Storage::new();
static MANAGER: DeviceManager<'static> =
    DeviceManager::new(&STORAGE, SystemAllocator::new(DEVICE_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15))
        .with_interrupt_controller(&LINES);

/// What the guest has seen.
struct Seen {
    key: u8,
    timer: GuestAddress,
    line: Gsi,
    register: u32,
    at_the_old_place: u32,
}

/// Registers the devices, and accesses them as the exit handler of a virtual processor does.
fn boot() -> Result<Seen, Box<dyn Error>> {
    MANAGER.register_device(&SERIAL, None, &[SERIAL.ports(COM1)], &[IrqResource::Fixed(COM1_LINE)])?;
    let page = IoResource::any(Mmio, GuestUsize(0x1000)).aligned(0x1000).sizes(AccessSizes::DWORD);
    let timer = MANAGER.register_device(&TIMER, None, &[page], &[IrqResource::Any])?;
    let place = |index| MANAGER.range(timer, index).map(|assigned| assigned.range.first());
    let first = place(0).ok_or("the timer has a range")?;
    let line = MANAGER.irq(timer, 0).and_then(|irq| irq.gsi).ok_or("the timer has a line")?;

    let mut vcpu = MANAGER.dispatcher(0)?;
    vcpu.write_string(COM1, 1, b"booted")?;
    // The guest lets its port interrupt for a byte (PC16550D data sheet, 8.7), and a key is pressed.
    vcpu.write((COM1 + 1).into(), &[1], Pio)?;
    *TERMINAL.key.lock() = Some(b'y');
    SERIAL.poll();
    assert_eq!(LINES.0.load(Ordering::Acquire), 1 << COM1_LINE.0, "the port asserts its line");
    let mut key = [0];
    vcpu.read(COM1.into(), &mut key, Pio)?;
    assert_eq!(LINES.0.load(Ordering::Acquire), 0, "the byte was read");

    vcpu.write(first, &[1, 2, 3, 4], Mmio)?;
    assert_eq!(LINES.0.load(Ordering::Acquire), 1 << line.0, "the timer asserts its line, and nothing else does");

    // The guest moves the timer; its register goes with it, and the old place is open bus.
    let second = GuestAddress(0xd000_0000);
    MANAGER.relocate(&mut [Relocation::new(timer, 0).to(second)])?;
    let (mut register, mut nothing) = ([0; 4], [0; 4]);
    vcpu.read(second, &mut register, Mmio)?;
    assert_eq!(vcpu.read(first, &mut nothing, Mmio), Err(IoError::Unclaimed));

    // A device that is removed no longer asserts its line.
    MANAGER.unregister_device(timer)?;
    assert_eq!(LINES.0.load(Ordering::Acquire), 0);
    assert_eq!(vcpu.read(second, &mut [0; 4], Mmio), Err(IoError::Unclaimed));
    let [key] = key;
    let [register, at_the_old_place] = [register, nothing].map(u32::from_le_bytes);
    Ok(Seen { key, timer: first, line, register, at_the_old_place })
}

/// The system's allocator, which counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: both calls are the system's own; the count is a number of the calling thread, and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let before = ALLOCATIONS.get();
    let seen = boot();
    let allocations = ALLOCATIONS.get() - before;
    let Seen { key, timer, line, register, at_the_old_place } = seen?;
    let (length, text) = *TERMINAL.printed.lock();
    let text = std::str::from_utf8(&text[..length])?;
    println!("serial port: {text}; the key {:?} was pressed", char::from(key));
    println!("timer: at {timer} on {line}, moved with {register:#x} in its register, then removed");
    println!("where it was: {at_the_old_place:#x}");
    let bytes = size_of_val(&STORAGE) + size_of_val(&MANAGER);
    println!("the manager and its storage: {bytes} bytes, in statics; allocations: {allocations}");
    assert_eq!((text, key, register, at_the_old_place), ("booted", b'y', 0x0403_0201, u32::MAX));
    assert_eq!(timer, DEVICE_MEMORY.first());
    assert_eq!(allocations, 0);
    Ok(())
}
