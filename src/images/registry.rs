//! The registry of loaded images: found by address, in load order, or as part of the global scope.
//!
//! It owns no group, but for those that must never be unloaded. What the C library holds for images
//! (keys, handles) is recorded here by image, under the same lock, and managed by
//! [`libc_registrations`](crate::images::libc_registrations). No code of images runs under the lock.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory_for_next, try_collect, try_vec};
use crate::base::sync::{Rank, ReadGuard, SharedLock, WriteGuard};
use crate::images::group::{ImageRef, LoadGroup, LoadedImage};

/// The groups that are loaded.
pub(super) struct Live {
    /// By the number that a group gets when it is entered.
    groups: BTreeMap<u64, Weak<LoadGroup>>,
    /// By the first address of each image.
    pub(super) images: BTreeMap<usize, LiveImage>,
    /// The images whose exports later images see, in the order in which they became so: the number of the
    /// group, and the index in it.
    global: Vec<(u64, usize)>,
    /// `pthread` keys whose destructors are code of images, by key; with the destructor's address.
    pub(super) keys: BTreeMap<libc::pthread_key_t, usize>,
    /// Groups that are never unloaded (`DF_1_NODELETE`, or sealed).
    pinned: Vec<Arc<LoadGroup>>,
    /// The number of groups ever entered, which is the number of the next.
    next: u64,
}

impl Live {
    pub(super) fn image_at(&self, address: usize) -> Option<&LiveImage> {
        let (_, image) = self.images.range(..=address).next_back()?;
        (address < image.end).then_some(image)
    }

    pub(super) fn image_at_mut(&mut self, address: usize) -> Option<&mut LiveImage> {
        let (_, image) = self.images.range_mut(..=address).next_back()?;
        (address < image.end).then_some(image)
    }
}

/// A member of a group that is entered.
#[derive(Clone, Copy)]
struct Member(NonNull<LoadedImage>);

// SAFETY: it is used as a `&LoadedImage`, which threads share through the groups.
unsafe impl Send for Member {}
// SAFETY: as above.
unsafe impl Sync for Member {}

pub(super) struct LiveImage {
    end: usize,
    /// The group's number.
    number: u64,
    member: Member,
    pub(super) group: Weak<LoadGroup>,
    index: usize,
    /// The handles under which the C library holds functions that the image registered. Usually one.
    pub(super) handles: Vec<usize>,
}

static LIVE: SharedLock<Live> = SharedLock::new(
    Rank::Images,
    Live {
        groups: BTreeMap::new(),
        images: BTreeMap::new(),
        global: Vec::new(),
        keys: BTreeMap::new(),
        pinned: Vec::new(),
        next: 0,
    },
);

pub(super) fn read() -> ReadGuard<'static, Live> {
    LIVE.read()
}

pub(super) fn write() -> WriteGuard<'static, Live> {
    LIVE.write()
}

/// Enters a group. On an error, entries that were made are removed when the group is dropped.
pub(super) fn enter(group: &Arc<LoadGroup>) -> Result<(), Error> {
    let mut live = write();
    live.pinned.try_room(1)?;
    let number = live.next;
    live.next = number.wrapping_add(1);
    // A group is entered once.
    let _ = group.number.set(number);
    live.groups.insert(number, Arc::downgrade(group));
    for (index, loaded) in group.members.iter().enumerate() {
        require_memory_for_next(index)?;
        let addresses = loaded.mapping.address_range();
        let handles = Vec::new();
        let group = Arc::downgrade(group);
        let member = Member(NonNull::from(loaded));
        let image = LiveImage { end: addresses.end, number, member, group, index, handles };
        live.images.insert(addresses.start, image);
    }
    if group.is_pinned() {
        live.pinned.push(group.clone());
    }
    Ok(())
}

/// Removes a group, if it was entered.
pub(super) fn leave(group: &LoadGroup) {
    let Some(&number) = group.number.get() else { return };
    let mut live = write();
    live.groups.remove(&number);
    live.global.retain(|&(other, _)| other != number);
    for loaded in &group.members {
        let addresses = loaded.mapping.address_range();
        live.images.remove(&addresses.start);
        delete_keys(&mut live.keys, &addresses);
    }
}

/// Deletes the keys whose destructors lie at these addresses.
pub(super) fn delete_keys(
    keys: &mut BTreeMap<libc::pthread_key_t, usize>,
    addresses: &Range<usize>,
) {
    keys.retain(|&key, destructor| {
        let is_theirs = addresses.contains(destructor);
        if is_theirs {
            // SAFETY: a key that the image created and did not delete. Threads that still have a value
            // would call its destructor when they end.
            unsafe { libc::pthread_key_delete(key) };
        }
        !is_theirs
    });
}

