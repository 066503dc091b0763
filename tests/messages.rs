//! Messages of a device: when each is sent, and what a guest sees of them.

mod fixture;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use spin::Mutex;
use vm_device::{
    Access, Device, Gsi, GuestAddress, InterruptController, InterruptError, Message, Messages, Rejected, Resources,
};

use fixture::{Log, Told, manager, unwinds, wait_for, within_limit};

/// Something that a test does.
type Act<'a> = &'a dyn Fn();

/// A device with `N` messages.
#[derive(Default)]
struct Card<'d, const N: usize>(Messages<'d, N>);

impl<'d, const N: usize> Device<'d> for Card<'d, N> {
    fn name(&self) -> &str {
        "card"
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.0.connect(resources.irq(0));
        Ok(())
    }
}

/// A controller that takes a message if `.0` says so of its data.
struct OnMessage<F>(F);

impl<F: Fn(u32) -> bool + Sync> InterruptController for OnMessage<F> {
    fn set_level(&self, _: Gsi, _: bool) -> Result<(), InterruptError> {
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Ok(())
    }
    fn message(&self, _: GuestAddress, data: u32) -> Result<(), InterruptError> {
        if (self.0)(data) { Ok(()) } else { Err(InterruptError::Refused) }
    }
}

/// Message `number` as the tests have it.
fn message(number: usize, masked: bool) -> Message {
    Message { address: GuestAddress(0xfee0_0000 + 0x1000 * number as u64), data: number as u32, masked }
}

fn told(numbers: impl IntoIterator<Item = usize>) -> Vec<Told> {
    let message = |number| message(number, false);
    numbers.into_iter().map(|number| Told::Message(message(number).address.0, message(number).data)).collect()
}

/// Declares a card that is registered, with its messages enabled, none of them masked.
macro_rules! card {
    ($messages:ident: $n:tt, $controller:expr) => {
        manager!(let manager, with_interrupt_controller($controller));
        let card = Card::<$n>::default();
        let id = manager.register_device(&card, None, &[], &[]).unwrap();
        let $messages = &card.0;
        (0..$n).for_each(|number| $messages.set(number, message(number, false)));
        $messages.set_enabled(true);
        let _ = id;
    };
}

const REFUSED: Result<(), InterruptError> = Err(InterruptError::Refused);

#[test]
fn a_signal_sends_the_message_as_it_is_now() {
    let log = Log::default();
    card!(messages: 3, &log);
    assert_eq!([0, 2, 2].map(|number| messages.signal(number)), [Ok(()); 3]);
    assert_eq!(log.take(), told([0, 2, 2]));
    messages.set(2, Message { address: GuestAddress(u64::MAX), data: u32::MAX, masked: false });
    assert_eq!(messages.signal(2), Ok(()));
    assert_eq!(log.take(), [Told::Message(u64::MAX, u32::MAX)]);
    assert_eq!([3, usize::MAX].map(|number| messages.signal(number)), [Err(InterruptError::NoMessage); 2]);
    let none = [3, usize::MAX].map(|number| (messages.get(number), messages.is_pending(number)));
    assert_eq!((none, log.take()), ([(None, false); 2], vec![]));
    messages.set(3, message(3, false));
    messages.withdraw(3);
    assert!(Messages::<0>::new().signal(0).is_err());
}

/// C35.
#[test]
fn what_may_not_be_sent_is_remembered_and_sent_once_in_order_when_it_may() {
    let log = Log::default();
    card!(messages: 4, &log);
    let hinder: [(Act<'_>, Act<'_>); 3] = [
        (&|| messages.set_enabled(false), &|| messages.set_enabled(true)),
        (&|| messages.set_masked(true), &|| messages.set_masked(false)),
        (&|| (0..4).for_each(|number| messages.set(number, message(number, true))), &|| {
            (0..4).for_each(|number| messages.set(number, message(number, false)))
        }),
    ];
    for (forbid, allow) in hinder {
        forbid();
        assert_eq!([3, 1, 3, 0, 1].map(|number| messages.signal(number)), [Ok(()); 5]);
        assert_eq!([0, 1, 2, 3].map(|number| messages.is_pending(number)), [true, true, false, true]);
        assert_eq!(log.take(), []);
        allow();
        assert_eq!(log.take(), told([0, 1, 3]));
        assert_eq!([0, 1, 2, 3].map(|number| messages.is_pending(number)), [false; 4]);
        allow();
        assert_eq!(log.take(), []);
    }
    // One of them stays masked when all are let.
    messages.set_masked(true);
    messages.set(1, message(1, true));
    [0, 1, 2].into_iter().for_each(|number| messages.signal(number).unwrap());
    messages.set_masked(false);
    assert_eq!((log.take(), messages.is_pending(1)), (told([0, 2]), true));
    messages.signal(0).unwrap();
    assert_eq!(log.take(), told([0]));
    messages.set(1, message(1, false));
    assert_eq!(log.take(), told([1]));
}

