//! Protection of an image's pages: as its segments state it, then RELRO, then, on request, for ever.
//!
//! No page is ever writable and executable at once. Where a process may not make memory executable, code is
//! replaced by memory that is executable from the start ([`crate::memory::executable`]). An image that shared
//! read-only pages with other instances gets pages of its own here ([`Mapping::make_private`]), with the
//! protection that it had.
//!
//! Never fills: [`crate::memory::mapping`] does.
//!
//! Sources: gABI "Program Loading"; `mprotect(2)`, `mremap(2)`, `mseal(2)`.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use region::Protection;

use crate::base::addr::{Vaddr, len_of, page_size};
use crate::base::error::Error;
use crate::base::fallible::try_vec;
use crate::base::sync::{Lock, Rank};
use crate::elf::plan::PlannedSegment;
use crate::elf::segment::Access;
use crate::memory::executable;
use crate::memory::mapping::{Mapping, is_code};
use crate::memory::reservation::{
    self, HUGE_PAGE, NO_ACCESS, READ, READ_EXECUTE, READ_WRITE, Reservation,
};
use crate::memory::stage::{Open, OpenMemory, Reuse, Sealed, SealedMemory, Stage};

impl Mapping<Open> {
    /// Gives the segments their final protection, except for RELRO, so that code of the image can run while
    /// it is still relocated. Text relocations must be finished. `name` is the memory's.
    pub(crate) fn protect(&mut self, name: Option<&str>) -> Result<(), Error> {
        if !std::mem::replace(&mut self.is_protected, true) {
            self.protect_all(false, name)?;
        }
        Ok(())
    }

    /// Gives everything its final protection, RELRO included: relocating is finished. `name` is the memory's.
    pub(crate) fn seal(mut self, name: Option<&str>) -> Result<Mapping<Sealed>, Error> {
        if self.is_protected {
            if !self.is_relro_closed {
                self.protect_relro(Protection::READ)?;
            }
        } else {
            self.protect_all(true, name)?;
        }
        let OpenMemory { reservation, reuse, shares } = self.memory;
        Ok(Mapping {
            memory: SealedMemory {
                reservation: ManuallyDrop::new(reservation),
                reuse,
                keeper: None,
                shares,
                is_private: AtomicBool::new(false),
                is_unshared: Lock::new(Rank::Sharing, false),
                has_changed: AtomicBool::new(false),
                is_immutable: AtomicBool::new(false),
            },
            load_bias: self.load_bias,
            span_len: self.span_len,
            segments: self.segments,
            relro: self.relro,
            text_relocations: false,
            branch_targets: self.branch_targets,
            is_protected: true,
            has_code: true,
            is_closed: true,
            is_huge: false,
            rounds_up: false,
            is_unsettled: false,
            is_relro_closed: true,
            state: PhantomData,
        })
    }

