//! Addresses that stay mapped, without contents and access, after their image was unloaded.
//!
//! A debugger keeps breakpoints at addresses of an image. When it removes one, it writes the old byte, into
//! whatever is mapped there by then. So nothing else may be mapped at these addresses soon. The oldest are
//! unmapped when there are too many.
//!
//! Never decides which image a debugger has seen: the caller does.
//!
//! Source: `mmap(2)`.

#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::base::sync::{Lock, Rank};
use crate::memory::reservation::Reservation;
use crate::memory::wipe;

static QUARANTINE: Lock<VecDeque<Reservation>> = Lock::new(Rank::Quarantine, VecDeque::new());

/// Frees the contents of the memory, and keeps its addresses.
pub(crate) fn quarantine(memory: Reservation) {
    const MAX_MAPPINGS: usize = 1024;
    memory.blank();
    let mut all = QUARANTINE.lock();
    all.push_back(memory);
    let oldest = if all.len() > MAX_MAPPINGS { all.pop_front() } else { None };
    // Not while the lock is held.
    drop(all);
    drop(oldest);
}

/// Takes all access to the memory away, and keeps its contents. False, and nothing is kept, if the system refused, or
/// if memory that is kept is to be wiped.
pub(crate) fn close(memory: &Reservation) -> bool {
    !wipe::is_on() && memory.close()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::addr::page_size;

    #[test]
    fn addresses_in_quarantine_are_not_given_to_others() {
        let page = page_size();
        let memory = Reservation::new(3 * page, page, 0).unwrap();
        let before = memory.address();
        quarantine(memory);
        assert!(crate::memory::reservation::is_taken(before));
    }
}
