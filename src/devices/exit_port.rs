//! A port by which a guest ends the machine with a number.

use crate::access::Access;
use crate::device::Device;
use crate::resource::IoResource;

/// How an [`ExitPort`] tells that the guest has ended the machine. The embedder implements it. A reference to one is one too, and
/// with the feature `alloc` an `Arc`.
pub trait ExitControl {
    /// The guest has written `value`. The call comes from within a callback of the device, and only notes what is asked for.
    fn exit(&self, value: u32);
}

impl<E: ExitControl + ?Sized> ExitControl for &E {
    fn exit(&self, value: u32) {
        (**self).exit(value);
    }
}

#[cfg(feature = "alloc")]
impl<E: ExitControl + ?Sized> ExitControl for alloc::sync::Arc<E> {
    fn exit(&self, value: u32) {
        (**self).exit(value);
    }
}

/// A port by which a test that runs as a guest ends the machine, and says how it went: QEMU's `isa-debug-exit`, which turns a written
/// value `n` into its own exit code `2 n + 1`. What a value means is the embedder's to say here.
///
/// A write of 1 to 4 bytes is one value, lowest byte first. Of a longer one the first 4 bytes count. It reads as 0.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use vm_device::devices::exit_port::{ExitControl, ExitPort};
/// use vm_device::{DeviceManager, IoRange, IoType, Storage, SystemAllocator};
///
/// struct Outcome(AtomicU32);
///
/// impl ExitControl for Outcome {
///     fn exit(&self, value: u32) {
///         self.0.store(value, Ordering::Release);
///     }
/// }
///
/// let outcome = Outcome(AtomicU32::new(0));
/// let port = ExitPort::new(&outcome);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// manager.register_device(&port, None, &[port.ports(0xf4)], &[]).unwrap();
/// manager.write(0xf4_u16.into(), &[0x10, 0, 0, 0], IoType::Pio).unwrap();
/// assert_eq!(outcome.0.load(Ordering::Acquire), 0x10);
/// ```
#[derive(Debug)]
pub struct ExitPort<E>(E);

impl<E> ExitPort<E> {
    /// A port that tells `control`.
    pub const fn new(control: E) -> Self {
        Self(control)
    }

    /// The request for its 4 ports from `base` on. Tests that are written for QEMU often have it at 0xf4; QEMU's own default is 0x501.
    pub const fn ports(&self, base: u16) -> IoResource {
        IoResource::pio(base, 4)
    }
}

impl<E: ExitControl + Sync> Device<'_> for ExitPort<E> {
    fn name(&self) -> &str {
        "exit"
    }

    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _: &Access<'_>, data: &[u8]) {
        let mut value = [0; 4];
        value.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        self.0.exit(u32::from_le_bytes(value));
    }
}
