//! The devices of the crate say what they are.

use vm_device::devices::hpet::{Hpet, LegacyReplacement};
use vm_device::devices::i8042::I8042;
use vm_device::devices::ioapic::{Ioapic, LocalApics};
use vm_device::devices::pic::{IntrPin, Pic};
use vm_device::devices::pit::Pit;
use vm_device::devices::pm_timer::PmTimer;
use vm_device::devices::pm1::Pm1;
use vm_device::devices::reset_control::ResetControl;
use vm_device::devices::rtc::Rtc;
use vm_device::devices::time::HandClock;
use vm_device::tables::acpi::{self, Config, IrqOverride};
use vm_device::tables::fdt::{self, ControllerKind, InterruptParent};
use vm_device::{Gsi, GuestAddress, InterruptError, IrqResource, PowerControl};

use super::{manager, tree};

struct Board;

impl IntrPin for Board {
    fn set(&self, _: bool) {}
}

impl LocalApics for Board {
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Ok(())
    }
}

impl PowerControl for Board {
    fn reset(&self) {}
    fn power_off(&self) {}
}

#[test]
fn a_pc_of_them_has_its_fixed_hardware() {
    static CLOCK: HandClock = HandClock::new();
    static REPLACED: LegacyReplacement = LegacyReplacement::new();
    static PIT: Pit<'static, &HandClock> = Pit::new(&CLOCK).with_legacy_replacement(&REPLACED);
    static RTC: Rtc<'static, &HandClock> = Rtc::new(&CLOCK).with_century(0x32).with_legacy_replacement(&REPLACED);
    static HPET: Hpet<'static, &HandClock> = Hpet::new(&CLOCK).with_legacy_replacement(&REPLACED);
    static PM_TIMER: PmTimer<&HandClock> = PmTimer::new(&CLOCK).with_32_bits();
    static PIC: Pic<Board> = Pic::new(Board);
    static IOAPIC: Ioapic<Board> = Ioapic::new(Board);
    static KEYBOARD: I8042<'static, Board> = I8042::new(Board);
    static PM1: Pm1<'static, Board> = Pm1::new(Board).with_off_type(5);
    static RESET: ResetControl<Board> = ResetControl::new(Board);

    let manager = manager();
    let shared = |gsi| IrqResource::Shared(Gsi(gsi));
    manager.register_device(&PIT, None, &PIT.ports(), &[shared(0)]).unwrap();
    manager.register_device(&RTC, None, &[RTC.ports()], &[shared(8)]).unwrap();
    manager.register_device(&HPET, None, &[HPET.mmio(0xfed0_0000)], &[shared(0), shared(8)]).unwrap();
    manager.register_device(&PM_TIMER, None, &[PM_TIMER.ports(0x608)], &[]).unwrap();
    manager.register_device(&PIC, None, &PIC.ports(), &[]).unwrap();
    manager.register_device(&IOAPIC, None, &[IOAPIC.mmio(0xfec0_0000)], &[]).unwrap();
    manager.register_device(&KEYBOARD, None, &KEYBOARD.ports(), &KEYBOARD.interrupts()).unwrap();
    manager.register_device(&PM1, None, &[PM1.registers(0x600), PM1.command_port()], &[shared(9)]).unwrap();
    manager.register_device(&RESET, None, &[RESET.port()], &[]).unwrap();

    let config = Config { overrides: &[IrqOverride { irq: 0, gsi: 2 }], ..Config::new() };
    let mut tables = [0; 0x1000];
    let length = acpi::write(manager, &config, GuestAddress(0), &mut tables).unwrap().length;
    let tables = &tables[..length];
    let at =
        |part: &[u8]| tables.windows(part.len()).position(|bytes| bytes == part).unwrap_or_else(|| panic!("{part:x?}"));
    let fadt = &tables[at(b"FACP\x14\x01\0\0")..][..276];
    // SCI_INT, SMI_CMD and its values; PM1a_EVT_BLK, PM1a_CNT_BLK and PM_TMR_BLK.
    assert_eq!(fadt[46..54], [9, 0, 0xb2, 0, 0, 0, 0xf1, 0xf0]);
    assert_eq!([&fadt[56..58], &fadt[64..66], &fadt[76..78]].concat(), [0, 6, 4, 6, 8, 6]);
    // The century, the legacy devices, the flags, the register that resets.
    assert_eq!((fadt[108], fadt[109], fadt[112..114].to_vec()), (0x32, 0b111, vec![0x65, 0x05]));
    assert_eq!((&fadt[120..122], fadt[128]), (&[0xf9, 0x0c][..], 6));
    at(b"_S5_\x12\x08\x04\x0a\x05\x0a\x05\0\0");
    // The IOAPIC; the timer is edge-triggered, and the system control interrupt is not.
    at(&[
        1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 2, 10, 0, 9, 9, 0, 0, 0, 15, 0, 4, 6,
    ]);
    let hpet = &tables[at(b"HPET\x38\0\0\0")..][..56];
    assert_eq!((hpet[36], hpet[37] & 0x80, hpet[44..48].to_vec()), (1, 0x80, vec![0, 0, 0xd0, 0xfe]));
    // Timer, speaker, clock, HPET, keyboard and mouse.
    for id in [[0x01, 0x00], [0x08, 0x00], [0x0b, 0x00], [0x01, 0x03], [0x03, 0x03], [0x0f, 0x13]] {
        at(&[0x0c, 0x41, 0xd0, id[0], id[1]]);
    }
}

#[test]
fn an_ioapic_and_an_hpet_have_nodes_and_the_lines_of_devices_lead_to_the_first_ioapic() {
    static CLOCK: HandClock = HandClock::new();
    static HPET: Hpet<'static, &HandClock> = Hpet::new(&CLOCK);
    static FIRST: Ioapic<Board> = Ioapic::new(Board);
    static SECOND: Ioapic<Board> = Ioapic::new(Board).with_first_gsi(Gsi(24));

    let manager = manager();
    manager.register_device(&HPET, None, &[HPET.mmio(0xfed0_0000)], &[IrqResource::Fixed(Gsi(20))]).unwrap();
    manager.register_device(&SECOND, None, &[SECOND.mmio(0xfec0_1000)], &[]).unwrap();
    manager.register_device(&FIRST, None, &[FIRST.mmio(0xfec0_0000)], &[]).unwrap();
    let interrupts = Some(InterruptParent { phandle: 7, kind: ControllerKind::IoApic });
    let mut blob = [0; 0x1000];
    let length = fdt::write(manager, &fdt::Config { interrupts, ..fdt::Config::new() }, &mut blob).unwrap();
    let tree = tree::read(&blob[..length]);
    assert_eq!(
        tree.split_once("ranges\n").unwrap().1,
        r##"    hpet@fed00000/
      compatible = "intel,ce4100-hpet"
      reg = <0 fed00000 0 400>
      interrupts = <14 1>
    ioapic@fec01000/
      compatible = "intel,ce4100-ioapic"
      reg = <0 fec01000 0 400>
    ioapic@fec00000/
      compatible = "intel,ce4100-ioapic"
      interrupt-controller
      #interrupt-cells = <2>
      #address-cells = <0>
      phandle = <7>
      reg = <0 fec00000 0 400>
"##
    );
}
