//! The table of the images that unwinders find.
//!
//! Read inside of throws, in signal handlers, and when a debugger calls, so without a lock: a [`LeftRight`].

#![allow(unsafe_code)]

use std::cell::Cell;

use super::directory::{DIRECTORY, Entry, Part};
use crate::base::error::Error;
use crate::base::fallible::{OutOfMemory, TryGrow, try_vec};
use crate::base::left_right::LeftRight;
use crate::base::sync::{Lock, Rank};

/// What unwinders are shown.
pub(super) struct Table {
    /// The images, ascending. No part has more than [`MOST`] of them. None is empty, but for a single one, which the
    /// next image finds.
    parts: Vec<Part>,
    /// How often it was changed.
    pub changes: u64,
}

/// The most images of a part. As many as are moved as quickly as they are searched.
const MOST: usize = 128;

impl Table {
    const EMPTY: Table = Table { parts: Vec::new(), changes: 0 };

    /// The last image that starts at this address or before it.
    pub(super) fn up_to(&self, address: usize) -> Option<&Entry> {
        let entries = self.parts.get(part_of(&self.parts, address))?.entries();
        entries.get(entries.partition_point(|entry| entry.start <= address).checked_sub(1)?)
    }

    /// All images, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.parts.iter().flat_map(Part::entries)
    }
}

/// The index of the part that has, or would have, an image that starts there.
fn part_of(parts: &[Part], start: usize) -> usize {
    let is_before = |part: &Part| part.entries().first().is_some_and(|it| it.start <= start);
    parts.partition_point(is_before).saturating_sub(1)
}

fn insert(parts: &mut Vec<Part>, entry: &Entry) -> Result<(), OutOfMemory> {
    parts.try_room(1)?;
    let index = part_of(parts, entry.start);
    let Some(part) = parts.get_mut(index) else {
        let mut entries = try_vec(1)?;
        entries.push(entry.clone());
        parts.push(Part::new(entries));
        return Ok(());
    };
    if part.entries().len() >= MOST {
        let mut behind = try_vec(MOST)?;
        part.change(|entries| behind.extend(entries.drain(MOST / 2..)));
        parts.insert(index.saturating_add(1), Part::new(behind));
        // There is a part with room now.
        return insert(parts, entry);
    }
    part.change(|entries| {
        entries.try_room(1)?;
        let at = entries.partition_point(|it| it.start < entry.start);
        entries.insert(at, entry.clone());
        Ok(())
    })
}

fn take_out(parts: &mut Vec<Part>, start: usize) {
    let index = part_of(parts, start);
    let Some([part, behind @ ..]) = parts.get_mut(index..) else { return };
    let Ok(at) = part.entries().binary_search_by_key(&start, |it| it.start) else { return };
    part.change(|entries| entries.remove(at));
    let left = part.entries().len();
    if left == 0 {
        if !behind.is_empty() || index > 0 {
            parts.remove(index);
        }
        return;
    }
    // Few images are few parts again.
    let Some(next) = behind.first().map(Part::entries) else { return };
    if left.saturating_add(next.len()) <= MOST / 4 {
        let moved = part.change(|entries| {
            let room = entries.try_room(next.len());
            room.map(|()| entries.extend_from_slice(next))
        });
        if moved.is_ok() {
            parts.remove(index.saturating_add(1));
        }
    }
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
    change(|parts| {
        if let Err(error) = insert(parts, entry) {
            refused.set(Some(error));
        }
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
    change(|parts| take_out(parts, start));
}

fn change(change: impl Fn(&mut Vec<Part>)) {
    IMAGES.write(|table| {
        table.changes = table.changes.wrapping_add(1);
        DIRECTORY.change(&mut table.parts, &change);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::ptr;

    fn entry(start: usize) -> Entry {
        let (link_map, name, headers) = (ptr::null(), ptr::null(), ptr::null());
        let end = start + 1;
        Entry {
            start,
            end,
            eh_frame_hdr: 0,
            link_map,
            name,
            load_bias: 0,
            headers,
            header_count: 0,
        }
    }

    #[test]
    fn images_are_found_whatever_came_and_went() {
        let mut table = Table::EMPTY;
        let mut known = BTreeSet::new();
        let mut random = 1usize;
        for round in 0..20_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let start = (random >> 33) % 3_000 * 2;
            // First more come than go, and then more go.
            if (random >> 20) % 4 < if round < 10_000 { 3 } else { 1 } {
                if known.insert(start) {
                    insert(&mut table.parts, &entry(start)).unwrap();
                }
            } else {
                known.remove(&start);
                take_out(&mut table.parts, start);
            }
            let lengths = || table.parts.iter().map(|part| part.entries().len());
            let fewest = usize::from(table.parts.len() > 1);
            assert!(lengths().all(|len| (fewest..=MOST).contains(&len)), "round {round}");
            let expected = known.range(..=start).next_back().copied();
            assert_eq!(table.up_to(start).map(|it| it.start), expected, "round {round}");
            if round % 1_000 == 999 {
                assert!(table.iter().map(|it| it.start).eq(known.iter().copied()));
            }
        }
        for start in known {
            take_out(&mut table.parts, start);
        }
        assert!(table.parts.len() == 1 && table.up_to(usize::MAX).is_none());
    }
}
