//! Unloaded instances of a template, which wait for the next one, in place and whole.
//!
//! Such an instance has nothing of its former life any more: its destructors have run, nothing finds it, and its
//! memory is as it was before its constructors ran ([`Stand::keep`] sees to that). So an instance that comes back in
//! its place maps, relocates and protects nothing.
//!
//! Threads that make and unload instances at the same time do not wait for each other: each has its own list here
//! ([`Cells`]), and looks into others' only when that is empty. What all instances that wait may take together is
//! limited. A list keeps the room of an instance that was taken, so that only the first time is counted.
//!
//! Knows nothing of groups: it is generic over what an instance consists of. No instance is dropped under a lock.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::base::cells::{Apart, Cells};
use crate::base::fallible::{TryGrow, try_collect};
use crate::base::sync::{Guard, Lock, Rank};
use crate::memory::cache;

/// Brings the memory of an instance back to the state before its constructors. False if it must not be used again.
pub(crate) type Renew<P> = dyn Fn(&mut P) -> bool + Send + Sync;

/// The instances of one template that wait.
pub(crate) struct Stand<P> {
    cells: Cells<Cell<P>>,
    /// The memory of an instance that nothing else shares.
    own: OnceLock<usize>,
}

/// The stand of one instance. Who unloads the instance takes a reference to this: to a count of its own, since threads that
/// unload instances of one template would all write to that of the stand.
pub(crate) struct OwnStand<P>(pub Arc<Stand<P>>);

struct Cell<P> {
    list: Lock<List<P>>,
    /// The length of the list, for threads that look for one that is not empty.
    len: AtomicUsize,
}

struct List<P> {
    /// The last to come is the first to go.
    idle: Vec<Box<P>>,
    /// The number of instances that the list may have.
    room: usize,
    /// [`EPOCH`] when an instance came last.
    used: u64,
    /// `None` once the template is gone.
    renew: Option<Arc<Renew<P>>>,
}

/// What all stands keep.
struct Kept {
    stands: Vec<Weak<dyn Keeper>>,
    /// The bytes and the number of the instances that lists have room for.
    bytes: usize,
    count: usize,
}

static KEPT: Lock<Kept> = Lock::new(Rank::Stands, Kept { stands: Vec::new(), bytes: 0, count: 0 });

/// Counts how often room was asked for.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Limits of what waits, besides [`cache::MAX_BYTES`].
const MAX_INSTANCES: usize = 64;
/// A fleet of instances that are unloaded one after the other is not renewed for nothing.
const MAX_IN_LIST: usize = 16;

/// A stand, of whatever it keeps.
trait Keeper: Send + Sync {
    /// When the list that was not used for the longest time was used, if any has room.
    fn last_used(&self) -> Option<u64>;
    /// Takes the room for one instance away from that list.
    fn give_up_one(&self);
    /// Takes all room away.
    fn give_up_all(&self);
    /// The bytes of the instances that wait.
    fn bytes(&self) -> usize;
}

impl<P: Send + 'static> Stand<P> {
    /// A stand whose instances are renewed so, until it is closed.
    pub(crate) fn new(renew: &Arc<Renew<P>>) -> Arc<Stand<P>> {
        let cell = |_| {
            let list = List { idle: Vec::new(), room: 0, used: 0, renew: Some(renew.clone()) };
            Apart(Cell { list: Lock::new(Rank::Idle, list), len: AtomicUsize::new(0) })
        };
        Arc::new(Stand { cells: Cells::new(std::array::from_fn(cell)), own: OnceLock::new() })
    }

    /// An instance that waits.
    pub(crate) fn take(&self) -> Option<Box<P>> {
        self.cells.iter().find_map(|cell| {
            (cell.len.load(Ordering::Relaxed) > 0).then(|| cell.lock().pop(cell)).flatten()
        })
    }

    /// Renews an instance, and keeps it, if it can be used again and there is room. Returns it otherwise, to be dropped.
    /// `own` is the size of its memory that nothing else shares.
    ///
    /// Nothing refers to the instance but the caller.
    pub(crate) fn keep(self: &Arc<Self>, mut instance: Box<P>, own: usize) -> Option<Box<P>> {
        let cell = self.cells.own();
        // Before room is asked for: the limits are for what can be used again.
        {
            let mut list = cell.lock();
            if list.idle.len() >= MAX_IN_LIST {
                return Some(instance);
            }
            let is_renewed = list.renew.as_ref().is_some_and(|renew| renew(&mut instance));
            if !is_renewed {
                return Some(instance);
            }
            if list.idle.len() < list.room {
                list.push(cell, instance);
                return None;
            }
        }
        let own = *self.own.get_or_init(|| own);
        if !self.make_room(own) {
            return Some(instance);
        }
        let mut list = cell.lock();
        if list.renew.is_none() || list.idle.try_room(1).is_err() {
            drop(list);
            give_back(1, own);
            return Some(instance);
        }
        list.room = list.room.saturating_add(1);
        list.push(cell, instance);
        None
    }

    /// Room for one more instance: of those that wait, the ones that were not used for the longest time are dropped.
    fn make_room(self: &Arc<Self>, own: usize) -> bool {
        EPOCH.fetch_add(1, Ordering::Relaxed);
        if own > cache::MAX_BYTES {
            return false;
        }
        for _ in 0..=MAX_INSTANCES {
            let stands = {
                let mut kept = KEPT.lock();
                if kept.take_room(own) {
                    return kept.know(self) || {
                        kept.give_back(1, own);
                        false
                    };
                }
                kept.stands()
            };
            let used = stands.iter().filter_map(|it| Some((it.last_used()?, it)));
            match used.min_by_key(|(used, _)| *used) {
                Some((_, oldest)) => oldest.give_up_one(),
                None => return false,
            }
        }
        false
    }

    /// The template is gone: no instance comes any more, and those that wait are dropped.
    pub(crate) fn close(&self) {
        for cell in self.cells.iter() {
            let renew = cell.lock().renew.take();
            // Not while the lock is held.
            drop(renew);
        }
        self.give_up_all();
    }

    fn own(&self) -> usize {
        self.own.get().copied().unwrap_or(0)
    }
}

