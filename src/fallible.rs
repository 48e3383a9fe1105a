//! Memory whose size the bytes choose: had, or refused with [`Error::OutOfMemory`].
//!
//! Where Rust's collections find no memory, they end the process. So what grows with an image, or
//! with its debug information, is reserved through this module first. What is not, is small.

#![allow(unsafe_code)]
// Not all of it is used yet.
#![allow(dead_code)]

use std::alloc::{self, Layout};

use crate::error::Error;

/// A vector with room for `capacity` items, and no more.
pub(crate) fn try_vec<T>(capacity: usize) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    items.try_reserve_exact(capacity).map_err(|_| no_memory::<T>(capacity))?;
    Ok(items)
}

/// A copy of `items`.
pub(crate) fn try_copy<T: Copy>(items: &[T]) -> Result<Vec<T>, Error> {
    let mut copy = try_vec(items.len())?;
    copy.extend_from_slice(items);
    Ok(copy)
}

/// `len` times `item`. (Zeros that need not be written come from [`try_zeroed`].)
pub(crate) fn try_filled<T: Clone>(item: T, len: usize) -> Result<Vec<T>, Error> {
    let mut items = try_vec(len)?;
    items.resize(len, item);
    Ok(items)
}

/// All items, as `collect` does.
pub(crate) fn try_collect<T>(items: impl IntoIterator<Item = T>) -> Result<Vec<T>, Error> {
    let mut collected = Vec::new();
    collected.try_extend(items)?;
    Ok(collected)
}

/// All items up to the first failure, as `collect` does.
pub(crate) fn try_collect_ok<T, E: From<Error>>(
    items: impl IntoIterator<Item = Result<T, E>>,
) -> Result<Vec<T>, E> {
    let items = items.into_iter();
    let mut collected = try_vec(items.size_hint().0)?;
    for item in items {
        collected.try_push(item?)?;
    }
    Ok(collected)
}

/// Zeros. The pages of many are those that the kernel provides: nothing is written.
pub(crate) fn try_zeroed(len: usize) -> Result<Vec<u8>, Error> {
    let Ok(layout) = Layout::array::<u8>(len) else { return Err(no_memory::<u8>(len)) };
    if len == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout's size is not 0.
    let start = unsafe { alloc::alloc_zeroed(layout) };
    if start.is_null() {
        return Err(no_memory::<u8>(len));
    }
    // SAFETY: allocated by the global allocator with the layout of `len` bytes, all of them
    // initialised; nobody else has them.
    Ok(unsafe { Vec::from_raw_parts(start, len, len) })
}

/// What collections do, for memory that may not be there. Room grows as theirs does.
pub(crate) trait TryGrow<T> {
    /// As `reserve`.
    fn try_room(&mut self, additional: usize) -> Result<(), Error>;

    /// As `push`.
    fn try_push(&mut self, item: T) -> Result<(), Error>;

    /// As `extend`.
    fn try_extend(&mut self, items: impl IntoIterator<Item = T>) -> Result<(), Error>;

    /// As `extend_from_slice`.
    fn try_append(&mut self, items: &[T]) -> Result<(), Error>
    where
        T: Clone;
}

impl<T> TryGrow<T> for Vec<T> {
    #[inline]
    fn try_room(&mut self, additional: usize) -> Result<(), Error> {
        self.try_reserve(additional)
            .map_err(|_| no_memory::<T>(self.len().saturating_add(additional)))
    }

    #[inline]
    fn try_push(&mut self, item: T) -> Result<(), Error> {
        if self.len() == self.capacity() {
            self.try_room(1)?;
        }
        self.push(item);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, items: impl IntoIterator<Item = T>) -> Result<(), Error> {
        let items = items.into_iter();
        self.try_room(items.size_hint().0)?;
        for item in items {
            self.try_push(item)?;
        }
        Ok(())
    }

    #[inline]
    fn try_append(&mut self, items: &[T]) -> Result<(), Error>
    where
        T: Clone,
    {
        self.try_room(items.len())?;
        self.extend_from_slice(items);
        Ok(())
    }
}

/// As `push_str`.
pub(crate) fn try_push_str(text: &mut String, more: &str) -> Result<(), Error> {
    text.try_reserve(more.len())
        .map_err(|_| no_memory::<u8>(text.len().saturating_add(more.len())))?;
    text.push_str(more);
    Ok(())
}

/// As `to_owned`.
pub(crate) fn try_string(text: &str) -> Result<String, Error> {
    let mut copy = String::new();
    try_push_str(&mut copy, text)?;
    Ok(copy)
}

#[cold]
fn no_memory<T>(items: usize) -> Error {
    Error::out_of_memory(items.saturating_mul(size_of::<T>()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_an_error() {
        let is_none = |error: Error| matches!(error, Error::OutOfMemory { .. });
        assert!(is_none(try_vec::<u64>(usize::MAX / 8).unwrap_err()));
        assert!(is_none(try_vec::<u64>(1 << 44).unwrap_err()));
        assert!(is_none(try_zeroed(1 << 47).unwrap_err()));
        assert!(is_none(try_zeroed(usize::MAX).unwrap_err()));
        assert!(is_none(try_filled(7u8, 1 << 47).unwrap_err()));
        assert!(is_none(vec![1u8].try_room(1 << 47).unwrap_err()));
    }

    #[test]
    fn what_is_there_is_as_collections_have_it() {
        assert_eq!(try_zeroed(3).unwrap(), [0; 3]);
        assert_eq!(try_zeroed(0).unwrap(), []);
        assert_eq!(try_copy(&[1, 2]).unwrap(), [1, 2]);
        assert_eq!(try_filled(7, 2).unwrap(), [7, 7]);
        assert_eq!(try_collect(0..3).unwrap(), [0, 1, 2]);
        let failed: Result<Vec<u8>, Error> =
            try_collect_ok([Ok(1), Err(Error::unsupported("x")), Ok(2)]);
        assert_eq!(failed.unwrap_err().to_string(), ": not supported: x");
        let mut grown = vec![1];
        grown.try_push(2).unwrap();
        grown.try_append(&[3]).unwrap();
        grown.try_extend([4, 5]).unwrap();
        assert_eq!(grown, [1, 2, 3, 4, 5]);
        assert_eq!(try_string("ab").unwrap(), "ab");
    }
}
