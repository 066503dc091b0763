//! What the VMM takes for itself: ranges and interrupt lines.

mod fixture;

use fixture::{DEVICES, Log, NEW, Platform, RANGES, Source, Told, bounded, is_refused, manager, observe, range};
use vm_device::{
    Fit, Gsi, GuestUsize, IoError, IoResource, IoType, IrqError, IrqRefusal, IrqResource, Owner, Placement,
    RangeRefusal, RegisterError,
};

#[test]
fn the_vmm_takes_and_gives_back_ranges_that_no_device_has() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let Platform { bus, serial, .. } = Platform::new(&manager);
    let before = observe(&manager, &[]);
    for (io_type, wanted, owner) in [
        (IoType::Pio, range(0x3ff, 0x3ff), Owner::Device { id: serial, name: "serial" }),
        (IoType::PhysicalMmio, range(0x1_0000, 0x1_0000), Owner::Device { id: bus, name: "bus" }),
        (IoType::Mmio, range(0x1f_ffff, u64::MAX), Owner::Vmm),
    ] {
        let got = manager.reserve(io_type, wanted);
        assert!(matches!(got, Err(RangeRefusal::Overlap { owner: o, .. }) if o == owner), "{got:?}");
    }
    for (io_type, taken) in [
        (IoType::Pio, range(0x3f8, 0x3ff)),
        (IoType::Mmio, range(0x10_0000, 0x1f_fffe)),
        (IoType::Mmio, range(0x10_0001, 0x1f_ffff)),
        (IoType::Pio, range(0, 0)),
    ] {
        let refusal = RangeRefusal::NotAllocated { range: taken };
        assert_eq!(manager.release(io_type, taken), Err(refusal));
    }
    assert_eq!(observe(&manager, &[]), before);
    assert_eq!(manager.release(IoType::PhysicalMmio, range(0x10_0000, 0x1f_ffff)), Ok(()));
    // The last port is free: nothing of what was refused has stayed.
    let last = IoResource::any(IoType::Pio, GuestUsize(1)).last_fit();
    let id = manager.register_device(&NEW, None, &[last], &[]).unwrap();
    assert_eq!(manager.range(id, 0).unwrap().range, range(0xfff, 0xfff));
}

#[test]
fn the_vmm_takes_a_range_wherever_there_is_room() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let any = |size, align, fit| Placement::Any { size: GuestUsize(size), align, within: None, fit };
    let first = manager.reserve(IoType::Mmio, any(0x1000, 0x1000, Fit::First)).unwrap();
    let last = manager.reserve(IoType::Mmio, any(0x1000, 0x1000, Fit::Last)).unwrap();
    assert_eq!([first, last], [range(0x1000, 0x1fff), range(u64::MAX - 0xfff, u64::MAX)]);
    let port = manager.reserve(IoType::Pio, any(1, 1, Fit::Last)).unwrap();
    assert_eq!(port, range(0xfff, 0xfff));
    // A device is given what lies behind them, and an access to them is unclaimed.
    let page = IoResource::any(IoType::Mmio, GuestUsize(0x1000)).aligned(0x1000);
    let id = manager.register_device(&NEW, None, &[page, page.last_fit()], &[]).unwrap();
    let given = [0, 1].map(|index| manager.range(id, index).unwrap().range);
    assert_eq!(given, [range(0x2000, 0x2fff), range(u64::MAX - 0x1fff, u64::MAX - 0x1000)]);
    assert_eq!(manager.read(first.first(), &mut [0], IoType::Mmio), Err(IoError::Unclaimed));
    // Where there is none, and where nothing can be.
    let pool = range(0x1000, u64::MAX);
    for (placement, refusal, words) in [
        (any(0, 1, Fit::First), RangeRefusal::Empty, "a range of size 0 cannot be allocated"),
        (any(1, 3, Fit::First), RangeRefusal::BadAlignment { align: 3 }, "the alignment 0x3 is no power of two"),
        (
            any(1 << 63, 1 << 63, Fit::First),
            RangeRefusal::NoRoom { size: GuestUsize(1 << 63), align: 1 << 63, within: pool },
            "no free range of size 0x8000000000000000, aligned to 0x8000000000000000, lies within \
             [0x1000, 0xffffffffffffffff]",
        ),
    ] {
        is_refused(&manager, refusal, words, || manager.reserve(IoType::Mmio, placement));
    }
    assert_eq!([first, last].map(|range| manager.release(IoType::Mmio, range)), [Ok(()); 2]);
    assert_eq!(manager.release(IoType::Pio, port), Ok(()));
    assert_eq!(manager.reserve(IoType::Mmio, first), Ok(first), "it is free again");
}

