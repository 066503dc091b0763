//! What the exits of every processor of x86 need: the guest as its instructions see it.

use vm_device::GuestAddress;
use vm_device::IoType::Pio;
use vm_device::exit::x86::instruction::MAX_LENGTH;
use vm_device::exit::x86::{MemoryAccessKind, Segment, Size, X86Guest};
use vm_device::exit::{Guest, pieces};

use super::interrupts;
use super::paging::translate;
use super::stop::{Stop, Stopped};
use crate::machine::{Machine, go_on};
use crate::manager::LINES;

impl Machine {
    /// The bytes of the instruction at the instruction pointer, as many as can be fetched: one or more.
    pub fn fetch<'b>(&self, bytes: &'b mut [u8; MAX_LENGTH]) -> Result<&'b [u8], Stop> {
        let linear = self.vcpu.linear(Segment::Cs, self.vcpu.registers.rip);
        let mut done = 0;
        for (linear, length) in pieces(linear, bytes.len(), u64::MAX) {
            let piece = &mut bytes[done..done + length];
            let address = translate(self.memory, self.vcpu, linear);
            if address.and_then(|address| self.memory.read(address, piece)).is_none() {
                break;
            }
            done += length;
        }
        if done == 0 { Err(Stop::NotFetched { linear }) } else { Ok(&bytes[..done]) }
    }

    /// The reason for a stop, and where the guest stood.
    pub fn stopped(&self, stop: Stop) -> Stopped {
        let mut bytes = [0; MAX_LENGTH];
        let length = self.fetch(&mut bytes).map_or(0, <[u8]>::len);
        Stopped { stop, rip: self.vcpu.registers.rip, bytes, length }
    }
}

impl Guest for Machine {
    type Fault = Stop;

    fn translate(&mut self, linear: u64, _: MemoryAccessKind) -> Result<GuestAddress, Stop> {
        translate(self.memory, self.vcpu, linear).map(GuestAddress).ok_or(Stop::NotMapped { linear })
    }
    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Stop> {
        Ok(self.read_memory(address, data)?)
    }
    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Stop> {
        Ok(self.write_memory(address, data)?)
    }
}

impl X86Guest for Machine {
    fn linear(&mut self, segment: Segment, offset: u64, _: usize, _: MemoryAccessKind) -> Result<u64, Stop> {
        Ok(self.vcpu.linear(segment, offset))
    }
    fn input(&mut self, port: u16, data: &mut [u8]) -> Result<(), Stop> {
        Ok(go_on(self.devices.read(port.into(), data, Pio))?)
    }
    fn output(&mut self, port: u16, data: &[u8]) -> Result<(), Stop> {
        Ok(go_on(self.devices.write(port.into(), data, Pio))?)
    }
    fn input_string(&mut self, port: u16, size: Size, data: &mut [u8]) -> Result<(), Stop> {
        Ok(go_on(self.devices.read_string(port, size.bytes(), data))?)
    }
    fn output_string(&mut self, port: u16, size: Size, data: &[u8]) -> Result<(), Stop> {
        Ok(go_on(self.devices.write_string(port, size.bytes(), data))?)
    }
    fn is_interrupted(&mut self) -> bool {
        interrupts::vector(LINES.asserted()).is_some() && self.vcpu.accepts_interrupts()
    }
}
