//! What became of a library that was closed: [`Closed`].
//!
//! Finds out what holds a load group, and drops the caller's share of it, which may unload it. It is the only
//! file that looks at all holders.

#![forbid(unsafe_code)]

use std::fmt;
use std::ptr;
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::escape::Escaped;
use crate::base::fallible::{TryGrow, try_string};
use crate::images::dl_handles;
use crate::images::group::LoadGroup;
use crate::images::registry;
use crate::images::thread_exit;

/// What became of a library that was [closed](crate::Library::close).
///
/// ```
/// # let plugin = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
/// use memdl::Closed;
///
/// match plugin.close()? {
///     Closed::Kept(kept) if kept.threads > 0 => {
///         eprintln!("{} threads have not left the plug-in", kept.threads)
///     }
///     closed => assert_eq!(closed.to_string(), "unloaded"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Closed {
    /// It is gone: its destructors have run, and its memory is given back.
    Unloaded,
    /// An instance of a [`Pool`](crate::Pool) is reset, and waits to be acquired again.
    Parked,
    /// Something else keeps it loaded. The last of these unloads it, in its own thread.
    Kept(Kept),
}

/// What kept a library loaded at the moment when it was closed. Its text (`Display`) lists all of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Kept {
    /// The number of threads that have destructors of its thread-local objects to run. A thread keeps the
    /// library until it ends, or calls [`Library::leave_thread`](crate::Library::leave_thread). The main thread
    /// does not end before the process.
    pub threads: usize,
    /// The calling thread is one of them, or has such destructors of a library that this one has opened: see
    /// [`Library::close_with_thread_locals`](crate::Library::close_with_thread_locals).
    pub this_thread: bool,
    /// The names of the libraries that are bound to it, or that it opened, in load order.
    pub libraries: Vec<String>,
    /// An image has opened it, or a library that was loaded with it, by `dlopen`, and has not closed it.
    pub is_open: bool,
    /// It, or a library that was loaded with it, is never unloaded (`DF_1_NODELETE`).
    pub never_unloaded: bool,
    /// The number of other holders: [`Loader`](crate::Loader)s that depend on it, templates that are bound to
    /// it, and lookups in other threads that were not over.
    pub others: usize,
}

impl Closed {
    /// Whether the library is gone.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// // SAFETY: we trust the plug-in's constructors.
    /// let plugin = unsafe { memdl::Loader::new().depends_on(&library).load(&plugin_bytes)? };
    /// assert!(!library.close()?.is_unloaded()); // the plug-in is bound to it
    /// assert!(plugin.close()?.is_unloaded());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_unloaded(&self) -> bool {
        matches!(self, Closed::Unloaded)
    }

    /// Drops the caller's share of a group.
    pub(crate) fn release(group: Arc<LoadGroup>) -> Closed {
        let kept = (group.holders() > 1).then(|| Kept::of(&group));
        let (number, tenant) = (group.number(), group.tenant().clone());
        let rest = Arc::downgrade(&group);
        // Its destructors may run: no lock is held.
        drop(group);
        // A share that another thread had for a moment may have been the last, and its unload not be over.
        if rest.strong_count() == 0 && !number.is_some_and(|number| tenant.is_number(number)) {
            return Closed::Unloaded;
        }
        Closed::Kept(kept.unwrap_or(Kept { others: 1, ..Kept::default() }))
    }
}

impl Kept {
    /// What holds a group, besides the caller.
    fn of(group: &Arc<LoadGroup>) -> Kept {
        let holders = group.holders().saturating_sub(1);
        let mut kept = Kept {
            threads: group.stays(),
            this_thread: thread_exit::is_here(group),
            never_unloaded: group.is_pinned(),
            ..Kept::default()
        };
        let mut known = kept.threads.saturating_add(kept.never_unloaded.into());
        for index in 0..group.len() {
            let handle = ptr::from_ref(group.member(index)).cast_mut().cast();
            if dl_handles::image(handle).is_some() {
                kept.is_open = true;
                known = known.saturating_add(1);
            }
        }
        // Without memory for the list or a name: among the others.
        if let Ok(shares) = kept.name_libraries(group) {
            known = known.saturating_add(shares);
        }
        kept.others = holders.saturating_sub(known);
        kept
    }

    /// Names the libraries that hold a group, and counts their shares.
    fn name_libraries(&mut self, group: &Arc<LoadGroup>) -> Result<usize, Error> {
        let mut shares: usize = 0;
        for other in registry::all_groups()? {
            let its = other.shares_of(group);
            if its > 0 {
                self.libraries.try_push(try_string(&other.member(0).name)?)?;
                shares = shares.saturating_add(its);
            }
        }
        Ok(shares)
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::Unloaded => f.write_str("unloaded"),
            Closed::Parked => f.write_str("reset, and waiting in its pool"),
            Closed::Kept(kept) => kept.fmt(f),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it stays loaded")?;
        let mut separator = ": ";
        let mut say = |what: fmt::Arguments<'_>| {
            write!(f, "{separator}{what}")?;
            separator = "; ";
            Ok(())
        };
        match (self.threads, self.this_thread) {
            (0, false) => {}
            (0, true) => {
                say(format_args!("this thread has destructors to run of a library that it opened"))?
            }
            (1, true) => {
                say(format_args!("this thread has destructors of its thread-local objects to run"))?
            }
            (threads, this) => {
                let s = if threads == 1 { " has" } else { "s have" };
                let this = if this { ", this thread among them" } else { "" };
                say(format_args!(
                    "{threads} thread{s} destructors of its thread-local objects to run{this}"
                ))?;
            }
        }
        for name in &self.libraries {
            say(format_args!("{} is bound to it or was opened by it", Escaped(name)))?;
        }
        if self.is_open {
            say(format_args!("an image has it open by dlopen"))?;
        }
        if self.never_unloaded {
            say(format_args!("it is never to be unloaded (DF_1_NODELETE)"))?;
        }
        match self.others {
            0 => Ok(()),
            1 => say(format_args!("a loader, template or lookup holds it")),
            others => say(format_args!("{others} loaders, templates or lookups hold it")),
        }
    }
}
