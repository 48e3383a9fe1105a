//! [`Pool`]: instances that are reset and used again.
//!
//! An instance stays mapped, bound, and registered with the unwinder and debuggers. A reset restores the
//! state that the image itself owns: its writable data, and its thread-local variables in all threads. State
//! that it has left elsewhere is undone as an unload undoes it, by its own destructors. So there are two ways
//! to reset:
//!
//! * **the short way**: the data as it was after the constructors is copied back;
//! * **the long way**: the destructors run, the data as it was before the constructors is copied back, and
//!   the constructors run when the instance is next acquired.
//!
//! The image's registrations with the C library ([`LibcRegistrations`]) decide whether the short way is
//! enough. An instance that something else holds (a library that was bound to it, an extension that it has
//! opened, a thread that will run one of its destructors) is not reset: it is unloaded as if there were no
//! pool.
//!
//! Threads that acquire and release at the same time do not wait for each other: each has its own list of idle
//! instances ([`Cells`]), and looks into others' only when that is empty or full. A list keeps the seat of an instance
//! that was acquired, so that only the first release of a thread counts seats, of which the pool has as many as its
//! capacity.
//!
//! It holds no lock while code of images runs.
//!
//! [`LibcRegistrations`]: crate::images::group::LibcRegistrations

#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::api::closed::Closed;
use crate::api::library::{Library, Template};
use crate::base::cells::{Apart, Cells};
use crate::base::error::Error;
use crate::base::events::{self, Took};
use crate::base::fallible::TryGrow;
use crate::base::promise::MayRun;
use crate::base::sync::{Lock, Rank};
use crate::base::words::words;
use crate::images::group::LoadGroup;
use crate::images::libc_registrations;
use crate::images::snapshot::Snapshot;
use crate::images::thread_exit;

/// The state to which a released instance is reset.
///
/// ```
/// use memdl::Reset;
///
/// assert_eq!("before-constructors".parse(), Ok(Reset::BeforeConstructors));
/// assert_eq!(Reset::default().to_string(), "after-constructors");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Reset {
    /// The state after the constructors, which run once for each instance: the fast way. Values that they
    /// left in thread-local variables are lost, even for the first caller who acquires the instance.
    ///
    /// If the instance has since registered functions to be called at the exit or on a fork (the first use of
    /// a C++ function's `static` object does), or if its constructors have created `pthread` keys with
    /// destructors, it is reset as by [`Reset::BeforeConstructors`].
    #[default]
    AfterConstructors,
    /// The state before the constructors. Destructors run when the instance is released, constructors when it
    /// is acquired, in the acquiring thread, whose thread-local variables keep what the constructors stored.
    BeforeConstructors,
}

words!(
    Reset,
    [
        ("after-constructors", Reset::AfterConstructors),
        ("before-constructors", Reset::BeforeConstructors)
    ]
);

/// A pool of instances of a [`Template`], which are used again and again.
///
/// For a library with little data, acquiring an idle instance and releasing it takes a fraction of a
/// microsecond: the time to copy the data. All functions may be called from any thread. Clones are the same
/// pool.
///
/// # What a reset brings back
/// * Data: all that the image, and the libraries that were loaded with it, can write.
/// * Thread-local variables: every thread finds their initial values. Objects in them that belong to the
///   releasing thread are destroyed, as if the thread ended.
/// * `pthread` keys with destructors in the image: created anew, or not at all.
/// * Functions registered by `atexit`, `at_quick_exit` and `pthread_atfork`, and C++ objects with static
///   storage: they have been called or destroyed, or are as the constructors left them.
///
/// # What it cannot bring back
/// * Memory that the image has allocated and that its destructors do not free is lost.
/// * Files and sockets that it has opened stay open; so do system libraries.
/// * Its changes to the host and to system libraries stay: signal handlers, environment, locale, functions
///   registered by `on_exit`, `pthread` keys without a destructor.
/// * Libraries that it was bound to by [`Loader::depends_on`](crate::Loader::depends_on) keep their own data.
///
/// # What is not used again
/// A released instance is unloaded, like any library, if something else still holds it: a library that was
/// loaded with it as a dependency; an extension that it has opened by `dlopen`; a thread-local object of C++
/// or Rust, with a destructor, of another thread that is still running. So release an instance in the thread
/// that has used it; other threads that have used it leave it before ([`Library::leave_thread`]).
///
/// So is an instance that has changed the protection of its own pages by `mprotect`, as code does that patches
/// itself. Changes that memdl does not see (the system call itself, `/proc/self/mem`) are handed on with the instance:
/// do not pool such a library.
///
/// ```
/// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
/// // SAFETY: we trust the constructors of the library, and of what it needs.
/// let pool = unsafe { memdl::Loader::new().prepare(&bytes)? }.pool(8);
/// for request in 0..1000 {
///     // SAFETY: we trust the library's constructors and destructors, and none of its code runs any
///     // more when the instance is released.
///     let instance = unsafe { pool.acquire()? };
///     // SAFETY: this is its type.
///     let foo = unsafe { instance.get::<unsafe extern "C" fn(i32) -> i32>("foo")? };
///     // SAFETY: it has no preconditions.
///     assert_eq!(unsafe { foo(request) }, 2 * request);
/// }
/// assert_eq!(pool.parked(), 1); // all requests were served by one instance
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Pool {
    shares: Arc<Cells<Share>>,
}

