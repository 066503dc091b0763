//! What a guest's accesses meet: devices behind a manager, or one answer for all.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_device::exit::x86::{Segment, Size, X86Guest};
use vm_device::exit::{Guest, MemoryAccessKind};
use vm_device::{Access, Accesses, Device, DeviceManager, Dispatcher, GuestAddress, IoError, IoType, Storage};

use super::step::{RANGES, layout};
use crate::bench::subject::leaked;
use crate::bench::this_crate::{everything, membarrier, resource};

/// A register that answers accesses of all sizes.
struct Register {
    name: String,
    value: AtomicU64,
}

impl Device<'_> for Register {
    fn name(&self) -> &str {
        &self.name
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        answer(self.value.load(Ordering::Relaxed).wrapping_add(access.offset()), data);
    }
    fn write(&self, _: &Access<'_>, data: &[u8]) {
        self.value.store(written(data), Ordering::Relaxed);
    }
}

/// The low bytes of a value.
#[inline(always)]
fn answer(value: u64, data: &mut [u8]) {
    let bytes = value.to_le_bytes();
    match data.len() {
        1 => data.copy_from_slice(&bytes[..1]),
        2 => data.copy_from_slice(&bytes[..2]),
        4 => data.copy_from_slice(&bytes[..4]),
        8 => data.copy_from_slice(&bytes),
        _ => data.fill(0),
    }
}

/// The value of as many bytes as are written.
#[inline(always)]
fn written(data: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    match data.len() {
        1 => bytes[..1].copy_from_slice(data),
        2 => bytes[..2].copy_from_slice(data),
        4 => bytes[..4].copy_from_slice(data),
        8 => bytes.copy_from_slice(data),
        _ => {}
    }
    u64::from_le_bytes(bytes)
}

/// The handle of a vCPU to a manager of its own, with a device in each range of the layout.
pub(super) fn dispatcher(io_type: IoType) -> Dispatcher<'static> {
    filled(|manager| manager, io_type)
}

/// The same with the asymmetric fence.
pub(super) fn asymmetric(io_type: IoType) -> Dispatcher<'static> {
    filled(|manager| manager.with_asymmetric_fence(membarrier()), io_type)
}

fn filled(with: impl FnOnce(DeviceManager<'static>) -> DeviceManager<'static>, io_type: IoType) -> Dispatcher<'static> {
    let storage: &'static Storage<'static, RANGES, RANGES, 1> = leaked(Storage::new());
    let manager: &'static DeviceManager<'static> = leaked(with(DeviceManager::new(storage, everything())));
    for (number, range) in layout(io_type).ranges.into_iter().enumerate() {
        let device = leaked(Register { name: format!("device-{number}"), value: AtomicU64::new(0x1234_5678) });
        manager.register_device(device, None, &[resource(io_type, range)], &[]).expect("the ranges are disjoint");
    }
    manager.dispatcher(0).expect("nobody has the handle yet")
}

/// The accesses of an instruction, by one who knows them: a read, a write, or both. Returns the first byte of the data.
#[inline(always)]
pub(super) fn touch(devices: &mut impl Accesses, address: u64, size: usize, reads: bool, writes: bool) -> u64 {
    let (mut data, address) = ([0; 8], GuestAddress(address));
    let data = &mut data[..size];
    if reads {
        let _ = devices.read(address, data, IoType::Mmio);
    }
    if writes {
        let _ = devices.write(address, data, IoType::Mmio);
    }
    data[0].into()
}

/// One answer for all addresses, without a dispatch.
pub(super) struct Constant(u64);

impl Constant {
    pub(super) fn new() -> Self {
        Self(black_box(0x1234_5678))
    }

    #[cfg(test)]
    pub(super) fn value(&self) -> u64 {
        self.0
    }
}

impl Accesses for Constant {
    #[inline(always)]
    fn read(&mut self, _: GuestAddress, data: &mut [u8], _: IoType) -> Result<(), IoError> {
        answer(self.0, data);
        Ok(())
    }
    #[inline(always)]
    fn write(&mut self, _: GuestAddress, data: &[u8], _: IoType) -> Result<(), IoError> {
        self.0 = written(data);
        Ok(())
    }
    fn read_string(&mut self, _: u16, _: usize, data: &mut [u8]) -> Result<(), IoError> {
        data.fill(0xff);
        Ok(())
    }
    fn write_string(&mut self, _: u16, _: usize, _: &[u8]) -> Result<(), IoError> {
        Ok(())
    }
}

/// A guest without memory, whose page tables map each address to itself.
pub(super) struct Flat<A>(pub(super) A);

/// The exception that a guest gets for an address that is not canonical.
#[derive(Debug)]
pub(super) struct NotCanonical;

impl<A: Accesses> Guest for Flat<A> {
    type Fault = NotCanonical;

    #[inline]
    fn translate(&mut self, address: u64, _: MemoryAccessKind) -> Result<GuestAddress, NotCanonical> {
        if address >> 47 == 0 { Ok(GuestAddress(address)) } else { Err(NotCanonical) }
    }

    /// What the manager says of an access that failed is open bus, with which the guest goes on.
    #[inline]
    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), NotCanonical> {
        let _ = self.0.read(address, data, IoType::Mmio);
        Ok(())
    }

    #[inline]
    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), NotCanonical> {
        let _ = self.0.write(address, data, IoType::Mmio);
        Ok(())
    }
}

impl<A: Accesses> X86Guest for Flat<A> {
    #[inline]
    fn linear(&mut self, _: Segment, offset: u64, _: usize, _: MemoryAccessKind) -> Result<u64, NotCanonical> {
        Ok(offset)
    }

    #[inline]
    fn input(&mut self, port: u16, size: Size, data: &mut [u8]) -> Result<(), NotCanonical> {
        let _ = match data.len() == size.bytes() {
            true => self.0.read(port.into(), data, IoType::Pio),
            false => self.0.read_string(port, size.bytes(), data),
        };
        Ok(())
    }

    #[inline]
    fn output(&mut self, port: u16, size: Size, data: &[u8]) -> Result<(), NotCanonical> {
        let _ = match data.len() == size.bytes() {
            true => self.0.write(port.into(), data, IoType::Pio),
            false => self.0.write_string(port, size.bytes(), data),
        };
        Ok(())
    }
}
