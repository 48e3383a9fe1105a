//! All images that are in place now, and how to find them.
//!
//! Three questions are asked of it: which image holds this address, what have images with
//! `global(true)` added to the scope of later ones, and what is left to finalise when the process
//! ends. It owns nothing but what must never be unloaded (`DF_1_NODELETE`).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use crate::group::Group;

struct Live {
    /// By the number that a group got when it was loaded.
    groups: BTreeMap<u64, Weak<Group>>,
    /// By the first address of each image.
    images: BTreeMap<usize, Image>,
    /// Numbers of those whose exports later images see.
    global: Vec<u64>,
    /// Those that must stay.
    pinned: Vec<Arc<Group>>,
    next: u64,
}

struct Image {
    end: usize,
    group: Weak<Group>,
    index: usize,
}

static LIVE: RwLock<Live> = RwLock::new(Live {
    groups: BTreeMap::new(),
    images: BTreeMap::new(),
    global: Vec::new(),
    pinned: Vec::new(),
    next: 0,
});

fn read() -> RwLockReadGuard<'static, Live> {
    LIVE.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, Live> {
    LIVE.write().unwrap_or_else(PoisonError::into_inner)
}

/// A group's entry; dropping it takes the group out.
pub(crate) struct Entry {
    number: u64,
    images: Vec<usize>,
}

/// Enters a group that is about to be initialised.
pub(crate) fn enter(group: &Arc<Group>, global: bool, pinned: bool) -> Entry {
    let mut live = write();
    let number = live.next;
    live.next += 1;
    live.groups.insert(number, Arc::downgrade(group));
    let mut images = Vec::with_capacity(group.len());
    for index in 0..group.len() {
        let addresses = group.member(index).mapping().address_range();
        let image = Image { end: addresses.end, group: Arc::downgrade(group), index };
        live.images.insert(addresses.start, image);
        images.push(addresses.start);
    }
    if global {
        live.global.push(number);
    }
    if pinned {
        live.pinned.push(group.clone());
    }
    Entry { number, images }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut live = write();
        live.groups.remove(&self.number);
        live.global.retain(|&number| number != self.number);
        for start in &self.images {
            live.images.remove(start);
        }
    }
}

/// The image that `address` lies in, kept for as long as the result is; `None` also for one whose
/// last owner is gone and whose destructors are running.
pub(crate) fn image_at(address: usize) -> Option<(Arc<Group>, usize)> {
    let live = read();
    let (_, image) = live.images.range(..=address).next_back()?;
    (address < image.end).then(|| Some((image.group.upgrade()?, image.index)))?
}

/// The images whose exports all later ones see, in load order.
pub(crate) fn global_images() -> Vec<(Arc<Group>, usize)> {
    let live = read();
    let groups = live.global.iter().filter_map(|number| live.groups.get(number)?.upgrade());
    groups.flat_map(|group| (0..group.len()).map(move |index| (group.clone(), index))).collect()
}

/// Runs the destructors of all images, the last loaded first.
pub(crate) fn finalise_all() {
    // Destructors may load and unload: no lock is held while they run.
    let groups: Vec<Arc<Group>> = read().groups.values().rev().filter_map(Weak::upgrade).collect();
    for group in groups {
        group.finalise();
        // Code of the image may still be on some stack, or be called by what ends after us.
        std::mem::forget(group);
    }
}
