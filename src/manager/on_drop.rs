//! What is done at the end of a scope, unwinding or not.

/// Calls `act` when it is dropped, at a return or while unwinding.
pub(crate) struct OnDrop<T, F: FnMut(&mut T)> {
    pub(crate) value: T,
    act: F,
}

impl<T, F: FnMut(&mut T)> OnDrop<T, F> {
    pub(crate) fn new(value: T, act: F) -> Self {
        Self { value, act }
    }
}

impl<T, F: FnMut(&mut T)> Drop for OnDrop<T, F> {
    fn drop(&mut self) {
        (self.act)(&mut self.value);
    }
}
