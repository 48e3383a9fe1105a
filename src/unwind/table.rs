//! The table of the images that unwinders find.
//!
//! Read inside of throws, in signal handlers, and when a debugger calls, so without a lock: a [`LeftRight`].

#![allow(unsafe_code)]

use std::cell::Cell;

use super::directory::{DIRECTORY, Entry};
use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::base::left_right::LeftRight;
use crate::base::sync::{Lock, Rank};

/// What unwinders are shown.
pub(super) struct Table {
    /// The images, ascending.
    pub entries: Vec<Entry>,
    /// How often it was changed.
    pub changes: u64,
}

impl Table {
    const EMPTY: Table = Table { entries: Vec::new(), changes: 0 };
}

static IMAGES: LeftRight<Table> =
    LeftRight::new(Table::EMPTY, Table::EMPTY, Lock::new(Rank::Unwind, ()));

/// In a child just after the fork: forgets readers, since threads that were reading do not exist here.
pub(super) fn after_fork_in_child() {
    IMAGES.forget_readers();
}

/// Calls `read` with the table, without a lock.
pub(super) fn read<R>(read: impl FnOnce(&Table) -> R) -> R {
    IMAGES.read(read)
}

/// Enters an image.
pub(super) fn enter(entry: &Entry) -> Result<(), Error> {
    let refused = Cell::new(None);
    change(|entries| match entries.try_room(1) {
        Ok(()) => {
            let at = entries.partition_point(|it| it.start < entry.start);
            entries.insert(at, entry.clone());
        }
        Err(error) => refused.set(Some(error)),
    });
    match refused.into_inner() {
        None => Ok(()),
        Some(error) => {
            // One of the two copies of the table may have the entry.
            remove(entry.start);
            Err(error.into())
        }
    }
}

/// Removes the image that starts there.
pub(super) fn remove(start: usize) {
    change(|entries| entries.retain(|entry| entry.start != start));
}

fn change(change: impl Fn(&mut Vec<Entry>)) {
    IMAGES.write(|table| {
        table.changes = table.changes.wrapping_add(1);
        DIRECTORY.change(&mut table.entries, &change);
    });
}
