//! All images that are in place now, and how to find them.
//!
//! Three questions are asked of it: which image holds this address, what have images with
//! `global(true)` added to the scope of later ones, and what is left to finalise when the process
//! ends. It owns nothing but what must never be unloaded (`DF_1_NODELETE`).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use crate::group::Group;

#[derive(Default)]
struct Live {
    /// Groups by the number that they got when they were loaded.
    groups: BTreeMap<u64, Weak<Group>>,
    /// Those whose exports later images see, in load order.
    global: Vec<Weak<Group>>,
    /// Those that must stay.
    pinned: Vec<Arc<Group>>,
    next: u64,
}

static LIVE: RwLock<Live> =
    RwLock::new(Live { groups: BTreeMap::new(), global: Vec::new(), pinned: Vec::new(), next: 0 });

fn read() -> RwLockReadGuard<'static, Live> {
    LIVE.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, Live> {
    LIVE.write().unwrap_or_else(PoisonError::into_inner)
}

/// A group's entry; dropping it takes the group out.
pub(crate) struct Entry(u64);

/// Enters a group that is about to be initialised.
pub(crate) fn enter(group: &Arc<Group>, global: bool, pinned: bool) -> Entry {
    let mut live = write();
    let number = live.next;
    live.next += 1;
    live.groups.insert(number, Arc::downgrade(group));
    if global {
        live.global.push(Arc::downgrade(group));
    }
    if pinned {
        live.pinned.push(group.clone());
    }
    Entry(number)
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut live = write();
        live.groups.remove(&self.0);
        live.global.retain(|group| group.strong_count() > 0);
    }
}

/// The images whose exports all later ones see, in load order.
pub(crate) fn global_images() -> Vec<(Arc<Group>, usize)> {
    let groups: Vec<Arc<Group>> = read().global.iter().filter_map(Weak::upgrade).collect();
    groups
        .into_iter()
        .flat_map(|group| (0..group.len()).map(move |index| (group.clone(), index)))
        .collect()
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
