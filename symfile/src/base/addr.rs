//! Addresses, and the only arithmetic on them.
//!
//! An ELF file states addresses ([`Vaddr`]) without knowing where the image will be mapped, and
//! offsets into itself ([`FileOffset`]). One number, the [`LoadBias`], gives the run-time address of
//! every stated one. The three are newtypes, so they cannot be mixed. None has `+`: the bytes are
//! hostile, so every sum is checked, or its function says that it wraps.
//!
//! This file reads no memory: an address here is a number.
//!
//! Source: System V gABI, "Program Loading": "the difference between the virtual address of any
//! segment in memory and the corresponding virtual address in the file is a single constant value
//! for any one executable or shared object in a given process".

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An address as the file states it (gABI `p_vaddr`, `st_value`, `d_ptr`, `r_offset`), in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Vaddr(pub u64);

/// An offset into the received bytes (gABI `p_offset`, `sh_offset`), in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileOffset(pub u64);

/// Run-time address minus stated address, modulo 2^64. One loaded image has one load bias.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LoadBias(usize);

/// The granularity of protection on this system, in bytes: a power of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSize(u64);

impl Vaddr {
    /// `self` plus `bytes`; `None` past the end of the address space.
    ///
    /// ```
    /// # use memdl_symfile::Vaddr;
    /// assert_eq!(Vaddr(0x1000).checked_add(0x10), Some(Vaddr(0x1010)));
    /// assert_eq!(Vaddr(u64::MAX).checked_add(1), None);
    /// ```
    pub fn checked_add(self, bytes: u64) -> Option<Vaddr> {
        self.0.checked_add(bytes).map(Vaddr)
    }

    /// The distance from `earlier` to `self`, in bytes; `None` if `self` is less.
    ///
    /// ```
    /// # use memdl_symfile::Vaddr;
    /// assert_eq!(Vaddr(0x1010).checked_sub(Vaddr(0x1000)), Some(0x10));
    /// assert_eq!(Vaddr(0x1000).checked_sub(Vaddr(0x1010)), None);
    /// ```
    #[must_use]
    pub fn checked_sub(self, earlier: Vaddr) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The range of `len` bytes that starts at `self`.
    #[doc(hidden)]
    pub fn range(self, len: u64) -> Option<Range<Vaddr>> {
        Some(self..self.checked_add(len)?)
    }

    /// Rounded down to a multiple of `page`.
    #[doc(hidden)]
    pub fn page_floor(self, page: PageSize) -> Vaddr {
        Vaddr(self.0 & !page.mask())
    }

    /// Rounded up to a multiple of `page`; `None` past the end of the address space.
    #[doc(hidden)]
    pub fn page_ceil(self, page: PageSize) -> Option<Vaddr> {
        Some(self.checked_add(page.mask())?.page_floor(page))
    }
}

impl LoadBias {
    /// The bias of an image whose stated address `stated` lies at run-time address `actual`.
    ///
    /// ```
    /// # use memdl_symfile::{LoadBias, Vaddr};
    /// let bias = LoadBias::between(Vaddr(0x1000), 0x7f00_0000_1000);
    /// assert_eq!(bias.get(), 0x7f00_0000_0000);
    /// ```
    #[must_use]
    pub fn between(stated: Vaddr, actual: usize) -> LoadBias {
        LoadBias(actual.wrapping_sub(stated.0 as usize))
    }

    /// The run-time address of `stated`. The only way from a [`Vaddr`] to one.
    ///
    /// ```
    /// # use memdl_symfile::{LoadBias, Vaddr};
    /// let bias = LoadBias::between(Vaddr(0), 0x7f00_0000_0000);
    /// assert_eq!(bias.apply(Vaddr(0x1040)), 0x7f00_0000_1040);
    /// ```
    #[must_use]
    pub fn apply(self, stated: Vaddr) -> usize {
        self.0.wrapping_add(stated.0 as usize)
    }

