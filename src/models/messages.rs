//! Models of messages: signals against masks, and a controller that refuses.

use super::*;
use crate::{Message, Messages};

/// A controller that counts what it takes, and refuses the first `refusals` calls.
struct Controller {
    refusals: AtomicUsize,
    taken: AtomicUsize,
}

impl Controller {
    fn new(refusals: usize) -> &'static Self {
        share(Self { refusals: AtomicUsize::new(refusals), taken: AtomicUsize::new(0) })
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl InterruptController for Controller {
    fn set_level(&self, _: Gsi, _: bool) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }

    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }

    fn message(&self, _: GuestAddress, data: u32) -> Result<(), InterruptError> {
        // Another thread may find here that the message is being sent.
        thread::yield_now();
        if self.refusals.load(Ordering::Relaxed) > 0 {
            self.refusals.fetch_sub(1, Ordering::Relaxed);
            return Err(InterruptError::Refused);
        }
        assert_eq!(data, 7, "the whole of a message or none of it");
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// One message, masked, of a device that is registered.
fn one_message(controller: &'static Controller) -> &'static Messages<'static, 1> {
    let manager = share(unshared_manager::<1, 2>().with_interrupt_controller(controller));
    let probe = Probe::new(b'a');
    register(manager, probe, 0x500);
    let messages = share(Messages::new());
    messages.connect(probe.line());
    messages.set_enabled(true);
    messages
}

fn unmask(messages: &Messages<'static, 1>) {
    messages.set(0, Message { address: GuestAddress(0xfee0_0000), data: 7, masked: false });
}

/// C35.
#[test]
fn a_message_that_is_signalled_while_it_is_unmasked_is_sent_once() {
    explore("a_message_that_is_signalled_while_it_is_unmasked_is_sent_once", 3, || {
        let controller = Controller::new(0);
        let messages = one_message(controller);
        let device = thread::spawn(move || messages.signal(0).unwrap());
        unmask(messages);
        device.join().unwrap();
        assert_eq!((controller.taken(), messages.is_pending(0)), (1, false));
    });
}

/// C35.
#[test]
fn a_message_that_is_refused_while_others_signal_and_unmask_it_is_not_lost() {
    explore("a_message_that_is_refused_while_others_signal_and_unmask_it_is_not_lost", 2, || {
        let controller = Controller::new(1);
        let messages = one_message(controller);
        let devices = [(); 2].map(|()| {
            thread::spawn(move || {
                let _ = messages.signal(0);
            })
        });
        unmask(messages);
        devices.into_iter().for_each(|device| device.join().unwrap());
        unmask(messages);
        assert!((1..=2).contains(&controller.taken()) && !messages.is_pending(0), "{}", controller.taken());
    });
}
