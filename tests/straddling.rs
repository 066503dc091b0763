//! What becomes of an access that no range holds whole, where a space splits such accesses and where it does not.

mod fixture;

use fixture::nest::{
    Answered, Asked, Log, Nested, Places, Relay, SPAN, innermost, is_touched, register_nest, same, value, written,
};
use fixture::{Call, Recorder, manager, try_register};
use vm_device::{AccessSizes, GuestAddress, IoError, IoResource, IoType, OpenBus, Straddling};

/// The answer by looking at all ranges, with the last device's pieces refused unless they are of a size in `sizes`.
fn expected(places: &Places, asked: Asked, sizes: &[u64]) -> Answered {
    let Asked { io_type, write, address, element, length } = asked;
    let (each, top) = (if element == 0 { length } else { element }, io_type.last_address().0);
    let mut data = if write { written(length) } else { vec![0xff; length] };
    let end = address.checked_add(each as u64 - 1).filter(|end| *end <= top);
    if address > top || !is_touched(places, address, end.unwrap_or(top)) {
        // Without a range, an access is nobody's.
        return (Err(IoError::Unclaimed), data, vec![]);
    }
    let is_whole = end.is_some_and(|end| innermost(places, address, end).is_some());
    let most = match io_type {
        _ if is_whole => each as u64,
        IoType::Pio => 4,
        _ => 8,
    };
    let (mut calls, mut delivered, mut refused) = (vec![], 0, 0);
    for start in (0..length).step_by(each) {
        let mut at = 0;
        while at < each {
            let Some(next) = address.checked_add(at as u64).filter(|next| *next <= top) else { break };
            let fits = |size: &u64| *size <= most && *size <= (each - at) as u64 && next % size == 0;
            let alike = |size: &u64| {
                innermost(places, next, next + (size - 1)).is_some() || !is_touched(places, next, next + (size - 1))
            };
            let size =
                if is_whole { each as u64 } else { [8, 4, 2, 1].into_iter().find(|s| fits(s) && alike(s)).unwrap() };
            let bytes = &mut data[start + at..start + at + size as usize];
            if let Some((number, base)) = innermost(places, next, next + (size - 1)) {
                if number == 4 && !sizes.contains(&size) {
                    refused += size as u32;
                } else {
                    if !write {
                        (next..=u64::MAX).zip(&mut *bytes).for_each(|(address, byte)| *byte = value(number, address));
                    }
                    calls.push((number, write, next, base, bytes.to_vec()));
                    delivered += size as u32;
                }
            }
            at += size as usize;
        }
    }
    let outcome = match delivered {
        _ if is_whole && refused > 0 => Err(IoError::RefusedSize),
        delivered if delivered as usize == length => Ok(()),
        delivered => Err(IoError::Partial { delivered }),
    };
    (outcome, data, calls)
}

/// Asks for accesses of many lengths around the places.
fn check(relay: &Relay<'_>, io_type: IoType, places: &Places, sizes: &[u64]) {
    let (origin, top) = (places[0].1, io_type.last_address().0);
    for address in origin.saturating_sub(9)..=(origin + (SPAN - 1)).saturating_add(2).min(top) {
        for (length, write) in [1, 2, 4, 7, 8, 16, 40].into_iter().flat_map(|length| [(length, false), (length, true)])
        {
            let asked = Asked { io_type, write, address, element: 0, length };
            same(asked, &relay.ask(asked), &expected(places, asked, sizes));
            if io_type == IoType::Pio && length <= 8 {
                let asked = Asked { element: length, length: 3 * length, ..asked };
                same(asked, &relay.ask(asked), &expected(places, asked, sizes));
            }
        }
    }
}

#[test]
fn a_straddling_access_is_split_into_pieces_that_one_range_or_none_has() {
    for io_type in [IoType::Pio, IoType::Mmio] {
        let top = io_type.last_address().0;
        for origin in [0, 0x1000, 0x1007, top - (SPAN - 1)] {
            for (accepted, sizes) in [(AccessSizes::ANY, &[1, 2, 3, 4, 7, 8, 16, 40][..]), (AccessSizes::WORD, &[2])] {
                let log = Log::default();
                manager!(let manager, with_straddling(io_type, Straddling::Split));
                let devices = [0, 1, 2, 3, 4].map(|number| Nested { number, log: &log });
                let relay = Relay::new(&manager, &log);
                relay.register();
                let (_, places) = register_nest(&manager, &devices, io_type, origin, accepted);
                check(&relay, io_type, &places, sizes);
            }
        }
    }
}

#[test]
fn a_word_to_a_port_of_one_byte_reaches_it_with_its_low_byte() {
    manager!(let manager, with_straddling(IoType::Pio, Straddling::Split));
    let post = Recorder::new("post", 7);
    try_register(&manager, &post, &[IoResource::pio(0x80, 1)]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    let call = |write| Call { write, range_index: 0, address: 0x80, base: 0x80, length: 1 };
    let partial = Err(IoError::Partial { delivered: 1 });
    assert_eq!((vcpu.write(GuestAddress(0x80), &[1, 2], IoType::Pio), post.take()), (partial, vec![call(true)]));
    assert_eq!((vcpu.write(GuestAddress(0x7f), &[1, 2], IoType::Pio), post.take()), (partial, vec![call(true)]));
    let mut data = [0; 2];
    assert_eq!((vcpu.read(GuestAddress(0x80), &mut data, IoType::Pio), post.take()), (partial, vec![call(false)]));
    assert_eq!(data, [7, 0xff]);
    assert_eq!(
        IoError::Partial { delivered: 1 }.to_string(),
        "the access is not wholly inside one range, and 1 of its bytes reached a device"
    );
}

#[test]
fn each_space_has_its_own_policy() {
    manager!(let manager, with_straddling(IoType::PhysicalMmio, Straddling::Split), with_open_bus(IoType::Mmio, OpenBus(0xff)));
    let device = Recorder::new("device", 7);
    try_register(&manager, &device, &[IoResource::pio(0x80, 1), IoResource::mmio(0x80, 1)]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    let mut data = [0; 2];
    assert_eq!(vcpu.read(GuestAddress(0x80), &mut data, IoType::Pio), Err(IoError::Straddling));
    assert_eq!((data, device.take()), ([0xff; 2], vec![]));
    assert_eq!(vcpu.write(GuestAddress(0x80), &data, IoType::Pio), Err(IoError::Straddling));
    assert_eq!(device.take(), []);
    assert_eq!(vcpu.read(GuestAddress(0x80), &mut data, IoType::Mmio), Err(IoError::Partial { delivered: 1 }));
    assert_eq!((data, device.take().len()), ([7, 0xff], 1));
}

/// A device that splits what it does not accept gets each piece as it can.
#[test]
fn a_piece_is_split_further_for_a_device_with_smaller_registers() {
    manager!(let manager, with_straddling(IoType::Mmio, Straddling::Split));
    let [low, high] = [Recorder::new("low", 0x10), Recorder::new("high", 0x20)];
    try_register(&manager, &low, &[IoResource::mmio(0x1000, 4).sizes(AccessSizes::BYTE | AccessSizes::SPLIT)]).unwrap();
    try_register(&manager, &high, &[IoResource::mmio(0x1004, 4)]).unwrap();
    let mut data = [0; 8];
    assert_eq!(manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio), Ok(()));
    assert_eq!(data, [0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x23]);
    assert_eq!(
        [low.take(), high.take()].map(|calls| calls.iter().map(|call| call.length).collect::<Vec<_>>()),
        [vec![1; 4], vec![4]]
    );
}
