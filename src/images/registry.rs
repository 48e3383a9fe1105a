//! The registry of loaded images: found by address, in load order, or as part of the global scope.
//!
//! It owns no group, but for those that must never be unloaded. What the C library holds for images
//! (keys, handles) is recorded here, and managed by
//! [`libc_registrations`](crate::images::libc_registrations). No code of images runs under a lock.
//!
//! An address leads to a place, and a place to its [`Tenant`](crate::images::tenant::Tenant): the group whose image is there now. An instance that
//! comes back where a former one was has places already. So it changes its own tenant only, and nothing that all
//! threads share.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::base::cells::{Apart, CELLS, Cells};
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory_for_next, try_collect, try_vec};
use crate::base::sync::{Rank, ReadGuard, SharedLock, WriteGuard};
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::name_filter::NameFilter;
use crate::elf::symbol::{Sym, SymbolName};
use crate::images::global_list::{GlobalList, Lead};
use crate::images::group::{GroupTenant, ImageRef, LoadGroup, LoadedImage, Parts};
use crate::images::tenant::{Members, Occupant};
use crate::images::walk::{Changes, Records, Remains, Walk, Walks};

/// Where images are.
pub(super) struct Live {
    /// By the first address of each image.
    places: BTreeMap<usize, Place>,
    /// The images whose exports later images see.
    global: GlobalList<GlobalImage>,
    /// What the last walk showed.
    records: Option<Arc<Records>>,
    walks: Walks,
    /// `pthread` keys whose destructors are code of images, by key; with the destructor's address.
    pub(super) keys: BTreeMap<libc::pthread_key_t, usize>,
    /// Groups that are never unloaded (`DF_1_NODELETE`, or sealed).
    pinned: Vec<Arc<LoadGroup>>,
}

/// Where an image is, or its memory waits for the next one.
pub(super) struct Place {
    end: usize,
    pub(super) tenant: Arc<GroupTenant>,
    /// The image's index in its group.
    pub(super) index: usize,
}

/// An image whose exports later images see.
struct GlobalImage {
    member: NonNull<LoadedImage>,
    group: Weak<LoadGroup>,
    index: usize,
}

// SAFETY: the pointer is used as a `&LoadedImage`, which threads share through the groups.
unsafe impl Send for GlobalImage {}
// SAFETY: as above.
unsafe impl Sync for GlobalImage {}

impl Lead for GlobalImage {
    fn image(&self) -> &LoadedImage {
        // SAFETY: that of a group that was entered, which does not move. It is found in the registry only, with the
        // lock held. The drop of the group removes it, with the lock held for writing (`vacate`), before it drops the
        // members or hands them on. Until then there are shared references to them only.
        unsafe { self.member.as_ref() }
    }
}

impl GlobalImage {
    /// The image, held. `None` if it is being unloaded. It must not be dropped under a lock.
    fn hold(&self) -> Option<ImageRef> {
        Some(ImageRef::new(self.group.upgrade()?, self.index))
    }
}

static LIVE: SharedLock<Live> = SharedLock::new(
    Rank::Images,
    Live {
        places: BTreeMap::new(),
        global: GlobalList::new(),
        records: None,
        walks: Walks::new(),
        keys: BTreeMap::new(),
        pinned: Vec::new(),
    },
);

/// The number of groups ever entered, which is the number of the next.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The number of groups that were entered, and can be found or could: the sum.
static ENTERED: Cells<AtomicU64> = Cells::new([const { Apart(AtomicU64::new(0)) }; CELLS]);

/// The number of groups that were entered and have left: the sum.
static LEFT: Cells<AtomicU64> = Cells::new([const { Apart(AtomicU64::new(0)) }; CELLS]);

impl Live {
    /// The records of all images, after these changes.
    fn records_of(&self, changes: Changes) -> Result<Records, Error> {
        let mut order = try_vec(self.places.len())?;
        let first = self.places.values().filter(|place| place.index == 0);
        order.extend(first.filter_map(|place| {
            let number = place.tenant.read().as_ref()?.number;
            Some((number, &place.tenant))
        }));
        order.sort_unstable_by_key(|(number, _)| *number);
        let mut records = Records::new(changes);
        for (number, tenant) in order {
            let tenant = tenant.read();
            let Some(occupant) = tenant.as_ref().filter(|it| it.number == number) else { continue };
            // SAFETY: as in `visit`.
            let members = unsafe { occupant.members.get() };
            members.iter().try_for_each(|loaded| records.add(loaded))?;
        }
        Ok(records)
    }

    pub(super) fn place_at(&self, address: usize) -> Option<&Place> {
        let (_, place) = self.places.range(..=address).next_back()?;
        (address < place.end).then_some(place)
    }
}

