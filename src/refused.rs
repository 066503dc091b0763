//! Uses that must not compile. Rustdoc compiles each example, and a twin that differs from it only in what is refused.

/// A reversed range.
///
/// ```
/// let range = vm_device::IoRange::of::<0xc000_0000, 0xffff_ffff>();
/// ```
///
/// ```compile_fail,E0080
/// let range = vm_device::IoRange::of::<0xffff_ffff, 0xc000_0000>();
/// ```
struct ReversedRange;

/// An access that leaves the thread of its vCPU.
///
/// ```
/// let access = vm_device::Access::new(vm_device::IoType::Pio, 0_u16.into(), 0_u16.into(), 0);
/// std::thread::scope(|_| drop(access));
/// ```
///
/// ```compile_fail,E0277
/// let access = vm_device::Access::new(vm_device::IoType::Pio, 0_u16.into(), 0_u16.into(), 0);
/// std::thread::scope(|scope| drop(scope.spawn(move || drop(access))));
/// ```
struct AccessElsewhere;

/// A storage without room for a device.
///
/// ```
/// let storage = vm_device::Storage::<1, 8, 1>::new();
/// ```
///
/// ```compile_fail,E0080
/// let storage = vm_device::Storage::<0, 8, 1>::new();
/// ```
struct RoomForNothing;

/// A device that is dropped before the manager is.
///
/// ```
/// # use vm_device::{Access, Device, DeviceManager, IoRange, IoResource, Storage, SystemAllocator};
/// # struct Zeros(u8);
/// # impl Device<'_> for Zeros {
/// #     fn name(&self) -> &str { "zeros" }
/// #     fn read(&self, _: &Access<'_>, data: &mut [u8]) { data.fill(self.0) }
/// #     fn write(&self, _: &Access<'_>, _: &[u8]) {}
/// # }
/// let device = Zeros(0);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// manager.register_device(&device, None, &[IoResource::mmio(0, 1)], &[]).unwrap();
/// assert_eq!(manager.walk().count(), 1);
/// ```
///
/// ```compile_fail,E0597
/// # use vm_device::{Access, Device, DeviceManager, IoRange, IoResource, Storage, SystemAllocator};
/// # struct Zeros(u8);
/// # impl Device<'_> for Zeros {
/// #     fn name(&self) -> &str { "zeros" }
/// #     fn read(&self, _: &Access<'_>, data: &mut [u8]) { data.fill(self.0) }
/// #     fn write(&self, _: &Access<'_>, _: &[u8]) {}
/// # }
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// {
///     let device = Zeros(0);
///     manager.register_device(&device, None, &[IoResource::mmio(0, 1)], &[]).unwrap();
/// }
/// assert_eq!(manager.walk().count(), 1);
/// ```
struct DeviceThatGoes;
