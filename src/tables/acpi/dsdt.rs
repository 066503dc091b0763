//! The differentiated definition block: processors, PCI root bridges, and the devices that have a name in ACPI's namespace.

use super::super::pci::{DEVICES, PciRoot};
use super::super::registered::{Entry, Registered};
use super::super::survey::{self, Survey, each_host};
use super::super::writer::Writer;
use super::Config;
use super::aml::{self, Name};
use super::resources;
use crate::address::IoType;
use crate::description::{Description, Part};
use crate::instance::InstanceId;

/// What is in the block after its header.
pub(super) fn body(w: &mut Writer<'_>, registered: &dyn Registered, config: &Config<'_>, survey: &Survey) {
    if let Some(pm1) = survey.pm1 {
        // Off: the values for both control blocks (ACPI 6.5, 7.4.2.6).
        aml::name(w, b"_S5_");
        aml::package(w, 4, |w| {
            let power_off = u64::from(pm1.power_off);
            [power_off, power_off, 0, 0].into_iter().for_each(|value| aml::integer(w, value));
        });
    }
    aml::system_bus(w, |w| {
        for uid in 0..config.cpus.count() {
            aml::device(w, numbered(b'C', uid), |w| {
                identity(w, "ACPI0007", uid);
            });
        }
        each_host(registered, &mut |entry, number| root_bridge(w, registered, config, entry, number));
        let mut devices = Devices { w, registered, survey, id: None, number: 0 };
        registered.each(&mut |entry| {
            devices.id = Some(entry.id);
            (entry.describe)(&mut devices);
        });
    });
}

fn identity(w: &mut Writer<'_>, id: &str, number: u32) {
    aml::name(w, b"_HID");
    aml::hardware_id(w, id);
    aml::name(w, b"_UID");
    aml::integer(w, number.into());
}

/// A letter and a number in three letters or digits; the letters that follow it are for higher numbers.
fn numbered(letter: u8, number: u32) -> Name {
    const DIGITS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let digit = |place: u32| DIGITS.get((number / place % 36) as usize).copied().unwrap_or(b'_');
    let carry = (number / (36 * 36 * 36)) as u8;
    [letter.wrapping_add(carry), digit(36 * 36), digit(36), digit(1)]
}

/// The devices that say an id of themselves.
struct Devices<'w, 'b, 'r> {
    w: &'w mut Writer<'b>,
    registered: &'r dyn Registered,
    survey: &'r Survey,
    id: Option<InstanceId>,
    /// How many have been written.
    number: u32,
}

impl Description for Devices<'_, '_, '_> {
    fn acpi(&mut self, id: &str, part: Part) {
        let (registered, survey, number) = (self.registered, self.survey, self.number);
        let Some(device) = self.id.filter(|id| !survey::is_nowhere(registered, *id, part.ranges)) else { return };
        self.number = number.saturating_add(1);
        aml::device(self.w, numbered(b'D', number), |w| {
            identity(w, id, number);
            aml::name(w, b"_CRS");
            aml::resources(w, |w| {
                for (io_type, range) in survey::ranges(registered, device, part.ranges) {
                    resources::decoded(w, io_type, range);
                }
                survey.irqs(registered, device, part.irqs).for_each(|irq| resources::irq(w, irq));
            });
        });
    }
}

/// A PCI root bridge (PCI Firmware 3.2, 4.1), and the memory of its enhanced mechanism as that of the motherboard (4.1.2).
fn root_bridge(w: &mut Writer<'_>, registered: &dyn Registered, config: &Config<'_>, entry: &Entry<'_>, number: u32) {
    const CONVENTIONAL: &str = "PNP0A03";
    const EXPRESS: &str = "PNP0A08";
    const MOTHERBOARD: &str = "PNP0C02";

    let ecam = survey::ecam(registered, entry.id);
    let root = config.pci.get(number as usize).copied().unwrap_or(PciRoot::NOTHING);
    let [_, _, _, digit] = numbered(b'D', number);
    aml::device(w, [b'P', b'C', b'I', digit], |w| {
        identity(w, if ecam.is_some() { EXPRESS } else { CONVENTIONAL }, number);
        if ecam.is_some() {
            aml::name(w, b"_CID");
            aml::hardware_id(w, CONVENTIONAL);
        }
        aml::name(w, b"_SEG");
        aml::integer(w, number.into());
        aml::name(w, b"_BBN");
        aml::integer(w, 0);
        aml::name(w, b"_CRS");
        aml::resources(w, |w| {
            resources::buses(w, ecam.map_or(u8::MAX, |(_, last_bus)| last_bus));
            for (io_type, range) in survey::ranges(registered, entry.id, u16::MAX) {
                if io_type == IoType::Pio {
                    resources::decoded(w, io_type, range);
                }
            }
            root.ports.iter().for_each(|range| resources::window(w, IoType::Pio, *range));
            root.memory.iter().for_each(|range| resources::window(w, IoType::Mmio, *range));
        });
        let mut pins = 0_u8;
        root.interrupts.each(DEVICES, &mut |_, _, _| pins = pins.saturating_add(1));
        if pins > 0 {
            aml::name(w, b"_PRT");
            aml::package(w, pins, |w| {
                root.interrupts.each(DEVICES, &mut |device, pin, gsi| {
                    // Any function of the device; the pins count from 0; the line itself, and no device that leads to one
                    // (ACPI 6.5, 6.2.13).
                    aml::package(w, 4, |w| {
                        let address = u64::from(device) << 16 | 0xffff;
                        let pin = u64::from(pin.saturating_sub(1));
                        [address, pin, 0, u64::from(gsi.0)].into_iter().for_each(|value| aml::integer(w, value));
                    });
                })
            });
        }
    });
    if let Some((range, _)) = ecam {
        aml::device(w, [b'M', b'C', b'F', digit], |w| {
            // Devices may say of themselves that they are this, and have other numbers.
            identity(w, MOTHERBOARD, number.saturating_add(0x1_0000));
            aml::name(w, b"_CRS");
            aml::resources(w, |w| resources::decoded(w, IoType::Mmio, range));
        });
    }
}
