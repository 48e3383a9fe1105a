//! Fallible allocation: where memory runs out, an [`OutOfMemory`] and not an abort.
//!
//! Rust's collections end the process where they find no memory. So memdl allocates in two ways:
//!
//! * **Memory that grows with the bytes** (an image's tables, its debug information, the host's symbols)
//!   is allocated by the functions of this file, which can fail.
//! * **Small memory** (a record, a name, an error's text) is allocated as usual, after
//!   [`require_memory`] has found that there is room for a large number of such allocations. The
//!   functions of this file fail rather than use that room up.
//!
//! The second way is no proof: other threads may allocate in between, and an allocator may return freed
//! memory to the system at once. It fails only in a process that had 64 KiB of memory a moment ago and
//! has none now.
//!
//! This file allocates from Rust's global allocator only. Mappings are in `memory/`.

#![allow(unsafe_code)]

use std::alloc::{self, Layout};

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::CString;
use std::fmt;
use std::hash::Hash;
use std::hint::black_box;

use crate::base::room::{SPARE_MEMORY, has_room};

/// There is not enough memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory {
    /// The size of the allocation that failed, in bytes.
    pub bytes: u64,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of memory: cannot allocate {} bytes", self.bytes)
    }
}

impl std::error::Error for OutOfMemory {}

/// Checks that there is memory for many small allocations. Every operation that can fail begins with this
/// check, and repeats it for each item of a list that can be long.
#[inline]
pub fn require_memory() -> Result<(), OutOfMemory> {
    if has_spare_memory() { Ok(()) } else { Err(OutOfMemory { bytes: SPARE_MEMORY as u64 }) }
}

/// As [`require_memory`], before item `index` of a list that can be long. It checks before every eighth
/// item only: one item needs a small part of [`SPARE_MEMORY`], and each check may touch a page of the heap that
/// nothing else does.
#[inline]
pub fn require_memory_for_next(index: usize) -> Result<(), OutOfMemory> {
    const AT_ONCE: usize = 8;
    if index % AT_ONCE == AT_ONCE - 1 { require_memory() } else { Ok(()) }
}

/// As [`require_memory`], for callers that can do without the memory.
#[inline]
pub fn has_spare_memory() -> bool {
    const LAYOUT: Layout = Layout::new::<[u8; SPARE_MEMORY]>();
    // SAFETY: the layout's size is not 0. `black_box`, because the compiler would remove both calls if
    // it saw that the memory is not used.
    let start = black_box(unsafe { alloc::alloc(LAYOUT) });
    if start.is_null() {
        return false;
    }
    // SAFETY: allocated above, with this layout.
    unsafe { alloc::dealloc(start, LAYOUT) };
    true
}

/// Whether an allocation of `bytes` bytes has left [`SPARE_MEMORY`].
#[inline]
fn leaves_spare_memory(bytes: usize) -> bool {
    /// Up to this size an allocation counts as small.
    const SMALL: usize = 4 << 10;
    bytes <= SMALL || has_spare_memory()
}

/// Checks that `bytes` bytes can be allocated at once, before a call of a library that aborts where it
/// finds no memory. The memory is not reserved: another thread may take it.
pub fn check_room(bytes: usize) -> Result<(), OutOfMemory> {
    if has_room(bytes) { Ok(()) } else { Err(no_memory::<u8>(bytes)) }
}

/// As `HashSet::insert`.
pub fn try_insert<T: Eq + Hash>(set: &mut HashSet<T>, item: T) -> Result<bool, OutOfMemory> {
    if set.len() == set.capacity() {
        // The capacity doubles.
        let room =
            set.capacity().saturating_mul(2).saturating_mul(size_of::<T>().saturating_add(1));
        if set.try_reserve(1).is_err() || !leaves_spare_memory(room) {
            return Err(OutOfMemory { bytes: room as u64 });
        }
    }
    Ok(set.insert(item))
}

/// A vector with room for `capacity` items, and no more.
#[inline]
pub fn try_vec<T>(capacity: usize) -> Result<Vec<T>, OutOfMemory> {
    let Ok(layout) = Layout::array::<T>(capacity) else { return Err(no_memory::<T>(capacity)) };
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // `try_reserve_exact` takes several times as long.
    // SAFETY: the layout's size is not 0.
    let start = unsafe { alloc::alloc(layout) };
    if start.is_null() {
        return Err(no_memory::<T>(capacity));
    }
    // SAFETY: allocated by the global allocator with the layout of `capacity` items. The length is 0, and
    // there is no other owner.
    let items = unsafe { Vec::from_raw_parts(start.cast(), 0, capacity) };
    if leaves_spare_memory(layout.size()) { Ok(items) } else { Err(no_memory::<T>(capacity)) }
}

/// A copy of `items`.
pub fn try_copy<T: Copy>(items: &[T]) -> Result<Vec<T>, OutOfMemory> {
    let mut copy = try_vec(items.len())?;
    copy.extend_from_slice(items);
    Ok(copy)
}

