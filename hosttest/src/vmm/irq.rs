//! The interrupt controller of the guest: KVM's own.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use kvm_bindings::kvm_msi;
use vm_device::{Gsi, GuestAddress, InterruptController, InterruptError};

use crate::vmm::vm::Vm;

/// Passes interrupts on to the in-kernel interrupt controllers of a machine. It stands in a `static` as well as in a scope,
/// since the machine can be named later, and another one after a reset.
#[derive(Default)]
pub struct KvmIrqchip {
    vm: ArcSwapOption<Vm>,
}

impl KvmIrqchip {
    /// Not connected to a machine: every interrupt is refused.
    pub const fn new() -> Self {
        Self { vm: ArcSwapOption::const_empty() }
    }

    /// Connects it to `vm`, which has an irqchip, and no longer to the machine that it was connected to.
    pub fn connect(&self, vm: &Arc<Vm>) {
        self.vm.store(Some(Arc::clone(vm)));
    }
}

impl InterruptController for KvmIrqchip {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let vm = self.vm.load();
        let vm = vm.as_ref().ok_or(InterruptError::Refused)?;
        vm.fd().set_irq_line(gsi.0, asserted).map_err(|_| InterruptError::Refused)
    }

    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        self.set_level(gsi, true)?;
        self.set_level(gsi, false)
    }

    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        send_message(self.vm.load().as_ref().ok_or(InterruptError::Refused)?, address, data)
    }
}

/// Sends a message-signalled interrupt to the local APICs of a machine.
///
/// # Errors
/// [`InterruptError::Refused`] if the guest blocks it, or KVM refuses it.
pub(super) fn send_message(vm: &Vm, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
    let message =
        kvm_msi { address_lo: address.0 as u32, address_hi: (address.0 >> 32) as u32, data, ..Default::default() };
    match vm.fd().signal_msi(message) {
        // 0 says that the guest blocked it (Linux, Documentation/virt/kvm/api.rst, KVM_SIGNAL_MSI).
        Ok(delivered) if delivered > 0 => Ok(()),
        _ => Err(InterruptError::Refused),
    }
}
