//! Counts for tests: in unit tests, how many elements writers look at and move, and how many turns they wait; in models, how
//! many searches an access takes. In every other build the functions do nothing.

/// Counts a look at a range or at a segment.
#[cfg(any(not(test), vm_device_loom))]
#[inline(always)]
pub(crate) fn looked() {}

/// Counts elements of the pool's order or of the index that move.
#[cfg(any(not(test), vm_device_loom))]
#[inline(always)]
pub(crate) fn moved(_: usize) {}

/// Counts one search on the slow path of an access.
#[cfg(not(all(test, vm_device_loom)))]
#[inline(always)]
pub(crate) fn searched() {}

#[cfg(all(test, vm_device_loom))]
pub(crate) use modelled::{count_searches, searched};

#[cfg(all(test, vm_device_loom))]
mod modelled {
    use core::cell::Cell;

    loom::thread_local! {
        static SEARCHES: Cell<Option<usize>> = Cell::new(None);
    }

    pub(crate) fn searched() {
        SEARCHES.with(|searches| {
            if let Some(count) = searches.get() {
                searches.set(Some(count + 1));
                // Other threads go on before the reader compares versions; loom counts a yield as no preemption.
                loom::thread::yield_now();
            }
        });
    }

    /// How many searches an access of this thread takes. Other threads have their turn after each.
    pub(crate) fn count_searches(access: impl FnOnce()) -> usize {
        SEARCHES.with(|searches| searches.set(Some(0)));
        access();
        SEARCHES.with(Cell::take).unwrap_or(0)
    }
}

/// Counts a turn of a loop that waits.
#[cfg(not(all(test, not(vm_device_loom))))]
#[inline(always)]
pub(crate) fn waited() {}

#[cfg(all(test, not(vm_device_loom)))]
pub(crate) use counted::{at_turn, in_turns, looked, meanwhile, measure, moved, waited};

#[cfg(all(test, not(vm_device_loom)))]
mod counted {
    use core::cell::{Cell, RefCell};
    use std::boxed::Box;

    /// An event, and the turn of a waiting loop at which it comes.
    type Event = (usize, Box<dyn FnOnce()>);

    std::thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
        static MOVES: Cell<usize> = const { Cell::new(0) };
        static TURNS: Cell<usize> = const { Cell::new(0) };
        static EVENT: RefCell<Option<Event>> = const { RefCell::new(None) };
        /// What happens at each step of a change.
        static MEANWHILE: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
    }

    pub(crate) fn looked() {
        LOOKS.set(LOOKS.get() + 1);
        MEANWHILE.with_borrow_mut(|meanwhile| meanwhile.iter_mut().for_each(|meanwhile| meanwhile()));
    }

    pub(crate) fn moved(count: usize) {
        MOVES.set(MOVES.get() + count);
        MEANWHILE.with_borrow_mut(|meanwhile| meanwhile.iter_mut().for_each(|meanwhile| meanwhile()));
    }

    pub(crate) fn waited() {
        let turns = TURNS.get() + 1;
        TURNS.set(turns);
        if let Some((_, event)) = EVENT.with_borrow_mut(|event| event.take_if(|(turn, _)| *turn == turns)) {
            event();
        }
    }

    /// How many looks and moves of this thread a change takes.
    pub(crate) fn measure<T>(change: impl FnOnce() -> T) -> (T, [usize; 2]) {
        LOOKS.set(0);
        MOVES.set(0);
        (change(), [LOOKS.get(), MOVES.get()])
    }

    /// Lets an event come at this turn of the next waiting loop of this thread.
    pub(crate) fn at_turn(turn: usize, event: impl FnOnce() + 'static) {
        TURNS.set(0);
        EVENT.set(Some((turn, Box::new(event))));
    }

    /// How many turns this thread has waited since [`at_turn`], if the event has come.
    pub(crate) fn in_turns() -> Option<usize> {
        EVENT.take().is_none().then(|| TURNS.get())
    }

    /// Lets something happen at each step of what `change` does on this thread.
    pub(crate) fn meanwhile(step: impl FnMut() + 'static, change: impl FnOnce()) {
        MEANWHILE.set(Some(Box::new(step)));
        change();
        MEANWHILE.take();
    }
}