/// `len` copies of `item`. ([`try_zeroed`] gives zeros without writing them.)
pub fn try_filled<T: Copy>(item: T, len: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut items = try_vec(len)?;
    items.try_lengthen(len, item)?;
    Ok(items)
}

/// All items, as `collect` does.
#[inline]
pub fn try_collect<T>(items: impl IntoIterator<Item = T>) -> Result<Vec<T>, OutOfMemory> {
    let items = items.into_iter();
    let (least, most) = items.size_hint();
    let mut collected = try_vec(least)?;
    if most == Some(least) {
        // `take`, in case the iterator has more items than its hint says: there is room for `least`.
        collected.extend(items.take(least));
        return Ok(collected);
    }
    for item in items {
        collected.try_push(item)?;
    }
    Ok(collected)
}

/// All items up to the first failure, as `collect` does.
pub fn try_collect_ok<T, E: From<OutOfMemory>>(
    items: impl IntoIterator<Item = Result<T, E>>,
) -> Result<Vec<T>, E> {
    let items = items.into_iter();
    let mut collected = try_vec(items.size_hint().0)?;
    for item in items {
        collected.try_push(item?)?;
    }
    Ok(collected)
}

/// `len` zeros. Where they fill pages, these are the kernel's zero pages: nothing is written.
pub fn try_zeroed(len: usize) -> Result<Vec<u8>, OutOfMemory> {
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
    // initialised. There is no other owner.
    let zeroed = unsafe { Vec::from_raw_parts(start, len, len) };
    if leaves_spare_memory(len) { Ok(zeroed) } else { Err(no_memory::<u8>(len)) }
}

/// The methods of a collection, fallible. The capacity grows as usual.
pub trait TryGrow<T> {
    /// As `reserve`.
    fn try_room(&mut self, additional: usize) -> Result<(), OutOfMemory>;

    /// As `push`.
    fn try_push(&mut self, item: T) -> Result<(), OutOfMemory>;

    /// As `extend`.
    fn try_extend(&mut self, items: impl IntoIterator<Item = T>) -> Result<(), OutOfMemory>;

    /// As `resize`, but it never shortens.
    fn try_lengthen(&mut self, len: usize, item: T) -> Result<(), OutOfMemory>
    where
        T: Copy;

    /// As `extend_from_slice`.
    fn try_append(&mut self, items: &[T]) -> Result<(), OutOfMemory>
    where
        T: Clone;
}

impl<T> TryGrow<T> for Vec<T> {
    #[inline]
    fn try_room(&mut self, additional: usize) -> Result<(), OutOfMemory> {
        // The capacity is never less than the length.
        if additional <= self.capacity().wrapping_sub(self.len()) {
            return Ok(());
        }
        let has_room = self.try_reserve(additional).is_ok();
        if has_room && leaves_spare_memory(self.capacity().saturating_mul(size_of::<T>())) {
            return Ok(());
        }
        Err(no_memory::<T>(self.len().saturating_add(additional)))
    }

    #[inline]
    fn try_push(&mut self, item: T) -> Result<(), OutOfMemory> {
        if self.len() == self.capacity() {
            self.try_room(1)?;
        }
        self.push(item);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, items: impl IntoIterator<Item = T>) -> Result<(), OutOfMemory> {
        let items = items.into_iter();
        match items.size_hint() {
            (least, Some(most)) if least == most => {
                self.try_room(least)?;
                // `take`, in case the iterator has more items than its hint says: there is room for `least`.
                self.extend(items.take(least));
                return Ok(());
            }
            (least, _) => self.try_room(least)?,
        }
        for item in items {
            self.try_push(item)?;
        }
        Ok(())
    }

    fn try_lengthen(&mut self, len: usize, item: T) -> Result<(), OutOfMemory>
    where
        T: Copy,
    {
        let additional = len.saturating_sub(self.len());
        self.try_room(additional)?;
        // `resize` and `repeat_n` take three times as many instructions for an `Option`.
        self.extend((0..additional).map(|_| item));
        Ok(())
    }

    #[inline]
    fn try_append(&mut self, items: &[T]) -> Result<(), OutOfMemory>
    where
        T: Clone,
    {
        self.try_room(items.len())?;
        self.extend_from_slice(items);
        Ok(())
    }
}

/// As `CString::new`; `None` for bytes with a NUL.
#[inline]
pub fn try_c_string(bytes: &[u8]) -> Result<Option<CString>, OutOfMemory> {
    // With room for the NUL, so that `CString::new` does not reallocate.
    let mut copy = try_vec(bytes.len().saturating_add(1))?;
    copy.extend_from_slice(bytes);
    Ok(CString::new(copy).ok())
}

