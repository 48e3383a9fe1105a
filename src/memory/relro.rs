//! Writes into data of objects that `ld.so` loaded, where they may be read-only since relocation (RELRO).
//!
//! Finds no such data: `host/` does. Images' own RELRO is in [`crate::memory::protect`].
//!
//! Source: `mprotect(2)`.

#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::addr::page_size;
use crate::base::error::Error;
use crate::base::sync::{Lock, Rank};
use crate::memory::reservation::{READ_WRITE, protect};
use crate::memory::retry;

/// Writes into data of an object that `ld.so` loaded, which may lie in its RELRO (at `relro`). That is
/// read-only again afterwards.
///
/// # Safety
/// The bytes are data of an object that stays loaded, writable or RELRO. Threads that read them meanwhile
/// may see either value of each aligned word.
pub(crate) unsafe fn write_relro(
    start: usize,
    bytes: &[u8],
    relro: &Range<usize>,
) -> Result<(), Error> {
    let page = page_size();
    let wraps = || Error::system("mprotect", io::ErrorKind::OutOfMemory.into());
    let end = start.checked_add(bytes.len()).and_then(|end| end.checked_next_multiple_of(page));
    // A page is a power of two.
    let pages = start & page.wrapping_neg()..end.ok_or_else(wraps)?;
    let is_relro = relro.start < pages.end && pages.start < relro.end;
    // Without it, one thread would make the pages read-only while another writes.
    static WRITER: Lock<()> = Lock::new(Rank::Relro, ());
    let _writer = is_relro.then(|| WRITER.lock());
    if is_relro {
        // SAFETY: adds access only. The pages are read-only again below; the rest is the caller's promise.
        unsafe { protect(pages.start, pages.len(), READ_WRITE)? };
    }
    match (<[u8; 8]>::try_from(bytes), start % 8) {
        // SAFETY: an aligned word, in one store; the rest is the caller's promise.
        (Ok(word), 0) => unsafe {
            (*(start as *const AtomicU64)).store(u64::from_ne_bytes(word), Ordering::SeqCst);
        },
        // SAFETY: the caller's promise.
        _ => unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start as *mut u8, bytes.len()) },
    }
    if is_relro {
        // SAFETY: RELRO, which was read-only before, of an object that stays loaded.
        unsafe { retry::make_read_only(pages.start, pages.len()) };
    }
    Ok(())
}
