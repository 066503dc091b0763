//! The atomics the crate is built on: `core`'s, or loom's when the models run.
//!
//! loom's constructors are not `const`, so the few functions that build them go through `const_fn!` and `array!`.

#[cfg(not(vm_device_loom))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(vm_device_loom)]
pub(crate) use loom::cell::UnsafeCell;
#[cfg(vm_device_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// `core`'s cell under the interface of loom's.
#[cfg(not(vm_device_loom))]
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(vm_device_loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
        look(self.0.get())
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
        change(self.0.get())
    }
}

/// The lock that serialises writers. No reader takes it.
#[cfg(not(vm_device_loom))]
pub(crate) type Mutex<T> = spin::Mutex<T>;
#[cfg(not(vm_device_loom))]
pub(crate) use spin::MutexGuard;

/// loom's mutex, for a value of any size, under the interface of spin's. loom's own orders the turns; `std`'s holds the value.
#[cfg(vm_device_loom)]
pub(crate) struct Mutex<T: ?Sized> {
    turn: loom::sync::Mutex<()>,
    value: std::sync::Mutex<T>,
}

#[cfg(vm_device_loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { turn: loom::sync::Mutex::new(()), value: std::sync::Mutex::new(value) }
    }
}

#[cfg(vm_device_loom)]
impl<T: ?Sized> Mutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let turn = self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        MutexGuard { value: self.value.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), _turn: turn }
    }
}

/// The value is unlocked before the turn: fields are dropped in their order.
#[cfg(vm_device_loom)]
pub(crate) struct MutexGuard<'a, T: ?Sized> {
    value: std::sync::MutexGuard<'a, T>,
    _turn: loom::sync::MutexGuard<'a, ()>,
}

#[cfg(vm_device_loom)]
impl<T: ?Sized> core::ops::Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(vm_device_loom)]
impl<T: ?Sized> core::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// One turn of a loop that waits for another thread.
#[inline]
pub(crate) fn spin_once() {
    crate::cost::waited();
    #[cfg(not(vm_device_loom))]
    core::hint::spin_loop();
    #[cfg(vm_device_loom)]
    loom::thread::yield_now();
}

/// Tells the compiler that the branch with this call is seldom taken. From Rust 1.95 on, `core::hint::cold_path` does so.
#[cold]
#[inline(always)]
pub(crate) fn cold_path() {}

/// A function that is `const`, except under loom.
macro_rules! const_fn {
    ($(#[$attribute:meta])* $vis:vis fn $($rest:tt)*) => {
        #[cfg(not(vm_device_loom))]
        $(#[$attribute])* $vis const fn $($rest)*
        #[cfg(vm_device_loom)]
        $(#[$attribute])* $vis fn $($rest)*
    };
}

/// An array of `N` elements, each made by the same expression.
macro_rules! array {
    ($element:expr; $n:expr) => {{
        #[cfg(not(vm_device_loom))]
        let array = [const { $element }; $n];
        #[cfg(vm_device_loom)]
        let array = core::array::from_fn(|_| $element);
        array
    }};
}

pub(crate) use {array, const_fn};
