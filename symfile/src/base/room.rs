//! Whether there is memory, asked without taking it, and in which pages. What follows from an answer is in `symfile/src/base/fallible.rs`.

#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::hint::black_box;

/// The largest total of the small allocations between two checks, in bytes. Less than the C library's allocator
/// keeps at the end of its heap, so a check needs no system call.
pub const SPARE_MEMORY: usize = 64 << 10;

/// Whether `bytes` bytes can be allocated at once, and [`SPARE_MEMORY`] is left. Another thread may take them.
pub fn has_room(bytes: usize) -> bool {
    /// No other large allocation has this alignment: the tests' allocator recognizes this one by it.
    const ALIGN: usize = 64;
    let bytes = bytes.saturating_add(SPARE_MEMORY);
    let Ok(layout) = Layout::from_size_align(bytes, ALIGN) else { return false };
    // SAFETY: the layout's size is not 0. `black_box`, because the compiler would remove both calls if it saw
    // that the memory is not used.
    let start = black_box(unsafe { alloc::alloc(layout) });
    if start.is_null() {
        return false;
    }
    // SAFETY: allocated above, with this layout.
    unsafe { alloc::dealloc(start, layout) };
    true
}

/// The size of a page, as the system says it.
#[inline]
pub(super) fn page_size() -> Option<usize> {
    // SAFETY: no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok()
}
