//! The platform's interrupt controller: KVM's own; or, where no guest runs, a note of the levels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vm_device::{Gsi, GuestAddress, InterruptController, InterruptError};

use crate::vmm::irq::KvmIrqchip;
use crate::vmm::vm::Vm;

/// Lines that lead to a machine, or to none.
pub(super) struct Lines {
    irqchip: KvmIrqchip,
    connected: AtomicBool,
    /// A bit for each line that is asserted, where there is no machine.
    levels: AtomicU32,
}

impl Lines {
    /// No machine.
    pub(super) const fn new() -> Self {
        Self { irqchip: KvmIrqchip::new(), connected: AtomicBool::new(false), levels: AtomicU32::new(0) }
    }

    /// From now on they lead to this machine.
    pub(super) fn connect(&self, vm: &Arc<Vm>) {
        self.irqchip.connect(vm);
        self.connected.store(true, Ordering::Release);
    }

    /// Whether any line is asserted.
    pub(super) fn asserted(&self) -> bool {
        self.levels.load(Ordering::Acquire) != 0
    }

    fn irqchip(&self) -> Option<&KvmIrqchip> {
        self.connected.load(Ordering::Acquire).then_some(&self.irqchip)
    }
}

impl InterruptController for Lines {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        if let Some(irqchip) = self.irqchip() {
            return irqchip.set_level(gsi, asserted);
        }
        let line = 1u32.checked_shl(gsi.0).ok_or(InterruptError::Refused)?;
        if asserted {
            self.levels.fetch_or(line, Ordering::AcqRel);
        } else {
            self.levels.fetch_and(!line, Ordering::AcqRel);
        }
        Ok(())
    }

    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        self.irqchip().map_or(Err(InterruptError::Refused), |irqchip| irqchip.pulse(gsi))
    }

    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.irqchip().map_or(Err(InterruptError::Refused), |irqchip| irqchip.message(address, data))
    }
}