    /// Lets RELRO be stored to, until it is sealed.
    pub(crate) fn open_relro(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.is_relro_closed, false) {
            self.protect_relro(Protection::READ_WRITE)?;
        }
        Ok(())
    }

    fn protect_relro(&self, protection: Protection) -> Result<(), Error> {
        self.relro.iter().try_for_each(|relro| {
            let range = self.with_front(relro);
            // SAFETY: whole pages of the reservation, which is owned. While the mapping is open, references into
            // them live only inside `store`.
            unsafe { region::protect(range.start as *const u8, range.len(), protection) }
                .map_err(refused(range.len()))
        })
    }

    /// Protects the segments that are not writable, the gaps between segments, and RELRO if `with_relro`.
    /// Adjacent pages with the same protection take one call.
    fn protect_all(&mut self, with_relro: bool, name: Option<&str>) -> Result<(), Error> {
        let relro = if with_relro { self.relro.as_slice() } else { &[] };
        let segments = self.segments.iter();
        let segments =
            segments.filter(|it| !(it.access.write || self.has_code && it.access.execute));
        let segments = segments.map(|segment| (segment.pages.clone(), protection(segment)));
        let gaps = self.segments.windows(2).filter_map(|pair| match pair {
            [before, after] if before.pages.end < after.pages.start => {
                Some((before.pages.end..after.pages.start, NO_ACCESS))
            }
            _ => None,
        });
        let relro_pages = relro.iter().map(|pages| (pages.clone(), READ));
        // The iterator does not know its length; this is at least that: a segment and a gap, or RELRO.
        let with_gaps = self.segments.len().saturating_mul(2);
        let mut all = try_vec(with_gaps.saturating_add(relro.len()))?;
        all.extend(segments.chain(gaps).chain(relro_pages));
        all.sort_unstable_by_key(|(pages, _)| pages.start);
        all.dedup_by(|(pages, protection), (last, of_last)| {
            let joins = last.end == pages.start && of_last == protection;
            if joins {
                last.end = pages.end;
            }
            joins
        });
        let had_code = self.has_code;
        for run in all.chunk_by(|(before, _), (pages, _)| before.end == pages.start) {
            self.protect_run(run)?;
        }
        if self.has_code != had_code {
            self.set_name(name);
        }
        if self.is_closed { Ok(()) } else { self.close_behind() }
    }

    /// Makes the memory behind the image inaccessible, at least a page, so that an access beyond the image
    /// faults.
    fn close_behind(&self) -> Result<(), Error> {
        let start = self.address_range().end;
        let in_image = start.saturating_sub(self.memory.address());
        let len = self.memory.len().saturating_sub(in_image);
        // SAFETY: the end of the reservation, which is no part of the image.
        unsafe { reservation::protect(start, len, NO_ACCESS) }
    }

    /// Protects adjacent ranges.
    fn protect_run(&mut self, run: &[(Range<Vaddr>, i32)]) -> Result<(), Error> {
        /// Up to this many bytes, protecting pages twice is faster than a further call.
        const MAX_TWICE: u64 = 1 << 17;
        /// So it is from this many bytes on if they are in large pages: those that are not split are quick.
        const MIN_UNSPLIT: u64 = 2 * HUGE_PAGE as u64;
        let ([(first, outer), .., (last, of_last)], [_, inner @ .., _]) = (run, run) else {
            return self.protect_each(run);
        };
        let is_unsplit = self.is_huge && len_of(&(first.start..last.end)) >= MIN_UNSPLIT;
        let inside: u64 = inner.iter().map(|(pages, _)| len_of(pages)).sum();
        // Code usually lies between read-only segments: all is made read-only, then the code executable.
        if outer == of_last && (inside <= MAX_TWICE || is_unsplit) {
            self.protect_pages(&(first.start..last.end), *outer)?;
            let mut inner = inner.iter().filter(|(_, access)| access != outer);
            return inner.try_for_each(|(pages, access)| self.protect_part(pages, *access));
        }
        self.protect_each(run)
    }

    fn protect_each(&mut self, run: &[(Range<Vaddr>, i32)]) -> Result<(), Error> {
        run.iter().try_for_each(|(pages, access)| self.protect_part(pages, *access))
    }

    /// As [`Mapping::protect_pages`], also where the process may not make memory executable.
    fn protect_part(&mut self, pages: &Range<Vaddr>, access: i32) -> Result<(), Error> {
        if access != READ_EXECUTE {
            return self.protect_pages(pages, access);
        }
        if !executable::is_denied() {
            match self.protect_code(pages) {
                Err(error) if executable::is_denial(&error) => {}
                result => return result,
            }
        }
        self.replace_code(pages)
    }

    /// Makes pages executable that were filled as data.
    fn protect_code(&self, pages: &Range<Vaddr>) -> Result<(), Error> {
        let code = self.with_front(pages);
        // SAFETY: whole pages of the reservation, which is owned. While the mapping is open, references into
        // them live only inside `store`.
        unsafe { executable::protect(code, self.branch_targets) }
    }

    /// Makes pages executable by replacing them.
    #[cold]
    fn replace_code(&mut self, pages: &Range<Vaddr>) -> Result<(), Error> {
        // Such memory is several mappings, or has code of its own where instances share it.
        self.memory.reuse = Reuse::None;
        self.has_code = true;
        let range = self.with_front(pages);
        let (start, len) = (range.start as *mut u8, range.len());
        // SAFETY: whole pages of the reservation, which are readable; nothing writes to them meanwhile.
        let contents = unsafe { std::slice::from_raw_parts(start, len) };
        // SAFETY: as above. They keep their contents.
        unsafe { executable::replace(start, len, contents) }
    }
}