/// C35.
#[test]
fn a_refused_message_is_tried_again_by_the_next_signal_or_unmasking_of_any() {
    let log = Log::default();
    card!(messages: 4, &log);
    let refuse = |number| {
        log.refuse(true);
        assert_eq!(messages.signal(number), REFUSED);
        assert_eq!((log.take(), messages.is_pending(number)), (told([number]), true), "it is tried once");
        log.refuse(false);
    };
    let again: [(Act<'_>, &[usize]); 6] = [
        (&|| messages.signal(2).unwrap(), &[2]),
        (&|| messages.signal(0).unwrap(), &[0, 2]),
        (&|| messages.set_masked(false), &[2]),
        (&|| messages.set_enabled(true), &[2]),
        (&|| messages.set(1, message(1, false)), &[2]),
        (&|| messages.store_table(0x1c, &[0; 4]), &[2]),
    ];
    for (act, expected) in again {
        refuse(2);
        act();
        assert_eq!(log.take(), told(expected.iter().copied()));
        assert!(!messages.is_pending(2));
    }
    // Those that are refused again stay pending, and a mask holds them back.
    log.refuse(true);
    assert_eq!([1, 3].map(|number| messages.signal(number)), [REFUSED; 2]);
    assert_eq!(log.take(), told([1, 3, 1]));
    messages.set(3, message(3, true));
    log.take();
    log.refuse(false);
    messages.signal(0).unwrap();
    assert_eq!(log.take(), told([0, 1]));
    messages.set(3, message(3, false));
    assert_eq!(log.take(), told([3]));
}

#[test]
fn without_a_handle_that_leads_to_a_controller_a_message_is_kept() {
    let log = Log::default();
    let messages = Messages::<1>::new();
    messages.set(0, message(0, false));
    messages.set_enabled(true);
    assert_eq!((messages.signal(0), messages.is_pending(0)), (Err(InterruptError::Removed), true));
    manager!(let manager, with_interrupt_controller(&log));
    let card = Card(messages);
    let id = manager.register_device(&card, None, &[], &[]).unwrap();
    card.0.set_masked(false);
    assert_eq!(log.take(), told([0]));
    manager.unregister_device(id).unwrap();
    assert_eq!((card.0.signal(0), log.take()), (Err(InterruptError::Removed), vec![]));
    assert!(card.0.is_pending(0));
}

/// C35.
#[test]
fn what_is_withdrawn_or_reset_is_not_sent() {
    let log = Log::default();
    card!(messages: 2, &log);
    messages.set_masked(true);
    [0, 1].into_iter().for_each(|number| messages.signal(number).unwrap());
    messages.withdraw(0);
    messages.set_masked(false);
    assert_eq!(log.take(), told([1]));
    messages.set_masked(true);
    messages.signal(0).unwrap();
    messages.reset();
    assert!(!messages.is_enabled() && !messages.is_masked() && !messages.is_pending(0));
    let reset = Message { address: GuestAddress(0), data: 0, masked: true };
    assert_eq!([0, 1].map(|number| messages.get(number)), [Some(reset); 2]);
    messages.set_enabled(true);
    [0, 1].into_iter().for_each(|number| messages.set(number, message(number, false)));
    assert_eq!(log.take(), []);
}

/// C2, C35.
#[test]
fn the_controller_is_called_without_a_lock_and_what_it_withdraws_and_refuses_is_gone() {
    static CARD: Card<'static, 2> = Card(Messages::new());
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    static WITHDRAWING: OnMessage<fn(u32) -> bool> = OnMessage(|data| {
        CALLS.fetch_add(1, SeqCst);
        assert!(!CARD.0.is_pending(data as usize), "it is being sent");
        match data {
            0 => CARD.0.withdraw(0),
            _ => CARD.0.reset(),
        }
        false
    });
    manager!(static MANAGER, with_interrupt_controller(&WITHDRAWING));
    within_limit(|| {
        MANAGER.register_device(&CARD, None, &[], &[]).unwrap();
        CARD.0.set_enabled(true);
        for number in [0, 1] {
            CARD.0.set(number, message(number, false));
            assert_eq!((CARD.0.signal(number), CARD.0.is_pending(number)), (REFUSED, false));
        }
        assert_eq!(CALLS.load(SeqCst), 2);
    });
}

/// C27, C35.
#[test]
fn a_message_of_which_the_controller_unwinds_is_pending_and_so_are_those_behind_it() {
    let (unwind, sent) = (AtomicBool::new(true), Mutex::new(Vec::new()));
    let controller = OnMessage(|data| {
        assert!(data != 1 || !unwind.load(SeqCst), "unwinds");
        sent.lock().push(data);
        true
    });
    card!(messages: 3, &controller);
    messages.set_masked(true);
    [0, 1, 2].into_iter().for_each(|number| messages.signal(number).unwrap());
    assert!(unwinds(|| messages.set_masked(false)));
    assert_eq!([0, 1, 2].map(|number| messages.is_pending(number)), [false, true, true]);
    unwind.store(false, SeqCst);
    messages.signal(0).unwrap();
    assert_eq!(*sent.lock(), [0, 0, 1, 2]);
}

/// What a guest may read and write of a table of three messages, by the table in PCI Local Bus 3.0, 6.8.2.
#[test]
fn the_table_is_read_and_written_by_whole_dwords_at_every_offset_and_length() {
    const N: usize = 3;
    const BITS: [u32; 4] = [!3, !0, !0, 1];
    for offset in (0..80).chain([u64::MAX - 3, u64::MAX - 7, u64::MAX, 1 << 40]) {
        for length in 0..=40 {
            let messages = Messages::<N>::new();
            (0..N).for_each(|number| messages.set(number, message(number + 1, true)));
            let mut table: Vec<u32> = (0..N)
                .map(|number| message(number + 1, true))
                .flat_map(|message| [message.address.0 as u32, (message.address.0 >> 32) as u32, message.data, 1])
                .collect();
            let written: Vec<u8> = (0..length).map(|byte| 0xa5 ^ (byte * 37) as u8).collect();
            messages.store_table(offset, &written);
            let is_whole = offset % 4 == 0 && length % 4 == 0;
            for (number, dword) in written.chunks(4).enumerate().filter(|_| is_whole) {
                let register = (offset / 4) as usize + number;
                if let Some(old) = table.get_mut(register) {
                    *old = u32::from_le_bytes(dword.try_into().unwrap()) & BITS[register % 4];
                }
            }
            let mut bytes = vec![0x5a; 80];
            messages.load_table(0, &mut bytes);
            let expected: Vec<u8> = table.iter().flat_map(|dword| dword.to_le_bytes()).collect();
            assert_eq!(bytes, [&expected[..], &[0x5a; 32]].concat(), "{length} bytes at {offset:#x}");
            // And read there.
            let mut data = vec![0x5a; length];
            messages.load_table(offset, &mut data);
            for (at, byte) in data.iter().enumerate() {
                let there = expected.get((offset as usize).saturating_add(at)).filter(|_| is_whole);
                assert_eq!(byte, there.unwrap_or(&0x5a), "byte {at} of {length} at {offset:#x}");
            }
        }
    }
}

#[test]
fn pending_bits_are_read_by_whole_dwords_at_every_offset_and_length() {
    let messages = Messages::<70>::new();
    for number in [0, 7, 31, 32, 63, 64, 69] {
        messages.signal(number).unwrap();
    }
    let bits = [1 | 1 << 7 | 1 << 31 | 1 << 32 | 1 << 63, 1_u64 | 1 << 5].map(u64::to_le_bytes).concat();
    for offset in (0..40).chain([u64::MAX - 3, u64::MAX, 1 << 60]) {
        for length in 0..=24 {
            let mut data = vec![0x5a; length];
            messages.load_pending(offset, &mut data);
            let is_whole = offset % 4 == 0 && length % 4 == 0;
            for (at, byte) in data.iter().enumerate() {
                let there = bits.get((offset as usize).saturating_add(at)).filter(|_| is_whole);
                assert_eq!(byte, there.unwrap_or(&0x5a), "byte {at} of {length} at {offset:#x}");
            }
        }
    }
}

#[test]
fn a_guests_unmasking_write_sends_what_is_pending() {
    let log = Log::default();
    card!(messages: 2, &log);
    messages.store_table(0x1c, &[1, 0, 0, 0]);
    messages.signal(1).unwrap();
    assert_eq!(log.take(), []);
    // Of an access of two messages at once.
    messages.store_table(0x0c, &[[0; 4], [0, 0, 0, 1], [9, 0, 0, 0], [8, 0, 0, 0], [0xfe; 4]].concat());
    assert_eq!(log.take(), [Told::Message(0x9_0100_0000, 8)]);
}

/// The plain model: what each message is, and what is owed.
struct Model {
    enabled: bool,
    masked: bool,
    mask: [bool; 5],
    pending: [bool; 5],
    refuses: [bool; 5],
    /// A refused message is tried again.
    owed: bool,
    sent: Vec<usize>,
}

impl Model {
    fn is_due(&self, number: usize) -> bool {
        self.enabled && !self.masked && !self.mask[number] && self.pending[number]
    }

    fn send(&mut self, number: usize) -> bool {
        self.sent.push(number);
        self.pending[number] = self.refuses[number];
        self.owed |= self.refuses[number];
        !self.refuses[number]
    }

    fn send_all(&mut self, except: Option<usize>) {
        self.owed = false;
        for number in 0..5 {
            if Some(number) != except && self.is_due(number) {
                self.send(number);
            }
        }
        // What is still due was refused.
        self.owed |= (0..5).any(|number| self.is_due(number));
    }

    fn signal(&mut self, number: usize) -> bool {
        let owed = core::mem::take(&mut self.owed);
        self.pending[number] = true;
        let is_taken = !self.is_due(number) || self.send(number);
        if owed {
            self.send_all(Some(number));
        }
        is_taken
    }
}

#[test]
fn after_operations_at_random_a_plain_model_has_sent_the_same() {
    let refuses = Mutex::new([false; 5]);
    let sent = Mutex::new(Vec::new());
    let controller = OnMessage(|data| {
        sent.lock().push(data as usize);
        !refuses.lock()[data as usize]
    });
    let mut counts = [0; 2];
    for seed in 0..if cfg!(miri) { 3 } else { 300_u64 } {
        card!(messages: 5, &controller);
        let mut model = Model {
            enabled: true,
            masked: false,
            mask: [false; 5],
            pending: [false; 5],
            refuses: [false; 5],
            owed: false,
            sent: Vec::new(),
        };
        let mut random = seed;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % limit as usize
        };
        *refuses.lock() = [false; 5];
        sent.lock().clear();
        for _ in 0..100 {
            let (number, yes) = (below(5), below(2) == 0);
            match below(8) {
                0 => {
                    model.enabled = yes;
                    messages.set_enabled(yes);
                    model.send_all(None);
                }
                1 => {
                    model.masked = yes;
                    messages.set_masked(yes);
                    model.send_all(None);
                }
                2 => {
                    model.mask[number] = yes;
                    messages.store_table(16 * number as u64 + 12, &[yes.into(), 0, 0, 0]);
                    model.send_all(None);
                }
                3 => {
                    model.pending[number] = false;
                    messages.withdraw(number);
                }
                4 => {
                    model.refuses[number] = yes && below(2) == 0;
                    *refuses.lock() = model.refuses;
                }
                _ => assert_eq!(messages.signal(number).is_ok(), model.signal(number)),
            }
            assert_eq!([0, 1, 2, 3, 4].map(|number| messages.is_pending(number)), model.pending, "seed {seed}");
            assert_eq!(*sent.lock(), model.sent, "seed {seed}");
        }
        counts[0] += model.sent.len();
        counts[1] += model.pending.iter().filter(|pending| **pending).count();
    }
    assert!(cfg!(miri) || (counts[0] > 5000 && counts[1] > 100), "sent, pending: {counts:?}");
}

