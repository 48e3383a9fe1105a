//! The table of images as tools outside of the process read it: `memdl ps`, from a process or from a core file.
//!
//! A note (`.note.memdl`) in the object that memdl is linked into leads to a [`Directory`]. Debuggers find images by
//! the names of symbols, which `strip` removes; it leaves notes. Each copy of memdl has a note and a directory of its own.
//!
//! The layout of the note, of [`Directory`] and of [`Entry`] is an interface: a change of it gets another
//! number ([`VERSION`]). The note is: owner `memdl`, type 1, and as description the distance from there to the
//! directory, in 8 bytes.
//!
//! Sources: gABI chapter 5, "Note Section".

// For the assembly of the note.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

use crate::host::link_map::LinkMap;

/// The number of this layout.
const VERSION: u32 = 2;

/// Where the table is. All zeros before the first image.
#[repr(C)]
pub(super) struct Directory {
    /// [`VERSION`].
    version: u32,
    /// The size of an entry, in bytes.
    entry_size: u32,
    /// Odd while the rest changes. Who reads it from outside compares it before and after.
    sequence: AtomicU64,
    /// The images, ascending, in parts.
    parts: AtomicPtr<Part>,
    /// The number of parts.
    count: AtomicUsize,
    /// The size of a part's record, in bytes.
    part_size: usize,
}

/// A part of the table: so that an image more or less moves some entries, and not all. Its first two words are known
/// outside of the process.
#[repr(C)]
pub(super) struct Part {
    first: *const Entry,
    len: usize,
    entries: Vec<Entry>,
}

// SAFETY: the pointer is that of the entries, which are `Send`.
unsafe impl Send for Part {}
// SAFETY: as above; it is read outside of the process only.
unsafe impl Sync for Part {}

impl Part {
    pub(super) fn new(entries: Vec<Entry>) -> Part {
        Part { first: entries.as_ptr(), len: entries.len(), entries }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Changes the entries.
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut Vec<Entry>) -> R) -> R {
        let result = change(&mut self.entries);
        (self.first, self.len) = (self.entries.as_ptr(), self.entries.len());
        result
    }
}

/// The data that unwinders get for an image. Its layout is known outside of the process.
#[repr(C)]
#[derive(Clone)]
pub(super) struct Entry {
    pub start: usize,
    pub end: usize,
    /// `PT_GNU_EH_FRAME`, or 0.
    pub eh_frame_hdr: usize,
    pub link_map: *const LinkMap,
    /// The name that the link map has.
    pub name: *const c_char,
    pub load_bias: usize,
    pub headers: *const libc::Elf64_Phdr,
    pub header_count: u16,
}

// SAFETY: the pointers are passed on, not dereferenced.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

pub(super) static DIRECTORY: Directory = Directory {
    version: VERSION,
    entry_size: size_of::<Entry>() as u32,
    sequence: AtomicU64::new(0),
    parts: AtomicPtr::new(ptr::null_mut()),
    count: AtomicUsize::new(0),
    part_size: size_of::<Part>(),
};

std::arch::global_asm!(
    ".pushsection .note.memdl,\"a\",@note",
    ".balign 4",
    // The lengths of owner and description, the type.
    ".4byte 6, 8, 1",
    ".asciz \"memdl\"",
    ".balign 4",
    ".8byte {directory} - .",
    ".popsection",
    directory = sym DIRECTORY,
);

impl Directory {
    /// Changes a copy of the table by `change`, and shows it. The other copy, which is shown until then, stays as it
    /// is. The caller holds the writers' lock.
    pub(super) fn change(&self, parts: &mut Vec<Part>, change: impl FnOnce(&mut Vec<Part>)) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change(parts);
        self.parts.store(parts.as_mut_ptr(), Ordering::Relaxed);
        self.count.store(parts.len(), Ordering::Relaxed);
        self.sequence.store(before.wrapping_add(2), Ordering::Release);
    }
}
