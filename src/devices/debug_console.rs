//! A port on which firmware prints what it does.

use embedded_io::{Write, WriteReady};
use spin::Mutex;

use super::line;
use crate::access::Access;
use crate::device::{Device, Failed};
use crate::resource::IoResource;

/// The debug console of QEMU and Bochs (QEMU's `isa-debugcon`): each byte that is written to its port is printed, and it reads as
/// 0xe9, by which firmware finds it. SeaBIOS and OVMF print to it.
///
/// `W` is where bytes go. It is asked whether it is ready before each call, so that a callback does not wait; what it does not take
/// is lost, as there is no state in which a guest could be told to wait. It is called under the console's own lock.
///
/// ```
/// # use core::convert::Infallible;
/// use embedded_io::{ErrorType, Write, WriteReady};
/// use spin::Mutex;
/// use vm_device::devices::debug_console::DebugConsole;
/// use vm_device::{DeviceManager, IoRange, IoType, Storage, SystemAllocator};
///
/// /// Keeps what is printed.
/// struct Log<'l>(&'l Mutex<Vec<u8>>);
/// # impl ErrorType for Log<'_> {
/// #     type Error = Infallible;
/// # }
/// # impl WriteReady for Log<'_> {
/// #     fn write_ready(&mut self) -> Result<bool, Infallible> {
/// #         Ok(true)
/// #     }
/// # }
///
/// impl Write for Log<'_> {
///     fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
///         self.0.lock().extend(bytes);
///         Ok(bytes.len())
///     }
///     # fn flush(&mut self) -> Result<(), Infallible> {
///     #     Ok(())
///     # }
/// }
///
/// let log = Mutex::default();
/// let console = DebugConsole::new(Log(&log));
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// manager.register_device(&console, None, &[console.port(0x402)], &[]).unwrap();
/// let mut data = [0];
/// manager.read(0x402_u16.into(), &mut data, IoType::Pio).unwrap();
/// assert_eq!(data, [0xe9]);
/// manager.write_string(0x402, 1, b"Hello").unwrap();
/// assert_eq!(*log.lock(), b"Hello");
/// ```
#[derive(Debug)]
pub struct DebugConsole<W>(Mutex<W>);

/// What the port reads as.
const PRESENT: u8 = 0xe9;

impl<W> DebugConsole<W> {
    /// A console that prints to `sink`.
    pub const fn new(sink: W) -> Self {
        Self(Mutex::new(sink))
    }

    /// The request for its port at `base`: SeaBIOS and OVMF expect it at 0x402, Bochs has it at 0xe9.
    pub const fn port(&self, base: u16) -> IoResource {
        IoResource::pio(base, 1)
    }
}

impl<W: Write + WriteReady + Send> Device<'_> for DebugConsole<W> {
    fn name(&self) -> &str {
        "debug console"
    }

    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(PRESENT);
    }

    fn write(&self, _: &Access<'_>, data: &[u8]) {
        let mut sink = self.0.lock();
        let mut rest = data;
        while let count @ 1.. = line::send(&mut *sink, rest) {
            rest = rest.get(count..).unwrap_or_default();
        }
    }

    fn write_string(&self, access: &Access<'_>, _: usize, data: &[u8]) -> Result<(), Failed> {
        self.write(access, data);
        Ok(())
    }
}
