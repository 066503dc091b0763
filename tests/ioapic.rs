//! An IOAPIC, as a guest and its local APICs see it.
#![cfg(feature = "devices")]

mod fixture;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

use spin::Mutex;
use vm_device::devices::ioapic::{Ioapic, LocalApics, Redirections};
use vm_device::{DeviceManager, Gsi, GuestAddress, InterruptController, InterruptError, IoType, IrqResource, Storage};

use fixture::{Source, everything, manager, wait_until, within_limit};

const BASE: u64 = 0xfec0_0000;
const WINDOW: u64 = BASE + 0x10;
const EOI: u64 = BASE + 0x40;

const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;

const SEND_PENDING: u32 = 1 << 12;
const REMOTE_IRR: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

const fn redirection(line: u8) -> u8 {
    0x10 + 2 * line
}

/// Keeps what it was told, and refuses messages while it is told to.
#[derive(Default)]
struct Apics {
    messages: Mutex<Vec<(u64, u32)>>,
    refuses: AtomicBool,
    /// For each change of the entries, the lines that are level-triggered then, and how many messages there were before.
    redirected: Mutex<Vec<(Vec<u32>, usize)>>,
    ended: Mutex<Vec<u32>>,
}

impl LocalApics for Apics {
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        if self.refuses.load(SeqCst) {
            return Err(InterruptError::Refused);
        }
        self.messages.lock().push((address.0, data));
        Ok(())
    }
    fn redirected(&self, redirections: &Redirections<'_>) {
        let levels = redirections.iter().filter(|(_, redirection)| redirection.is_level_triggered());
        let levels = levels.map(|(gsi, _)| gsi.0).collect();
        self.redirected.lock().push((levels, self.messages.lock().len()));
    }
    fn ended(&self, gsi: Gsi) {
        self.ended.lock().push(gsi.0);
    }
}

struct Machine<'m, const LINES: usize> {
    manager: &'m DeviceManager<'m>,
    ioapic: &'m Ioapic<&'m Apics, LINES>,
    apics: &'m Apics,
}

/// Runs a test with an IOAPIC of 24 lines as after power-on.
fn machine(test: impl FnOnce(&Machine<'_, 24>)) {
    let apics = Apics::default();
    with(&Ioapic::new(&apics), &apics, test);
}

fn with<const LINES: usize>(ioapic: &Ioapic<&Apics, LINES>, apics: &Apics, test: impl FnOnce(&Machine<'_, LINES>)) {
    let storage = Storage::<8, 16, 2>::new();
    let manager = DeviceManager::new(&storage, everything());
    manager.register_device(ioapic, None, &[ioapic.mmio(BASE)], &[]).unwrap();
    test(&Machine { manager: &manager, ioapic, apics });
}

impl<const LINES: usize> Machine<'_, LINES> {
    fn store(&self, address: u64, value: u32) {
        self.manager.write(GuestAddress(address), &value.to_le_bytes(), IoType::Mmio).unwrap();
    }

    fn load(&self, address: u64) -> u32 {
        let mut data = [0; 4];
        self.manager.read(GuestAddress(address), &mut data, IoType::Mmio).unwrap();
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u8, value: u32) {
        self.store(BASE, register.into());
        self.store(WINDOW, value);
    }

    fn read(&self, register: u8) -> u32 {
        self.store(BASE, register.into());
        self.load(WINDOW)
    }

    fn assert(&self, line: u32) {
        assert_eq!(self.ioapic.set_level(Gsi(line), true), Ok(()));
    }

    fn deassert(&self, line: u32) {
        assert_eq!(self.ioapic.set_level(Gsi(line), false), Ok(()));
    }

    fn pulse(&self, line: u32) {
        assert_eq!(self.ioapic.pulse(Gsi(line)), Ok(()));
    }

    /// The vectors of the messages that were sent since the last call.
    fn vectors(&self) -> Vec<u8> {
        self.messages().into_iter().map(|(_, data)| data as u8).collect()
    }

    fn messages(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.apics.messages.lock())
    }

    /// Ends an interrupt, and returns its lines.
    fn end(&self, vector: u8) -> Vec<u32> {
        let mut lines = Vec::new();
        self.ioapic.ended(vector, |gsi| lines.push(gsi.0));
        lines
    }
}