/// As `push_str`.
pub fn try_push_str(text: &mut String, more: &str) -> Result<(), OutOfMemory> {
    let before = text.capacity();
    let has_room = text.try_reserve(more.len()).is_ok();
    if !has_room || text.capacity() != before && !leaves_spare_memory(text.capacity()) {
        return Err(no_memory::<u8>(text.len().saturating_add(more.len())));
    }
    text.push_str(more);
    Ok(())
}

/// As `String::from_utf8_lossy(..).into_owned()`.
pub fn try_lossy(bytes: &[u8]) -> Result<String, OutOfMemory> {
    let mut text = String::new();
    for part in bytes.utf8_chunks() {
        try_push_str(&mut text, part.valid())?;
        if !part.invalid().is_empty() {
            try_push_str(&mut text, "\u{fffd}")?;
        }
    }
    Ok(text)
}

/// As `String::from_utf8_lossy`. Where there is no memory for a copy, only the text before the first
/// invalid byte.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => match try_lossy(bytes) {
            Ok(text) => Cow::Owned(text),
            Err(_) => Cow::Borrowed(bytes.utf8_chunks().next().map_or("", |part| part.valid())),
        },
    }
}

/// As `format!`.
pub fn try_format(text: fmt::Arguments<'_>) -> Result<String, OutOfMemory> {
    struct Text(String, Result<(), OutOfMemory>);
    impl fmt::Write for Text {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.1 = try_push_str(&mut self.0, part);
            if self.1.is_ok() { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut made = Text(String::new(), Ok(()));
    // A `Display` that fails on its own leaves the text written so far.
    let _ = fmt::write(&mut made, text);
    made.1.map(|()| made.0)
}

/// As `to_owned`.
pub fn try_string(text: &str) -> Result<String, OutOfMemory> {
    let mut copy = String::new();
    try_push_str(&mut copy, text)?;
    Ok(copy)
}

/// The error of an allocation for `items` items.
#[cold]
pub fn no_memory<T>(items: usize) -> OutOfMemory {
    OutOfMemory { bytes: items.saturating_mul(size_of::<T>()) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        let is_none = |error: OutOfMemory| error.bytes > 1 << 40;
        assert!(is_none(try_vec::<u64>(usize::MAX / 8).unwrap_err()));
        assert!(is_none(try_vec::<u64>(1 << 44).unwrap_err()));
        assert!(is_none(try_zeroed(1 << 47).unwrap_err()));
        assert!(is_none(try_zeroed(usize::MAX).unwrap_err()));
        assert!(is_none(try_filled(7u8, 1 << 47).unwrap_err()));
        assert!(is_none(vec![1u8].try_room(1 << 47).unwrap_err()));
        assert!(is_none(check_room(1 << 47).unwrap_err()));
        assert!(is_none(check_room(usize::MAX).unwrap_err()));
    }

    #[test]
    fn contents_are_those_of_the_standard_collections() {
        assert_eq!(try_zeroed(3).unwrap(), [0; 3]);
        assert_eq!(try_zeroed(0).unwrap(), []);
        assert_eq!(try_copy(&[1, 2]).unwrap(), [1, 2]);
        assert_eq!(try_filled(7, 2).unwrap(), [7, 7]);
        assert_eq!(try_collect(0..3).unwrap(), [0, 1, 2]);
        let failed: Result<Vec<u8>, OutOfMemory> =
            try_collect_ok([Ok(1), Err(OutOfMemory { bytes: 7 }), Ok(2)]);
        assert_eq!(failed.unwrap_err().to_string(), "out of memory: cannot allocate 7 bytes");
        let mut grown = vec![1];
        grown.try_push(2).unwrap();
        grown.try_append(&[3]).unwrap();
        grown.try_extend([4, 5]).unwrap();
        assert_eq!(grown, [1, 2, 3, 4, 5]);
        assert_eq!(try_string("ab").unwrap(), "ab");
        for bytes in [&b"ab"[..], b"", b"a\xffb\xc3", b"\xe4\xb8"] {
            assert_eq!(try_lossy(bytes).unwrap(), String::from_utf8_lossy(bytes));
            assert_eq!(lossy(bytes), String::from_utf8_lossy(bytes));
        }
        assert_eq!(try_c_string(b"ab").unwrap().unwrap().as_bytes(), b"ab");
        assert_eq!(try_c_string(b"a\0b").unwrap(), None);
        grown.try_lengthen(6, 0).unwrap();
        grown.try_lengthen(2, 0).unwrap();
        assert_eq!(grown, [1, 2, 3, 4, 5, 0]);
        assert_eq!(try_format(format_args!("a{}", 1)).unwrap(), "a1");
        assert!(require_memory().is_ok());
        assert!(check_room(1 << 20).is_ok());
        let mut set = HashSet::new();
        assert!((0..1000).all(|it| try_insert(&mut set, it).unwrap()));
        assert!(!try_insert(&mut set, 7).unwrap() && set.len() == 1000);
    }
}