#[test]
fn no_device_is_given_a_line_of_the_vmm() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    assert_eq!(manager.reserve_irq(Some(Gsi(6))), Ok(Gsi(6)));
    let error =
        RegisterError::Irq { device: "new", index: 0, refusal: IrqRefusal::Taken { gsi: Gsi(6), owner: Owner::Vmm } };
    let words = "interrupt request 0 of \"new\": GSI 6 belongs to the VMM";
    for irq in [IrqResource::Fixed(Gsi(6)), IrqResource::Shared(Gsi(6))] {
        is_refused(&manager, error, words, || manager.register_device(&NEW, None, &[], &[irq]));
    }
}

#[test]
fn the_vmm_takes_and_gives_back_lines_that_no_device_has() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let Platform { serial, .. } = Platform::new(&manager);
    // Lines 5 and 7 are devices'.
    assert_eq!([manager.reserve_irq(None), manager.reserve_irq(Some(Gsi(8)))], [Ok(Gsi(6)), Ok(Gsi(8))]);
    let none_free = IrqError::NoneFree { first: Gsi(5), last: Gsi(8) };
    is_refused(&manager, none_free, "all of the allocator's lines, GSI 5 to GSI 8, are in use", || {
        manager.reserve_irq(None)
    });
    for gsi in [Gsi(5), Gsi(6), Gsi(7)] {
        let words = format!("{gsi} is in use");
        is_refused(&manager, IrqError::InUse { gsi }, &words, || manager.reserve_irq(Some(gsi)));
    }
    let outside = IrqError::OutsidePool { gsi: Gsi(9), first: Gsi(5), last: Gsi(8) };
    let words = "GSI 9 is none of the allocator's lines, GSI 5 to GSI 8";
    is_refused(&manager, outside, words, || manager.reserve_irq(Some(Gsi(9))));
    for gsi in [Gsi(5), Gsi(7)] {
        let words = format!("{gsi} is not in use");
        is_refused(&manager, IrqError::NotAllocated { gsi }, &words, || manager.release_irq(gsi));
    }
    assert_eq!(manager.release_irq(Gsi(6)), Ok(()));
    assert_eq!(manager.release_irq(Gsi(6)), Err(IrqError::NotAllocated { gsi: Gsi(6) }));
    manager.unregister_device(serial).unwrap();
    assert_eq!([manager.reserve_irq(None), manager.reserve_irq(None)], [Ok(Gsi(5)), Ok(Gsi(6))]);
}

#[test]
fn the_vmm_is_not_given_a_line_that_may_still_be_asserted() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let source = Source::new("source");
    let id = manager.register_device(&source, None, &[], &[IrqResource::Fixed(Gsi(5))]).unwrap();
    source.line().assert().unwrap();
    log.refuse(true);
    manager.unregister_device(id).unwrap();
    assert_eq!(manager.reserve_irq(Some(Gsi(5))), Err(IrqError::InUse { gsi: Gsi(5) }));
    assert_eq!(manager.release_irq(Gsi(5)), Err(IrqError::NotAllocated { gsi: Gsi(5) }));
    assert_eq!(manager.reserve_irq(None), Ok(Gsi(6)));
    log.refuse(false);
    log.take();
    assert_eq!((manager.collect(), log.take()), (0, vec![Told::Level(5, false)]));
    assert_eq!(manager.reserve_irq(Some(Gsi(5))), Ok(Gsi(5)));
}