impl<State: Stage> Mapping<State> {
    /// The addresses of these pages. With the first ones comes the unused memory in front of the image, which
    /// gets their protection: one mapping fewer.
    fn with_front(&self, pages: &Range<Vaddr>) -> Range<usize> {
        let is_first = self.segments.first().is_some_and(|first| first.pages.start == pages.start);
        let first = if is_first { None } else { Some(self.load_bias.apply(pages.start)) };
        first.unwrap_or_else(|| self.memory.address())..self.load_bias.apply(pages.end)
    }

    fn protect_pages(&self, pages: &Range<Vaddr>, protection: i32) -> Result<(), Error> {
        let range = self.with_front(pages);
        let (start, len) = (range.start, range.len());
        // SAFETY: whole pages of the reservation, which is owned. While the mapping is open, references
        // into them live only inside `store`.
        unsafe { reservation::protect(start, len, protection) }
    }
}

/// A segment's final protection, a combination of `PROT_*`.
fn protection(segment: &PlannedSegment) -> i32 {
    let Access { read, write, execute } = segment.access;
    match (read, write, execute) {
        (_, true, _) => READ_WRITE,
        (_, false, true) => READ_EXECUTE,
        (true, false, false) => READ,
        (false, false, false) => NO_ACCESS,
    }
}

/// The error of protecting `len` bytes.
fn refused(len: usize) -> impl Fn(region::Error) -> Error {
    move |error| match error {
        region::Error::SystemCall(source) => Error::system(
            format!("mprotect of {len:#x} bytes"),
            io::Error::from_raw_os_error(source),
        ),
        other => Error::system("mprotect", io::Error::other(other)),
    }
}

/// Whether the system can make memory immutable.
pub(crate) fn can_make_immutable() -> bool {
    // SAFETY: the range is empty.
    unsafe { libc::syscall(SYS_MSEAL, 0usize, 0usize, 0usize) == 0 }
}

/// The number of `mseal(2)`, the same on all machines.
const SYS_MSEAL: c_long = 462;

