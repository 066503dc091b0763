//! What there is among the registered devices that the tables have places of their own for.

use super::registered::{Entry, Registered};
use crate::address::{IoRange, IoType};
use crate::description::{AcpiCommand, Description, DeviceRegister, Part, Property, Role, UartKind};
use crate::instance::InstanceId;
use crate::resource::{Assigned, AssignedIrq, MAX_IRQS_PER_DEVICE, MAX_RANGES_PER_DEVICE};

/// Some bytes that a guest reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) io_type: IoType,
    pub(super) base: u64,
    /// How many bytes.
    pub(super) size: u8,
}

/// The first serial port.
#[derive(Clone, Copy)]
pub(super) struct Console {
    pub(super) id: InstanceId,
    pub(super) kind: UartKind,
    pub(super) shift: u8,
    pub(super) address: Address,
    pub(super) gsi: Option<u32>,
}

/// ACPI's fixed hardware.
#[derive(Clone, Copy)]
pub(super) struct Pm1 {
    pub(super) event: Address,
    pub(super) control: Address,
    /// SMI_CMD, and the values that turn ACPI on and off.
    pub(super) command: Option<(Address, u8, u8)>,
    pub(super) sci: u32,
    pub(super) power_off: u8,
    pub(super) has_power_button: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Hpet {
    pub(super) base: u64,
    pub(super) capabilities: u32,
    pub(super) minimum_tick: u16,
}

/// The first device in each role, but host bridges and IOAPICs, of which there may be several.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) console: Option<Console>,
    pub(super) pm1: Option<Pm1>,
    /// Where it is, and whether it has 32 bits.
    pub(super) pm_timer: Option<(Address, bool)>,
    /// Where it is, and what is written there.
    pub(super) reset: Option<(Address, u8)>,
    pub(super) hpet: Option<Hpet>,
    /// The index of the century.
    pub(super) rtc: Option<u8>,
    pub(super) has_keyboard_controller: bool,
    pub(super) has_pic: bool,
    /// Which of the lines 0 to 15 are level-triggered.
    pub(super) level_lines: u16,
}

impl Survey {
    pub(super) fn new(registered: &dyn Registered) -> Self {
        let mut survey = Self::default();
        each_role(registered, &mut |entry, role| survey.note(registered, entry, role));
        let mut edges = 0;
        registered.each(&mut |entry| {
            let mut own = Edges(0);
            (entry.describe)(&mut own);
            for (index, irq) in assigned_irqs(registered, entry.id) {
                let line = irq.gsi.map_or(0, |gsi| bit(gsi.0));
                edges |= if own.0 & bit(index) != 0 { line } else { 0 };
                survey.level_lines |= if irq.shared { line } else { 0 };
            }
        });
        survey.level_lines &= !edges;
        survey.level_lines |= survey.pm1.map_or(0, |pm1| bit(pm1.sci));
        survey
    }

    /// The lines of a device, of those that `mask` names.
    pub(super) fn irqs(&self, registered: &dyn Registered, id: InstanceId, mask: u16) -> impl Iterator<Item = Irq> {
        assigned_irqs(registered, id).filter_map(move |(index, irq)| {
            let gsi = irq.gsi.filter(|_| mask & bit(index) != 0)?.0;
            let is_edge = gsi < 16 && self.level_lines & bit(gsi) == 0;
            Some(Irq { gsi, is_edge, is_shared: irq.shared })
        })
    }

    fn note(&mut self, registered: &dyn Registered, entry: &Entry<'_>, role: Role) {
        let id = entry.id;
        let at = |register: DeviceRegister| address(registered, id, register);
        let first = |size| at(DeviceRegister { range_index: 0, offset: 0, size });
        let line = || registered.assigned_irq(id, 0).and_then(|irq| irq.gsi).map(|gsi| gsi.0);
        match role {
            Role::Uart { kind, shift } => {
                let address = first(1);
                self.console =
                    self.console.or(address.map(|address| Console { id, kind, shift, address, gsi: line() }));
            }
            Role::Pm1 { event, control, command, power_off, has_power_button } => {
                let command =
                    command.and_then(|AcpiCommand { port, enable, disable }| Some((at(port)?, enable, disable)));
                if let (None, Some(event), Some(control), Some(sci)) = (self.pm1, at(event), at(control), line()) {
                    self.pm1 = Some(Pm1 { event, control, command, sci, power_off, has_power_button });
                }
            }
            Role::PmTimer { is_wide } => self.pm_timer = self.pm_timer.or(first(4).map(|address| (address, is_wide))),
            Role::Reset { register, value } => self.reset = self.reset.or(at(register).map(|address| (address, value))),
            Role::Hpet { capabilities, minimum_tick } => {
                let address = first(8).filter(|address| address.io_type != IoType::Pio);
                let hpet = address.map(|address| Hpet { base: address.base, capabilities, minimum_tick });
                self.hpet = self.hpet.or(hpet);
            }
            Role::Rtc { century } => self.rtc = self.rtc.or(Some(century)),
            Role::KeyboardController => self.has_keyboard_controller = true,
            Role::Pic => self.has_pic = true,
            Role::PciHost | Role::IoApic { .. } => {}
        }
    }
}

