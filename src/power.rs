//! What a device asks of the embedder that is about the whole machine.

/// How a device with a reset or power register asks for a reset of the machine, or its end. The embedder implements it. A
/// reference to one is one too, and with the feature `alloc` an `Arc`.
///
/// Both calls come from within a device's callback, and only note what is asked for: the callback returns, and the embedder
/// acts on the note when no vCPU is in a callback. Then it resets the devices ([`reset`](crate::DeviceManager::reset)), gives
/// the vCPUs the state that they have after power-on, and lets them run.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use vm_device::{Access, Device, DeviceManager, GuestAddress, IoRange, IoResource, IoType, PowerControl, Storage, SystemAllocator};
///
/// /// What the loop that runs the vCPU looks at after each exit.
/// struct Machine {
///     reset: AtomicBool,
///     off: AtomicBool,
/// }
///
/// impl PowerControl for Machine {
///     fn reset(&self) {
///         self.reset.store(true, Ordering::Release);
///     }
///     fn power_off(&self) {
///         self.off.store(true, Ordering::Release);
///     }
/// }
///
/// /// System control port A (IBM PS/2 Technical Reference): a write with bit 0 set resets the processor.
/// struct FastReset<'d>(&'d dyn PowerControl);
///
/// impl Device<'_> for FastReset<'_> {
///     fn name(&self) -> &str {
///         "fast reset"
///     }
///     fn read(&self, _: &Access<'_>, data: &mut [u8]) {
///         data.fill(0);
///     }
///     fn write(&self, _: &Access<'_>, data: &[u8]) {
///         if data.first().is_some_and(|value| value & 1 != 0) {
///             self.0.reset();
///         }
///     }
/// }
///
/// static MACHINE: Machine = Machine { reset: AtomicBool::new(false), off: AtomicBool::new(false) };
/// static PORT: FastReset<'static> = FastReset(&MACHINE);
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
///
/// MANAGER.register_device(&PORT, None, &[IoResource::pio(0x92, 1)], &[])?;
/// MANAGER.dispatcher(0)?.write(GuestAddress(0x92), &[1], IoType::Pio)?;
/// // After the exit.
/// if MACHINE.reset.swap(false, Ordering::Acquire) {
///     MANAGER.reset()?;
///     // The vCPUs start again.
/// }
/// # assert!(!MACHINE.off.load(Ordering::Acquire));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait PowerControl: Sync {
    /// The machine is to be reset.
    fn reset(&self);

    /// The machine is to be switched off.
    fn power_off(&self);
}

impl<P: PowerControl + ?Sized> PowerControl for &P {
    fn reset(&self) {
        (**self).reset();
    }
    fn power_off(&self) {
        (**self).power_off();
    }
}

#[cfg(feature = "alloc")]
impl<P: PowerControl + ?Sized + Send> PowerControl for alloc::sync::Arc<P> {
    fn reset(&self) {
        (**self).reset();
    }
    fn power_off(&self) {
        (**self).power_off();
    }
}