impl<P> Cell<P> {
    fn lock(&self) -> Guard<'_, List<P>> {
        self.list.lock()
    }
}

impl<P> List<P> {
    /// There is room in the list.
    fn push(&mut self, cell: &Cell<P>, instance: Box<P>) {
        self.used = EPOCH.load(Ordering::Relaxed);
        self.idle.push(instance);
        cell.len.store(self.idle.len(), Ordering::Relaxed);
    }

    fn pop(&mut self, cell: &Cell<P>) -> Option<Box<P>> {
        let instance = self.idle.pop();
        cell.len.store(self.idle.len(), Ordering::Relaxed);
        instance
    }
}

impl<P: Send + 'static> Keeper for Stand<P> {
    fn last_used(&self) -> Option<u64> {
        let used = |cell: &Cell<P>| {
            let list = cell.lock();
            (list.room > 0).then_some(list.used)
        };
        self.cells.iter().filter_map(used).min()
    }

    fn give_up_one(&self) {
        let Some(oldest) = self.last_used() else { return };
        for cell in self.cells.iter() {
            let mut list = cell.lock();
            if list.room > 0 && list.used <= oldest {
                list.room = list.room.saturating_sub(1);
                let is_over = list.idle.len() > list.room;
                let instance = if is_over { list.pop(cell) } else { None };
                drop(list);
                drop(instance);
                return give_back(1, self.own());
            }
        }
    }

    fn give_up_all(&self) {
        for cell in self.cells.iter() {
            let mut list = cell.lock();
            let (idle, room) = (std::mem::take(&mut list.idle), std::mem::take(&mut list.room));
            cell.len.store(0, Ordering::Relaxed);
            drop(list);
            drop(idle);
            give_back(room, self.own());
        }
    }

    fn bytes(&self) -> usize {
        let waiting = self.cells.iter().map(|cell| cell.len.load(Ordering::Relaxed)).sum::<usize>();
        waiting.saturating_mul(self.own())
    }
}

impl<P> Drop for Stand<P> {
    fn drop(&mut self) {
        let room = self.cells.iter().map(|cell| cell.lock().room).sum();
        give_back(room, self.own.get().copied().unwrap_or(0));
    }
}

impl Kept {
    fn take_room(&mut self, own: usize) -> bool {
        let bytes = self.bytes.saturating_add(own);
        let fits = self.count < MAX_INSTANCES && bytes <= cache::MAX_BYTES;
        if fits {
            (self.bytes, self.count) = (bytes, self.count.saturating_add(1));
            cache::set_aside(bytes);
        }
        fits
    }

    fn give_back(&mut self, count: usize, own: usize) {
        self.bytes = self.bytes.saturating_sub(own.saturating_mul(count));
        self.count = self.count.saturating_sub(count);
        cache::set_aside(self.bytes);
    }

    /// Lists a stand that has room now. False without memory for it.
    fn know<P: Send + 'static>(&mut self, stand: &Arc<Stand<P>>) -> bool {
        let is_it =
            |known: &Weak<dyn Keeper>| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(stand));
        if self.stands.iter().any(is_it) {
            return true;
        }
        self.stands.retain(|known| known.strong_count() > 0);
        let weak: Weak<dyn Keeper> = Arc::<Stand<P>>::downgrade(stand);
        self.stands.try_push(weak).is_ok()
    }

    /// All stands; without memory for the list, none.
    fn stands(&self) -> Vec<Arc<dyn Keeper>> {
        try_collect(self.stands.iter().map(Weak::upgrade))
            .map(|stands: Vec<_>| stands.into_iter().flatten().collect())
            .unwrap_or_default()
    }
}

fn give_back(count: usize, own: usize) {
    if count > 0 {
        KEPT.lock().give_back(count, own);
    }
}

/// Drops all instances that wait.
pub(crate) fn release() {
    let stands = KEPT.lock().stands();
    stands.iter().for_each(|stand| stand.give_up_all());
}

/// The number of bytes that [`release`] gives back.
pub(crate) fn kept_bytes() -> usize {
    let stands = KEPT.lock().stands();
    stands.iter().map(|stand| stand.bytes()).fold(0, usize::saturating_add)
}
