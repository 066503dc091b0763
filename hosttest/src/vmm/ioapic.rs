//! An IOAPIC of the VMM's own, for a machine whose local APICs alone are KVM's.

use std::sync::{Arc, Mutex, MutexGuard};

use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_msi,
};
use vm_device::{Access, Device, Gsi, GuestAddress, InterruptController, InterruptError, IoResource};

use crate::vmm::irq::send_message;
use crate::vmm::memory::PAGE;
use crate::vmm::vm::Vm;

/// Where a PC has it.
const BASE: u64 = 0xfec0_0000;
/// How many lines it has.
pub const LINES: usize = 24;

/// The index register and the data register (Intel 82093AA data sheet, 3.1).
const INDEX: u64 = 0x00;
const WINDOW: u64 = 0x10;

/// The version 0x11, and the number of the last line (3.2.2).
const VERSION: u32 = 0x11 | (LINES as u32 - 1) << 16;
/// The registers from here on are the lines', two each.
const REDIRECTION: u32 = 0x10;

/// What is in a line's redirection entry (3.2.4).
const VECTOR: u64 = 0xff;
const DELIVERY_MODE: u64 = 0b111 << 8;
const LOGICAL_DESTINATION: u64 = 1 << 11;
/// The interrupt was sent, and not ended yet: of level-triggered lines alone.
const REMOTE_IRR: u64 = 1 << 14;
const TRIGGERED_BY_LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// What a guest can write of the lower half.
const WRITABLE: u64 = 0x0001_afff;
const DESTINATION: u64 = 0xff << 56;

/// Turns the lines of a machine with [`Vm::create_split_irqchip`] into messages to KVM's local APICs. It is the manager's
/// interrupt controller, and a device for the guest.
///
/// KVM has to know which vectors are level-triggered, to exit at the ends of their interrupts
/// ([`Exit::InterruptEnded`](crate::vmm::exit::Exit::InterruptEnded)): it learns that from routes (Linux,
/// Documentation/virt/kvm/api.rst, `KVM_CAP_SPLIT_IRQCHIP` and `KVM_SET_GSI_ROUTING`). The VMM calls [`ended`](Self::ended) then,
/// and passes the end on to [`DeviceManager::end_of_interrupt`](vm_device::DeviceManager::end_of_interrupt) for each line.
pub struct Ioapic {
    vm: Arc<Vm>,
    state: Mutex<State>,
}

struct State {
    index: u32,
    pins: [Pin; LINES],
    refused: Option<kvm_ioctls::Error>,
}

/// A line.
#[derive(Clone, Copy)]
struct Pin {
    redirection: u64,
    asserted: bool,
}

impl Pin {
    fn has(&self, bit: u64) -> bool {
        self.redirection & bit != 0
    }

    /// The message that the line sends (Intel SDM vol. 3A, 11.11).
    fn message(&self) -> (GuestAddress, u32) {
        const ASSERT: u64 = 1 << 14;
        let entry = self.redirection;
        let address = 0xfee0_0000 | (entry & DESTINATION) >> 44 | (entry & LOGICAL_DESTINATION) >> 9;
        let data = entry & (VECTOR | DELIVERY_MODE | TRIGGERED_BY_LEVEL) | ASSERT;
        (GuestAddress(address), data as u32)
    }

    /// Sends the interrupt of a line that is asserted, unless it is masked or was sent and has not ended.
    fn send(&mut self, vm: &Vm) -> Result<(), InterruptError> {
        if !self.asserted || self.has(MASKED) || self.has(REMOTE_IRR) {
            return Ok(());
        }
        let (address, data) = self.message();
        send_message(vm, address, data)?;
        if self.has(TRIGGERED_BY_LEVEL) {
            self.redirection |= REMOTE_IRR;
        }
        Ok(())
    }
}

impl Ioapic {
    /// The IOAPIC of `vm`: all lines are masked.
    pub fn new(vm: &Arc<Vm>) -> Self {
        let pins = [Pin { redirection: MASKED, asserted: false }; LINES];
        Self { vm: Arc::clone(vm), state: Mutex::new(State { index: 0, pins, refused: None }) }
    }

    /// The registers that it has to be registered with.
    pub const fn resource() -> IoResource {
        IoResource::mmio(BASE, PAGE)
    }

