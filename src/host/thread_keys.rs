//! Where glibc keeps a thread's values of `pthread` keys, for keys whose value is at the same distance from the
//! thread pointer in every thread.
//!
//! The values of the first keys of a process (32) lie in the thread's descriptor. glibc exports the layout for
//! debuggers; [`find`] trusts it only after it has stored a value and read it back. Nothing is found where the
//! layout is not exported (glibc before 2.34 without `libpthread.so.0`).
//!
//! Sources: glibc `nptl/pthread_setspecific.c`, `nptl_db/structs.def`.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arch;
use crate::host::threads::{field_offset, size_of_structure};

/// The number of keys that are tried for one whose value no thread has ever set.
const MAX_TRIES: usize = 8;

/// The process's first key with this sequence number: no earlier key had its place.
const FIRST_USE: usize = 1;

/// A new key, and the distance of its value from the thread pointer if it is constant and the value is null in
/// every thread. `None` if the process has no key left.
///
/// # Safety
/// `destructor` may be called with each value of the key, when its thread ends.
pub(crate) unsafe fn create(
    destructor: Option<unsafe extern "C" fn(*mut c_void)>,
) -> Option<(libc::pthread_key_t, Option<isize>)> {
    // Keys that others deleted: values of those may be left in threads. They are held while more are made, so
    // that none of them comes again.
    let mut used_before = [None; MAX_TRIES];
    let mut found = None;
    for tried in &mut used_before {
        // SAFETY: the caller's promise.
        let Some(key) = (unsafe { create_anywhere(destructor) }) else { break };
        match find(key) {
            Place::Constant(distance) => {
                found = Some((key, Some(distance)));
                break;
            }
            Place::UsedBefore => *tried = Some(key),
            Place::Elsewhere => {
                found = Some((key, None));
                break;
            }
        }
    }
    let mut rejected = used_before.into_iter().flatten();
    let found = found.or_else(|| rejected.next().map(|key| (key, None)));
    for key in rejected {
        // SAFETY: a key from above that nothing uses.
        unsafe { libc::pthread_key_delete(key) };
    }
    found
}

/// A new key. `None` if the process has none left.
///
/// # Safety
/// As [`create`].
pub(crate) unsafe fn create_anywhere(
    destructor: Option<unsafe extern "C" fn(*mut c_void)>,
) -> Option<libc::pthread_key_t> {
    let mut key = 0;
    // SAFETY: writes one key; the destructor is the caller's promise.
    (unsafe { libc::pthread_key_create(&mut key, destructor) } == 0).then_some(key)
}

/// Where a key's value is.
enum Place {
    /// At this distance from the thread pointer, and null in every thread but those that set it.
    Constant(isize),
    /// At a constant distance, but another key had this place before.
    UsedBefore,
    /// Not at a constant distance, or at one that cannot be found.
    Elsewhere,
}

/// Finds the value of a key that no thread has set.
fn find(key: libc::pthread_key_t) -> Place {
    let Some(entry) = layout().and_then(|layout| layout.entry(key)) else {
        return Place::Elsewhere;
    };
    let probe = 0_u8;
    // SAFETY: a key of `create`, whose value is null again before anything else sees it.
    if unsafe { libc::pthread_setspecific(key, (&raw const probe).cast()) } != 0 {
        return Place::Elsewhere;
    }
    let (value, sequence) = (entry.read(entry.value), entry.read(entry.sequence));
    // SAFETY: as above. This cannot fail, since the value has its memory.
    unsafe { libc::pthread_setspecific(key, ptr::null()) };
    if value != (&raw const probe).addr() || entry.read(entry.value) != 0 {
        return Place::Elsewhere;
    }
    match sequence {
        FIRST_USE => Place::Constant(entry.value),
        _ => Place::UsedBefore,
    }
}

/// The layout of the values in a thread's descriptor.
struct Layout {
    /// The distance of the first element from the thread pointer.
    first: isize,
    element_size: usize,
    /// The number of elements.
    len: usize,
    /// Offsets in an element.
    value: usize,
    sequence: usize,
}

/// The places of a key's value and of its sequence number, as distances from the thread pointer.
struct Entry {
    value: isize,
    sequence: isize,
}

impl Entry {
    fn read(&self, distance: isize) -> usize {
        let word = arch::thread_pointer().wrapping_add_signed(distance);
        // SAFETY: an aligned word in the calling thread's descriptor (checked by `Layout::find`), which only
        // this thread writes.
        unsafe { (*ptr::with_exposed_provenance::<AtomicUsize>(word)).load(Ordering::Relaxed) }
    }
}

