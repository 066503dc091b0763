//! In tests, a count of what writers look at and move: for the worst case of a registration. Otherwise nothing.

/// Counts a look at a range or at a segment.
#[cfg(any(not(test), loom))]
#[inline(always)]
pub(crate) fn looked() {}

/// Counts elements of the order or of the index that change their places.
#[cfg(any(not(test), loom))]
#[inline(always)]
pub(crate) fn moved(_: usize) {}

#[cfg(all(test, not(loom)))]
pub(crate) use counted::{looked, moved};

#[cfg(all(test, not(loom)))]
mod counted {
    use core::cell::Cell;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use crate::{
        Access, Device, DeviceManager, InstanceId, IoRange, IoResource, IrqResource, Relocation, SystemAllocator,
    };

    std::thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
        static MOVES: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn looked() {
        LOOKS.set(LOOKS.get() + 1);
    }

    pub(crate) fn moved(count: usize) {
        MOVES.set(MOVES.get() + count);
    }

    struct Named(String);

    impl Device<'_> for Named {
        fn name(&self) -> &str {
            &self.0
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }

    /// What a change looks at and moves is within the bounds.
    fn check<T>(what: &str, [looks, moves]: [usize; 2], change: impl FnOnce() -> T) -> T {
        LOOKS.set(0);
        MOVES.set(0);
        let outcome = change();
        assert!(LOOKS.get() <= looks, "{what}: {} looks, not {looks}", LOOKS.get());
        assert!(MOVES.get() <= moves, "{what}: {} moves, not {moves}", MOVES.get());
        outcome
    }

    /// The bounds that the crate's documentation states.
    #[test]
    fn a_change_looks_at_and_moves_no_more_than_stated() {
        // An interpreter takes long for many.
        let most: usize = if cfg!(miri) { 20 } else { 1025 };
        let devices: Vec<_> = (0..=most).map(|n| Named(format!("{n}"))).collect();
        let manager: DeviceManager<'_, 1030, 1030, 1> = DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY));
        let at = |place: usize| 0x100 * place as u64;
        let register = |device: usize, place: usize| -> InstanceId {
            let request = IoResource::mmio(at(place), 0x10);
            manager.register_device(&devices[device], None, &[request], IrqResource::None).unwrap()
        };
        for n in 0..most {
            let levels = (n + 1).next_power_of_two().ilog2() as usize;
            // The others have the odd places.
            for place in [0, n & !1, 2 * n] {
                let other = 2 * n - place;
                let what = format!("{n} others, at {place}");
                let id = check(&what, [4 * levels + 25, 3 * n + 1], || register(most, place));
                let moved = Relocation::new(id, 0).to(at(other).into());
                check(&what, [7 * levels + 37, 3 * n + 2], || manager.relocate(&[moved]).unwrap());
                check(&what, [3 * levels + 30, 3 * n + 1], || manager.unregister_device(id).unwrap());
            }
            register(n, 2 * n + 1);
        }
    }
}