/// A share of a pool, with a count of its own: instances that different threads acquire do not change the same one.
type Share = Arc<Apart<Arc<Shared>>>;

/// An instance that was acquired from a [`Pool`]: a [`Library`] that returns to its pool when it is dropped.
pub struct Pooled {
    /// `None` only in `drop`.
    instance: Option<Instance>,
    pool: Share,
}

struct Shared {
    template: Template,
    capacity: usize,
    reset: Reset,
    lists: Cells<Lock<List>>,
    /// The seats that no list has.
    seats: AtomicUsize,
    /// An instance could not be reset the long way, since its data before the constructors was not kept.
    needs_before: AtomicBool,
}

/// Idle instances, most recently used first.
struct List {
    parked: Vec<Instance>,
    /// The number of instances that it may have.
    seats: usize,
}

/// An instance, and the snapshots to reset it.
struct Instance {
    library: Library,
    /// Its constructors have run.
    is_constructed: bool,
    /// The state before the constructors, if it was kept.
    before: Option<State>,
    /// The state after the constructors, if it can be reset to that.
    after: Option<State>,
}

/// A snapshot of an instance.
#[derive(Default)]
struct State {
    memory: Snapshot,
    /// The number of the group's dependencies.
    dependencies: usize,
}

impl Template {
    /// An empty pool, which keeps up to `capacity` idle instances.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # // SAFETY: we trust the constructors of the library, and of what it needs.
    /// # let template = unsafe { memdl::Loader::new().prepare(&bytes)? };
    /// let pool = template.pool(8);
    /// assert_eq!(pool.parked(), 0); // instances are made when they are needed
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn pool(&self, capacity: usize) -> Pool {
        Pool::new(self.clone(), capacity, Reset::default())
    }
}

impl Pool {
    fn new(template: Template, capacity: usize, reset: Reset) -> Pool {
        let list = |_| Apart(Lock::new(Rank::Pool, List { parked: Vec::new(), seats: 0 }));
        let shared = Shared {
            template,
            capacity,
            reset,
            lists: Cells::new(std::array::from_fn(list)),
            seats: AtomicUsize::new(capacity),
            needs_before: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        let share = |_| Apart(Arc::new(Apart(shared.clone())));
        Pool { shares: Arc::new(Cells::new(std::array::from_fn(share))) }
    }

    fn shared(&self) -> &Shared {
        &self.shares.own().0
    }

    /// An empty pool like this one, which resets instances to this state. Default
    /// [`Reset::AfterConstructors`].
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # // SAFETY: we trust the constructors of the library, and of what it needs.
    /// # let pool = unsafe { memdl::Loader::new().prepare(&bytes)? }.pool(8);
    /// let pool = pool.reset_to(memdl::Reset::BeforeConstructors);
    /// // SAFETY: we trust the library's constructors and destructors. None of its code runs at the release.
    /// let instance = unsafe { pool.acquire()? };
    /// assert_eq!(instance.release(), memdl::Closed::Parked);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn reset_to(self, reset: Reset) -> Pool {
        let Shared { template, capacity, .. } = self.shared();
        Pool::new(template.clone(), *capacity, reset)
    }

    /// An idle instance, or else a new one.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # // SAFETY: we trust the constructors of the library, and of what it needs.
    /// # let pool = unsafe { memdl::Loader::new().prepare(&bytes)? }.pool(8);
    /// for _ in 0..2 {
    ///     // SAFETY: we trust the library's constructors and destructors. None of its code runs at the release.
    ///     let instance = unsafe { pool.acquire()? };
    ///     // SAFETY: this is its type, and nothing else refers to it.
    ///     let calls = unsafe { &mut **instance.get::<*mut i32>("foo_calls")? };
    ///     assert_eq!(*calls, 0); // also in the second turn, where the same instance is acquired again
    ///     *calls = 1;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Template::instantiate`]; [`Error::Unsupported`] for libraries that are
    /// [sealed](crate::Loader::seal), or that demand never to be unloaded (`DF_1_NODELETE`): those, like all
    /// of Go's, have threads or other state that goes on using them.
    ///
    /// # Safety
    /// As [`Library::from_bytes`]. When the instance is released, none of its code runs in any thread,
    /// nothing in the host will call it, and its data and thread-local variables are no longer used: as when
    /// a library is unloaded. Its data must be writable then: pages that it has protected by the system call
    /// itself, and not by the C library's `mprotect`, it has made writable again.
    pub unsafe fn acquire(&self) -> Result<Pooled, Error> {
        let share = self.shares.own();
        let shared = &share.0;
        // SAFETY: the caller's promise.
        let may_run = unsafe { MayRun::promised() };
        let mut instance = shared.take().map_or_else(|| Instance::new(shared, may_run), Ok)?;
        if !instance.is_constructed {
            // SAFETY: the caller's promise.
            unsafe { instance.construct(shared.reset) };
        }
        Ok(Pooled { instance: Some(instance), pool: share.clone() })
    }

