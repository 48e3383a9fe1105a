//! Which group is at some places in memory: one after the other, where instances are used again.
//!
//! Knows nothing of groups: it is generic over them and their members.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use crate::base::sync::{Rank, ReadGuard, SharedLock, WriteGuard};

/// The group that is at some places now, if there is one.
pub(crate) struct Tenant<G, M>(SharedLock<Option<Occupant<G, M>>>);

/// A group that is entered in the registry.
pub(super) struct Occupant<G, M> {
    pub number: u64,
    pub group: Weak<G>,
    pub members: Members<M>,
    /// The handles under which the C library holds functions that images registered, with the image's index in the
    /// group. Usually one.
    pub handles: Vec<(usize, usize)>,
}

/// The members of a group that is entered.
pub(super) struct Members<M>(NonNull<[M]>);

// SAFETY: it is used as a `&[M]`, which threads share through the groups.
unsafe impl<M: Sync> Send for Members<M> {}
// SAFETY: as above.
unsafe impl<M: Sync> Sync for Members<M> {}

impl<M> Members<M> {
    pub(super) fn of(members: &[M]) -> Members<M> {
        Members(NonNull::from(members))
    }

    /// # Safety
    /// The members are in place, and nobody changes them.
    pub(super) unsafe fn get(&self) -> &[M] {
        // SAFETY: the caller's promise.
        unsafe { self.0.as_ref() }
    }
}

impl<G, M> Tenant<G, M> {
    pub(crate) const fn none() -> Tenant<G, M> {
        Tenant(SharedLock::new(Rank::Tenant, None))
    }

    pub(super) fn read(&self) -> ReadGuard<'_, Option<Occupant<G, M>>> {
        self.0.read()
    }

    pub(super) fn try_read(&self) -> Option<ReadGuard<'_, Option<Occupant<G, M>>>> {
        self.0.try_read()
    }

    pub(super) fn write(&self) -> WriteGuard<'_, Option<Occupant<G, M>>> {
        self.0.write()
    }

    /// Whether it is the group of this number.
    pub(crate) fn is_number(&self, number: u64) -> bool {
        self.read().as_ref().is_some_and(|occupant| occupant.number == number)
    }

    /// The group, unless it is being unloaded. It must not be dropped under a lock.
    pub(super) fn group(&self) -> Option<Arc<G>> {
        self.read().as_ref()?.group.upgrade()
    }
}