#[test]
fn after_power_on_all_lines_are_masked() {
    machine(|machine| {
        assert_eq!((machine.load(BASE), machine.load(WINDOW)), (0, 0));
        assert_eq!([ID, VERSION, ARBITRATION].map(|register| machine.read(register)), [0, 0x0017_0011, 0]);
        for line in 0..24 {
            assert_eq!(machine.read(redirection(line)), MASKED);
            assert_eq!(machine.read(redirection(line) + 1), 0);
            machine.pulse(line.into());
            machine.assert(line.into());
        }
        assert_eq!(machine.vectors(), []);
        // What no register is at.
        for register in [3, 0xf, redirection(24), 0xff] {
            machine.write(register, u32::MAX);
            assert_eq!(machine.read(register), 0);
        }
        assert_eq!((machine.load(BASE + 4), machine.load(EOI)), (u32::MAX, u32::MAX));
    });
}

#[test]
fn the_registers_keep_the_bits_that_they_have() {
    machine(|machine| {
        machine.write(ID, u32::MAX);
        machine.write(VERSION, u32::MAX);
        machine.write(ARBITRATION, 0);
        let registers = [ID, VERSION, ARBITRATION];
        assert_eq!(registers.map(|register| machine.read(register)), [0x0f00_0000, 0x0017_0011, 0x0f00_0000]);
        machine.write(redirection(23), u32::MAX);
        machine.write(redirection(23) + 1, u32::MAX);
        assert_eq!(machine.read(redirection(23)), 0x0001_afff);
        assert_eq!(machine.read(redirection(23) + 1), 0xff00_0000);
        assert_eq!(machine.read(redirection(22)), MASKED);
        machine.write(redirection(23), 0);
        assert_eq!((machine.read(redirection(23)), machine.read(redirection(23) + 1)), (0, 0xff00_0000));
    });
}

#[test]
fn it_has_as_many_lines_as_it_is_made_with_from_the_first_on() {
    let apics = Apics::default();
    with(&Ioapic::<_, 1>::with_lines(&apics).with_first_gsi(Gsi(24)), &apics, |machine| {
        assert_eq!(machine.read(VERSION), 0x0000_0011);
        machine.write(redirection(0), 0x31);
        machine.write(redirection(1), 0x32);
        for gsi in [0, 23, 25] {
            assert_eq!(machine.ioapic.pulse(Gsi(gsi)), Err(InterruptError::Refused));
            assert_eq!(machine.ioapic.set_level(Gsi(gsi), true), Err(InterruptError::Refused));
            assert_eq!(machine.ioapic.redirections().get(Gsi(gsi)), None);
        }
        machine.pulse(24);
        assert_eq!(machine.vectors(), [0x31]);
        assert_eq!(machine.ioapic.redirections().iter().map(|(gsi, _)| gsi.0).collect::<Vec<_>>(), [24]);
    });
    with(&Ioapic::<_, 120>::with_lines(&apics).with_eoi_register(), &apics, |machine| {
        assert_eq!(machine.read(VERSION), 0x0077_0020);
        machine.write(0xfe, 0x41);
        machine.write(0xff, 0x0200_0000);
        machine.pulse(119);
        assert_eq!(machine.messages(), [(0xfee0_2000, 0x4041)]);
    });
}

#[test]
fn an_entry_makes_the_message() {
    machine(|machine| {
        // Destination, low half, address, data; the last three are edges, whatever their trigger is.
        for (destination, low, address, data) in [
            (0, 0x31, 0xfee0_0000, 0x4031),
            (0xff, 0xfe, 0xfeef_f000, 0x40fe),
            (0x03, 0x0931, 0xfee0_3004, 0x4131),
            (0x01, 0x2000 | 0x31, 0xfee0_1000, 0x4031),
            (0x01, LEVEL | 0x31, 0xfee0_1000, 0xc031),
            (0x01, LEVEL | 0x0131, 0xfee0_1000, 0xc131),
            (0x01, LEVEL | 0x0200, 0xfee0_1000, 0x4200),
            (0x01, LEVEL | 0x0400, 0xfee0_1000, 0x4400),
            (0x01, LEVEL | 0x0700, 0xfee0_1000, 0x4700),
        ] {
            machine.write(redirection(4) + 1, destination << 24);
            machine.write(redirection(4), low);
            machine.assert(4);
            assert_eq!(machine.messages(), [(address, data)], "{low:#x}");
            let redirection = machine.ioapic.redirections().get(Gsi(4)).unwrap();
            let message = redirection.message();
            assert_eq!((message.address.0, message.data, message.masked), (address, data, false));
            assert_eq!((redirection.vector(), redirection.is_level_triggered()), (low as u8, data & LEVEL != 0));
            machine.deassert(4);
            machine.end(low as u8);
        }
    });
}

