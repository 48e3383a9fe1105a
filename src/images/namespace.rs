//! Namespaces: the images that find each other by name and by file.
//!
//! Each load has one of its own, which holds its images, what they need, and what they open later; so
//! instances of one image stay apart. Loads can share one. `ld.so` has one for the process, and others by
//! `dlmopen`. A namespace owns no group of images: it forgets one that is
//! unloaded. How an image is found is in `images/named.rs`.
//!
//! Source: `dlmopen(3)`.

#![forbid(unsafe_code)]

use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_vec};
use crate::base::sync::{Lock, Rank};
use crate::host::search::FileId;

/// Groups `G` of images that find each other.
pub(crate) struct Namespace<G> {
    state: Lock<State<G>>,
}

struct State<G> {
    /// In load order.
    groups: Vec<Weak<G>>,
    /// The files that threads are loading for images.
    loading: Vec<Loading>,
}

/// A file that a thread is loading.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Loading {
    file: FileId,
    thread: ThreadId,
    /// A child of `fork` has no other thread that could go on.
    process: u32,
}

/// The longest wait of a thread for another one that loads the same file.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The right to load a file into a namespace, for one thread at a time.
pub(crate) struct Claim<'n, G> {
    namespace: &'n Namespace<G>,
    loading: Loading,
}

impl<G> Drop for Claim<'_, G> {
    fn drop(&mut self) {
        let loading = &mut self.namespace.state.lock().loading;
        if let Some(index) = loading.iter().position(|it| *it == self.loading) {
            loading.swap_remove(index);
        }
    }
}

impl<G> Namespace<G> {
    /// A namespace without images.
    pub(crate) fn new() -> Arc<Namespace<G>> {
        let state = State { groups: Vec::new(), loading: Vec::new() };
        Arc::new(Namespace { state: Lock::new(Rank::Namespace, state) })
    }

    /// The namespace of one group.
    pub(crate) fn of(group: &Arc<G>) -> Arc<Namespace<G>> {
        let state = State { groups: vec![Arc::downgrade(group)], loading: Vec::new() };
        Arc::new(Namespace { state: Lock::new(Rank::Namespace, state) })
    }

    /// Adds a group's images.
    pub(crate) fn enter(&self, group: &Arc<G>) -> Result<(), Error> {
        let groups = &mut self.state.lock().groups;
        groups.retain(|group| group.strong_count() > 0);
        Ok(groups.try_push(Arc::downgrade(group))?)
    }

    /// Waits until no other thread loads this file, so that a file that is opened by two threads at once is
    /// loaded once: search for it afterwards.
    ///
    /// It does not wait for ever: the other thread may wait for `ld.so`'s lock, which this one holds if
    /// constructors of `ld.so`'s libraries are on its stack. Then the file may be loaded twice.
    pub(crate) fn claim(&self, file: FileId) -> Result<Claim<'_, G>, Error> {
        let (thread, process) = (thread::current().id(), std::process::id());
        let loading = Loading { file, thread, process };
        let is_other =
            |it: &Loading| it.file == file && it.process == process && it.thread != thread;
        let start = Instant::now();
        loop {
            let mut state = self.state.lock();
            if !state.loading.iter().any(is_other) || start.elapsed() > MAX_WAIT {
                state.loading.try_push(loading)?;
                return Ok(Claim { namespace: self, loading });
            }
            drop(state);
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// The groups, in load order.
    pub(super) fn groups(&self) -> Result<Vec<Arc<G>>, Error> {
        let state = self.state.lock();
        let known = &state.groups;
        // No upgraded group may be dropped while the lock is held, so the memory is reserved first.
        let mut groups = try_vec(known.len())?;
        groups.extend(known.iter().filter_map(Weak::upgrade));
        Ok(groups)
    }
}
