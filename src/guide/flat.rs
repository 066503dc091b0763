use core::convert::Infallible;

use vm_device::GuestAddress;
use vm_device::exit::x86::{MemoryAccessKind, Segment, X86Guest};
use vm_device::exit::Guest;

/// A guest that the examples of the documentation execute instructions of. It has no paging, and no segment has a base. Below
/// 0x2000 it has RAM; everywhere else is one register of 32 bits. What it writes to ports is kept, and it reads zeros there.
pub struct Flat {
    pub ram: [u8; 0x2000],
    pub register: [u8; 4],
    pub port: Vec<u8>,
}

impl Default for Flat {
    fn default() -> Self {
        Self { ram: [0; 0x2000], register: [0; 4], port: Vec::new() }
    }
}

impl Flat {
    fn memory(&mut self, address: GuestAddress, length: usize) -> &mut [u8] {
        match self.ram.get_mut(address.0 as usize..).and_then(|ram| ram.get_mut(..length)) {
            Some(ram) => ram,
            None => &mut self.register[..length],
        }
    }
}

impl Guest for Flat {
    type Fault = Infallible;

    fn translate(&mut self, address: u64, _: MemoryAccessKind) -> Result<GuestAddress, Infallible> {
        Ok(GuestAddress(address))
    }
    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Infallible> {
        data.copy_from_slice(self.memory(address, data.len()));
        Ok(())
    }
    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Infallible> {
        self.memory(address, data.len()).copy_from_slice(data);
        Ok(())
    }
}

impl X86Guest for Flat {
    fn linear(&mut self, _: Segment, offset: u64, _: usize, _: MemoryAccessKind) -> Result<u64, Infallible> {
        Ok(offset)
    }
    fn input(&mut self, _: u16, data: &mut [u8]) -> Result<(), Infallible> {
        data.fill(0);
        Ok(())
    }
    fn output(&mut self, _: u16, data: &[u8]) -> Result<(), Infallible> {
        self.port.extend_from_slice(data);
        Ok(())
    }
}