/// The group has a number from now on, and its places lead to it. It is to be counted once they are there.
fn occupy(group: &Arc<LoadGroup>) {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // A group is entered once.
    let _ = group.number.set(number);
    let members = Members::of(&group.members);
    let occupant = Occupant { number, group: Arc::downgrade(group), members, handles: Vec::new() };
    *group.tenant.write() = Some(occupant);
}

/// Counts a group that can be found. A walk that sees the count sees the group.
fn count_entered() {
    ENTERED.own().fetch_add(1, Ordering::Release);
}

pub(super) fn read() -> ReadGuard<'static, Live> {
    LIVE.read()
}

pub(super) fn write() -> WriteGuard<'static, Live> {
    LIVE.write()
}

/// Enters a group. On an error, entries that were made are removed when the group is dropped.
pub(super) fn enter(group: &Arc<LoadGroup>) -> Result<(), Error> {
    occupy(group);
    let mut live = write();
    let entered = enter_places(&mut live, group);
    // Not before: a walk in between would take what it shows for all that was counted, and the next walks, too.
    count_entered();
    entered
}

fn enter_places(live: &mut Live, group: &Arc<LoadGroup>) -> Result<(), Error> {
    live.pinned.try_room(1)?;
    for (index, loaded) in group.members.iter().enumerate() {
        require_memory_for_next(index)?;
        let addresses = loaded.mapping.address_range();
        let place = Place { end: addresses.end, tenant: group.tenant.clone(), index };
        live.places.insert(addresses.start, place);
    }
    if group.is_pinned() {
        live.pinned.push(group.clone());
    }
    Ok(())
}

/// Enters a group whose places are there, since a former one [has made room](vacate) for it.
pub(crate) fn enter_again(group: &Arc<LoadGroup>) {
    occupy(group);
    count_entered();
}

/// Removes a group, if it was entered. Its places stay.
pub(super) fn vacate(group: &LoadGroup) {
    let Some(&number) = group.number.get() else { return };
    let before = group.tenant.write().take();
    drop(before);
    LEFT.own().fetch_add(1, Ordering::Release);
    let (has_keys, is_global) = (group.libc_registrations().has_keys(), group.was_global());
    if has_keys || is_global {
        let mut live = write();
        live.global.remove(number);
        for loaded in &group.members {
            delete_keys(&mut live.keys, &loaded.mapping.address_range());
        }
    }
}

