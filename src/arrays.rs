//! How the arrays of a storage are held: in place, with their lengths in the type of the storage, or on the heap.

/// A way to hold arrays of one length.
pub(crate) trait Arrays {
    /// An array.
    type Of<T: Send>: AsMut<[T]> + Send;
}

/// In place: each array has `N` elements.
pub(crate) struct InPlace<const N: usize>;

impl<const N: usize> Arrays for InPlace<N> {
    type Of<T: Send> = [T; N];
}

#[cfg(feature = "alloc")]
pub(crate) use boxed::{Boxed, Exhausted, boxed};

#[cfg(feature = "alloc")]
mod boxed {
    use alloc::boxed::Box;
    use alloc::vec::Vec;

    use super::Arrays;

    /// On the heap: the length is known when the array is made.
    pub(crate) struct Boxed;

    impl Arrays for Boxed {
        type Of<T: Send> = Box<[T]>;
    }

    /// The heap has no room for an array of this many bytes.
    #[derive(Debug)]
    pub(crate) struct Exhausted {
        pub(crate) bytes: usize,
    }

    /// An array on the heap, made there element by element.
    pub(crate) fn boxed<T>(length: usize, make: impl FnMut() -> T) -> Result<Box<[T]>, Exhausted> {
        let mut array = Vec::new();
        array.try_reserve_exact(length).map_err(|_| Exhausted { bytes: length.saturating_mul(size_of::<T>()) })?;
        array.resize_with(length, make);
        Ok(array.into_boxed_slice())
    }
}
