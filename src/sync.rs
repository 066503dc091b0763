//! The atomics the crate is built on: `core`'s, or loom's when the models run.
//!
//! loom's constructors are not `const`, so the few functions that build them go through `const_fn!` and `array!`.

#[cfg(not(loom))]
pub(crate) use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// One turn of a loop that waits for another thread.
#[inline]
pub(crate) fn spin_once() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// A function that is `const` but under loom.
macro_rules! const_fn {
    ($(#[$attribute:meta])* $vis:vis fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$attribute])* $vis const fn $($rest)*
        #[cfg(loom)]
        $(#[$attribute])* $vis fn $($rest)*
    };
}

/// An array of `N` elements, each made by the same expression.
macro_rules! array {
    ($element:expr; $n:expr) => {{
        #[cfg(not(loom))]
        let array = [const { $element }; $n];
        #[cfg(loom)]
        let array = core::array::from_fn(|_| $element);
        array
    }};
}

pub(crate) use {array, const_fn};
