//! Insertion into and removal from the middle of a fixed-capacity list, without a panic path.

use heapless::Vec;

/// Puts `value` at `index` and moves what follows up by one. An index past the end appends; a full list hands the value
/// back.
pub(super) fn insert_at<T: Copy, const N: usize>(list: &mut Vec<T, N>, index: usize, value: T) -> Result<(), T> {
    list.push(value)?;
    if let Some(following) = list.get_mut(index..)
        && let Some(moved) = following.len().checked_sub(1)
    {
        following.copy_within(..moved, 1);
        if let Some(place) = following.first_mut() {
            *place = value;
        }
    }
    Ok(())
}

/// Takes the value at `index` out and moves what follows down by one.
pub(super) fn remove_at<T: Copy, const N: usize>(list: &mut Vec<T, N>, index: usize) -> Option<T> {
    let following = list.get_mut(index..)?;
    let removed = *following.first()?;
    following.copy_within(1.., 0);
    list.pop();
    Some(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_where_they_are_put() {
        let mut list = Vec::<u8, 4>::new();
        for (index, value) in [(0, 3), (0, 1), (1, 2), (9, 4)] {
            assert_eq!(insert_at(&mut list, index, value), Ok(()));
        }
        assert_eq!(list.as_slice(), [1, 2, 3, 4]);
        assert_eq!(insert_at(&mut list, 0, 5), Err(5));
        assert_eq!(list.as_slice(), [1, 2, 3, 4]);
        assert_eq!(remove_at(&mut list, 4), None);
        assert_eq!(remove_at(&mut list, 1), Some(2));
        assert_eq!(remove_at(&mut list, 2), Some(4));
        assert_eq!(remove_at(&mut list, 0), Some(1));
        assert_eq!(list.as_slice(), [3]);
    }
}
