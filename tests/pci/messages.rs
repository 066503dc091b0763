//! Functions that interrupt by messages: MSI and MSI-X as a guest programs them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use vm_device::devices::pci::InBar;
use vm_device::{Gsi, InterruptController, InterruptError, Messages, Rejected, Resources};

use super::machine::*;

const MSI: u32 = 0x50;
const MSIX: u32 = 0x70;
/// The bits of message control, in the dword.
const MSI_ENABLE: u32 = 1 << 16;
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_MASK: u32 = 1 << 30;
const BUS_MASTER: u32 = 4;
const ADDRESS: u64 = 0x1_fee0_1000;
const BAR: u64 = 0xc000_0000;
/// Where the pending bits are in the memory of a [`Card`].
const PENDING: u64 = 0x800;

/// Keeps the messages that it was told, address and data.
#[derive(Default)]
struct Log(Mutex<Vec<(u64, u32)>>);

impl Log {
    fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl InterruptController for Log {
    fn set_level(&self, _: Gsi, _: bool) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.0.lock().unwrap().push((address.0, data));
        Ok(())
    }
}

/// A device with messages of both kinds, of which those of MSI-X have their tables in its memory.
struct Card<'d, const MSI: usize, const MSIX: usize> {
    msi: Messages<'d, MSI>,
    msix: Messages<'d, MSIX>,
}

impl<const MSI: usize, const MSIX: usize> Card<'_, MSI, MSIX> {
    fn new() -> Self {
        Self { msi: Messages::new(), msix: Messages::new() }
    }
}

impl<'d, const MSI: usize, const MSIX: usize> Device<'d> for Card<'d, MSI, MSIX> {
    fn name(&self) -> &str {
        "card"
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        match access.offset() {
            offset @ ..PENDING => self.msix.load_table(offset, data),
            offset => self.msix.load_pending(offset - PENDING, data),
        }
    }
    fn write(&self, access: &Access<'_>, data: &[u8]) {
        if access.offset() < PENDING {
            self.msix.store_table(access.offset(), data);
        }
    }
    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.msi.connect(resources.irq(0));
        self.msix.connect(resources.irq(0));
        Ok(())
    }
}

const CONFIG: Config<'static> = Config::new(0x1234, 1).bar(0, Bar::memory(0x1000)).interrupt_pin(1);
const TABLE: InBar = InBar::new(0, 0);
const BITS: InBar = InBar::new(0, PENDING as u32);

/// A card in slot 3 whose memory is decoded, as bus master, with MSI in front of MSI-X in front of a capability of its own.
macro_rules! card {
    ($log:ident, $manager:ident, $guest:ident, $function:ident, $card:ident: $msi:tt, $msix:tt) => {
        card!($log, $manager, $guest, $function, $card: $msi, $msix, host, id);
    };
    (
        $log:ident, $manager:ident, $guest:ident, $function:ident, $card:ident: $msi:tt, $msix:tt, $host:ident, $id:ident
    ) => {
        static OWN: [Register; 1] = [Register::new(0x40, 0x0009, 0)];
        let ($log, storage) = (Log::default(), Storage::<16, 48, 4>::new());
        let $manager = DeviceManager::new(&storage, everything()).with_interrupt_controller(&$log);
        let ($host, $card) = (HostBridge::new("pci", &$manager), Card::<$msi, $msix>::new());
        let $function = Function::new(CONFIG.registers(&OWN).capabilities(0x40))
            .with_msix(MSIX as u8, &$card.msix, TABLE, BITS)
            .with_msi(MSI as u8, &$card.msi);
        $manager.register_device(&$host, None, &[HostBridge::PORTS], &[]).unwrap();
        let $id = $manager.register_device(&$card, None, &$function.requests(), &[]).unwrap();
        $host.bus().plug(&$function, Slot::new(3, 0), $id).unwrap();
        let $guest = Guest(&$manager);
        $guest.set(0, 3, BAR0, BAR as u32);
        $guest.set(0, 3, COMMAND, MEMORY_ON | BUS_MASTER);
    };
}

/// Address and data of MSI.
fn program_msi(guest: Guest<'_>, data: u32) {
    guest.set(0, 3, MSI + 4, ADDRESS as u32);
    guest.set(0, 3, MSI + 8, (ADDRESS >> 32) as u32);
    guest.set(0, 3, MSI + 0xc, data);
}

/// Message control of MSI with so many messages allocated, as a power of two.
fn allocate(allocated: u32) -> u32 {
    MSI_ENABLE | allocated << 20
}

