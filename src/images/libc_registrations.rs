//! What the C library holds for images: `pthread` keys with destructors, and handles under which functions
//! for the exit or for forks are registered.
//!
//! They are recorded so that an unload can remove them: otherwise the C library would call code that is
//! unmapped. A pool learns from the group whether a reset must undo any. The wrappers that images call
//! are in `services/`; the records are kept in the [`registry`].

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::error::Error;
use crate::base::fallible::require_memory;
use crate::images::group::LoadGroup;
use crate::images::registry::{self, image_at, read, write};

/// Records a key whose destructor may be code of an image.
pub(crate) fn note_key(destructor: usize, key: libc::pthread_key_t) -> Result<(), Error> {
    if let Some(image) = image_at(destructor) {
        require_memory()?;
        image.group().libc_registrations().note_key();
        write().keys.insert(key, destructor);
    }
    Ok(())
}

/// Records that an image registers a function for the exit or for forks. `dso_handle` is in the image.
pub(crate) fn note_handler(dso_handle: usize) {
    let live = read();
    let Some(place) = live.place_at(dso_handle) else { return };
    let mut tenant = place.tenant.write();
    let Some(occupant) = &mut *tenant else { return };
    let handle = (place.index, dso_handle);
    if !occupant.handles.contains(&handle) {
        occupant.handles.push(handle);
        HANDLES_EVER.store(true, Ordering::Relaxed);
    }
    // Held until the locks are released: dropping the last share of a group takes them.
    let group = occupant.group.upgrade();
    if let Some(group) = &group {
        group.libc_registrations().note_handler();
    }
    drop(tenant);
    drop(live);
}

/// Whether the C library may hold functions under this handle, which it is about to call. False only for
/// a handle of an image that has registered none.
pub(crate) fn take_handle(dso_handle: usize) -> bool {
    let live = read();
    let Some(place) = live.place_at(dso_handle) else { return true };
    let is_it = |handle: &(usize, usize)| *handle == (place.index, dso_handle);
    match &*place.tenant.read() {
        None => return true,
        Some(occupant) if !occupant.handles.iter().any(|(index, _)| *index == place.index) => {
            return false;
        }
        Some(_) => {}
    }
    let mut tenant = place.tenant.write();
    let Some(occupant) = &mut *tenant else { return true };
    let known = occupant.handles.iter().position(is_it);
    known.map(|at| occupant.handles.swap_remove(at)).is_some()
}

/// Whether any image has ever registered a function. In nearly all processes none has.
static HANDLES_EVER: AtomicBool = AtomicBool::new(false);

/// Whether any image may have registered a function.
pub(crate) fn has_any() -> bool {
    HANDLES_EVER.load(Ordering::Relaxed)
}

/// Takes the handles of a member of the group, whose functions are about to be called.
pub(super) fn take_handles_of(group: &LoadGroup, index: usize) -> Vec<usize> {
    let mut taken = Vec::new();
    if !has_any() {
        return taken;
    }
    if let Some(occupant) = &mut *group.tenant.write() {
        let of_member = occupant.handles.extract_if(.., |(of, _)| *of == index);
        taken.extend(of_member.map(|(_, handle)| handle));
    }
    taken
}

/// Removes a key that is being deleted.
pub(crate) fn forget_key(key: libc::pthread_key_t) {
    write().keys.remove(&key);
}

/// The first key above `after` whose destructor is code of the group; with the destructor's address.
pub(super) fn next_key(
    group: &Arc<LoadGroup>,
    after: Option<libc::pthread_key_t>,
) -> Option<(libc::pthread_key_t, usize)> {
    let from = after.map_or(0, |key| key.saturating_add(1));
    let live = read();
    let is_its = |address: usize| {
        live.place_at(address).is_some_and(|place| Arc::ptr_eq(&place.tenant, &group.tenant))
    };
    let mut keys = live.keys.range(from..);
    keys.find(|&(_, &destructor)| is_its(destructor)).map(|(&key, &destructor)| (key, destructor))
}

/// Deletes the keys with destructors that images of this group created and did not delete.
pub(crate) fn delete_keys(group: &LoadGroup) {
    let mut live = write();
    for loaded in &group.members {
        registry::delete_keys(&mut live.keys, &loaded.mapping.address_range());
    }
}