#[test]
fn messages_of_devices_pass_as_they_are() {
    machine(|machine| {
        assert_eq!(machine.ioapic.message(GuestAddress(0xfee0_5000), 0x77), Ok(()));
        assert_eq!(machine.messages(), [(0xfee0_5000, 0x77)]);
        machine.apics.refuses.store(true, SeqCst);
        assert_eq!(machine.ioapic.message(GuestAddress(0xfee0_5000), 0x77), Err(InterruptError::Refused));
    });
}

#[test]
fn an_edge_is_sent_once_and_one_on_a_masked_line_is_lost() {
    machine(|machine| {
        machine.write(redirection(4), 0x31);
        machine.assert(4);
        machine.assert(4);
        machine.deassert(4);
        machine.pulse(4);
        assert_eq!(machine.vectors(), [0x31, 0x31]);
        assert_eq!((machine.read(redirection(4)), machine.end(0x31)), (0x31, vec![]));
        machine.write(redirection(4), MASKED | 0x31);
        machine.pulse(4);
        machine.assert(4);
        machine.write(redirection(4), 0x31);
        assert_eq!(machine.vectors(), []);
        machine.deassert(4);
        machine.assert(4);
        assert_eq!(machine.vectors(), [0x31]);
    });
}

#[test]
fn a_level_is_sent_until_it_goes_once_for_each_end() {
    machine(|machine| {
        machine.write(redirection(4), LEVEL | 0x31);
        machine.assert(4);
        machine.assert(4);
        assert_eq!((machine.vectors(), machine.read(redirection(4))), (vec![0x31], LEVEL | REMOTE_IRR | 0x31));
        // Of another vector.
        assert_eq!((machine.end(0x32), machine.vectors()), (vec![], vec![]));
        assert_eq!((machine.end(0x31), machine.vectors()), (vec![4], vec![0x31]));
        machine.deassert(4);
        assert_eq!((machine.end(0x31), machine.vectors()), (vec![4], vec![]));
        assert_eq!((machine.end(0x31), machine.read(redirection(4))), (vec![], LEVEL | 0x31));
        // An edge without a level is none.
        machine.pulse(4);
        assert_eq!(machine.vectors(), []);
    });
}

#[test]
fn a_line_that_falls_and_rises_before_the_end_interrupts_after_it() {
    machine(|machine| {
        machine.write(redirection(4), LEVEL | 0x31);
        machine.assert(4);
        machine.deassert(4);
        machine.assert(4);
        assert_eq!(machine.vectors(), [0x31]);
        assert_eq!((machine.end(0x31), machine.vectors()), (vec![4], vec![0x31]));
    });
}

#[test]
fn what_is_called_at_the_end_may_take_the_assertion_back() {
    machine(|machine| {
        machine.write(redirection(4), LEVEL | 0x31);
        machine.assert(4);
        machine.ioapic.ended(0x31, |gsi| machine.deassert(gsi.0));
        assert_eq!(machine.vectors(), [0x31]);
    });
}

#[test]
fn lines_with_one_vector_end_together() {
    machine(|machine| {
        for line in [4, 7] {
            machine.write(redirection(line), LEVEL | 0x31);
            machine.assert(line.into());
        }
        machine.write(redirection(5), LEVEL | 0x31);
        assert_eq!(machine.vectors().len(), 2);
        machine.deassert(4);
        assert_eq!((machine.end(0x31), machine.vectors()), (vec![4, 7], vec![0x31]));
    });
}

