//! The core's public entry points, linked for bare metal.
//!
//! The panic handler refers to a function that nowhere exists: while the linker finds anything that can panic, the image
//! does not link. It is never run; its sections are what `.ci/footprint` measures.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;

use vm_device::{
    Access, Device, DeviceManager, Dispatcher, GuestAddress, InstanceId, IoRange, IoResource, IoType, IrqResource,
    Relocation, SystemAllocator,
};

unsafe extern "C" {
    fn something_in_the_core_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: never reached: no image that refers to it links.
    unsafe { something_in_the_core_can_panic() }
}

type Manager = DeviceManager<'static, 8, 16, 2>;
type Vcpu = Dispatcher<'static, 8, 16, 2>;

static MANAGER: Manager =
    DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 23));

struct Nothing;

impl Device<'_> for Nothing {
    fn name(&self) -> &str {
        "nothing"
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

static DEVICE: Nothing = Nothing;

/// What a vCPU calls at an exit.
#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_port_read(vcpu: &mut Vcpu, port: u16, data: &mut [u8]) {
    black_box(vcpu.read(port.into(), data, IoType::Pio)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_port_write(vcpu: &mut Vcpu, port: u16, data: &[u8]) {
    black_box(vcpu.write(port.into(), data, IoType::Pio)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_memory_read(vcpu: &mut Vcpu, address: GuestAddress, data: &mut [u8]) {
    black_box(vcpu.read(address, data, IoType::Mmio)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_memory_write(vcpu: &mut Vcpu, address: GuestAddress, data: &[u8]) {
    black_box(vcpu.write(address, data, IoType::Mmio)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_string(vcpu: &mut Vcpu, port: u16, element: usize, data: &mut [u8]) {
    black_box(vcpu.read_string(port, element, data)).ok();
    black_box(vcpu.write_string(port, element, data)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_without_handle(address: GuestAddress, io_type: IoType, data: &mut [u8]) {
    black_box(MANAGER.read(address, data, io_type)).ok();
    black_box(MANAGER.write(address, data, io_type)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_nested(access: &Access<'_>, address: GuestAddress, io_type: IoType, data: &mut [u8]) {
    let nested = MANAGER.nested(access);
    black_box(nested.read(address, data, io_type)).ok();
    black_box(nested.write(address, data, io_type)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn register(parent: Option<InstanceId>, requests: &[IoResource], irq: IrqResource) -> Option<InstanceId> {
    MANAGER.register_device(&DEVICE, parent, requests, irq).ok()
}

#[unsafe(no_mangle)]
#[inline(never)]
fn unregister(id: InstanceId) {
    black_box(MANAGER.unregister_device(id)).ok();
    black_box(MANAGER.unregister_subtree(id)).ok();
    black_box(MANAGER.unregister_device_deferred(id)).ok();
    black_box(MANAGER.collect());
}

#[unsafe(no_mangle)]
#[inline(never)]
fn relocate(moves: &[Relocation]) {
    black_box(MANAGER.relocate(moves)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn reserve(io_type: IoType, range: IoRange) {
    black_box(MANAGER.reserve(io_type, range)).ok();
    black_box(MANAGER.release(io_type, range)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn look_around(path: &str, address: GuestAddress, io_type: IoType) {
    black_box(MANAGER.find_by_path(path));
    black_box(MANAGER.find_by_address(address, io_type));
    for device in MANAGER.walk() {
        black_box(&device);
    }
    for range in MANAGER.address_map(io_type) {
        black_box(&range);
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
fn claim() -> Option<Vcpu> {
    MANAGER.dispatcher().ok()
}

/// Reaches everything, with arguments the compiler knows nothing of. It is no part of what is measured.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let mut data = [0; 64];
    let address = black_box(GuestAddress(0));
    let io_type = black_box(IoType::Mmio);
    let requests = black_box([IoResource::pio(0, 8), IoResource::mmio(0, 8)]);
    let access = black_box(Access::new(io_type, address, address, 0));
    if let Some(id) = register(black_box(None), black_box(&requests), black_box(IrqResource::Any)) {
        relocate(black_box(&[Relocation::new(id, 0).to(address).decoded(false)]));
        unregister(black_box(id));
    }
    if let Some(mut vcpu) = claim() {
        let vcpu = black_box(&mut vcpu);
        let length = black_box(4_usize);
        let data = data.get_mut(..length).unwrap_or_default();
        dispatch_port_read(vcpu, black_box(0), data);
        dispatch_port_write(vcpu, black_box(0), data);
        dispatch_memory_read(vcpu, address, data);
        dispatch_memory_write(vcpu, address, data);
        dispatch_string(vcpu, black_box(0), black_box(2), data);
        dispatch_without_handle(address, io_type, data);
        dispatch_nested(&access, address, io_type, data);
    }
    reserve(io_type, black_box(IoRange::ALL_PORTS));
    look_around(black_box("/nothing"), address, io_type);
    loop {
        core::hint::spin_loop();
    }
}