fn sent(data: &[u32]) -> Vec<(u64, u32)> {
    data.iter().map(|data| (ADDRESS, *data)).collect()
}

#[test]
fn the_list_of_capabilities_is_found_and_only_what_can_be_written_is() {
    card!(log, manager, guest, function, card: 4, 5);
    let (mut list, mut at) = (Vec::new(), guest.config(0, 3, 0x34));
    while at != 0 {
        let header = guest.config(0, 3, at);
        list.push((at, header & 0xff));
        at = header >> 8 & 0xff;
    }
    assert_eq!(list, [(MSI, 0x05), (MSIX, 0x11), (0x40, 0x09)]);
    assert_eq!(guest.config(0, 3, COMMAND) >> 16 & 0x10, 0x10, "the status register says so");
    let ones = |register| {
        guest.set(0, 3, register, u32::MAX);
        let value = guest.config(0, 3, register);
        guest.set(0, 3, register, 0);
        value
    };
    // 4 messages, 64 bits, masks; enable and the number allocated can be written.
    assert_eq!((guest.config(0, 3, MSI), ones(MSI)), (0x0184_7005, 0x01f5_7005));
    let msi = [4, 8, 0xc, 0x10, 0x14].map(|dword| ones(MSI + dword));
    assert_eq!(msi, [0xffff_fffc, u32::MAX, 0xffff, 0xf, 0]);
    assert_eq!((guest.config(0, 3, MSIX), ones(MSIX)), (0x0004_4011, 0xc004_4011));
    assert_eq!([ones(MSIX + 4), ones(MSIX + 8)], [0, PENDING as u32]);
    function.set_register(MSI as usize, u32::MAX, u32::MAX);
    assert_eq!(guest.config(0, 3, MSI), 0x0184_7005);
    assert_eq!(log.take(), []);
}

#[test]
fn msi_sends_the_number_of_the_message_in_the_lowest_bits() {
    card!(log, manager, guest, function, card: 4, 1);
    program_msi(guest, 0x4067);
    let signal_all = || (0..4).for_each(|number| card.msi.signal(number).unwrap());
    for (allocated, data) in [
        (2, [0x4064, 0x4065, 0x4066, 0x4067]),
        (1, [0x4066, 0x4067, 0x4066, 0x4067]),
        (0, [0x4067; 4]),
        // More than it asks for.
        (5, [0x4064, 0x4065, 0x4066, 0x4067]),
    ] {
        guest.set(0, 3, MSI, allocate(allocated));
        assert!(card.msi.is_enabled());
        signal_all();
        assert_eq!(log.take(), sent(&data), "2^{allocated} are allocated");
    }
}

#[test]
fn msi_keeps_what_is_masked_or_not_enabled_in_its_pending_bits() {
    card!(log, manager, guest, function, card: 3, 1);
    program_msi(guest, 0x40);
    card.msi.signal(2).unwrap();
    assert_eq!((guest.config(0, 3, MSI + 0x14), log.take()), (0b001, vec![]), "one is allocated for all");
    guest.set(0, 3, MSI + 0x10, 0b0101);
    guest.set(0, 3, MSI, allocate(2));
    [0, 1, 0].into_iter().for_each(|number| card.msi.signal(number).unwrap());
    assert_eq!((guest.config(0, 3, MSI + 0x14), log.take()), (0b101, sent(&[0x41])));
    // A byte of the mask, and the pending bits cannot be written.
    guest.set(0, 3, MSI + 0x14, 0);
    guest.select(0, 3, MSI + 0x10);
    guest.out(0xcfc, &[0]);
    assert_eq!((guest.config(0, 3, MSI + 0x14), log.take()), (0, sent(&[0x40, 0x42])));
    // Two messages share the mask and the pending bit of the one that is allocated for them.
    guest.set(0, 3, MSI, allocate(1));
    guest.set(0, 3, MSI + 0x10, 0b01);
    [1, 2].into_iter().for_each(|number| card.msi.signal(number).unwrap());
    assert_eq!((guest.config(0, 3, MSI + 0x14), log.take()), (0b01, sent(&[0x41])));
}

#[test]
fn messages_wait_for_the_guest_to_enable_the_bus_master() {
    card!(log, manager, guest, function, card: 1, 1);
    program_msi(guest, 0x40);
    guest.set(0, 3, COMMAND, MEMORY_ON);
    guest.set(0, 3, MSI, MSI_ENABLE);
    card.msi.signal(0).unwrap();
    assert!(card.msi.is_enabled());
    assert_eq!(log.take(), []);
    guest.set(0, 3, COMMAND, MEMORY_ON | BUS_MASTER);
    assert_eq!(log.take(), sent(&[0x40]));
}

