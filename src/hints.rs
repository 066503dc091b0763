//! What a vCPU keeps of the accesses before: in which ranges it found addresses like these.

use crate::slots::Hint;

/// For one space, the slots that were found last, one for each `1 << SHIFT` addresses. A hint may be wrong, and is checked
/// where it is used.
pub(crate) struct Hints<const RANGES: usize, const SHIFT: u32, const HINTS: usize>([Hint<RANGES>; HINTS]);

impl<const RANGES: usize, const SHIFT: u32, const HINTS: usize> Hints<RANGES, SHIFT, HINTS> {
    pub(crate) const fn new() -> Self {
        Self([Hint::NONE; HINTS])
    }

    /// Which hint is about `address`. Neighbours have different ones; the bits above tell those apart that lie at a distance
    /// that is a power of two, as the registers of many PCI devices do. Not a product (Fibonacci hashing), whose bits come
    /// two cycles later.
    #[inline(always)]
    fn place(address: u64) -> usize {
        let bits = HINTS.checked_ilog2().unwrap_or(0);
        let near = (address >> SHIFT) as usize;
        (near ^ (near >> bits)) & ((1 << bits) - 1)
    }

    /// Where an address like this was found last, if that is remembered at all.
    #[inline(always)]
    pub(crate) fn hint(&mut self, address: u64) -> Option<&mut Hint<RANGES>> {
        self.0.get_mut(Self::place(address))
    }

    #[inline(always)]
    pub(crate) fn keep(&mut self, address: u64, found: Hint<RANGES>) {
        if let Some(hint) = self.hint(address) {
            *hint = found;
        }
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use super::*;
    use crate::{
        Access, Device, DeviceManager, GuestAddress, GuestUsize, InstanceId, IoRange, IoResource, IoType, IrqResource,
        Relocation, SystemAllocator,
    };

    struct Nameless(&'static str);

    impl Device<'_> for Nameless {
        fn name(&self) -> &str {
            self.0
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }

    static BUS: Nameless = Nameless("bus");
    static CHILD: Nameless = Nameless("child");

    #[test]
    fn neighbours_and_powers_of_two_apart_have_different_hints() {
        let place = Hints::<8, 9, 512>::place;
        for granule in 0..512_u64 {
            assert_eq!(place(granule << 9), granule as usize);
            assert_eq!(place((granule << 9) + 511), granule as usize);
        }
        for distance in 9..=24 {
            let places: std::collections::HashSet<_> = (0..8).map(|n| place(0xc000_0000 + (n << distance))).collect();
            assert_eq!(places.len(), 8, "2^{distance} apart");
        }
        // As many as the next lower power of two.
        assert!((0..100).all(|granule| Hints::<8, 9, 7>::place(granule << 9) < 4));
        assert_eq!(Hints::<8, 9, 1>::place(u64::MAX), 0);
    }

    /// What a wrong one costs is time, so that nothing else shows it.
    #[test]
    fn a_hint_is_right_as_long_as_the_range_is_where_it_is_and_none_lies_in_it() {
        for io_type in [IoType::Pio, IoType::Mmio] {
            let manager: DeviceManager<'_, 4, 4, 1> =
                DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
            let claim = manager.slots.claim_line().unwrap();
            let leads = |id: InstanceId, address: u64| {
                let (slot, _) = manager.state().ranges_of(id.index).next().map(|(slot, range)| (slot, *range)).unwrap();
                let hint = &mut manager.slots.hint(slot).unwrap();
                manager.slots.enter_by_hint(claim.top(), hint, io_type, address, 4).map(|(_, base)| base)
            };
            let at = |base, size| IoResource::fixed(io_type, GuestAddress(base), GuestUsize(size));
            let bus = manager.register_device(&BUS, None, &[at(0x100, 0x40).window()], IrqResource::None).unwrap();
            assert_eq!([leads(bus, 0x100), leads(bus, 0x13c), leads(bus, 0x13d)], [Some(0x100), Some(0x100), None]);

            let child = manager.register_device(&CHILD, Some(bus), &[at(0x120, 4)], IrqResource::None).unwrap();
            assert_eq!([leads(bus, 0x100), leads(bus, 0x120), leads(child, 0x120)], [None, None, Some(0x120)]);
            let move_child = Relocation::new(child, 0).to(GuestAddress(0x130));
            manager.relocate(&[move_child]).unwrap();
            assert_eq!([leads(bus, 0x100), leads(child, 0x120), leads(child, 0x130)], [None, None, Some(0x130)]);
            let move_both =
                [Relocation::new(bus, 0).to(GuestAddress(0x200)), Relocation::new(child, 0).to(GuestAddress(0x220))];
            manager.relocate(&move_both).unwrap();
            assert_eq!([leads(bus, 0x200), leads(child, 0x130), leads(child, 0x220)], [None, None, Some(0x220)]);

            manager.relocate(&[Relocation::new(child, 0).decoded(false)]).unwrap();
            assert_eq!([leads(bus, 0x220), leads(child, 0x220)], [Some(0x200), None]);
            manager.relocate(&[Relocation::new(child, 0).decoded(true)]).unwrap();
            assert_eq!([leads(bus, 0x220), leads(child, 0x220)], [None, Some(0x220)]);
            manager.unregister_device(child).unwrap();
            assert_eq!(leads(bus, 0x220), Some(0x200));
        }
    }

    /// C13.
    #[test]
    fn a_hint_that_led_to_a_slot_that_is_closed_is_forgotten() {
        let manager: DeviceManager<'_, 1, 1, 1> = DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY));
        let claim = manager.slots.claim_line().unwrap();
        let register = || {
            let requests = [IoResource::mmio(0x100, 4)];
            manager.register_device(&CHILD, None, &requests, IrqResource::None).unwrap()
        };
        let enters =
            |hint: &mut Hint<1>| manager.slots.enter_by_hint(claim.top(), hint, IoType::Mmio, 0x100, 4).is_some();
        let id = register();
        let [mut used, mut unused] = [manager.slots.hint(0).unwrap(); 2];
        assert!(enters(&mut used));
        manager.unregister_device(id).unwrap();
        assert!(!enters(&mut used));
        // The slot has the same place again, and only the hint that has not failed leads there.
        register();
        assert_eq!([enters(&mut used), enters(&mut unused)], [false, true]);
    }
}