/// Removes the places of what a group was made of, in its drop. The members may stay for a walk.
pub(super) fn leave(parts: &mut Parts) {
    let mut live = write();
    for loaded in &parts.members {
        let start = loaded.mapping.address_range().start;
        if live.places.get(&start).is_some_and(|place| Arc::ptr_eq(&place.tenant, &parts.tenant)) {
            live.places.remove(&start);
        }
    }
    if live.walks.is_any() {
        live.walks.keep(Remains::of(parts));
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
    let place = live.place_at(address)?;
    Some(ImageRef::new(place.tenant.group()?, place.index))
}

/// The first image that has any of these addresses; none that is being unloaded.
pub(crate) fn image_in(addresses: Range<usize>) -> Option<ImageRef> {
    let Range { start, end } = addresses;
    let live = read();
    let behind = || live.places.range(start..end).map(|(_, place)| place);
    let mut places =
        live.place_at(start).into_iter().chain((start < end).then(behind).into_iter().flatten());
    places.find_map(|place| Some(ImageRef::new(place.tenant.group()?, place.index)))
}

/// Whether `address` lies in an image that is loaded, or is being unloaded.
pub(crate) fn has_address(address: usize) -> bool {
    read().place_at(address).is_some_and(|place| place.tenant.read().is_some())
}

/// Begins a walk through all images, in load order, as `dl_iterate_phdr` shows them.
pub(crate) fn walk() -> Result<Walk, Error> {
    let mut live = write();
    // Before the images: what comes or goes meanwhile counts as later.
    let changes = Changes { entered: sum(&ENTERED), left: unloads() };
    let records = match live.records.take().filter(|records| records.are_of(changes)) {
        Some(records) => records,
        None => Arc::new(live.records_of(changes)?),
    };
    live.records = Some(records.clone());
    live.walks.begin()?;
    Ok(Walk { records, end: || drop(end_walk()) })
}

fn end_walk() -> Vec<Remains> {
    write().walks.end()
}

/// In a child just after the fork, when locks can be taken.
pub(crate) fn after_fork_in_child() {
    write().walks.forget_others();
}

/// All images, in load order.
pub(crate) fn all_images() -> Result<Vec<ImageRef>, Error> {
    of_groups(&all_groups()?)
}

/// All groups, in load order.
pub(crate) fn all_groups() -> Result<Vec<Arc<LoadGroup>>, Error> {
    groups_of(&read(), GroupTenant::group)
}

/// The groups that `group` finds at the places, in load order.
fn groups_of(
    live: &Live,
    group: impl Fn(&GroupTenant) -> Option<Arc<LoadGroup>>,
) -> Result<Vec<Arc<LoadGroup>>, Error> {
    // No upgraded group may be dropped while the lock is held, so the memory is reserved first.
    let mut groups = try_vec(live.places.len())?;
    let first = live.places.values().filter(|place| place.index == 0);
    groups.extend(first.filter_map(|place| group(&place.tenant)));
    groups.sort_unstable_by_key(|group| group.number());
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
/// by the calling thread. A group that is just then being entered or removed is left out.
pub(crate) fn all_images_if_free() -> Option<Vec<ImageRef>> {
    let live = LIVE.try_read()?;
    let group = |tenant: &GroupTenant| tenant.try_read()?.as_ref()?.group.upgrade();
    let groups = groups_of(&live, group);
    drop(live);
    of_groups(&groups.ok()?).ok()
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
    live.places.values().try_for_each(|place| {
        let tenant = place.tenant.read();
        let Some(occupant) = &*tenant else { return Ok(()) };
        // SAFETY: `occupy` was given the group with these members, which do not move. The drop of a group
        // removes its occupant, with the lock held for writing, before it drops the members or hands them on.
        // Until then there are shared references to them only.
        let members = unsafe { occupant.members.get() };
        let Some(image) = members.get(place.index) else { return Ok(()) };
        visit(Entry {
            image,
            load: occupant.number,
            index: place.index,
            holders: occupant.group.strong_count(),
        })
    })
}

/// The number of groups loaded so far.
pub(crate) fn loads() -> u64 {
    NEXT.load(Ordering::Relaxed)
}

/// The number of groups unloaded so far.
pub(crate) fn unloads() -> u64 {
    sum(&LEFT)
}

fn sum(counts: &Cells<AtomicU64>) -> u64 {
    counts.iter().map(|count| count.load(Ordering::Acquire)).fold(0, u64::wrapping_add)
}

/// The images whose exports all later images see, in the order in which they became so.
pub(crate) fn global_images() -> Result<Vec<ImageRef>, Error> {
    let live = read();
    // As in `all_groups`.
    let mut images = try_vec(live.global.len())?;
    images.extend(live.global.iter().filter_map(GlobalImage::hold));
    Ok(images)
}

/// The names of these images' exports, as they are now; `None` if there are no such images.
pub(crate) fn global_names() -> Option<Arc<NameFilter>> {
    read().global.names().cloned()
}

/// The first of these images that defines a name and that `is_it` accepts, which gets it and the symbol.
pub(crate) fn global_definition<T>(
    name: &SymbolName<'_>,
    wanted: VersionMatch<'_>,
    class: TypeClass,
    mut accept: impl FnMut(ImageRef, Sym) -> Option<T>,
) -> Option<T> {
    let mut from = 0;
    loop {
        let (place, (image, symbol)) =
            read().global.find(from, name.gnu_hash_31(), |entry: &GlobalImage| {
                let (_, symbol) = entry.image().symbols().lookup(name, wanted, class)?;
                Some((entry.hold()?, symbol))
            })?;
        // The lock is free: what follows may run code of images, or unload one.
        if let Some(accepted) = accept(image, symbol) {
            return Some(accepted);
        }
        from = place.wrapping_add(1);
    }
}

/// The first of these images that a `DT_NEEDED` entry of this name means.
pub(crate) fn global_named(name: &[u8]) -> Option<ImageRef> {
    let live = read();
    // Usually there is none.
    live.global.names()?;
    let hash = SymbolName::new(name).gnu_hash_31();
    let is_it = |entry: &GlobalImage| entry.image().is_called(name).then(|| entry.hold())?;
    live.global.find(0, hash, is_it).map(|(_, image)| image)
}

/// Makes an image's exports visible to all later images. Does nothing for an image that is not entered, or
/// that they are visible of.
pub(super) fn make_global(image: &ImageRef) -> Result<(), Error> {
    let Some(&number) = image.group().number.get() else { return Ok(()) };
    image.group().note_global();
    let (member, group) = (NonNull::from(image.image()), Arc::downgrade(image.group()));
    let index = image.index();
    write().global.add(number, index, GlobalImage { member, group, index })
}

/// Keeps an image's group for the life of the process.
pub(crate) fn pin(image: &ImageRef) -> Result<(), Error> {
    let mut live = write();
    let is_pinned = live.pinned.iter().any(|group| Arc::ptr_eq(group, image.group()));
    image.group().is_kept.store(true, Ordering::Relaxed);
    if is_pinned { Ok(()) } else { Ok(live.pinned.try_push(image.group().clone())?) }
}
