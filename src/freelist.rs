//! Which places of a fixed array are free.

/// The free ones of `N` places, handed out in constant time: first those never used, from the lowest, then the one
/// given back last.
pub(crate) struct FreeList<const N: usize> {
    next: [u16; N],
    /// The place given back last, plus 1; 0 if there is none.
    head: u16,
    /// The lowest place never used.
    unused: u16,
}

impl<const N: usize> FreeList<N> {
    const FITS: () = assert!(N < u16::MAX as usize, "a capacity has to be less than 65535");

    pub(crate) const fn new() -> Self {
        let () = Self::FITS;
        Self { next: [0; N], head: 0, unused: 0 }
    }

    /// Takes a free place, if there is one.
    pub(crate) fn take(&mut self) -> Option<u16> {
        if let Some(place) = self.head.checked_sub(1) {
            self.head = *self.next.get(place as usize)?;
            return Some(place);
        }
        if (self.unused as usize) < N {
            self.unused += 1;
            return Some(self.unused - 1);
        }
        None
    }

    /// Gives back a place that was taken.
    pub(crate) fn give_back(&mut self, place: u16) {
        if let Some(next) = self.next.get_mut(place as usize) {
            *next = self.head;
            self.head = place + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_handed_out_once() {
        let mut list = FreeList::<3>::new();
        let taken: [_; 4] = core::array::from_fn(|_| list.take());
        assert_eq!(taken, [Some(0), Some(1), Some(2), None]);
        list.give_back(1);
        list.give_back(0);
        assert_eq!([list.take(), list.take(), list.take()], [Some(0), Some(1), None]);
    }
}