#[test]
fn the_pin_may_be_used_while_neither_the_command_register_nor_messages_forbid_it() {
    card!(log, manager, guest, function, card: 1, 1);
    let on = MEMORY_ON | BUS_MASTER;
    for (register, value, may_use) in [
        (COMMAND, on | 1 << 10, false),
        (COMMAND, on, true),
        (MSI, MSI_ENABLE, false),
        // Enabled is enabled, even while no message can be sent.
        (COMMAND, 0, false),
        (MSI, 0, true),
        (MSIX, MSIX_ENABLE | MSIX_MASK, false),
        (MSIX, MSIX_MASK, true),
    ] {
        guest.set(0, 3, register, value);
        assert_eq!(function.may_use_pin(), may_use, "{register:#x} = {value:#x}");
    }
    guest.set(0, 3, MSIX, MSIX_ENABLE);
    function.reset(&manager);
    assert!(function.may_use_pin() && !card.msix.is_enabled());
    assert_eq!(log.take(), []);
}

#[test]
fn msix_is_programmed_in_the_memory_of_the_function() {
    card!(log, manager, guest, function, card: 1, 70);
    let dword = |offset: u64, value: u32| manager.write(at(offset), &value.to_le_bytes(), IoType::Mmio).unwrap();
    let read = |offset: u64| {
        let mut data = [0; 8];
        manager.read(at(offset), &mut data, IoType::Mmio).unwrap();
        u64::from_le_bytes(data)
    };
    assert_eq!(read(16 * 69 + 8), 1 << 32, "masked after reset");
    for number in [1, 69] {
        let entry = 16 * number;
        manager.write(at(entry), &ADDRESS.to_le_bytes(), IoType::Mmio).unwrap();
        dword(entry + 8, number as u32);
        dword(entry + 12, 0);
        assert_eq!((read(entry), read(entry + 8)), (ADDRESS, number));
    }
    [0, 1, 69].into_iter().for_each(|number| card.msix.signal(number).unwrap());
    assert_eq!((read(PENDING), read(PENDING + 8), log.take()), (0b11, 1 << 5, vec![]));
    guest.set(0, 3, MSIX, MSIX_ENABLE | MSIX_MASK);
    assert_eq!((read(PENDING), read(PENDING + 8), log.take()), (0b11, 1 << 5, vec![]));
    // Pending bits cannot be written.
    dword(PENDING, 0);
    guest.set(0, 3, MSIX, MSIX_ENABLE);
    assert_eq!((read(PENDING), read(PENDING + 8), log.take()), (0b01, 0, sent(&[1, 69])));
    dword(12, 0);
    assert_eq!((read(PENDING), log.take()), (0, vec![(0, 0)]));
}

fn at(offset: u64) -> GuestAddress {
    GuestAddress(BAR + offset)
}

#[test]
fn what_is_plugged_in_again_or_reset_has_its_messages_as_after_reset() {
    card!(log, manager, guest, function, card: 2, 2, host, id);
    let start = || {
        guest.set(0, 3, COMMAND, MEMORY_ON | BUS_MASTER);
        program_msi(guest, 0x40);
        guest.set(0, 3, MSI + 0x10, 0b10);
        guest.set(0, 3, MSI, allocate(1));
        guest.set(0, 3, MSIX, MSIX_MASK);
        [0, 1].into_iter().for_each(|number| card.msi.signal(number).unwrap());
        card.msix.signal(1).unwrap();
        assert_eq!(log.take(), sent(&[0x40]));
    };
    let check = || {
        assert!(!card.msi.is_enabled() && !card.msi.is_pending(1));
        assert!(!card.msix.is_masked() && !card.msix.is_pending(1));
        // The masks of MSI are clear after reset, those of MSI-X set.
        let masked = [card.msi.get(1), card.msix.get(1)].map(|message| message.map(|message| message.masked));
        assert_eq!(masked, [Some(false), Some(true)]);
    };
    start();
    function.reset(&manager);
    check();
    start();
    assert!(host.bus().unplug(&function));
    host.bus().plug(&function, Slot::new(3, 0), id).unwrap();
    check();
}

