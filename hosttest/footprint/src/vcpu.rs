//! Accesses of guests.

use core::hint::black_box;

#[cfg(feature = "all")]
use vm_device::{Access, DeviceManager, InstanceId, Nested};
use vm_device::{Dispatcher, GuestAddress, IoType};

#[cfg(feature = "all")]
use crate::Manager;
use crate::Vcpu;

// What a vCPU calls at an exit. Into these four, `Dispatcher::read` and `write` are compiled: they are measured.

#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_port_read(vcpu: &mut Vcpu, port: u16, data: &mut [u8]) {
    black_box(Dispatcher::read(vcpu, port.into(), data, IoType::Pio)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_port_write(vcpu: &mut Vcpu, port: u16, data: &[u8]) {
    black_box(Dispatcher::write(vcpu, port.into(), data, IoType::Pio)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_memory_read(vcpu: &mut Vcpu, address: GuestAddress, data: &mut [u8]) {
    black_box(Dispatcher::read(vcpu, address, data, IoType::Mmio)).ok();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn dispatch_memory_write(vcpu: &mut Vcpu, address: GuestAddress, data: &[u8]) {
    black_box(Dispatcher::write(vcpu, address, data, IoType::Mmio)).ok();
}

pub fn dispatch(vcpu: &mut Vcpu, address: GuestAddress, data: &mut [u8]) {
    let vcpu = black_box(vcpu);
    dispatch_port_read(vcpu, black_box(0), data);
    dispatch_port_write(vcpu, black_box(0), data);
    dispatch_memory_read(vcpu, address, data);
    dispatch_memory_write(vcpu, address, data);
    #[cfg(feature = "all")]
    {
        call!(Dispatcher::read_string, vcpu, 0, 2, data).ok();
        call!(Dispatcher::write_string, vcpu, 0, 2, data).ok();
        call!(Dispatcher::manager, vcpu);
    }
}

/// With another number of hints: the accesses themselves would be the same code again.
#[cfg(feature = "all")]
pub fn other_handles(manager: &'static Manager) {
    drop(call!(DeviceManager::dispatcher_with_hints::<0, 0>, manager, 0));
}

#[cfg(feature = "all")]
pub fn without_handle(manager: &'static Manager, address: GuestAddress, io_type: IoType, data: &mut [u8]) {
    call!(DeviceManager::read, manager, address, data, io_type).ok();
    call!(DeviceManager::write, manager, address, data, io_type).ok();
    call!(DeviceManager::read_string, manager, 0, 2, data).ok();
    call!(DeviceManager::write_string, manager, 0, 2, data).ok();
}

#[cfg(feature = "all")]
pub fn nested(manager: &'static Manager, access: &Access<'_>, address: GuestAddress, io_type: IoType, data: &mut [u8]) {
    let nested = call!(DeviceManager::nested, manager, access);
    call!(Nested::read, &nested, address, data, io_type).ok();
    call!(Nested::write, &nested, address, data, io_type).ok();
    call!(Nested::read_string, &nested, 0, 2, data).ok();
    call!(Nested::write_string, &nested, 0, 2, data).ok();
}

#[cfg(feature = "all")]
pub fn remove_nested(manager: &'static Manager, access: &Access<'_>, id: InstanceId) {
    let nested = call!(DeviceManager::nested, manager, access);
    call!(Nested::unregister_device, &nested, id).ok();
    call!(Nested::unregister_subtree, &nested, id).ok();
    call!(Nested::reset, &nested).ok();
}
