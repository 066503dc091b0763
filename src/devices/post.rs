//! The port of POST codes.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::access::Access;
use crate::device::Device;
use crate::resource::IoResource;

/// The port to which firmware writes a code before each step of its power-on self-test: one byte, which is kept and reads back. On a
/// PC it is 0x80, a page register of the DMA controller that serves nothing else (IBM PC AT Technical Reference, "I/O Address Map").
///
/// ```
/// use vm_device::devices::post::PostPort;
/// use vm_device::{DeviceManager, IoRange, IoType, Storage, SystemAllocator};
///
/// let post = PostPort::new();
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// manager.register_device(&post, None, &[post.port()], &[]).unwrap();
/// manager.write(0x80_u16.into(), &[0x31], IoType::Pio).unwrap();
/// assert_eq!(post.last_code(), 0x31);
/// ```
#[derive(Debug, Default)]
pub struct PostPort(AtomicU8);

impl PostPort {
    /// A port to which nothing has been written.
    pub const fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// The request for its port on a PC: 0x80.
    pub const fn port(&self) -> IoResource {
        IoResource::pio(0x80, 1)
    }

    /// The code that was written last; 0 if none was since the last reset.
    pub fn last_code(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

impl Device<'_> for PostPort {
    fn name(&self) -> &str {
        "post"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load(&[self.last_code()], data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        if let (0, Some(code)) = (access.offset(), data.first()) {
            self.0.store(*code, Ordering::Release);
        }
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Release);
    }
}
