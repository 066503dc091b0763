//! What no driver does: accesses of every size and value to every device, at any time.
#![cfg(feature = "devices")]

mod fixture;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use proptest::prelude::*;
use vm_device::devices::fw_cfg::{FwCfg, Item};
use vm_device::devices::hpet::{Hpet, LegacyReplacement};
use vm_device::devices::i8042::I8042;
use vm_device::devices::ioapic::{Ioapic, LocalApics};
use vm_device::devices::pc_interrupts::PcInterrupts;
use vm_device::devices::pci::{Config, HostBridge, PinLines, Serial, Slot};
use vm_device::devices::pic::{IntrPin, Pic};
use vm_device::devices::pit::Pit;
use vm_device::devices::pl011::Pl011;
use vm_device::devices::pm_timer::PmTimer;
use vm_device::devices::pm1::Pm1;
use vm_device::devices::rtc::Rtc;
use vm_device::devices::time::{Clock, HandClock};
use vm_device::devices::uart::Uart16550;
use vm_device::{
    Gsi, GuestAddress, InterruptController, InterruptError, IoRange, IoType, IrqResource, PowerControl, SystemAllocator,
};

use fixture::{Line, manager};

struct Board;

impl IntrPin for Board {
    fn set(&self, _: bool) {}
}

impl LocalApics for Board {
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        if (address.0 ^ u64::from(data)) & 0b100 == 0 { Ok(()) } else { Err(InterruptError::Refused) }
    }
}

/// The lines of a PC, which refuse all while they are told to.
struct Lines<'l>(PcInterrupts<&'l Pic<Board>, &'l Ioapic<Board>>, AtomicBool);

impl Lines<'_> {
    fn take(&self, take: impl FnOnce() -> Result<(), InterruptError>) -> Result<(), InterruptError> {
        if self.1.load(Relaxed) { Err(InterruptError::Refused) } else { take() }
    }
}

impl InterruptController for Lines<'_> {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        self.take(|| self.0.set_level(gsi, asserted))
    }
    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        self.take(|| self.0.pulse(gsi))
    }
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.take(|| self.0.message(address, data))
    }
}

impl PowerControl for Board {
    fn reset(&self) {}
    fn power_off(&self) {}
}

#[derive(Clone, Debug)]
enum Step {
    Read { place: usize, offset: u64, size: usize },
    Write { place: usize, offset: u64, data: Vec<u8> },
    Advance(u64),
    Utc(u64),
    Input(Vec<u8>),
    Room(usize),
    Refuse(bool),
    Reset,
}