#[test]
fn a_level_interrupts_when_it_is_unmasked() {
    machine(|machine| {
        machine.write(redirection(4), MASKED | LEVEL | 0x31);
        machine.assert(4);
        assert_eq!((machine.vectors(), machine.read(redirection(4))), (vec![], MASKED | LEVEL | 0x31));
        machine.write(redirection(4), LEVEL | 0x31);
        assert_eq!(machine.vectors(), [0x31]);
        // Masked, it waits for its end all the same, and interrupts when it is unmasked after that.
        machine.write(redirection(4), MASKED | LEVEL | 0x31);
        machine.write(redirection(4), LEVEL | 0x31);
        assert_eq!(machine.vectors(), []);
        machine.write(redirection(4), MASKED | LEVEL | 0x31);
        assert_eq!((machine.end(0x31), machine.vectors()), (vec![4], vec![]));
        machine.write(redirection(4) + 1, 0);
        assert_eq!(machine.vectors(), []);
        machine.write(redirection(4), LEVEL | 0x32);
        assert_eq!(machine.vectors(), [0x32]);
    });
}

#[test]
fn a_line_that_becomes_edge_triggered_forgets_that_it_waits_for_an_end() {
    machine(|machine| {
        machine.write(redirection(4), LEVEL | 0x31);
        machine.assert(4);
        // What drivers do who cannot reach the register for ends.
        machine.write(redirection(4), MASKED | 0x31);
        assert_eq!(machine.read(redirection(4)), MASKED | 0x31);
        machine.write(redirection(4), LEVEL | 0x31);
        assert_eq!(machine.vectors(), [0x31, 0x31]);
    });
}

#[test]
fn the_guest_ends_an_interrupt_by_the_register_if_it_is_there() {
    let apics = Apics::default();
    machine(|machine| {
        machine.write(redirection(4), LEVEL | 0x31);
        machine.assert(4);
        machine.store(EOI, 0x31);
        assert_eq!(machine.vectors(), [0x31]);
    });
    with(&Ioapic::new(&apics).with_eoi_register(), &apics, |machine| {
        assert_eq!(machine.read(VERSION), 0x0017_0020);
        machine.write(redirection(4), LEVEL | 0x31);
        machine.assert(4);
        machine.store(EOI, 0x32);
        machine.store(EOI, 0x31);
        assert_eq!((machine.vectors(), std::mem::take(&mut *apics.ended.lock())), (vec![0x31, 0x31], vec![4]));
        machine.deassert(4);
        machine.manager.write(GuestAddress(EOI), &[0x31], IoType::Mmio).unwrap();
        assert_eq!((machine.vectors(), machine.read(redirection(4))), (vec![], LEVEL | 0x31));
    });
}

#[test]
fn a_message_that_is_refused_is_pending_and_sent_later() {
    machine(|machine| {
        let refuse = |refuses| machine.apics.refuses.store(refuses, SeqCst);
        machine.write(redirection(4), 0x31);
        machine.write(redirection(5), LEVEL | 0x32);
        refuse(true);
        machine.pulse(4);
        machine.assert(5);
        let states = [4, 5].map(|line| machine.read(redirection(line)));
        assert_eq!(states, [SEND_PENDING | 0x31, SEND_PENDING | LEVEL | 0x32]);
        assert_eq!(machine.manager.tick(7), Some(1_000_007));
        assert_eq!(machine.manager.tick(u64::MAX), Some(u64::MAX));
        refuse(false);
        assert_eq!((machine.manager.tick(8), machine.vectors()), (None, vec![0x31, 0x32]));
        assert_eq!([4, 5].map(|line| machine.read(redirection(line))), [0x31, REMOTE_IRR | LEVEL | 0x32]);
        assert_eq!((machine.end(0x32), machine.vectors()), (vec![5], vec![0x32]));
        // When the line is driven, and when it is programmed.
        refuse(true);
        machine.pulse(4);
        refuse(false);
        machine.deassert(4);
        assert_eq!(machine.vectors(), [0x31]);
        refuse(true);
        machine.pulse(4);
        refuse(false);
        machine.write(redirection(4), 0x33);
        assert_eq!(machine.vectors(), [0x33]);
        // Not if the line falls, or is masked meanwhile.
        refuse(true);
        machine.end(0x32);
        machine.deassert(5);
        machine.pulse(4);
        machine.write(redirection(4), MASKED | 0x33);
        machine.write(redirection(4), 0x33);
        refuse(false);
        assert_eq!((machine.manager.tick(9), machine.vectors()), (None, vec![]));
    });
}