    /// A processor has ended the interrupt `vector`. Returns the lines that have sent it and wait for its end: they are ready
    /// to send it once more, if they are asserted still.
    pub fn ended(&self, vector: u8) -> Vec<Gsi> {
        let mut state = self.state();
        let mut ended = Vec::new();
        for (gsi, pin) in (0..).zip(&mut state.pins) {
            if pin.redirection & VECTOR == u64::from(vector) && pin.has(REMOTE_IRR) {
                pin.redirection &= !REMOTE_IRR;
                ended.push(Gsi(gsi));
            }
        }
        ended
    }

    /// The last error that KVM gave when it was told the routes.
    pub fn refused(&self) -> Option<kvm_ioctls::Error> {
        self.state().refused
    }

    /// Lets KVM know which vectors are level-triggered. A masked line counts too: its interrupt may not have ended yet.
    fn tell_routes(&self, state: &mut State) {
        let lines = (0..).zip(&state.pins).filter(|(_, pin)| pin.has(TRIGGERED_BY_LEVEL));
        let routes: Vec<_> = lines
            .map(|(gsi, pin)| {
                let (GuestAddress(address), data) = pin.message();
                let msi = kvm_irq_routing_msi { address_lo: address as u32, data, ..Default::default() };
                let u = kvm_irq_routing_entry__bindgen_ty_1 { msi };
                kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, u, ..Default::default() }
            })
            .collect();
        // There is room for many more routes than lines.
        let told = KvmIrqRouting::from_entries(&routes).map(|routes| self.vm.fd().set_gsi_routing(&routes));
        if let Ok(Err(error)) = told {
            state.refused = Some(error);
        }
    }

    fn read_window(&self) -> u32 {
        let state = self.state();
        match (state.index, state.index.checked_sub(REDIRECTION)) {
            (1, _) => VERSION,
            (_, Some(half)) => match state.pins.get(half as usize / 2) {
                Some(pin) => (pin.redirection >> (32 * (half % 2))) as u32,
                None => 0,
            },
            _ => 0,
        }
    }

    fn write_window(&self, value: u32) {
        let mut state = self.state();
        let Some(half) = state.index.checked_sub(REDIRECTION) else { return };
        let Some(pin) = state.pins.get_mut(half as usize / 2) else { return };
        let (writable, value) =
            if half % 2 == 0 { (WRITABLE, u64::from(value)) } else { (DESTINATION, u64::from(value) << 32) };
        pin.redirection = pin.redirection & !writable | value & writable;
        let is_level = pin.has(TRIGGERED_BY_LEVEL);
        if !is_level {
            pin.redirection &= !REMOTE_IRR;
        }
        self.tell_routes(&mut state);
        if is_level && let Some(pin) = state.pins.get_mut(half as usize / 2) {
            // What KVM does not take now is sent when the line is driven next.
            let _ = pin.send(&self.vm);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl InterruptController for Ioapic {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let mut state = self.state();
        let pin = state.pins.get_mut(gsi.0 as usize).ok_or(InterruptError::Refused)?;
        let rises = asserted && !pin.asserted;
        pin.asserted = asserted;
        if rises || pin.has(TRIGGERED_BY_LEVEL) { pin.send(&self.vm) } else { Ok(()) }
    }

    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        self.set_level(gsi, true)?;
        self.set_level(gsi, false)
    }

    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        send_message(&self.vm, address, data)
    }
}

impl Device<'_> for Ioapic {
    fn name(&self) -> &str {
        "ioapic"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let index = self.state().index;
        access.load_at(INDEX, &index.to_le_bytes(), data);
        access.load_at(WINDOW, &self.read_window().to_le_bytes(), data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let Ok(value) = data.try_into().map(u32::from_le_bytes) else { return };
        match access.offset() {
            INDEX => self.state().index = value & 0xff,
            WINDOW => self.write_window(value),
            _ => {}
        }
    }

    /// All lines are masked. What asserts them goes on to.
    fn reset(&self) {
        let mut state = self.state();
        state.index = 0;
        state.pins.iter_mut().for_each(|pin| pin.redirection = MASKED);
        self.tell_routes(&mut state);
    }
}
