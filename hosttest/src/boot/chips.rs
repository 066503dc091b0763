//! The interrupt controllers of a board: KVM's, or the crate's with local APICs of KVM's.

use std::sync::Arc;

use vm_device::devices::ioapic::Ioapic;
use vm_device::devices::pc_interrupts::PcInterrupts;
use vm_device::devices::pic::Pic;
use vm_device::{DeviceManager, Gsi, InterruptController};

use crate::vmm::exit::Exit;
use crate::vmm::injection::{Injection, Intr};
use crate::vmm::ioapic::{self, KvmLocalApics};
use crate::vmm::irq::KvmIrqchip;
use crate::vmm::run::Interrupts;
use crate::vmm::vcpu::Vcpu;
use crate::vmm::vm::Vm;

/// Whose the 8259As and the IOAPIC of a board are. The local APICs are KVM's in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Chips {
    /// Those of KVM
    #[default]
    Kvm,
    /// Those of the crate, which are devices of the manager
    Crate,
}

/// The crate's interrupt controllers, with what they need of KVM.
pub(super) struct CrateChips<'c> {
    pub(super) intr: &'c Intr,
    pub(super) apics: &'c KvmLocalApics,
    pub(super) pic: Pic<&'c Intr>,
    pub(super) ioapic: Ioapic<&'c KvmLocalApics>,
}

impl<'c> CrateChips<'c> {
    pub(super) fn new(intr: &'c Intr, apics: &'c KvmLocalApics) -> Self {
        Self { intr, apics, pic: Pic::new(intr), ioapic: Ioapic::new(apics) }
    }
}

/// The lines of a board with the crate's interrupt controllers.
pub(super) type CrateLines<'c> = PcInterrupts<&'c Pic<&'c Intr>, &'c Ioapic<&'c KvmLocalApics>>;

/// The interrupt controllers that a board has.
#[derive(Clone, Copy)]
pub(super) enum Controllers<'c> {
    Kvm(&'c KvmIrqchip),
    Crate(&'c CrateChips<'c>, &'c CrateLines<'c>),
}

impl<'c> Controllers<'c> {
    pub(super) fn chips(&self) -> Chips {
        match self {
            Self::Kvm(_) => Chips::Kvm,
            Self::Crate(..) => Chips::Crate,
        }
    }

    /// That of the manager.
    pub(super) fn of_manager(&self) -> &'c dyn InterruptController {
        match self {
            Self::Kvm(irqchip) => *irqchip,
            Self::Crate(_, lines) => *lines,
        }
    }

    /// Gives a machine what KVM has of them. It has to come before the first processor.
    pub(super) fn create(&self, vm: &Vm) -> Result<(), kvm_ioctls::Error> {
        match self {
            Self::Kvm(_) => {
                vm.create_irqchip()?;
                vm.wire_as_pc()
            }
            Self::Crate(..) => vm.create_split_irqchip(ioapic::LINES),
        }
    }

    /// From now on interrupts go to this machine.
    pub(super) fn connect(&self, vm: &Arc<Vm>) {
        match self {
            Self::Kvm(irqchip) => irqchip.connect(vm),
            Self::Crate(chips, _) => chips.apics.connect(vm),
        }
    }

    /// Enters the guest. The output of the 8259As leads to the first processor, whose local APIC takes their interrupts or not
    /// (Intel MultiProcessor Specification 1.4, 3.6.2.2, "Virtual Wire Mode").
    pub(super) fn enter<'v>(&self, cpu: u16, vcpu: &'v mut Vcpu) -> Exit<'v> {
        match self {
            Self::Crate(chips, _) if cpu == 0 => Injection::new(&chips.pic, chips.intr).enter(vcpu),
            _ => vcpu.run(),
        }
    }

    /// A processor has ended its interrupt `vector`, which the IOAPIC may have sent.
    pub(super) fn end(&self, vector: u8, manager: &DeviceManager<'_>) {
        if let Self::Crate(chips, lines) = self {
            chips.ioapic.ended(vector, |input| {
                if let Some(gsi) = lines.line_at_input(input) {
                    pass_on(manager, gsi);
                }
            });
        }
    }

    /// Passes on what has ended by accesses to the 8259As. It is called outside callbacks.
    pub(super) fn pass_ends_on(&self, manager: &DeviceManager<'_>) {
        if let Self::Crate(chips, _) = self {
            chips.intr.take_ended().into_iter().for_each(|gsi| pass_on(manager, gsi));
        }
    }

    /// What KVM has refused to be told of the IOAPIC.
    pub(super) fn refused(&self) -> Option<kvm_ioctls::Error> {
        match self {
            Self::Kvm(_) => None,
            Self::Crate(chips, _) => chips.apics.refused(),
        }
    }
}

fn pass_on(manager: &DeviceManager<'_>, gsi: Gsi) {
    // A line of no device may end too, and a level that could not be told is told again.
    let _ = manager.end_of_interrupt(gsi);
}