#[test]
fn changes_of_entries_are_told_before_a_message_follows_from_them() {
    machine(|machine| {
        machine.assert(4);
        machine.write(redirection(4), LEVEL | 0x31);
        machine.write(redirection(6), MASKED | LEVEL | 0x31);
        machine.write(redirection(6) + 1, 0);
        machine.write(redirection(4), 0x31);
        // What is no entry.
        machine.write(ID, 0);
        machine.write(redirection(24), LEVEL);
        let told = std::mem::take(&mut *machine.apics.redirected.lock());
        assert_eq!(told, [(vec![4], 0), (vec![4, 6], 1), (vec![4, 6], 1), (vec![6], 1)]);
        machine.manager.reset().unwrap();
        assert_eq!(*machine.apics.redirected.lock(), [(vec![], 1)]);
    });
}

#[test]
fn accesses_of_odd_sizes_reach_what_is_there() {
    machine(|machine| {
        machine.manager.write(GuestAddress(BASE), &[VERSION], IoType::Mmio).unwrap();
        let mut bytes = [0; 2];
        machine.manager.read(GuestAddress(WINDOW + 2), &mut bytes, IoType::Mmio).unwrap();
        assert_eq!(bytes, [0x17, 0x00]);
        let mut wide = [0; 8];
        machine.manager.read(GuestAddress(WINDOW), &mut wide, IoType::Mmio).unwrap();
        assert_eq!(wide, [0x11, 0, 0x17, 0, 0xff, 0xff, 0xff, 0xff]);
        machine.store(BASE, 0xffff_ff00 | u32::from(redirection(4)));
        assert_eq!(machine.load(BASE), redirection(4).into());
        // An entry is written by whole dwords.
        machine.manager.write(GuestAddress(WINDOW), &[0x31, 0, 0], IoType::Mmio).unwrap();
        machine.manager.write(GuestAddress(WINDOW + 1), &[0, 0, 0, 0], IoType::Mmio).unwrap();
        machine.manager.write(GuestAddress(WINDOW), &[0; 8], IoType::Mmio).unwrap();
        assert_eq!(machine.load(WINDOW), MASKED);
        assert!(machine.manager.read(GuestAddress(BASE + 0x400), &mut [0], IoType::Mmio).is_err());
    });
}

#[test]
fn a_reset_masks_all_lines_but_not_what_asserts_them() {
    machine(|machine| {
        machine.write(ID, 0x0300_0000);
        machine.write(redirection(4), LEVEL | 0x31);
        machine.assert(4);
        machine.apics.refuses.store(true, SeqCst);
        machine.write(redirection(5), 0x32);
        machine.pulse(5);
        machine.manager.reset().unwrap();
        machine.apics.refuses.store(false, SeqCst);
        assert_eq!((machine.load(BASE), machine.read(ID)), (0, 0));
        assert_eq!([4, 5].map(|line| machine.read(redirection(line))), [MASKED; 2]);
        assert_eq!((machine.manager.tick(0), machine.vectors()), (None, vec![0x31]));
        machine.write(redirection(5), 0x32);
        machine.write(redirection(4), LEVEL | 0x41);
        assert_eq!(machine.vectors(), [0x41]);
    });
}