/// C35.
#[test]
fn threads_that_signal_mask_and_unmask_lose_no_message_and_send_none_that_was_not_signalled() {
    const N: usize = 3;
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    within_limit(move || {
        let [signalled, seen, sent] = [(); 3].map(|()| [(); N].map(|()| AtomicUsize::new(0)));
        let turn = AtomicUsize::new(0);
        let controller = OnMessage(|data| {
            if turn.fetch_add(1, SeqCst).is_multiple_of(5) {
                return false;
            }
            let number = data as usize;
            sent[number].fetch_add(1, SeqCst);
            seen[number].fetch_max(signalled[number].load(SeqCst), SeqCst);
            true
        });
        card!(messages: N, &controller);
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let signallers = [0, 1].map(|first| {
                let signalled = &signalled;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let number = (first + round) % N;
                        signalled[number].fetch_add(1, SeqCst);
                        let _ = messages.signal(number);
                    }
                })
            });
            let ended = &ended;
            scope.spawn(move || {
                for round in 0.. {
                    let yes = round % 2 == 0;
                    match round / 2 % 3 {
                        0 => messages.set_masked(yes),
                        1 => messages.store_table(16 * (round % N) as u64 + 12, &[yes.into(), 0, 0, 0]),
                        _ => messages.set_enabled(!yes),
                    }
                    if ended.load(SeqCst) && !yes {
                        break;
                    }
                    thread::yield_now();
                }
            });
            signallers.into_iter().for_each(|signaller| signaller.join().unwrap());
            ended.store(true, SeqCst);
        });
        messages.set_masked(false);
        messages.set_enabled(true);
        // The controller refuses one of five calls.
        for number in (0..N).chain(0..N).chain(0..N) {
            messages.set(number, message(number, false));
        }
        for number in 0..N {
            let [signalled, seen, sent] = [&signalled, &seen, &sent].map(|counts| counts[number].load(SeqCst));
            assert!(!messages.is_pending(number) && seen == signalled, "{seen} of {signalled} signals of {number}");
            assert!(0 < sent && sent <= signalled, "{sent} sent of {signalled}");
        }
    });
}