impl Mapping<Sealed> {
    /// Makes mappings and protections of the image immutable: see [`Loader::seal`](crate::Loader::seal). It
    /// can never be unmapped then.
    pub(crate) fn make_immutable(&self) -> Result<(), Error> {
        let addresses = self.address_range();
        let (start, len) = (addresses.start, addresses.len());
        // SAFETY: whole pages of this image, with no others between them. `SealedMemory` does not unmap
        // them once `is_immutable` is set.
        if unsafe { libc::syscall(SYS_MSEAL, start, len, 0usize) } != 0 {
            return Err(Error::last_os_error("mseal of an image"));
        }
        self.memory.is_immutable.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn is_immutable(&self) -> bool {
        self.memory.is_immutable.load(Ordering::Relaxed)
    }

    /// Gives the image pages of its own where it shared them with other instances. Threads may run its code
    /// meanwhile: each segment is replaced at once, by pages with the same contents.
    pub(crate) fn make_private(&self) -> Result<(), Error> {
        // An immutable image shares no pages.
        if self.is_immutable() || !self.memory.shares {
            return Ok(());
        }
        // Once: the image may have changed its pages and their protection since.
        let mut is_done = self.memory.is_unshared.lock();
        if *is_done {
            return Ok(());
        }
        self.memory.is_private.store(true, Ordering::Relaxed);
        for segment in self.segments.iter().filter(|segment| !segment.access.write) {
            let len = segment.len();
            let target = self.load_bias.apply(segment.pages.start) as *mut u8;
            // SAFETY: whole pages of a segment of this image. They can be read, or have no access and so no
            // contents. Nothing writes to them.
            let contents = unsafe {
                std::slice::from_raw_parts(
                    target,
                    if protection(segment) == NO_ACCESS { 0 } else { len },
                )
            };
            let own = own_pages(segment, target.addr(), contents, self.branch_targets)?;
            // SAFETY: as above; the pages that come keep contents and protection.
            unsafe { own.move_over(target)? };
        }
        *is_done = true;
        Ok(())
    }

    /// The number of bytes of pages that the image shares with other instances.
    pub(crate) fn shared_bytes(&self) -> usize {
        if !self.memory.shares || self.memory.is_private.load(Ordering::Relaxed) {
            return 0;
        }
        let shared = self.segments.iter().filter(|segment| !segment.access.write);
        shared.map(|segment| segment.len()).fold(0, usize::saturating_add)
    }

    /// The image is about to change the protection of its pages: what it then writes is its own, and the memory
    /// is not for another image.
    pub(crate) fn before_change(&self) -> Result<(), Error> {
        self.note_change();
        self.make_private()
    }

    /// The mappings of the image are about to change, so that the memory is not for another image.
    pub(crate) fn note_change(&self) {
        self.memory.has_changed.store(true, Ordering::Relaxed);
    }

    /// Whether the image has changed the protection of its pages.
    pub(crate) fn has_changed(&self) -> bool {
        self.memory.has_changed.load(Ordering::Relaxed)
    }
}

/// `mprotect`, for code of an image.
///
/// # Safety
/// As the C library's function.
pub(crate) unsafe fn on_behalf(start: *mut c_void, len: usize, protection: c_int) -> c_int {
    // SAFETY: the caller's promise, passed on.
    unsafe { libc::mprotect(start, len, protection) }
}

/// `munmap`, for code of an image.
///
/// # Safety
/// As the C library's function.
pub(crate) unsafe fn unmap_on_behalf(start: *mut c_void, len: usize) -> c_int {
    // SAFETY: the caller's promise, passed on.
    unsafe { libc::munmap(start, len) }
}

/// `mremap`, for code of an image.
///
/// # Safety
/// As the C library's function.
pub(crate) unsafe fn remap_on_behalf(
    start: *mut c_void,
    len: usize,
    new_len: usize,
    flags: c_int,
    target: *mut c_void,
) -> *mut c_void {
    // SAFETY: the caller's promise, passed on.
    unsafe { libc::mremap(start, len, new_len, flags, target) }
}

/// `mmap`, for code of an image.
///
/// # Safety
/// As the C library's function.
pub(crate) unsafe fn map_on_behalf(
    start: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    // SAFETY: the caller's promise, passed on.
    unsafe { libc::mmap(start, len, protection, flags, file, offset) }
}

/// `pkey_mprotect`, for code of an image.
///
/// # Safety
/// As the C library's function.
pub(crate) unsafe fn with_key_on_behalf(
    start: *mut c_void,
    len: usize,
    protection: c_int,
    key: c_int,
) -> c_int {
    unsafe extern "C" {
        fn pkey_mprotect(start: *mut c_void, len: usize, protection: c_int, key: c_int) -> c_int;
    }
    // SAFETY: the caller's promise, passed on.
    unsafe { pkey_mprotect(start, len, protection, key) }
}

/// What a system call changes.
pub(crate) enum Changed {
    Protection {
        start: usize,
        len: usize,
    },
    /// Starts and lengths.
    Mappings([(usize, usize); 2]),
}

/// What the system call of this number, with these arguments, changes of a process's memory.
pub(crate) fn changed_by_call(number: c_long, arguments: [usize; 6]) -> Option<Changed> {
    let [start, len, new_len, flags, target, _] = arguments;
    let is_set = |flag: c_int| flags & flag as usize != 0;
    Some(match number {
        libc::SYS_mprotect | libc::SYS_pkey_mprotect => Changed::Protection { start, len },
        libc::SYS_munmap => Changed::Mappings([(start, len), (0, 0)]),
        libc::SYS_mremap if is_set(libc::MREMAP_FIXED) => {
            Changed::Mappings([(start, len), (target, new_len)])
        }
        libc::SYS_mremap => Changed::Mappings([(start, len), (0, 0)]),
        libc::SYS_mmap if is_set(libc::MAP_FIXED) => Changed::Mappings([(start, len), (0, 0)]),
        _ => return None,
    })
}

/// Pages of an instance's own for a segment that is not written and that will be at `target`.
fn own_pages(
    segment: &PlannedSegment,
    target: usize,
    contents: &[u8],
    branch_targets: bool,
) -> Result<Reservation, Error> {
    let len = segment.len();
    if is_code(segment) && executable::is_denied() {
        return executable::private(target, len, contents);
    }
    let own = Reservation::new(len, page_size(), 0)?;
    // SAFETY: new memory of `len` bytes that nothing else refers to; the contents are at most as long.
    let protected = unsafe {
        ptr::copy_nonoverlapping(contents.as_ptr(), own.as_ptr(), contents.len().min(len));
        match protection(segment) {
            READ_EXECUTE => {
                let start = own.address();
                executable::protect(start..start.saturating_add(len), branch_targets)
            }
            other => reservation::protect(own.address(), len, other),
        }
    };
    match protected {
        Err(error) if is_code(segment) && executable::is_denial(&error) => {
            executable::private(target, len, contents)
        }
        result => result.map(|()| own),
    }
}
