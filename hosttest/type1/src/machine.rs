//! A virtual machine, and the loop that runs it.

use spin::Mutex;
use vm_device::IoType::Mmio;
use vm_device::devices::time::Clock;
use vm_device::{Dispatcher, Failed, GuestAddress, IoError};

use crate::failure::Failure;
use crate::manager::{LINES, MANAGER};
use crate::memory::GuestMemory;
use crate::nested::{self, Mappings};
use crate::power::POWER;
use crate::processor::exits::Stopped;
use crate::processor::host::HostClock;
use crate::processor::vcpu::Vcpu;

/// A guest that is ready to run.
pub struct Guest {
    /// Its memory.
    pub memory: GuestMemory,
    /// What says, when it has ended, whether it did all it should.
    pub judge: fn() -> Result<(), Failure>,
}

/// A virtual machine as one of its virtual processors has it: its memory, and its devices.
pub struct Machine {
    pub vcpu: &'static mut Vcpu,
    pub memory: GuestMemory,
    /// The nested page tables, which all virtual processors share.
    pub mappings: &'static Mutex<Mappings>,
    pub devices: Dispatcher<'static>,
    /// When the devices were told the time.
    pub ticked: u64,
    /// Whether the virtual processor is off, and the machine goes on without it.
    pub off: bool,
}

/// How much time passes at least before the devices are told it again, in nanoseconds.
const TICK: u64 = 1_000_000;

impl Machine {
    /// Runs the guest until it halts for good, turns the machine off or resets it, or turns this virtual processor off.
    pub fn run(&mut self) -> Result<(), Stopped> {
        self.vcpu.forget_translations();
        while !self.off && POWER.ended().is_none() {
            self.tick();
            self.vcpu.request_interrupt(LINES.asserted());
            let exit = self.vcpu.run();
            self.dispatch(exit).map_err(|stop| self.stopped(stop))?;
            nested::refresh(self.mappings, self.memory, self.vcpu);
        }
        Ok(())
    }

    /// Tells the devices the time, if it has been a while: they move what has come in, and do what is due. There is no timer that
    /// would do so while the guest makes no exit.
    fn tick(&mut self) {
        let now = HostClock.now();
        if now.saturating_sub(self.ticked) >= TICK {
            self.ticked = now;
            MANAGER.tick(now);
        }
    }

    /// A read of memory by the guest. What is not memory is a device's, or open bus: `data` is defined in each case.
    ///
    /// # Errors
    /// A device failed. Whatever else becomes of an access, the guest goes on.
    pub fn read_memory(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Failed> {
        match self.memory.read(address.0, data) {
            Some(()) => Ok(()),
            None => go_on(self.devices.read(address, data, Mmio)),
        }
    }

    /// A write of memory by the guest. What no device claims goes nowhere.
    ///
    /// # Errors
    /// As for [`read_memory`](Self::read_memory).
    pub fn write_memory(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Failed> {
        match self.memory.write(address.0, data) {
            Some(()) => Ok(()),
            None => go_on(self.devices.write(address, data, Mmio)),
        }
    }
}

/// The guest has made an access. It goes on, whatever became of the access, unless a device has failed.
pub fn go_on(outcome: Result<(), IoError>) -> Result<(), Failed> {
    Failed::pass_on(outcome)
}