#[test]
fn a_message_whose_sending_has_begun_delays_nobody() {
    within_limit(|| {
        let [inside, go_on] = [(); 2].map(|()| AtomicBool::new(false));
        let controller = OnMessage(|data| {
            if data == 0 {
                inside.store(true, SeqCst);
                wait_for(&go_on);
            }
            true
        });
        card!(messages: 2, &controller);
        thread::scope(|scope| {
            scope.spawn(|| messages.signal(0).unwrap());
            wait_for(&inside);
            messages.set_masked(true);
            messages.signal(1).unwrap();
            messages.set_masked(false);
            assert!(!messages.is_pending(1));
            go_on.store(true, SeqCst);
        });
    });
}

/// C27, C35.
#[test]
fn a_refused_message_is_not_forgotten_when_the_next_one_is_withdrawn_and_unwinds() {
    static CARD: Card<'static, 3> = Card(Messages::new());
    static PHASE: AtomicUsize = AtomicUsize::new(0);
    static SENT: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    static CONTROLLER: OnMessage<fn(u32) -> bool> = OnMessage(|data| {
        let phase = PHASE.load(SeqCst);
        if phase == 1 && data == 0 {
            CARD.0.withdraw(0);
            panic!("the controller unwinds");
        }
        if phase != 0 {
            SENT.lock().push(data);
        }
        phase != 0
    });
    manager!(static MANAGER, with_interrupt_controller(&CONTROLLER));
    MANAGER.register_device(&CARD, None, &[], &[]).unwrap();
    (0..3).for_each(|number| CARD.0.set(number, message(number, false)));
    CARD.0.set_enabled(true);
    assert_eq!(CARD.0.signal(2), REFUSED);
    PHASE.store(1, SeqCst);
    assert!(unwinds(|| CARD.0.signal(0)));
    PHASE.store(2, SeqCst);
    CARD.0.signal(1).unwrap();
    assert_eq!(*SENT.lock(), [1, 2]);
}
