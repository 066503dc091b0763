//! A serial port on the PCI bus.

use embedded_io::{Read, ReadReady, Write, WriteReady};

use super::bar::Bar;
use super::config::{Config, Requests};
use super::function::{Function, MAX_REPEATS};
use crate::access::Access;
use crate::device::{Device, Failed, Rejected};
use crate::devices::time::Clock;
use crate::devices::uart::Uart16550;
use crate::resource::Resources;

/// A PCI serial port: a function with a [`Uart16550`], which interrupts by its pin INTA#, or by one message (MSI) once the guest
/// enables that.
///
/// `L` is the other end of its line, and `C` the clock, as those of the UART.
///
/// It is registered with its [`requests`](Self::requests) and one interrupt, and its [`function`](Self::function) is plugged in. On
/// a host bridge that [routes pins](super::HostBridge::with_lines), the interrupt is [`Unrouted`](crate::IrqResource::Unrouted).
/// Without one it is [`Shared`](crate::IrqResource::Shared). A registration is a power-on: the UART has its state after reset.
///
/// # What Linux expects
///
/// Its driver `8250_pci` has a list of boards, and guesses at others:
///
/// - 1590:037e, the serial port of HPE's servers, is on the list: the UART is in base address register 1, of memory, one byte a
///   register, at 115,200 baud for a divisor of 1. It is one of the few for which the driver enables MSI.
///   [`in_memory`](Self::in_memory) is this one.
/// - A function of a class from 0x070000 to 0x070006 with exactly one base address register of ports, and one of memory at most,
///   has a UART for each 8 ports there. It interrupts by its pin. [`on_ports`](Self::on_ports) is such a one, of class 0x070002.
///
/// A message is sent when the UART gets a reason to interrupt, and not again for others that come while the first is not served. A
/// driver reads the interrupt identification until it says that there is none.
///
/// ```
/// # use core::convert::Infallible;
/// # use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
/// use vm_device::devices::pci::{HostBridge, PinLines, Serial, Slot};
/// use vm_device::devices::time::HandClock;
/// use vm_device::{DeviceManager, Gsi, IoRange, IoType, IrqResource, Storage, SystemAllocator};
///
/// /// Sends nothing, and takes nothing.
/// struct Unplugged;
/// # impl ErrorType for Unplugged {
/// #     type Error = Infallible;
/// # }
/// # impl Read for Unplugged {
/// #     fn read(&mut self, _: &mut [u8]) -> Result<usize, Infallible> {
/// #         Ok(0)
/// #     }
/// # }
/// # impl ReadReady for Unplugged {
/// #     fn read_ready(&mut self) -> Result<bool, Infallible> {
/// #         Ok(false)
/// #     }
/// # }
/// # impl WriteReady for Unplugged {
/// #     fn write_ready(&mut self) -> Result<bool, Infallible> {
/// #         Ok(true)
/// #     }
/// # }
/// # impl Write for Unplugged {
/// #     fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
/// #         Ok(bytes.len())
/// #     }
/// #     fn flush(&mut self) -> Result<(), Infallible> {
/// #         Ok(())
/// #     }
/// # }
///
/// static CLOCK: HandClock = HandClock::new();
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> = DeviceManager::new(
///     &STORAGE,
///     SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 23),
/// );
/// static HOST: HostBridge<'static> = HostBridge::new("pci", &MANAGER).with_lines(PinLines::new(Gsi(16), 8));
/// static SERIAL: Serial<'static, Unplugged, &HandClock> = Serial::in_memory("serial", Unplugged, &CLOCK);
///
/// MANAGER.register_device(&HOST, None, &[HostBridge::PORTS], &[])?;
/// let serial = MANAGER.register_device(&SERIAL, None, &SERIAL.requests(), &[IrqResource::Unrouted])?;
/// HOST.bus().plug(SERIAL.function(), Slot::new(5, 0), serial)?;
///
/// // The guest writes an address into base address register 1, and turns decoding of memory on.
/// for (register, value) in [(0x14, 0xc000_0000_u32), (0x04, 2)] {
///     MANAGER.write(0xcf8_u16.into(), &(0x8000_2800_u32 | register).to_le_bytes(), IoType::Pio)?;
///     MANAGER.write(0xcfc_u16.into(), &value.to_le_bytes(), IoType::Pio)?;
/// }
/// // The line status register: the transmitter is empty.
/// let mut data = [0; 1];
/// MANAGER.read(0xc000_0005_u64.into(), &mut data, IoType::Mmio)?;
/// assert_eq!(data, [0x60]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Serial<'d, L, C> {
    uart: Uart16550<'d, L, C>,
    function: Function<'d>,
}

