//! What belongs to a member of a load group, by the member's index.
//!
//! Members are numbered where a group is collected, from 0, the image that was asked for. Tables that
//! have one entry for each member are indexed here and nowhere else. An index is never a number from
//! an image's bytes: one that is not in the table is a fault of memdl's.

#![forbid(unsafe_code)]

/// What `table` has for this member.
#[expect(clippy::indexing_slicing, reason = "members are numbered by memdl, not by bytes")]
#[inline]
pub(crate) fn member<T>(table: &[T], index: usize) -> &T {
    &table[index]
}

/// As [`member`], to be changed.
#[expect(clippy::indexing_slicing, reason = "members are numbered by memdl, not by bytes")]
#[inline]
pub(crate) fn member_mut<T>(table: &mut [T], index: usize) -> &mut T {
    &mut table[index]
}
