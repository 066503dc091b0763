//! From the exits of the guest to its devices.

use vm_device::IoType::{Mmio, Pio};
use vm_device::devices::time::Clock;
use vm_device::exit::Guest;
use vm_device::exit::x86::instruction::{MAX_LENGTH, decode};
use vm_device::exit::x86::{MemoryAccessKind, Registers, Segment, Size, X86Guest, svm};
use vm_device::{Dispatcher, GuestAddress};

use crate::linux;
use crate::manager::{LINES, MANAGER};
use crate::memory::GuestMemory;
use crate::nested::Mappings;
use crate::stop::{Stop, Stopped, go_on};
use crate::svm::{Exit, VMEXIT_CPUID, VMEXIT_HLT, Vcpu};
use crate::wire::TimeStampCounter;

/// A virtual machine: one virtual processor, its memory, and its devices.
pub struct Machine {
    pub vcpu: &'static mut Vcpu,
    pub memory: GuestMemory,
    pub mappings: &'static mut Mappings,
    pub devices: Dispatcher<'static>,
    /// When the devices were told the time.
    pub ticked: u64,
}

/// How much time passes at least before the devices are told it again, in nanoseconds.
const TICK: u64 = 1_000_000;

impl Machine {
    /// Runs the guest until it halts for good, turns the machine off or reboots.
    pub fn run(&mut self) -> Result<(), Stopped> {
        while !linux::has_ended() {
            self.tick();
            self.vcpu.request_interrupt(LINES.vector());
            let exit = self.vcpu.run();
            if exit.code == VMEXIT_HLT && !self.vcpu.accepts_interrupts() {
                break;
            }
            let registers = match exit.code {
                VMEXIT_CPUID => self.vcpu.identify(),
                _ => self.dispatch(exit).map_err(|stop| self.stopped(stop))?,
            };
            self.vcpu.complete(registers);
            self.mappings.refresh(self.memory, self.vcpu);
        }
        Ok(())
    }

    /// Tells the devices the time, if it has been a while: they move what has come in, and do what is due. There is no timer that
    /// would do so while the guest makes no exit.
    fn tick(&mut self) {
        let now = TimeStampCounter.now();
        if now.saturating_sub(self.ticked) >= TICK {
            self.ticked = now;
            MANAGER.tick(now);
        }
    }

    /// Does what the guest exited for. Returns the registers with which it goes on.
    fn dispatch(&mut self, exit: Exit) -> Result<Registers, Stop> {
        let (mut registers, mode) = (self.vcpu.registers, self.vcpu.mode());
        match exit.code {
            svm::VMEXIT_IOIO => {
                let mut access = svm::port_access(exit.info_1, exit.info_2, mode)?;
                if access.string.is_some() {
                    // Not every processor reports address size and segment.
                    access = access.with_prefixes(self.fetch(&mut [0; MAX_LENGTH])?);
                }
                access.execute(&mut registers, self)?;
            }
            svm::VMEXIT_NPF => {
                let access = svm::memory_access(exit.info_1, exit.info_2);
                let instruction = decode(self.fetch(&mut [0; MAX_LENGTH])?, mode)?;
                instruction.execute(&mut registers, &access, self)?;
            }
            // An interrupt may end it: the guest comes back if there is none yet.
            VMEXIT_HLT => registers.rip += 1,
            _ => return Err(Stop::Exit(exit)),
        }
        Ok(registers)
    }

    /// The bytes of the instruction at the instruction pointer, as many as can be fetched: one or more.
    fn fetch<'b>(&self, bytes: &'b mut [u8; MAX_LENGTH]) -> Result<&'b [u8], Stop> {
        let linear = self.vcpu.linear(Segment::Cs, self.vcpu.registers.rip);
        match self.memory.read_linear(self.vcpu, linear, bytes) {
            0 => Err(Stop::NotFetched { linear }),
            length => Ok(&bytes[..length]),
        }
    }

    /// The reason for a stop, and where the guest stood.
    fn stopped(&self, stop: Stop) -> Stopped {
        let mut bytes = [0; MAX_LENGTH];
        let length = self.fetch(&mut bytes).map_or(0, <[u8]>::len);
        Stopped { stop, rip: self.vcpu.registers.rip, bytes, length }
    }
}

/// The guest's memory: what is not RAM is a device's, or open bus.
impl Guest for Machine {
    type Fault = Stop;

    fn translate(&mut self, linear: u64, _: MemoryAccessKind) -> Result<GuestAddress, Stop> {
        self.memory.translate(self.vcpu, linear).map(GuestAddress).ok_or(Stop::NotMapped { linear })
    }
    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Stop> {
        match self.memory.read(address.0, data) {
            Some(()) => Ok(()),
            None => go_on(self.devices.read(address, data, Mmio)),
        }
    }
    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Stop> {
        match self.memory.write(address.0, data) {
            Some(()) => Ok(()),
            None => go_on(self.devices.write(address, data, Mmio)),
        }
    }
}

impl X86Guest for Machine {
    fn linear(&mut self, segment: Segment, offset: u64, _: usize, _: MemoryAccessKind) -> Result<u64, Stop> {
        Ok(self.vcpu.linear(segment, offset))
    }
    fn input(&mut self, port: u16, size: Size, data: &mut [u8]) -> Result<(), Stop> {
        go_on(match data.len() == size.bytes() {
            true => self.devices.read(port.into(), data, Pio),
            false => self.devices.read_string(port, size.bytes(), data),
        })
    }
    fn output(&mut self, port: u16, size: Size, data: &[u8]) -> Result<(), Stop> {
        go_on(match data.len() == size.bytes() {
            true => self.devices.write(port.into(), data, Pio),
            false => self.devices.write_string(port, size.bytes(), data),
        })
    }
    fn is_interrupted(&mut self) -> bool {
        LINES.vector().is_some() && self.vcpu.accepts_interrupts()
    }
}
