//! What the exits of every processor of x86 need: the guest as its instructions see it.

use vm_device::GuestAddress;
use vm_device::IoType::Pio;
use vm_device::exit::x86::instruction::MAX_LENGTH;
use vm_device::exit::x86::{MemoryAccessKind, Registers, Segment, Size, X86Guest};
use vm_device::exit::{Guest, pieces};

use super::fault::Fault;
use super::interrupts;
use super::paging::translate;
use super::stop::{Stop, Stopped};
use crate::machine::{Machine, go_on};
use crate::manager::LINES;
use crate::println;

/// The general-purpose registers by their encoding.
const NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

impl Machine {
    /// The bytes of the instruction at the instruction pointer, as many as can be fetched: one or more.
    pub fn fetch<'b>(&self, bytes: &'b mut [u8; MAX_LENGTH]) -> Result<&'b [u8], Stop> {
        let linear = self.vcpu.linear(Segment::Cs, self.vcpu.registers.rip);
        let mut done = 0;
        for (linear, length) in pieces(linear, bytes.len(), u64::MAX) {
            let piece = &mut bytes[done..done + length];
            let address = translate(self.memory, self.vcpu, linear, MemoryAccessKind::Fetch).ok();
            if address.and_then(|address| self.memory.read(address.0, piece)).is_none() {
                break;
            }
            done += length;
        }
        if done == 0 { Err(Stop::NotFetched { linear }) } else { Ok(&bytes[..done]) }
    }

    /// Lets the guest go on with these registers, after an exception if the instruction cannot be done.
    pub fn complete(&mut self, registers: Registers, outcome: Result<(), Fault>) -> Result<(), Stop> {
        match outcome {
            Ok(()) => self.vcpu.complete(registers),
            Err(Fault::Exception(exception)) => {
                // Elements of a string that are done stay done.
                self.vcpu.registers = registers;
                self.vcpu.inject(exception);
            }
            Err(Fault::Stop(stop)) => return Err(stop),
        }
        Ok(())
    }

    /// The reason for a stop, and where the guest stood. Prints the guest's registers.
    pub fn stopped(&self, stop: Stop) -> Stopped {
        let Registers { gpr, rflags, .. } = self.vcpu.registers;
        let (cr0, cr3, cr4, efer) = (self.vcpu.cr0(), self.vcpu.cr3(), self.vcpu.cr4(), self.vcpu.efer());
        println!("the guest's registers: rflags {rflags:#x}, cr0 {cr0:#x}, cr3 {cr3:#x}, cr4 {cr4:#x}, efer {efer:#x}");
        for (name, value) in NAMES.iter().zip(gpr) {
            println!("  {name:3} {value:#018x}");
        }
        let mut bytes = [0; MAX_LENGTH];
        let length = self.fetch(&mut bytes).map_or(0, <[u8]>::len);
        Stopped { stop, injected: self.vcpu.injected, rip: self.vcpu.registers.rip, bytes, length }
    }
}

impl Guest for Machine {
    type Fault = Fault;

    fn translate(&mut self, linear: u64, kind: MemoryAccessKind) -> Result<GuestAddress, Fault> {
        translate(self.memory, self.vcpu, linear, kind)
    }
    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Fault> {
        Ok(self.read_memory(address, data)?)
    }
    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Fault> {
        Ok(self.write_memory(address, data)?)
    }
}

impl X86Guest for Machine {
    fn linear(&mut self, segment: Segment, offset: u64, _: usize, _: MemoryAccessKind) -> Result<u64, Fault> {
        Ok(self.vcpu.linear(segment, offset))
    }
    fn input(&mut self, port: u16, data: &mut [u8]) -> Result<(), Fault> {
        Ok(go_on(self.devices.read(port.into(), data, Pio))?)
    }
    fn output(&mut self, port: u16, data: &[u8]) -> Result<(), Fault> {
        Ok(go_on(self.devices.write(port.into(), data, Pio))?)
    }
    fn input_string(&mut self, port: u16, size: Size, data: &mut [u8]) -> Result<(), Fault> {
        Ok(go_on(self.devices.read_string(port, size.bytes(), data))?)
    }
    fn output_string(&mut self, port: u16, size: Size, data: &[u8]) -> Result<(), Fault> {
        Ok(go_on(self.devices.write_string(port, size.bytes(), data))?)
    }
    fn is_interrupted(&mut self) -> bool {
        interrupts::vector(LINES.asserted()).is_some() && self.vcpu.accepts_interrupts()
    }
}
