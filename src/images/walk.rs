//! The images as `dl_iterate_phdr` shows them: a list of records that is made once for all walks until images change.
//!
//! A walk costs what the list and the visitor cost, as `ld.so`'s does: nothing is done for an image. `ld.so` lets no
//! other thread unload a library during a walk. Here no lock is held while the visitor runs, and an unload does not
//! wait. What the records point to stays instead: images that are unloaded while there are walks leave their memory
//! to the registry, and the last walk drops it.
//!
//! Source: `dl_iterate_phdr(3)`.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::base::tls_index::ModuleId;
use crate::images::group::{Dependency, LoadedImage, Parts};
use crate::tls;

/// The records, in load order.
pub(super) struct Records {
    list: Vec<libc::dl_phdr_info>,
    /// How many groups had come and gone.
    changes: Changes,
}

/// How many groups have come and gone. Both are counted just after the group can, or cannot, be found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Changes {
    pub entered: u64,
    pub left: u64,
}

// SAFETY: the pointers of the records are passed on, not dereferenced.
unsafe impl Send for Records {}
// SAFETY: as above.
unsafe impl Sync for Records {}

impl Records {
    pub(super) fn new(changes: Changes) -> Records {
        Records { list: Vec::new(), changes }
    }

    /// Whether they are those of all images still.
    pub(super) fn are_of(&self, changes: Changes) -> bool {
        self.changes == changes
    }

    /// Adds that of an image. Images are added in load order.
    pub(super) fn add(&mut self, loaded: &LoadedImage) -> Result<(), Error> {
        let Changes { entered, left } = self.changes;
        Ok(self.list.try_push(libc::dl_phdr_info {
            dlpi_addr: loaded.mapping.load_bias().get() as u64,
            dlpi_name: loaded.link_map.l_name,
            dlpi_phdr: loaded.decoded.program_headers.as_ptr().cast(),
            dlpi_phnum: loaded.decoded.program_headers.len() as u16,
            dlpi_adds: entered,
            dlpi_subs: left,
            dlpi_tls_modid: loaded.tls.as_ref().map_or(0, |tls| tls.id().0),
            dlpi_tls_data: ptr::null_mut(),
        })?)
    }
}

/// What a group that is unloaded leaves: its members, and then what they are bound to.
pub(super) struct Remains {
    _members: Vec<LoadedImage>,
    _dependencies: Vec<Dependency>,
}

impl Remains {
    /// Takes them, in the drop of what a group was made of.
    pub(super) fn of(parts: &mut Parts) -> Remains {
        let _members = std::mem::take(&mut parts.members);
        Remains { _members, _dependencies: std::mem::take(parts.dependencies.get_mut()) }
    }
}

/// The walks that are under way.
pub(super) struct Walks {
    /// The thread of each.
    threads: Vec<libc::pthread_t>,
    /// What was unloaded meanwhile.
    remains: Vec<Remains>,
}

impl Walks {
    pub(super) const fn new() -> Walks {
        Walks { threads: Vec::new(), remains: Vec::new() }
    }

    pub(super) fn begin(&mut self) -> Result<(), Error> {
        Ok(self.threads.try_push(this_thread())?)
    }

    /// Ends a walk of the calling thread. What it gives is to be dropped once no lock is held.
    pub(super) fn end(&mut self) -> Vec<Remains> {
        let thread = this_thread();
        if let Some(at) = self.threads.iter().rposition(|it| *it == thread) {
            self.threads.swap_remove(at);
        }
        if self.threads.is_empty() { std::mem::take(&mut self.remains) } else { Vec::new() }
    }

    pub(super) fn is_any(&self) -> bool {
        !self.threads.is_empty()
    }

    /// Keeps what a group leaves until no walk is under way. Without memory for that, it stays for ever.
    pub(super) fn keep(&mut self, remains: Remains) {
        match self.remains.try_room(1) {
            Ok(()) => self.remains.push(remains),
            Err(_) => std::mem::forget(remains),
        }
    }

    /// In a child just after the fork: forgets walks of threads that do not exist here.
    pub(super) fn forget_others(&mut self) {
        let thread = this_thread();
        self.threads.retain(|it| *it == thread);
    }
}

fn this_thread() -> libc::pthread_t {
    // SAFETY: no preconditions.
    unsafe { libc::pthread_self() }
}

/// A walk. Until it is dropped, what the records point to stays.
pub(crate) struct Walk {
    pub(super) records: Arc<Records>,
    /// Called once.
    pub(super) end: fn(),
}

impl Drop for Walk {
    fn drop(&mut self) {
        (self.end)();
    }
}

impl Walk {
    /// Calls `visit` with a record of each image, until it returns something else than 0.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&mut libc::dl_phdr_info) -> c_int) -> c_int {
        for record in &self.records.list {
            let mut record = *record;
            if record.dlpi_tls_modid != 0 {
                // As the C library does it: a walk allocates no blocks.
                let block = tls::allocated_block(ModuleId(record.dlpi_tls_modid));
                record.dlpi_tls_data = block.unwrap_or(ptr::null_mut());
            }
            let result = visit(&mut record);
            if result != 0 {
                return result;
            }
        }
        0
    }
}
