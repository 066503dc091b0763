//! Messages of a device.

use core::hint::black_box;

use vm_device::{GuestAddress, IrqLine, Message, Messages};

static MESSAGES: Messages<'static, 4> = Messages::new();

pub fn all(data: &mut [u8]) {
    let messages = black_box(&MESSAGES);
    call!(Messages::connect, messages, IrqLine::DISCONNECTED);
    call!(Messages::signal, messages, 1).ok();
    call!(Messages::withdraw, messages, 1);
    call!(Messages::is_pending, messages, 1);
    call!(Messages::get, messages, 1);
    call!(Messages::set, messages, 1, Message { address: GuestAddress(0), data: 0, masked: false });
    call!(Messages::is_enabled, messages);
    call!(Messages::set_enabled, messages, true);
    call!(Messages::is_masked, messages);
    call!(Messages::set_masked, messages, false);
    call!(Messages::store_table, messages, 0, data);
    call!(Messages::load_table, messages, 0, data);
    call!(Messages::load_pending, messages, 0, data);
    call!(Messages::reset, messages);
    black_box(call!(Messages::<4>::new).is_pending(0));
    black_box(call!(Messages::<4>::default).is_pending(0));
}
