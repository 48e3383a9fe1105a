//! Snapshots of the memory that images can write, to be restored later.
//!
//! A snapshot covers writable segments without RELRO, by whole pages. Of pages of zeroes only the addresses
//! are kept: most of `.bss` is never touched, and a snapshot must not make it take memory. Restoring
//! copies, without a system call, so a small image takes a fraction of a microsecond. Only long runs of
//! zeroes are given back to the kernel, which is faster then.
//!
//! Changed pages are not tracked: an image usually has few pages, and copying them is faster than a query.

#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr;

use crate::base::addr::page_size;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_zeroed};
use crate::host::collectors::{self, Roots};
use crate::images::group::LoadGroup;
use crate::memory::reservation::{MANY_PAGES, is_zero, many_pages, zero, zero_touched};

/// The contents of a group's writable memory.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// What only the saved bytes point to is in use: a reset brings the pointers back.
    roots: Roots,
    /// Ascending within an image.
    runs: Vec<Run>,
    /// The bytes of all runs that are not zero, back to back.
    saved: Vec<u8>,
}

/// Whole pages at one address.
struct Run {
    start: *mut u8,
    len: usize,
    is_zero: bool,
}

// SAFETY: `start` is an address in an image, which is the same for all threads. It is written through only
// in `Snapshot::restore`, whose caller promises that no other thread does.
unsafe impl Send for Run {}
// SAFETY: as above; a shared reference writes only through `Snapshot::restore`.
unsafe impl Sync for Run {}

impl Snapshot {
    /// Replaces the snapshot, and reuses its memory.
    ///
    /// # Safety
    /// The group is loaded, and no thread writes to its memory meanwhile.
    pub(crate) unsafe fn take(&mut self, group: &LoadGroup) -> Result<(), Error> {
        self.roots.remove();
        self.runs.clear();
        self.saved.clear();
        let page = page_size();
        for range in group.written() {
            let is_backed = BackedPages::of(&range, page);
            for (index, start) in range.step_by(page).enumerate() {
                // SAFETY: a page of a segment that is written, so it can be read; the rest is the
                // caller's promise.
                let contents = unsafe { std::slice::from_raw_parts(start as *const u8, page) };
                let is_zero = !is_backed.has(index) || is_zero(contents);
                if !is_zero {
                    self.saved.try_append(contents)?;
                }
                match self.runs.last_mut() {
                    Some(run)
                        if run.is_zero == is_zero
                            && start.checked_sub(run.start.addr()) == Some(run.len) =>
                    {
                        run.len = run.len.saturating_add(page);
                    }
                    _ => self.runs.try_push(Run { start: start as *mut u8, len: page, is_zero })?,
                }
            }
        }
        let collectors = collectors::known();
        if !collectors.is_none() {
            let start = self.saved.as_ptr().addr();
            let saved = start..start.saturating_add(self.saved.len());
            self.roots.register(collectors, std::iter::once(saved))?;
        }
        Ok(())
    }

    /// Restores the memory.
    ///
    /// # Safety
    /// The group that the snapshot was taken of is loaded; no code of its images runs, and no thread uses
    /// the objects in its memory.
    pub(crate) unsafe fn restore(&self) {
        let page = page_size();
        let mut saved = self.saved.as_ptr();
        for &Run { start, len, is_zero } in &self.runs {
            // SAFETY: whole pages that the group's images can write, and that no other thread uses, by
            // the caller's promise. `saved` has the bytes of all runs that are not zero, in this order.
            unsafe {
                if !is_zero {
                    ptr::copy_nonoverlapping(saved, start, len);
                    saved = saved.add(len);
                } else if len >= many_pages() {
                    zero(start, len);
                } else {
                    zero_touched(start, len, page);
                }
            }
        }
    }
}

/// Which pages of a range are backed by memory. Reading one that is not takes a page fault, and a large
/// `.bss` has thousands.
struct BackedPages(Option<Vec<u8>>);

impl BackedPages {
    /// One entry in the page map (`proc_pid_pagemap(5)`).
    const ENTRY: usize = 8;

    /// For a short range the kernel is not asked.
    fn of(range: &Range<usize>, page: usize) -> BackedPages {
        let entries_of = |bytes: usize| bytes.checked_div(page)?.checked_mul(Self::ENTRY);
        let entries = || {
            let len = entries_of(range.len()).filter(|len| len / Self::ENTRY >= MANY_PAGES)?;
            let before = entries_of(range.start)?;
            let mut entries = try_zeroed(len).ok()?;
            let map = File::open("/proc/self/pagemap").ok()?;
            map.read_exact_at(&mut entries, before as u64).ok().map(|()| entries)
        };
        BackedPages(entries())
    }

    /// False only if the page is surely not backed.
    fn has(&self, index: usize) -> bool {
        /// Bits 63, "present", and 62, "swapped", in the entry's last byte.
        const BACKED: u8 = 0b1100_0000;
        let (entries, _) = self.0.as_deref().unwrap_or_default().as_chunks::<{ Self::ENTRY }>();
        entries.get(index).is_none_or(|[.., last]| last & BACKED != 0)
    }
}
