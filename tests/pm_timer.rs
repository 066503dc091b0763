//! The ACPI power management timer, as a guest sees it.
#![cfg(feature = "devices")]

mod fixture;

use vm_device::devices::pm_timer::PmTimer;
use vm_device::devices::time::{Clock, HandClock};
use vm_device::{DeviceManager, GuestAddress, IoType};

use fixture::manager;

fn read<const N: usize>(manager: &DeviceManager<'_>, address: u64, io_type: IoType) -> [u8; N] {
    let mut data = [0xee; N];
    manager.read(GuestAddress(address), &mut data, io_type).unwrap();
    data
}

#[test]
fn it_counts_3_579545_mhz_exactly_and_wraps_at_its_size() {
    let clock = HandClock::new();
    let (short, long) = (PmTimer::new(&clock), PmTimer::new(&clock).with_32_bits());
    manager!(let manager);
    manager.register_device(&short, None, &[short.ports(0x608)], &[]).unwrap();
    manager.register_device(&long, None, &[long.mmio(0x1000)], &[]).unwrap();
    let values = || {
        let short = u32::from_le_bytes(read(&manager, 0x608, IoType::Pio));
        (short, u32::from_le_bytes(read(&manager, 0x1000, IoType::Mmio)))
    };
    assert_eq!(values(), (0, 0));
    // 315 ticks are 88 microseconds.
    for (now, ticks) in [
        (279, 0),
        (280, 1),
        (88_000, 315),
        (3_600_000_000_000, 12_886_363_636),
        (4_686_968_279, 0x00ff_ffff),
        (4_686_968_280, 0x0100_0000),
        (u64::MAX, (u128::from(u64::MAX) * 315 / 88_000) as u64),
    ] {
        clock.advance(now.wrapping_sub(clock.now()));
        assert_eq!(values(), (ticks as u32 & 0x00ff_ffff, ticks as u32), "{now}");
    }
}

#[test]
fn it_is_read_only_and_read_in_every_size() {
    let clock = HandClock::new();
    let timer = PmTimer::new(&clock);
    manager!(let manager);
    manager.register_device(&timer, None, &[timer.ports(0x608)], &[]).unwrap();
    clock.advance(1_000_000_000);
    // 3,579,545.
    let value = [0x99, 0x9e, 0x36, 0x00];
    manager.write(GuestAddress(0x608), &[0xff; 4], IoType::Pio).unwrap();
    manager.reset().unwrap();
    assert_eq!(read(&manager, 0x608, IoType::Pio), value);
    assert_eq!(read(&manager, 0x609, IoType::Pio), [0x9e, 0x36]);
    assert_eq!((0..4).map(|byte| read(&manager, 0x608 + byte, IoType::Pio)).collect::<Vec<[u8; 1]>>().concat(), value);
    assert_eq!(manager.tick(clock.now()), None);
}
