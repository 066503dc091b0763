//! What an IOAPIC of the VMM's own needs of KVM, in a machine whose local APICs alone are KVM's.

use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwapOption;
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_msi,
};
use vm_device::devices::ioapic::{LocalApics, Redirection, Redirections};
use vm_device::{Gsi, GuestAddress, InterruptError};

use crate::vmm::irq::send_message;
use crate::vmm::vm::Vm;

/// Where a PC has its IOAPIC.
pub const BASE: u64 = 0xfec0_0000;
/// How many lines it has.
pub const LINES: u32 = 24;

/// The local APICs of a machine with [`Vm::create_split_irqchip`], as an [`Ioapic`](vm_device::devices::ioapic::Ioapic) sends its
/// interrupts to them.
///
/// KVM has to know which vectors are level-triggered, to exit at the ends of their interrupts
/// ([`Exit::InterruptEnded`](crate::vmm::exit::Exit::InterruptEnded)): it learns that from routes (Linux,
/// Documentation/virt/kvm/api.rst, `KVM_CAP_SPLIT_IRQCHIP` and `KVM_SET_GSI_ROUTING`). The VMM calls
/// [`Ioapic::ended`](vm_device::devices::ioapic::Ioapic::ended) then, and passes the end on to
/// [`DeviceManager::end_of_interrupt`](vm_device::DeviceManager::end_of_interrupt) for each line.
///
/// It stands in a `static` as well as in a scope, since the machine can be named later, and another one after a reset.
#[derive(Default)]
pub struct KvmLocalApics {
    vm: ArcSwapOption<Vm>,
    /// Held while KVM is told the routes, so that it is told last what the IOAPIC has.
    refused: Mutex<Option<kvm_ioctls::Error>>,
}

impl KvmLocalApics {
    /// Not connected to a machine: every interrupt is refused.
    pub const fn new() -> Self {
        Self { vm: ArcSwapOption::const_empty(), refused: Mutex::new(None) }
    }

    /// Connects it to `vm`, which has a split irqchip, and no longer to the machine that it was connected to. The machine knows no
    /// level-triggered vectors yet: the IOAPIC is as after power-on or a reset.
    pub fn connect(&self, vm: &Arc<Vm>) {
        self.vm.store(Some(Arc::clone(vm)));
    }

    /// The last error that KVM gave when it was told the routes.
    pub fn refused(&self) -> Option<kvm_ioctls::Error> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<kvm_ioctls::Error>> {
        self.refused.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl LocalApics for KvmLocalApics {
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        send_message(self.vm.load().as_ref().ok_or(InterruptError::Refused)?, address, data)
    }

    /// Lets KVM know which vectors are level-triggered. A masked line counts too: its interrupt may not have ended yet.
    fn redirected(&self, redirections: &Redirections<'_>) {
        let mut refused = self.lock();
        let vm = self.vm.load();
        let Some(vm) = vm.as_ref() else { return };
        let levels = redirections.iter().filter(|(_, redirection)| redirection.is_level_triggered());
        let routes: Vec<_> = levels.map(|(gsi, redirection)| route(gsi, redirection)).collect();
        // There is room for many more routes than lines.
        let told = KvmIrqRouting::from_entries(&routes).map(|routes| vm.fd().set_gsi_routing(&routes));
        if let Ok(Err(error)) = told {
            *refused = Some(error);
        }
    }
}

fn route(gsi: Gsi, redirection: Redirection) -> kvm_irq_routing_entry {
    let message = redirection.message();
    let msi = kvm_irq_routing_msi { address_lo: message.address.0 as u32, data: message.data, ..Default::default() };
    let u = kvm_irq_routing_entry__bindgen_ty_1 { msi };
    kvm_irq_routing_entry { gsi: gsi.0, type_: KVM_IRQ_ROUTING_MSI, u, ..Default::default() }
}
