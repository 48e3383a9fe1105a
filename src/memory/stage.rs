//! The stages of an image in memory, and what becomes of the memory at each.
//!
//! An image that is not finished has [`OpenMemory`]: if its load fails, the memory is unmapped. A finished
//! image has [`SealedMemory`]. Only that can go to the mapping cache, since the next image relies on the
//! protections and on the unwritten contents. So the types hold that memory of a load that failed is never
//! used again.
//!
//! Never maps or fills.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ops::{Deref, Range};
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::sync::Lock;
use crate::memory::cache::{self, CacheKey};
use crate::memory::layout::Layout;
use crate::memory::reservation::Reservation;

/// Segments are filled; relocations may be stored.
pub(crate) enum Open {}
/// Contents and protections are as the image's code will find them.
pub(crate) enum Sealed {}

/// The stage of an image in memory.
pub(crate) trait Stage {
    type Memory: Deref<Target = Reservation>;
}

impl Stage for Open {
    type Memory = OpenMemory;
}

impl Stage for Sealed {
    type Memory = SealedMemory;
}

/// The memory of an image that is not finished.
pub(crate) struct OpenMemory {
    pub(super) reservation: Reservation,
    /// How it can be used again once the image was finished.
    pub(super) reuse: Reuse,
    /// Unwritten segments are pages that other instances share.
    pub(super) shares: bool,
}

/// The memory of a finished image. Made by [`Mapping::seal`](crate::memory::mapping::Mapping::seal) alone.
pub(crate) struct SealedMemory {
    pub(super) reservation: ManuallyDrop<Reservation>,
    pub(super) reuse: Reuse,
    /// Unwritten segments were made as pages that other instances share.
    pub(super) shares: bool,
    /// They are no longer, or some of them.
    pub(super) is_private: AtomicBool,
    /// None of them is.
    pub(super) is_unshared: Lock<bool>,
    /// The image has changed protections of its pages: they and their contents may not be what the next image
    /// relies on.
    pub(super) has_changed: AtomicBool,
    /// It is immutable (`mseal`), and can never be unmapped.
    pub(super) is_immutable: AtomicBool,
    /// Takes it when the image is gone, since its addresses must not be used again soon.
    pub(super) keeper: Option<Keeper>,
}

/// Takes the memory of an image that is gone.
pub(crate) type Keeper = Box<dyn FnOnce(Reservation) + Send + Sync>;

/// How memory can be used again.
pub(super) enum Reuse {
    None,
    /// By any image of the same size: it is plain memory, and the image lies in its first `used` bytes. It stays
    /// where it is modulo `align`, as images of this kind need it.
    Recycled {
        used: usize,
        align: usize,
    },
    /// As it is, by the next image with the same segments and the same bytes.
    InPlace(Box<Layout>),
    /// By the next instance that shares the same pages. Only these ranges, from the start of the memory on,
    /// are filled again.
    Parked {
        key: Weak<CacheKey>,
        written: Vec<Range<usize>>,
    },
}

impl Deref for OpenMemory {
    type Target = Reservation;

    fn deref(&self) -> &Reservation {
        &self.reservation
    }
}

impl Deref for SealedMemory {
    type Target = Reservation;

    fn deref(&self) -> &Reservation {
        &self.reservation
    }
}

impl SealedMemory {
    /// Whether the next image can rely on the memory as it is.
    pub(super) fn can_come_back(&self) -> bool {
        let is_unset = |flag: &AtomicBool| !flag.load(Ordering::Relaxed);
        let flags = [&self.is_private, &self.has_changed, &self.is_immutable];
        flags.into_iter().all(is_unset) && self.keeper.is_none()
    }
}

impl Drop for SealedMemory {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and `self` is not used any more.
        let reservation = unsafe { ManuallyDrop::take(&mut self.reservation) };
        if *self.is_immutable.get_mut() {
            return reservation.forget();
        }
        if let Some(keep) = self.keeper.take() {
            keep(reservation);
        } else if *self.has_changed.get_mut() {
            drop(reservation);
        } else {
            match std::mem::replace(&mut self.reuse, Reuse::None) {
                Reuse::Recycled { used, align } => cache::recycle(reservation, used, align),
                Reuse::Parked { key, written } if !*self.is_private.get_mut() => {
                    cache::park(reservation, key, &written);
                }
                Reuse::InPlace(layout) => cache::keep_in_place(reservation, layout),
                Reuse::Parked { .. } | Reuse::None => drop(reservation),
            }
        }
        cache::unmap_deferred();
    }
}
