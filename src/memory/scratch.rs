//! Memory that is filled once, from its first byte to its last, and whose former contents do not matter.
//!
//! Large pieces come from the mapping cache and go back to it. This file never maps by itself.

#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use crate::base::addr::page_size;
use crate::base::error::Error;
use crate::base::filler::Filler;
use crate::memory::cache::{CachedMapping, User};
use crate::memory::reservation::{HUGE_PAGE, Reservation, in_huge_pages};
use crate::memory::wipe;

/// Memory that was filled.
pub(crate) enum ScratchMemory {
    /// From the allocator.
    Small(Vec<u8>),
    /// A mapping for the cache, and the length in use.
    Large(ManuallyDrop<Reservation>, usize),
}

impl ScratchMemory {
    /// `len` bytes, filled by `fill`.
    pub(crate) fn filled(
        len: usize,
        fill: impl FnOnce(&mut Filler<'_>),
    ) -> Result<ScratchMemory, Error> {
        /// From this size on, providing pages takes most of the time.
        const MIN_LARGE: usize = 1 << 16;
        if len < MIN_LARGE {
            return Ok(ScratchMemory::Small(Filler::filled(len, fill)?));
        }
        let page = page_size();
        let too_large = || Error::system("reserving memory", io::ErrorKind::OutOfMemory.into());
        let rounded = len.checked_next_multiple_of(page).ok_or_else(too_large)?;
        let huge = in_huge_pages(rounded).min(rounded);
        let align = if huge > 0 { HUGE_PAGE } else { page };
        let fits = |free: &CachedMapping| {
            matches!(free.user, User::Scratch) && free.memory.len() == rounded
        };
        let memory = match CachedMapping::take(fits) {
            Some(free) => free.memory,
            None => {
                let memory = Reservation::new(rounded, align, 0)?;
                memory.advise_huge(0..huge);
                memory.populate(0..rounded);
                memory
            }
        };
        let mut memory = ScratchMemory::Large(ManuallyDrop::new(memory), len);
        fill(&mut Filler::new(&mut memory));
        Ok(memory)
    }
}

impl Deref for ScratchMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            ScratchMemory::Small(bytes) => bytes,
            // SAFETY: the first `len` bytes of an owned mapping, zero or written before, changed only
            // through `&mut self`.
            ScratchMemory::Large(memory, len) => unsafe {
                std::slice::from_raw_parts(memory.as_ptr(), *len)
            },
        }
    }
}

impl DerefMut for ScratchMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            ScratchMemory::Small(bytes) => bytes,
            // SAFETY: as above; `&mut self` excludes all other references.
            ScratchMemory::Large(memory, len) => unsafe {
                std::slice::from_raw_parts_mut(memory.as_ptr(), *len)
            },
        }
    }
}

impl Drop for ScratchMemory {
    fn drop(&mut self) {
        if let ScratchMemory::Large(memory, _) = self {
            // SAFETY: taken once, here.
            let memory = unsafe { ManuallyDrop::take(memory) };
            let own = memory.len();
            if wipe::make_fit_to_keep(&memory, std::slice::from_ref(&(0..own))) {
                CachedMapping { memory, own, user: User::Scratch }.keep();
            }
        }
    }
}
