//! A value that borrows from a manager, together with what keeps the manager.

#![allow(unsafe_code)]

use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr;

/// What keeps a manager for values that borrow from it.
pub(super) trait Keep<T> {
    /// What is dropped when a value has been dropped.
    type Ending<'a>
    where
        Self: 'a;

    /// Comes before a value is dropped.
    fn ending(&self, value: &T) -> Self::Ending<'_>;
}

/// A value that borrows from what `K` keeps. It is dropped before `K` is.
///
/// The value lies in a `MaybeUninit`, so that nothing takes its references for valid while `K` is dropped. It lies first, so that
/// its address is that of the whole, and an access has nothing to add.
#[repr(C)]
pub(super) struct Held<T, K: Keep<T>> {
    /// Initialised until this is dropped.
    value: MaybeUninit<T>,
    keeper: K,
}

impl<T, K: Keep<T>> Held<T, K> {
    /// `value` borrows from what `keeper` keeps.
    pub(super) fn new(value: T, keeper: K) -> Self {
        Self { value: MaybeUninit::new(value), keeper }
    }

    pub(super) fn get(&self) -> &T {
        // SAFETY: it is initialised.
        unsafe { self.value.assume_init_ref() }
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self) -> &mut T {
        // SAFETY: it is initialised.
        unsafe { self.value.assume_init_mut() }
    }

    /// The two parts. The caller drops the value before the keeper.
    pub(super) fn into_parts(self) -> (T, K) {
        let this = ManuallyDrop::new(self);
        // SAFETY: the value is initialised, and neither part is dropped or used here any more.
        unsafe { (this.value.assume_init_read(), ptr::read(&this.keeper)) }
    }
}

impl<T, K: Keep<T>> Drop for Held<T, K> {
    fn drop(&mut self) {
        let _ending = self.keeper.ending(self.get());
        // SAFETY: it is initialised, and not used after this.
        unsafe { self.value.assume_init_drop() };
    }
}