    /// The number of idle instances.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # // SAFETY: we trust the constructors of the library, and of what it needs.
    /// # let pool = unsafe { memdl::Loader::new().prepare(&bytes)? }.pool(8);
    /// // SAFETY: we trust the library's constructors and destructors. None of its code runs at the release.
    /// let instance = unsafe { pool.acquire()? };
    /// assert_eq!(pool.parked(), 0);
    /// drop(instance);
    /// assert_eq!(pool.parked(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn parked(&self) -> usize {
        self.shared().lists.iter().map(|list| list.lock().parked.len()).sum()
    }
}

impl Shared {
    /// An idle instance.
    fn take(&self) -> Option<Instance> {
        self.lists.iter().find_map(|list| list.lock().parked.pop())
    }

    /// Sees to it that the calling thread's list has a free seat. False if the pool is full.
    fn has_seat(&self) -> bool {
        if self.lists.own().lock().has_seat() {
            return true;
        }
        let less = |seats: usize| seats.checked_sub(1);
        let is_free = self.seats.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        // Another list may have one that it does not need now.
        let is_found = is_free || self.lists.iter().any(|list| list.lock().give_seat());
        if is_found {
            let mut own = self.lists.own().lock();
            own.seats = own.seats.saturating_add(1);
        }
        is_found
    }

    /// Takes an instance in, if there is a seat for it.
    fn park(&self, instance: Instance) -> Option<Instance> {
        // Another thread with this list may have taken the seat meanwhile.
        while self.has_seat() {
            let mut list = self.lists.own().lock();
            if list.parked.try_room(1).is_err() {
                break;
            }
            if list.has_seat() {
                list.parked.push(instance);
                return None;
            }
        }
        Some(instance)
    }
}

impl List {
    fn has_seat(&self) -> bool {
        self.parked.len() < self.seats
    }

    /// Gives a free seat away.
    fn give_seat(&mut self) -> bool {
        let has_one = self.has_seat();
        self.seats = self.seats.saturating_sub(has_one.into());
        has_one
    }
}

impl State {
    /// # Safety
    /// As [`Snapshot::take`].
    unsafe fn take(&mut self, group: &LoadGroup) -> Result<(), Error> {
        self.dependencies = group.dependency_count();
        // SAFETY: the caller's promise.
        unsafe { self.memory.take(group) }
    }

    /// # Safety
    /// As [`Snapshot::restore`], of this group.
    unsafe fn restore(&self, group: &LoadGroup) {
        // SAFETY: the caller's promise.
        unsafe { self.memory.restore() };
        // The restored data has no calls any more that were bound lazily since.
        group.truncate_dependencies(self.dependencies);
    }
}

impl Instance {
    /// Mapped and relocated; its constructors have not run.
    fn new(pool: &Shared, may_run: MayRun) -> Result<Instance, Error> {
        if let Some(name) = pool.template.permanent_member() {
            let what =
                "a pool of a library that is never unloaded (DF_1_NODELETE, or Loader::seal)";
            return Err(Error::unsupported(what).in_image(name));
        }
        let library = pool.template.instance_uninitialised(Some(may_run))?;
        let group = library.group();
        let keep_before =
            pool.reset == Reset::BeforeConstructors || pool.needs_before.load(Ordering::Relaxed);
        let mut before = keep_before.then(State::default);
        if let Some(state) = &mut before {
            // SAFETY: nothing of the group has run but IFUNC resolvers.
            unsafe { state.take(group) }.map_err(|error| error.in_image(library.name()))?;
        }
        Ok(Instance { library, is_constructed: false, before, after: None })
    }

