//! The timers of a PC, and a guest that uses them.

use core::hint::black_box;

use vm_device::devices::hpet::{Hpet, LegacyReplacement};
use vm_device::devices::pit::Pit;
use vm_device::devices::pm_timer::PmTimer;
use vm_device::devices::rtc::Rtc;
use vm_device::devices::time::{Clock, HandClock, WallClock};
use vm_device::{Access, Device, IrqResource};

use crate::Manager;

static CLOCK: HandClock = HandClock::new();
static REPLACED: LegacyReplacement = LegacyReplacement::new();
static PIT: Pit<'static, &HandClock> = Pit::new(&CLOCK).with_legacy_replacement(&REPLACED);
static RTC: Rtc<'static, &HandClock> = Rtc::new(&CLOCK).with_century(0x32).with_legacy_replacement(&REPLACED);
static HPET: Hpet<'static, &HandClock> = Hpet::new(&CLOCK).with_period(69_841_279).with_legacy_replacement(&REPLACED);
static PM_TIMER: PmTimer<&HandClock> = PmTimer::new(&CLOCK).with_32_bits();

pub fn all(manager: &'static Manager, access: &Access<'_>, data: &mut [u8]) {
    let (pit, rtc, hpet, pm_timer) = black_box((&PIT, &RTC, &HPET, &PM_TIMER));
    CLOCK.set_utc(black_box(CLOCK.utc()));
    let line = [IrqResource::Any];
    manager.register_device(pit, None, &pit.ports(), &line).ok();
    manager.register_device(rtc, None, &[rtc.ports()], &line).ok();
    manager.register_device(hpet, None, &[hpet.mmio(0xfed0_0000)], &line).ok();
    for request in [pm_timer.ports(0x608), pm_timer.mmio(0x1000)] {
        manager.register_device(pm_timer, None, &[request], &[]).ok();
    }
    let devices: [&dyn Device<'static>; 4] = [pit, rtc, hpet, pm_timer];
    for device in devices {
        device.read(access, data);
        device.write(access, data);
        device.reset();
        device.tick(CLOCK.now());
    }
    black_box((rtc.set_byte(black_box(0x34), 1), rtc.byte(black_box(0x34)), REPLACED.is_on()));
}