fn layout() -> Option<&'static Layout> {
    static LAYOUT: OnceLock<Option<Layout>> = OnceLock::new();
    LAYOUT.get_or_init(Layout::find).as_ref()
}

impl Layout {
    fn find() -> Option<Layout> {
        let blocks = field_offset(c"_thread_db_pthread_specific")?;
        let descriptor_size = size_of_structure(c"_thread_db_sizeof_pthread")?;
        let block_size = size_of_structure(c"_thread_db_sizeof_pthread_key_data_level2")?;
        let element_size = size_of_structure(c"_thread_db_sizeof_pthread_key_data")?;
        let elements = field_offset(c"_thread_db_pthread_key_data_level2_data")?;
        let value = field_offset(c"_thread_db_pthread_key_data_data")?;
        let sequence = field_offset(c"_thread_db_pthread_key_data_seq")?;
        let word = size_of::<usize>();
        let fits =
            |offset: usize, size: usize| offset.checked_add(word).is_some_and(|it| it <= size);
        if !fits(blocks, descriptor_size)
            || !fits(value, element_size)
            || !fits(sequence, element_size)
            || [blocks, value, sequence, elements, element_size]
                .iter()
                .any(|it| !it.is_multiple_of(word))
        {
            return None;
        }
        let thread_pointer = arch::thread_pointer();
        // SAFETY: no preconditions. glibc's identifier of a thread is the address of its descriptor.
        let descriptor = unsafe { libc::pthread_self() } as usize;
        // SAFETY: an aligned word in the calling thread's descriptor: the pointer to its first block of values.
        let block = unsafe {
            ptr::with_exposed_provenance::<usize>(descriptor.checked_add(blocks)?).read()
        };
        // The first block is a part of the descriptor.
        let offset = block.checked_sub(descriptor)?;
        if !offset.is_multiple_of(word) || offset.checked_add(block_size)? > descriptor_size {
            return None;
        }
        let first = block.checked_add(elements)?.wrapping_sub(thread_pointer) as isize;
        let len = block_size.checked_sub(elements)?.checked_div(element_size)?;
        Some(Layout { first, element_size, len, value, sequence })
    }

    /// `None` for a key whose value is in a block of its own.
    fn entry(&self, key: libc::pthread_key_t) -> Option<Entry> {
        let index = usize::try_from(key).ok().filter(|index| *index < self.len)?;
        let at = self.first.checked_add_unsigned(index.checked_mul(self.element_size)?)?;
        Some(Entry {
            value: at.checked_add_unsigned(self.value)?,
            sequence: at.checked_add_unsigned(self.sequence)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process;

    /// Before glibc 2.34 the layout is in libpthread, which does not export it.
    fn is_unknown() -> bool {
        !process::is_glibc_since(34)
    }

    #[test]
    fn a_value_is_at_its_distance_in_every_thread() {
        // SAFETY: no destructor.
        let (key, distance) = unsafe { create(None) }.unwrap();
        let Some(distance) = distance else { return assert!(is_unknown()) };
        let in_place = move || {
            let word = arch::thread_pointer().wrapping_add_signed(distance) as *const usize;
            // SAFETY: the key's value of this thread.
            unsafe { word.read() }
        };
        let check = move |value: usize| {
            assert_eq!(in_place(), 0);
            // SAFETY: a key without a destructor takes any value.
            assert_eq!(unsafe { libc::pthread_setspecific(key, value as *const c_void) }, 0);
            assert_eq!(in_place(), value);
        };
        check(1);
        std::thread::spawn(move || check(2)).join().unwrap();
        std::thread::spawn(move || check(3)).join().unwrap();
        assert_eq!(in_place(), 1);
    }

    #[test]
    fn the_place_of_a_deleted_key_is_not_taken() {
        // SAFETY: no destructor.
        let (key, distance) = unsafe { create(None) }.unwrap();
        // SAFETY: a key of this test; its value stays behind.
        unsafe {
            libc::pthread_setspecific(key, ptr::dangling());
            libc::pthread_key_delete(key);
        }
        // SAFETY: no destructor.
        let (_, next) = unsafe { create(None) }.unwrap();
        assert!(next.is_some() && next != distance || is_unknown());
    }
}