/// Where the devices are, and how many addresses they have there.
const PLACES: [(IoType, u64, u64); 19] = [
    (IoType::Pio, 0x3f8, 8),
    (IoType::Pio, 0x70, 2),
    (IoType::Pio, 0x40, 4),
    (IoType::Pio, 0x61, 1),
    (IoType::Pio, 0x608, 4),
    (IoType::Pio, 0x60, 1),
    (IoType::Pio, 0x64, 1),
    (IoType::Pio, 0x600, 6),
    (IoType::Pio, 0xb2, 2),
    (IoType::Pio, 0x20, 2),
    (IoType::Pio, 0xa0, 2),
    (IoType::Pio, 0x4d0, 2),
    (IoType::Pio, 0x510, 2),
    (IoType::Pio, 0xcf8, 8),
    (IoType::Mmio, 0xfec0_0000, 0x50),
    (IoType::Mmio, 0xfed0_0000, 0x180),
    (IoType::Mmio, 0x900_0000, 0x50),
    (IoType::Mmio, 0xe000_0000, 0x1000),
    (IoType::Mmio, 0xe000_8000, 0x100),
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let byte = prop_oneof![2 => any::<u8>(), 1 => Just(0xff), 1 => Just(0), 1 => (0..8_u8).prop_map(|bit| 1 << bit)];
    let data = prop::collection::vec(byte, 1..9);
    let time = prop_oneof![0..3_000_u64, 0..2_000_000_000_u64, any::<u64>(), Just(u64::MAX)];
    let step = prop_oneof![
        8 => (0..PLACES.len(), any::<u64>(), 1..9_usize)
            .prop_map(|(place, offset, size)| Step::Read { place, offset, size }),
        12 => (0..PLACES.len(), any::<u64>(), data.clone())
            .prop_map(|(place, offset, data)| Step::Write { place, offset, data }),
        4 => time.clone().prop_map(Step::Advance),
        1 => time.prop_map(Step::Utc),
        1 => data.prop_map(Step::Input),
        1 => (0..20_usize).prop_map(Step::Room),
        1 => any::<bool>().prop_map(Step::Refuse),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 100 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_guest_does_no_device_panics_or_hangs(steps in steps()) {
        let (clock, replaced, line) = (HandClock::new(), LegacyReplacement::new(), Line::default());
        let (pic, ioapic) = (Pic::new(Board), Ioapic::<_, 24>::new(Board).with_eoi_register());
        let lines = Lines(PcInterrupts::new(&pic, &ioapic), AtomicBool::new(false));
        let items = [Item::file("etc/example", b"text").unwrap(), Item::number(5, &[1, 2, 3])];
        let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 23);
        manager!(let manager: <20, 40, 2> = allocator, with_interrupt_controller(&lines));
        let uart = Uart16550::new("serial", line.clone(), &clock);
        let pl011 = Pl011::new("serial", line.clone(), &clock);
        let rtc = Rtc::new(&clock).with_century(0x32).with_legacy_replacement(&replaced);
        let pit = Pit::new(&clock).with_legacy_replacement(&replaced);
        let hpet = Hpet::new(&clock).with_legacy_replacement(&replaced);
        let (pm_timer, i8042, pm1) = (PmTimer::new(&clock), I8042::new(Board), Pm1::new(Board));
        let fw_cfg = FwCfg::new(&items);
        let host = HostBridge::new("pci", &manager).with_lines(PinLines::new(Gsi(16), 8));
        let card = Serial::in_memory("card", line.clone(), &clock);
        let bridge = vm_device::devices::pci::Function::new(Config::piix3());
        let fixed = |gsi| IrqResource::Fixed(Gsi(gsi));
        let shared = |gsi| IrqResource::Shared(Gsi(gsi));
        manager.register_device(&pic, None, &pic.ports(), &[]).unwrap();
        manager.register_device(&ioapic, None, &[ioapic.mmio(0xfec0_0000)], &[]).unwrap();
        manager.register_device(&uart, None, &[uart.ports(0x3f8)], &[fixed(4)]).unwrap();
        manager.register_device(&pl011, None, &[pl011.mmio(0x900_0000)], &[fixed(5)]).unwrap();
        manager.register_device(&rtc, None, &[rtc.ports()], &[shared(8)]).unwrap();
        manager.register_device(&pit, None, &pit.ports(), &[shared(0)]).unwrap();
        manager.register_device(&hpet, None, &[hpet.mmio(0xfed0_0000)], &[shared(0), shared(8), fixed(20)]).unwrap();
        manager.register_device(&pm_timer, None, &[pm_timer.ports(0x608)], &[]).unwrap();
        manager.register_device(&i8042, None, &i8042.ports(), &i8042.interrupts()).unwrap();
        manager.register_device(&pm1, None, &[pm1.registers(0x600), pm1.command_port()], &[fixed(9)]).unwrap();
        manager.register_device(&fw_cfg, None, &[fw_cfg.ports()], &[]).unwrap();
        let id = manager
            .register_device(&host, None, &[HostBridge::PORTS, HostBridge::ecam(0xe000_0000, 0)], &[])
            .unwrap();
        host.bus().plug(&bridge, Slot::new(0, 0), id).unwrap();
        let id = manager.register_device(&card, None, &card.requests(), &[IrqResource::Unrouted]).unwrap();
        host.bus().plug(card.function(), Slot::new(1, 0), id).unwrap();

        for step in steps {
            match step {
                Step::Read { place, offset, size } => {
                    let (io_type, base, length) = PLACES[place];
                    let _ = manager.read(GuestAddress(base + offset % length), &mut vec![0; size], io_type);
                }
                Step::Write { place, offset, data } => {
                    let (io_type, base, length) = PLACES[place];
                    let address = GuestAddress(base + offset % length);
                    let _ = manager.write(address, &data, io_type);
                    // What fits into every range.
                    let _ = manager.write(address, &data[..1], io_type);
                    if io_type == IoType::Pio {
                        let _ = manager.write_string(address.0 as u16, 1, &data);
                    }
                }
                Step::Advance(by) => {
                    let now = clock.now();
                    let now = clock.advance(by.min(u64::MAX - now));
                    if let Some(deadline) = manager.tick(now) {
                        prop_assert!(deadline > now || now == u64::MAX);
                    }
                }
                Step::Utc(utc) => clock.set_utc(utc),
                Step::Input(bytes) => {
                    line.send(&bytes);
                    uart.poll();
                    i8042.receive_from_keyboard(&bytes);
                }
                Step::Room(room) => line.0.lock().room = room,
                Step::Refuse(refuses) => lines.1.store(refuses, Relaxed),
                Step::Reset => manager.reset().unwrap(),
            }
            if pic.has_interrupt() {
                pic.acknowledge();
            }
        }
    }
}