/// A manager's devices hear of the end, and the line is told again.
#[test]
fn an_end_is_passed_on_to_the_devices() {
    struct PassesOn<'d>(Apics, OnceLock<&'d DeviceManager<'d>>, Mutex<Vec<Result<(), InterruptError>>>);
    impl LocalApics for PassesOn<'_> {
        fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
            self.0.message(address, data)
        }
        fn ended(&self, gsi: Gsi) {
            self.2.lock().push(self.1.get().unwrap().end_of_interrupt(gsi));
        }
    }
    let apics = PassesOn(Apics::default(), OnceLock::new(), Mutex::default());
    let ioapic = Ioapic::new(&apics).with_eoi_register();
    let device = Source::new("device");
    manager!(let manager, with_interrupt_controller(&ioapic));
    assert!(apics.1.set(&manager).is_ok());
    manager.register_device(&ioapic, None, &[ioapic.mmio(BASE)], &[]).unwrap();
    manager.register_device(&device, None, &[], &[IrqResource::Fixed(Gsi(9))]).unwrap();
    let store = |address, value: u32| manager.write(GuestAddress(address), &value.to_le_bytes(), IoType::Mmio).unwrap();
    store(BASE, redirection(9).into());
    store(WINDOW, LEVEL | 0x31);
    device.line().assert().unwrap();
    store(EOI, 0x31);
    ioapic.ended(0x31, |gsi| manager.end_of_interrupt(gsi).unwrap());
    assert_eq!((apics.0.messages.lock().len(), apics.2.lock().as_slice()), (3, &[Ok(())][..]));
    device.line().deassert().unwrap();
    store(EOI, 0x31);
    assert_eq!(apics.0.messages.lock().len(), 3);
}

#[test]
fn local_apics_that_unwind_have_taken_nothing() {
    struct Unwinding(AtomicBool, AtomicU32);
    impl Unwinding {
        fn act(&self) {
            assert!(!self.0.load(SeqCst), "it was told to");
        }
    }
    impl LocalApics for Unwinding {
        fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
            self.act();
            self.1.fetch_add(1, SeqCst);
            Ok(())
        }
        fn redirected(&self, _: &Redirections<'_>) {
            self.act();
        }
    }
    let apics = Unwinding(AtomicBool::new(false), AtomicU32::new(0));
    let ioapic = Ioapic::new(&apics);
    manager!(let manager);
    manager.register_device(&ioapic, None, &[ioapic.mmio(BASE)], &[]).unwrap();
    let write = |address, value: u32| manager.write(GuestAddress(address), &value.to_le_bytes(), IoType::Mmio);
    let unwinds = |act: &dyn Fn()| catch_unwind(AssertUnwindSafe(act)).is_err();
    write(BASE, redirection(4).into()).unwrap();
    write(WINDOW, LEVEL | 0x31).unwrap();
    apics.0.store(true, SeqCst);
    assert!(unwinds(&|| ioapic.set_level(Gsi(4), true).unwrap()));
    assert!(unwinds(&|| write(WINDOW, LEVEL | 0x32).unwrap()));
    apics.0.store(false, SeqCst);
    assert_eq!((manager.tick(0), apics.1.load(SeqCst)), (None, 1));
}

/// A message may end before the call that sends it has returned: on another processor, or on this one.
#[test]
fn an_end_may_come_from_within_the_message() {
    #[derive(Default)]
    struct Eager<'d>(OnceLock<&'d Ioapic<&'d Eager<'d>>>, AtomicU32);
    impl LocalApics for Eager<'_> {
        fn message(&self, _: GuestAddress, data: u32) -> Result<(), InterruptError> {
            let ioapic = self.0.get().unwrap();
            if self.1.fetch_add(1, SeqCst) == 2 {
                ioapic.set_level(Gsi(4), false).unwrap();
            }
            ioapic.ended(data as u8, |_| ());
            Ok(())
        }
    }
    let apics = Eager::default();
    let ioapic = Ioapic::new(&apics);
    assert!(apics.0.set(&ioapic).is_ok());
    manager!(let manager);
    manager.register_device(&ioapic, None, &[ioapic.mmio(BASE)], &[]).unwrap();
    for (address, value) in [(BASE, redirection(4).into()), (WINDOW, LEVEL | 0x31)] {
        manager.write(GuestAddress(address), &u32::to_le_bytes(value), IoType::Mmio).unwrap();
    }
    ioapic.set_level(Gsi(4), true).unwrap();
    assert_eq!(apics.1.load(SeqCst), 3);
}

