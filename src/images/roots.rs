//! Images' memory as roots of LeakSanitizer and libgc: from before their constructors run until they are
//! unloaded.
//!
//! An image's data does not move while it is loaded, and a pool's reset writes it in place. So it is registered
//! once. Thread-local blocks are registered by `tls/`, snapshots by [`snapshot`](crate::images::snapshot).

#![forbid(unsafe_code)]

use crate::base::error::Error;
use crate::host::collectors::{self, AtomicCollectors, Collectors};
use crate::images::group::LoadGroup;
use crate::images::registry;

/// The collectors that had all images when each of them was found.
static REGISTERED_WITH: AtomicCollectors = AtomicCollectors::none();

/// Registers a group's images with the collectors that the process has. The group is entered in the registry,
/// so that either this or the thread that finds a new collector registers it.
#[inline]
pub(crate) fn register(group: &LoadGroup) -> Result<(), Error> {
    let present = collectors::present();
    if present.is_none() { Ok(()) } else { register_with(present, group) }
}

#[cold]
fn register_with(present: Collectors, group: &LoadGroup) -> Result<(), Error> {
    group.register_with(present)?;
    register_all(present)
}

/// Registers the images that were loaded before a collector was found.
fn register_all(present: Collectors) -> Result<(), Error> {
    if REGISTERED_WITH.get() != present {
        for group in registry::all_groups()? {
            group.register_with(present)?;
        }
        REGISTERED_WITH.add(present);
    }
    Ok(())
}

/// After a library was opened: registers all images if it is a collector. Without memory, the next load does.
pub(crate) fn register_if_opened() {
    let present = collectors::present_now();
    if !present.is_none() {
        let _ = register_all(present);
    }
}

impl LoadGroup {
    /// Registers the memory that its images write.
    fn register_with(&self, collectors: Collectors) -> Result<(), Error> {
        self.members
            .iter()
            .try_for_each(|loaded| loaded.roots.register(collectors, loaded.mapping.written()))
    }
}
