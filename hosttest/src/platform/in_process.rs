//! The platform without a processor: this program makes the accesses itself, through a dispatcher, as a VMM does at an exit.

use std::time::Instant;

use vm_device::{Dispatcher, GuestAddress, IoType};

use super::layout::{DISK_PORT, INTERRUPTS, NETWORK_PORT};
use super::lines::Lines;
use super::program::{Accessor, Word};
use crate::guest_side::{mmio, port};
use crate::vmm::backing::Backed;
use crate::vmm::memory::Memory;
use crate::vmm::run::Tally;

/// What stands in for a guest's processor and its memory.
pub(super) struct InProcess<'a, 'd> {
    devices: &'a mut Dispatcher<'d>,
    lines: &'a Lines,
    ram: &'a Memory,
    backed: &'a [Backed],
    tally: Tally,
    started: Instant,
}

impl<'a, 'd> InProcess<'a, 'd> {
    /// Accesses `devices`, and the memory that a guest would reach without an exit.
    pub(super) fn new(
        devices: &'a mut Dispatcher<'d>,
        lines: &'a Lines,
        ram: &'a Memory,
        backed: &'a [Backed],
    ) -> Self {
        Self { devices, lines, ram, backed, tally: Tally::default(), started: Instant::now() }
    }

    /// What happened: each access that a device might answer counts as an exit.
    pub(super) fn tally(&self) -> Tally {
        Tally { elapsed: self.started.elapsed(), ..self.tally }
    }

    /// The memory at an address, and the address in it.
    fn memory(&self, address: u64) -> Option<(&Memory, u64)> {
        if address < self.ram.length() {
            return Some((self.ram, address));
        }
        let holds = |Backed { range, .. }: &&Backed| (range.first().0..=range.last().0).contains(&address);
        let Backed { range, memory } = self.backed.iter().find(holds)?;
        Some((memory, address - range.first().0))
    }

    fn device_read(&mut self, address: GuestAddress, io_type: IoType, size: usize) -> u64 {
        let mut data = [0; 8];
        let result = self.devices.read(address, &mut data[..size], io_type);
        self.tally.count(result);
        u64::from_le_bytes(data)
    }

    fn device_write(&mut self, address: GuestAddress, io_type: IoType, size: usize, value: u64) {
        let result = self.devices.write(address, &value.to_le_bytes()[..size], io_type);
        self.tally.count(result);
    }

    /// What the guest's interrupt handler does: each device that asserts the line takes its assertion back.
    fn handle_interrupt(&mut self) {
        for port in [NETWORK_PORT, DISK_PORT] {
            if self.port_read::<u8>(port) != 0 {
                self.port_write(port, 0u8);
                let count = self.read::<u64>(INTERRUPTS);
                self.write(INTERRUPTS, count + 1);
            }
        }
    }
}

impl Accessor for InProcess<'_, '_> {
    const GREETING: &'static [u8] = b"hello from the host: no guest runs\n";

    fn port_read<T: Word + port::Width>(&mut self, port: u16) -> T {
        T::from_u64(self.device_read(port.into(), IoType::Pio, T::SIZE))
    }

    fn port_write<T: Word + port::Width>(&mut self, port: u16, value: T) {
        self.device_write(port.into(), IoType::Pio, T::SIZE, value.to_u64());
    }

    fn read<T: Word + mmio::Width>(&mut self, address: u64) -> T {
        let Some((memory, offset)) = self.memory(address) else {
            return T::from_u64(self.device_read(GuestAddress(address), IoType::Mmio, T::SIZE));
        };
        let mut data = [0; 8];
        memory.read(offset, &mut data[..T::SIZE]);
        T::from_u64(u64::from_le_bytes(data))
    }

    fn write<T: Word + mmio::Width>(&mut self, address: u64, value: T) {
        match self.memory(address) {
            Some((memory, offset)) => memory.write(offset, &value.to_u64().to_le_bytes()[..T::SIZE]),
            None => self.device_write(GuestAddress(address), IoType::Mmio, T::SIZE, value.to_u64()),
        }
    }

    fn enable_interrupts(&mut self) {}

    fn wait_for_interrupts(&mut self, count: u64) -> bool {
        // An interrupt that a device has asserted is pending at once.
        if self.lines.asserted() {
            self.handle_interrupt();
        }
        self.read::<u64>(INTERRUPTS) >= count
    }
}