#[test]
fn a_line_that_is_driven_while_its_entry_is_told_interrupts_afterwards() {
    #[derive(Default)]
    struct Driving<'d>(OnceLock<&'d Ioapic<&'d Driving<'d>>>, Mutex<Vec<&'static str>>);
    impl LocalApics for Driving<'_> {
        fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
            self.1.lock().push("message");
            Ok(())
        }
        fn redirected(&self, _: &Redirections<'_>) {
            let ioapic = self.0.get().unwrap();
            ioapic.set_level(Gsi(4), true).unwrap();
            ioapic.pulse(Gsi(5)).unwrap();
            self.1.lock().push("told");
        }
    }
    let apics = Driving::default();
    let ioapic = Ioapic::new(&apics);
    assert!(apics.0.set(&ioapic).is_ok());
    manager!(let manager);
    manager.register_device(&ioapic, None, &[ioapic.mmio(BASE)], &[]).unwrap();
    for (index, value) in [(redirection(4), LEVEL | 0x31), (redirection(5), 0x32)] {
        manager.write(GuestAddress(BASE), &[index], IoType::Mmio).unwrap();
        manager.write(GuestAddress(WINDOW), &value.to_le_bytes(), IoType::Mmio).unwrap();
    }
    assert_eq!(*apics.1.lock(), ["told", "message", "told", "message"]);
}

#[test]
fn a_refusal_that_comes_late_is_not_that_of_the_next_message() {
    #[derive(Default)]
    struct Late<'d>(OnceLock<&'d Ioapic<&'d Late<'d>>>, AtomicU32);
    impl LocalApics for Late<'_> {
        fn message(&self, _: GuestAddress, data: u32) -> Result<(), InterruptError> {
            if self.1.fetch_add(1, SeqCst) != 0 {
                return Ok(());
            }
            // The next message goes out before this one has come back.
            self.0.get().unwrap().ended(data as u8, |_| ());
            Err(InterruptError::Refused)
        }
    }
    let apics = Late::default();
    let ioapic = Ioapic::new(&apics);
    assert!(apics.0.set(&ioapic).is_ok());
    manager!(let manager);
    manager.register_device(&ioapic, None, &[ioapic.mmio(BASE)], &[]).unwrap();
    for (address, value) in [(BASE, redirection(4).into()), (WINDOW, LEVEL | 0x31)] {
        manager.write(GuestAddress(address), &u32::to_le_bytes(value), IoType::Mmio).unwrap();
    }
    ioapic.set_level(Gsi(4), true).unwrap();
    assert_eq!((manager.tick(0), apics.1.load(SeqCst)), (None, 2));
}

/// Devices assert their lines, and wait for their service, while a guest masks and unmasks and ends.
#[test]
fn no_interrupt_is_lost_with_several_threads() {
    within_limit(|| {
        machine(|machine| {
            let rounds: u32 = if cfg!(miri) { 10 } else { 300 };
            let Machine { ioapic, apics, .. } = machine;
            let (done, served) = (AtomicU32::new(0), <[AtomicU32; 24]>::default());
            let (done, served) = (&done, &served);
            let lines = [3, 5, 9];
            lines.into_iter().for_each(|line| machine.write(redirection(line), LEVEL | (0x30 + u32::from(line))));
            thread::scope(|scope| {
                for line in lines {
                    scope.spawn(move || {
                        for round in 0..rounds {
                            ioapic.set_level(Gsi(line.into()), true).unwrap();
                            wait_until(|| served[usize::from(line)].load(SeqCst) > round);
                        }
                        done.fetch_add(1, SeqCst);
                    });
                }
                scope.spawn(move || {
                    while done.load(SeqCst) != 3 {
                        for line in lines {
                            machine.write(redirection(line), MASKED | LEVEL | (0x30 + u32::from(line)));
                            machine.write(redirection(line), LEVEL | (0x30 + u32::from(line)));
                        }
                        thread::yield_now();
                    }
                });
                while done.load(SeqCst) != 3 {
                    for vector in machine.vectors() {
                        let line = vector - 0x30;
                        ioapic.set_level(Gsi(line.into()), false).unwrap();
                        ioapic.ended(vector, |_| ());
                        served[usize::from(line)].fetch_add(1, SeqCst);
                    }
                    thread::yield_now();
                }
            });
            assert_eq!(lines.map(|line| served[usize::from(line)].load(SeqCst)), [rounds; 3]);
            assert!(apics.messages.lock().is_empty());
        });
    });
}