    /// Runs the constructors.
    ///
    /// # Safety
    /// As [`Pool::acquire`].
    unsafe fn construct(&mut self, reset: Reset) {
        let group = self.library.group();
        group.libc_registrations().take();
        // SAFETY: the caller's promise; the group is in place and not initialised.
        unsafe { group.initialise() };
        self.is_constructed = true;
        if reset == Reset::BeforeConstructors {
            return;
        }
        let after = self.after.take();
        // The values of a key in other threads cannot be restored.
        let can_go_back = !group.libc_registrations().take().keys;
        // SAFETY: the caller's promise: constructors are done.
        if can_go_back && unsafe { end_thread(group) } && group.reset_thread_locals().is_ok() {
            let mut after = after.unwrap_or_default();
            // SAFETY: the constructors have returned, and no other thread runs code of the group, by the
            // caller's promise.
            let is_taken = unsafe { after.take(group) }.is_ok();
            // Without memory for it, the instance is reset the long way, or is not used again.
            self.after = is_taken.then_some(after);
        }
    }

    /// Resets it to the pool's state. False if that is impossible.
    ///
    /// # Safety
    /// As [`Pool::acquire`] says of a release, and nothing else holds the group.
    unsafe fn reset(&mut self, pool: &Shared) -> bool {
        let group = self.library.group();
        let left = group.libc_registrations().take();
        if let (Some(after), false) = (&self.after, left.handlers) {
            if left.keys {
                libc_registrations::delete_keys(group);
            }
            // SAFETY: the caller's promise.
            return group.reset_thread_locals().map(|()| unsafe { after.restore(group) }).is_ok();
        }
        let Some(before) = &self.before else {
            pool.needs_before.store(true, Ordering::Relaxed);
            return false;
        };
        group.finalise();
        self.is_constructed = false;
        libc_registrations::delete_keys(group);
        // The destructors may have left something in their turn.
        // SAFETY: the caller's promise.
        if !unsafe { end_thread(group) } || group.reset_thread_locals().is_err() {
            return false;
        }
        // SAFETY: the caller's promise.
        unsafe { before.restore(group) };
        true
    }
}

/// Destroys the calling thread's thread-local objects of the group, as if the thread ended. Returns whether
/// only the caller holds the group then. Does nothing if something holds it that may go on using it.
///
/// # Safety
/// No code of the group runs, and its thread-local variables are not used.
unsafe fn end_thread(group: &Arc<LoadGroup>) -> bool {
    let threads = group.stays();
    if group.holders().checked_sub(1) != Some(threads) {
        return false;
    }
    if threads > 0 {
        // SAFETY: the caller's promise; code of the group may run where it was promised that its
        // destructors may.
        unsafe { thread_exit::destroy(group) };
    }
    group.holders() == 1
}

impl Pooled {
    /// Resets the instance and returns it to its pool, as dropping it does. It is unloaded if the pool is
    /// full, or if it [is not used again](Pool#what-is-not-used-again). Returns which.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # // SAFETY: we trust the constructors of the library, and of what it needs.
    /// # let pool = unsafe { memdl::Loader::new().prepare(&bytes)? }.pool(8);
    /// # // SAFETY: we trust the library's constructors and destructors. None of its code runs at the release.
    /// # let instance = unsafe { pool.acquire()? };
    /// assert_eq!(instance.release(), memdl::Closed::Parked);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn release(mut self) -> Closed {
        self.put_back().map_or(Closed::Parked, |instance| instance.library.let_go())
    }

    /// Resets the instance and returns it to its pool. Returns it if that is impossible.
    fn put_back(&mut self) -> Option<Instance> {
        let (mut instance, pool) = (self.instance.take()?, &*self.pool.0);
        let start = events::start();
        // SAFETY: the caller of `acquire` promised this for the release.
        let is_reset = unsafe {
            end_thread(instance.library.group())
                && pool.has_seat()
                && !instance.library.group().has_changed_pages()
                && instance.reset(pool)
        };
        if let (true, Some(start)) = (is_reset, start) {
            logged!(debug, "{}: reset in {}", instance.library.name(), Took::since(start));
        }
        if !is_reset {
            return Some(instance);
        }
        pool.park(instance)
    }

    /// Takes the instance out of the pool.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # // SAFETY: we trust the constructors of the library, and of what it needs.
    /// # let pool = unsafe { memdl::Loader::new().prepare(&bytes)? }.pool(8);
    /// # // SAFETY: we trust the library's constructors and destructors. None of its code runs at the release.
    /// # let instance = unsafe { pool.acquire()? };
    /// let library = instance.into_library();
    /// assert!(library.close()?.is_unloaded()); // it does not return to the pool
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(clippy::expect_used, reason = "only `drop` takes the instance")]
    pub fn into_library(mut self) -> Library {
        self.instance.take().expect("taken by `drop` only").library
    }
}

impl Deref for Pooled {
    type Target = Library;

    #[expect(clippy::expect_used, reason = "only `drop` takes the instance")]
    fn deref(&self) -> &Library {
        &self.instance.as_ref().expect("taken by `drop` only").library
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // Unloads it if it is not parked, when no lock is held.
        drop(self.put_back());
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.shared().template.name())
            .field("capacity", &self.shared().capacity)
            .field("reset", &self.shared().reset)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(&**self).finish()
    }
}