/// The image that `address` lies in; `None` also for an image that is being unloaded.
pub(crate) fn image_at(address: usize) -> Option<ImageRef> {
    let live = read();
    let image = live.image_at(address)?;
    Some(ImageRef::new(image.group.upgrade()?, image.index))
}

/// Whether `address` lies in an image that is loaded, or is being unloaded.
pub(crate) fn has_address(address: usize) -> bool {
    read().image_at(address).is_some()
}

/// Whether the group of this number is loaded: its destructors have not all run.
pub(crate) fn is_entered(number: u64) -> bool {
    read().groups.contains_key(&number)
}

/// All images, in load order.
pub(crate) fn all_images() -> Result<Vec<ImageRef>, Error> {
    of_groups(&all_groups()?)
}

/// All groups, in load order.
pub(crate) fn all_groups() -> Result<Vec<Arc<LoadGroup>>, Error> {
    let live = read();
    // No upgraded group may be dropped while the lock is held, so the memory is reserved first.
    let mut groups = try_vec(live.groups.len())?;
    groups.extend(live.groups.values().filter_map(Weak::upgrade));
    Ok(groups)
}

/// All images of these groups.
fn of_groups(groups: &[Arc<LoadGroup>]) -> Result<Vec<ImageRef>, Error> {
    let images = |group: &Arc<LoadGroup>| {
        let group = group.clone();
        (0..group.len()).map(move |index| ImageRef::new(group.clone(), index))
    };
    Ok(try_collect(groups.iter().flat_map(images))?)
}

/// As [`all_images`]; `None` if there is no memory for the list, or the registry is being changed, perhaps
/// by the calling thread.
pub(crate) fn all_images_if_free() -> Option<Vec<ImageRef>> {
    drop(LIVE.try_read()?);
    all_images().ok()
}

/// An image that is loaded, or is being unloaded, while the registry's lock is held.
pub(crate) struct Entry<'l> {
    pub image: &'l LoadedImage,
    /// The number of its group, which counts loads.
    pub load: u64,
    /// Its index in the group.
    pub index: usize,
    /// What holds the group. 0 while it is being unloaded.
    pub holders: usize,
}

/// Calls `visit` with all images, those that are being unloaded too, until it fails. It runs under the
/// registry's lock, so it must be short. No group gets a holder, so this unloads nothing.
pub(crate) fn visit(mut visit: impl FnMut(Entry<'_>) -> Result<(), Error>) -> Result<(), Error> {
    let live = read();
    live.images.values().try_for_each(|entry| {
        visit(Entry {
            // SAFETY: `enter` was given the group with this member, which does not move. The drop of a group
            // removes its entries, with the lock held for writing, before it drops the members. Until then
            // there are shared references to them only.
            image: unsafe { entry.member.0.as_ref() },
            load: entry.number,
            index: entry.index,
            holders: entry.group.strong_count(),
        })
    })
}

/// The number of groups loaded so far.
pub(crate) fn loads() -> u64 {
    read().next
}

/// The number of groups unloaded so far.
pub(crate) fn unloads() -> u64 {
    let live = read();
    live.next.saturating_sub(live.groups.len() as u64)
}

/// The images whose exports all later images see, in the order in which they became so.
pub(crate) fn global_images() -> Result<Vec<ImageRef>, Error> {
    let live = read();
    // As in `all_groups`.
    let mut images = try_vec(live.global.len())?;
    images.extend(live.global.iter().filter_map(|(number, index)| {
        Some(ImageRef::new(live.groups.get(number)?.upgrade()?, *index))
    }));
    Ok(images)
}

/// Makes an image's exports visible to all later images. Does nothing for an image that is not entered, or
/// that they are visible of.
pub(super) fn make_global(image: &ImageRef) -> Result<(), Error> {
    let Some(&number) = image.group().number.get() else { return Ok(()) };
    let mut live = write();
    let entry = (number, image.index());
    if live.global.contains(&entry) { Ok(()) } else { Ok(live.global.try_push(entry)?) }
}

/// Keeps an image's group for the life of the process.
pub(crate) fn pin(image: &ImageRef) -> Result<(), Error> {
    let mut live = write();
    let is_pinned = live.pinned.iter().any(|group| Arc::ptr_eq(group, image.group()));
    image.group().is_kept.store(true, Ordering::Relaxed);
    if is_pinned { Ok(()) } else { Ok(live.pinned.try_push(image.group().clone())?) }
}