/// A serial controller with a 16550 (PCI Local Bus 3.0, appendix D).
const CLASS: u32 = 0x07_0002;
/// Where the capability MSI is.
const MSI: u8 = 0x50;

impl<'d, L, C> Serial<'d, L, C> {
    /// HPE's serial port, 1590:037e: 4 KiB of memory in base address register 1, whose first 8 bytes are the registers of the UART.
    /// `name` is that of the device.
    pub const fn in_memory(name: &'d str, line: L, clock: C) -> Self {
        Self::with_config(name, Config::new(0x1590, 0x037e).bar(1, Bar::memory(0x1000)), line, clock)
    }

    /// A serial port of any vendor: 8 ports in base address register 0. `name` is that of the device.
    pub const fn on_ports(name: &'d str, vendor: u16, device: u16, line: L, clock: C) -> Self {
        Self::with_config(name, Config::new(vendor, device).bar(0, Bar::ports(8)), line, clock)
    }

    const fn with_config(name: &'d str, config: Config<'d>, line: L, clock: C) -> Self {
        let function = Function::new(config.class(CLASS).interrupt_pin(1)).with_message(MSI);
        Self { uart: Uart16550::new(name, line, clock), function }
    }

    /// What it has to be registered with, beside its interrupt.
    pub fn requests(&self) -> Requests {
        self.function.requests()
    }

    /// What is plugged into a bus.
    pub const fn function(&self) -> &Function<'d> {
        &self.function
    }
}

impl<L: Read + ReadReady + Write + WriteReady, C: Clock> Serial<'_, L, C> {
    /// As [`Uart16550::poll`].
    pub fn poll(&self) {
        self.uart.poll();
        self.follow();
    }

    /// The interrupt of the function is as that of the UART.
    fn follow(&self) {
        self.tell(self.uart.is_interrupting());
    }

    /// Tells the function the interrupt of the UART as it was when the caller looked, and then as it is, until it is the same
    /// twice: another vCPU may have changed it meanwhile, and told the function before.
    fn tell(&self, mut asserted: bool) {
        for _ in 0..MAX_REPEATS {
            self.function.set_interrupt(asserted);
            let now = self.uart.is_interrupting();
            if now == asserted {
                return;
            }
            asserted = now;
        }
    }
}

impl<'d, L, C> Device<'d> for Serial<'d, L, C>
where
    L: Read + ReadReady + Write + WriteReady + Send,
    C: Clock + Sync,
{
    fn name(&self) -> &str {
        self.uart.name()
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.uart.read(access, data);
        self.follow();
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.uart.write(access, data);
        self.follow();
    }

    fn write_string(&self, access: &Access<'_>, element: usize, data: &[u8]) -> Result<(), Failed> {
        let outcome = self.uart.write_string(access, element, data);
        self.follow();
        outcome
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.function.connect(resources, 0);
        self.reset();
        Ok(())
    }

    fn reset(&self) {
        self.uart.reset();
        self.follow();
    }

    fn tick(&self, now: u64) -> Option<u64> {
        let next = self.uart.tick(now);
        self.follow();
        next
    }
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use embedded_io::ErrorType;

    use super::*;
    use crate::address::{GuestAddress, IoType};
    use crate::devices::time::HandClock;

    /// Takes everything, and sends nothing.
    struct Sink;

    impl ErrorType for Sink {
        type Error = Infallible;
    }

    impl Read for Sink {
        fn read(&mut self, _: &mut [u8]) -> Result<usize, Infallible> {
            Ok(0)
        }
    }

    impl ReadReady for Sink {
        fn read_ready(&mut self) -> Result<bool, Infallible> {
            Ok(false)
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> Result<(), Infallible> {
            Ok(())
        }
    }

    impl WriteReady for Sink {
        fn write_ready(&mut self) -> Result<bool, Infallible> {
            Ok(true)
        }
    }

    #[test]
    fn an_interrupt_that_is_told_after_a_later_one_is_told_again() {
        let serial = Serial::in_memory("serial", Sink, HandClock::new());
        let at =
            |offset: u64| Access::new(IoType::Mmio, GuestAddress(0xc000_0000 + offset), GuestAddress(0xc000_0000), 0);
        let is_told = || serial.function.register(4) >> 19 & 1 == 1;
        // The transmitter is empty when that interrupt is enabled, and the interrupt identification says so once.
        serial.write(&at(1), &[2]);
        assert!(is_told());
        serial.read(&at(2), &mut [0]);
        serial.tell(true);
        assert!(!is_told());
    }
}