#[test]
fn capabilities_that_there_cannot_be_are_refused() {
    static OWN: [Register; 2] = [Register::new(0x44, 0, 0), Register::new(0x94, 0, 0)];
    let storage = Storage::<16, 48, 4>::new();
    let manager = DeviceManager::new(&storage, everything());
    let host = HostBridge::new("pci", &manager);
    let id = manager.register_device(&host, None, &[HostBridge::PORTS], &[]).unwrap();
    let (none, many, few, all) =
        (Messages::<0>::new(), Messages::<33>::new(), Messages::<32>::new(), Messages::<2049>::new());
    let config = CONFIG.bar(1, Bar::ports(0x100)).bar(2, Bar::memory64(0x1000)).registers(&OWN);
    let msi = |offset| (offset, Function::new(config).with_msi(offset, &few));
    let msix = |offset, table, pending| (offset, Function::new(config).with_msix(offset, &few, table, pending));
    let bad = [
        msi(0x3c),
        msi(0x52),
        // Over the end, and over registers of the function's own.
        msi(0xec),
        msi(0x40),
        msi(0x80),
        (0x50, Function::new(config).with_msi(0x50, &none)),
        (0x50, Function::new(config).with_msi(0x50, &many)),
        (0x70, Function::new(config).with_msi(0x50, &few).with_msi(0x70, &few)),
        (0x54, Function::new(config).with_msix(0x64, &few, TABLE, BITS).with_msi(0x54, &few)),
        (0x50, Function::new(config).with_msix(0x50, &none, TABLE, BITS)),
        (0x50, Function::new(config.bar(0, Bar::memory(1 << 20))).with_msix(0x50, &all, TABLE, InBar::new(2, 0))),
        msix(0xf8, TABLE, BITS),
        msix(0x90, TABLE, BITS),
        // No memory, not at a qword, over its end, over each other.
        msix(0x50, InBar::new(1, 0), BITS),
        msix(0x50, TABLE, InBar::new(3, 0)),
        msix(0x50, TABLE, InBar::new(6, 0)),
        msix(0x50, InBar::new(0, 4), BITS),
        msix(0x50, InBar::new(0, 0xe08), BITS),
        msix(0x50, TABLE, InBar::new(0, 0x1000)),
        msix(0x50, TABLE, InBar::new(0, 0xffff_fff8)),
        msix(0x50, TABLE, InBar::new(0, 0x1f8)),
    ];
    for (number, (offset, function)) in bad.iter().enumerate() {
        let error = PlugError::BadCapability { offset: *offset };
        assert_eq!(host.bus().plug(function, Slot::new(4, 0), id), Err(error), "function {number}");
        assert_eq!(error.to_string(), format!("there can be no such capability at {offset:#x}"));
        assert_eq!(Guest(&manager).config(0, 4, 0), u32::MAX);
    }
    let good = [
        msi(0x48),
        msi(0xe8),
        msix(0xf4, InBar::new(0, 0xe00), InBar::new(0, 0xdf8)),
        msix(0x50, TABLE, InBar::new(0, 0x200)),
        msix(0x50, TABLE, InBar::new(2, 0)),
        (0x50, Function::new(config).with_msix(0x68, &few, TABLE, BITS).with_msi(0x50, &few)),
    ];
    for (number, (_, function)) in (0..).zip(&good) {
        host.bus().plug(function, Slot::new(5 + number, 0), id).unwrap();
    }
}

/// C35.
#[test]
fn messages_are_as_the_registers_that_vcpus_have_written_at_once() {
    card!(log, manager, guest, function, card: 2, 1);
    program_msi(guest, 0x40);
    guest.set(0, 3, MSI, allocate(1));
    let signals = AtomicUsize::new(0);
    let rounds = if cfg!(miri) { 5 } else { 500 };
    for _ in 0..rounds {
        guest.select(0, 3, MSI + 0x10);
        thread::scope(|scope| {
            for mask in [0b00_u8, 0b11] {
                let manager = &manager;
                scope.spawn(move || manager.write(GuestAddress(0xcfc), &[mask], IoType::Pio).unwrap());
            }
            scope.spawn(|| {
                signals.fetch_add(1, SeqCst);
                card.msi.signal(0).unwrap();
            });
        });
        let mask = guest.config(0, 3, MSI + 0x10);
        let masked = [0, 1].map(|number| card.msi.get(number).unwrap().masked);
        assert_eq!(masked, [0b01, 0b10].map(|bit| mask & bit != 0));
        assert!(masked[0] || !card.msi.is_pending(0), "it may be sent, and was not");
    }
    guest.set(0, 3, MSI + 0x10, 0);
    let sent = log.take().len();
    assert!(0 < sent && sent <= signals.load(SeqCst), "{sent}");
}