/// The bit of a line below 16.
pub(super) fn bit(gsi: u32) -> u16 {
    1_u16.checked_shl(gsi).unwrap_or(0)
}

fn address(registered: &dyn Registered, id: InstanceId, register: DeviceRegister) -> Option<Address> {
    let Assigned { io_type, range, state } = registered.assigned(id, register.range_index)?;
    let base = range.first().0.checked_add(register.offset)?;
    state.is_placed().then_some(Address { io_type, base, size: register.size })
}

/// A line that a device has.
#[derive(Clone, Copy)]
pub(super) struct Irq {
    pub(super) gsi: u32,
    pub(super) is_edge: bool,
    pub(super) is_shared: bool,
}

/// Each line of a device with its number.
fn assigned_irqs(registered: &dyn Registered, id: InstanceId) -> impl Iterator<Item = (u32, AssignedIrq)> {
    (0..MAX_IRQS_PER_DEVICE).map_while(move |index| Some((index as u32, registered.assigned_irq(id, index)?)))
}

/// Which lines a device says are edge-triggered.
struct Edges(u16);

impl Description for Edges {
    fn edge_triggered(&mut self, irqs: u16) {
        self.0 |= irqs;
    }
}

/// The ranges of a device that have addresses, of those that `mask` names.
pub(super) fn ranges(
    registered: &dyn Registered,
    id: InstanceId,
    mask: u16,
) -> impl Iterator<Item = (IoType, IoRange)> {
    assigned(registered, id, mask).filter_map(|assigned| Some((assigned.io_type, assigned.place()?)))
}

/// Whether ranges of a device are named by `mask`, and none of them has addresses.
pub(super) fn is_nowhere(registered: &dyn Registered, id: InstanceId, mask: u16) -> bool {
    assigned(registered, id, mask).next().is_some() && ranges(registered, id, mask).next().is_none()
}

fn assigned(registered: &dyn Registered, id: InstanceId, mask: u16) -> impl Iterator<Item = Assigned> {
    let all = (0..MAX_RANGES_PER_DEVICE).map_while(move |index| Some((index, registered.assigned(id, index)?)));
    all.filter_map(move |(index, assigned)| (mask & bit(index as u32) != 0).then_some(assigned))
}

/// Calls `act` with each role that a device says it has.
pub(super) fn each_role(registered: &dyn Registered, act: &mut dyn FnMut(&Entry<'_>, Role)) {
    struct Roles<'a>(&'a mut dyn FnMut(Role));

    impl Description for Roles<'_> {
        fn role(&mut self, role: Role) {
            (self.0)(role);
        }
    }

    registered.each(&mut |entry| (entry.describe)(&mut Roles(&mut |role| act(entry, role))));
}

/// Calls `act` with each PCI host bridge and its number, from 0 on.
pub(super) fn each_host(registered: &dyn Registered, act: &mut dyn FnMut(&Entry<'_>, u32)) {
    let mut number = 0_u32;
    each_role(registered, &mut |entry, role| {
        if role == Role::PciHost {
            act(entry, number);
            number = number.saturating_add(1);
        }
    });
}

/// The memory of the enhanced mechanism of a host bridge, and the number of the last bus that is whole in it.
pub(super) fn ecam(registered: &dyn Registered, id: InstanceId) -> Option<(IoRange, u8)> {
    let (_, range) = ranges(registered, id, u16::MAX).find(|(io_type, _)| *io_type != IoType::Pio)?;
    let buses = range.size().map_or(u64::MAX, |size| size.0 >> 20);
    Some((range, u8::try_from(buses.saturating_sub(1)).unwrap_or(u8::MAX)))
}

/// Whether a device says anything of itself.
pub(super) fn is_described(registered: &dyn Registered, id: InstanceId) -> bool {
    struct Says(bool);

    impl Description for Says {
        fn acpi(&mut self, _: &str, _: Part) {
            self.0 = true;
        }
        fn compatible(&mut self, _: &[&str]) {
            self.0 = true;
        }
        fn property(&mut self, _: &str, _: Property<'_>) {
            self.0 = true;
        }
        fn role(&mut self, _: Role) {
            self.0 = true;
        }
    }

    let mut says = Says(false);
    registered.each(&mut |entry| {
        if entry.id == id {
            (entry.describe)(&mut says);
        }
    });
    says.0
}