    /// The stated address of the run-time address `actual`.
    ///
    /// ```
    /// # use memdl_symfile::{LoadBias, Vaddr};
    /// let bias = LoadBias::between(Vaddr(0), 0x7f00_0000_0000);
    /// assert_eq!(bias.remove(0x7f00_0000_1040), Vaddr(0x1040));
    /// ```
    #[must_use]
    pub fn remove(self, actual: usize) -> Vaddr {
        Vaddr(actual.wrapping_sub(self.0) as u64)
    }

    /// The bias as a number, as `dlinfo`'s `l_addr` gives it.
    ///
    /// ```
    /// # use memdl_symfile::{LoadBias, Vaddr};
    /// let bias = LoadBias::between(Vaddr(0x1000), 0x7f00_0000_1000);
    /// assert_eq!(bias.get(), 0x7f00_0000_0000);
    /// ```
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

/// [`PageSize::current`] in bytes, once it was asked for; 0 before.
static PAGE: AtomicUsize = AtomicUsize::new(0);

/// The page size of the running system, in bytes.
///
/// ```
/// assert!(memdl_symfile::base::addr::page_size().is_power_of_two());
/// ```
#[inline]
pub fn page_size() -> usize {
    match PAGE.load(Ordering::Relaxed) {
        0 => ask_page_size(),
        known => known,
    }
}

// Small, and a page of code of its own where it is not inlined.
#[inline]
fn ask_page_size() -> usize {
    // Every system's is a power of two.
    let size = crate::base::room::page_size().filter(|size| size.is_power_of_two());
    let size = size.unwrap_or(0x1000);
    PAGE.store(size, Ordering::Relaxed);
    size
}

impl PageSize {
    /// The page size of the running system.
    #[inline]
    pub fn current() -> PageSize {
        PageSize(page_size() as u64)
    }

    /// `bytes` as a page size, if it is a power of two.
    pub fn new(bytes: u64) -> Option<PageSize> {
        bytes.is_power_of_two().then_some(PageSize(bytes))
    }

    /// In bytes.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The mask of the address bits within a page.
    pub fn mask(self) -> u64 {
        // A power of two is at least 1.
        self.0.wrapping_sub(1)
    }
}

/// The length of `range` in bytes; 0 if it ends before it starts.
pub fn len_of(range: &Range<Vaddr>) -> u64 {
    range.end.0.saturating_sub(range.start.0)
}

/// The distance from the run-time address `from` to the next address (or `from` itself) that is
/// congruent to `residue` modulo `align`, a power of two.
pub fn distance_to(residue: usize, align: usize, from: usize) -> usize {
    residue.wrapping_sub(from) & align.wrapping_sub(1)
}

macro_rules! shown_in_hex {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({:#x})"), self.0)
            }
        }
    )*};
}
shown_in_hex!(Vaddr, FileOffset, LoadBias);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_exact_and_never_wraps() {
        let page = PageSize::new(4096).unwrap();
        assert_eq!(Vaddr(0x1fff).page_floor(page), Vaddr(0x1000));
        assert_eq!(Vaddr(0x1000).page_ceil(page), Some(Vaddr(0x1000)));
        assert_eq!(Vaddr(0x1001).page_ceil(page), Some(Vaddr(0x2000)));
        assert_eq!(Vaddr(u64::MAX).page_ceil(page), None);
        assert_eq!(Vaddr(u64::MAX).range(1), None);
        assert_eq!(PageSize::new(4095), None);
    }

    #[test]
    fn distances_are_less_than_the_alignment_and_lead_to_the_residue() {
        assert_eq!(distance_to(0, 16, 32), 0);
        assert_eq!(distance_to(0, 16, 33), 15);
        assert_eq!(distance_to(0x1008, 16, 1), 7);
        assert_eq!(distance_to(8, 16, usize::MAX), 9);
        assert_eq!(distance_to(5, 1, 7), 0);
        assert_eq!(len_of(&(Vaddr(3)..Vaddr(5))), 2);
        assert_eq!(len_of(&(Vaddr(5)..Vaddr(3))), 0);
    }

    #[test]
    fn a_bias_may_be_negative() {
        let bias = LoadBias::between(Vaddr(0x7200000), 0x1000);
        assert_eq!(bias.apply(Vaddr(0x7200010)), 0x1010);
        assert_eq!(bias.remove(0x1010), Vaddr(0x7200010));
    }
}
