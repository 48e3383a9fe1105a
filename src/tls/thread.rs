//! The record of one thread: its blocks, and where they start.
//!
//! Other threads change a record too, under the registry's lock. So it is reached through raw pointers, field
//! by field. Which thread is the calling one, [`crate::tls::access`] knows.

#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::base::addr::distance_to;
use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::host::collectors::{self, Roots};
use crate::tls::block_words::BlockWords;

/// The contents and layout of a module's blocks.
#[derive(Clone, Copy)]
pub(super) struct Initial {
    /// The image's `.tdata`, in the mapping.
    pub template: *const u8,
    pub template_len: usize,
    pub size: usize,
    pub align: usize,
    /// The block's address modulo `align`.
    pub residue: usize,
    /// The distance of the block from the thread pointer, if it lies in the pool.
    pub static_offset: Option<isize>,
    /// Some thread has, or had, a block of its own.
    pub is_used: bool,
}

// SAFETY: `template` points into an image's mapping, which outlives its `TlsModule` and is the
// same for all threads; it is only read.
unsafe impl Send for Initial {}

/// The record of a thread. Reached through raw pointers, field by field, since its own thread reads `starts`
/// while another, under the registry's lock, may clear an element.
///
/// The assembly in `arch/` reads the first two fields ([`STARTS`], [`STARTS_LEN`]).
#[repr(C)]
pub(super) struct Thread {
    /// Where the block of each module starts, by index; null if there is none. Grown only by its own thread
    /// and under the lock. Other threads clear elements.
    starts: *const AtomicPtr<u8>,
    starts_len: usize,
    /// Owns the array that `starts` points to.
    room: Vec<AtomicPtr<u8>>,
    /// Identifies the thread, and leads to its words.
    pub thread_pointer: usize,
    /// The thread's static pool. Changed by its own thread only.
    pub pool_roots: Roots,
    /// The memory of the blocks, by index. Only under the lock.
    blocks: Vec<Option<Block>>,
    /// Values to drop when no code of the thread runs any more. Only for its own thread.
    pub kept: Vec<Box<dyn Any>>,
    /// The number of times that the end of the thread was deferred. Only for its own thread.
    pub exit_rounds: u32,
}

/// Offsets in a thread's record, for the assembly.
pub(crate) const STARTS: usize = std::mem::offset_of!(Thread, starts);
pub(crate) const STARTS_LEN: usize = std::mem::offset_of!(Thread, starts_len);

/// Memory for one thread's copy of one module's variables.
pub(super) struct Block {
    roots: Roots,
    allocation: *mut c_void,
}

impl Thread {
    /// A record without blocks.
    pub(super) fn new(thread_pointer: usize) -> Thread {
        Thread {
            starts: ptr::null(),
            starts_len: 0,
            room: Vec::new(),
            thread_pointer,
            pool_roots: Roots::none(),
            blocks: Vec::new(),
            kept: Vec::new(),
            exit_rounds: 0,
        }
    }

    /// Where the calling thread's block of a module starts; null if it has none.
    ///
    /// # Safety
    /// `thread` is the calling thread's own record.
    pub(super) unsafe fn start(thread: NonNull<Thread>, index: usize) -> *mut u8 {
        // SAFETY: alive, and only the calling thread changes this field, except for elements, which are
        // atomic.
        let room = unsafe { &(*thread.as_ptr()).room };
        room.get(index).map_or(ptr::null_mut(), |start| start.load(Ordering::Acquire))
    }

    /// Makes room for a module's entry.
    ///
    /// # Safety
    /// `thread` is the calling thread's own record, and the registry's lock is held.
    pub(super) unsafe fn grow(thread: NonNull<Thread>, index: usize) -> Result<(), Error> {
        // SAFETY: other threads reach the fields under the lock only.
        unsafe {
            let thread = thread.as_ptr();
            let (room, blocks) = (&mut (*thread).room, &mut (*thread).blocks);
            if room.len() <= index {
                let len = index.saturating_add(1);
                let additional = len.saturating_sub(room.len());
                let grown = blocks.try_room(additional).and_then(|()| room.try_room(additional));
                if grown.is_ok() {
                    room.resize_with(len, AtomicPtr::default);
                    blocks.resize_with(len, || None);
                }
                // One of the two may have moved even if the other could not grow.
                (*thread).starts = room.as_ptr();
                (*thread).starts_len = room.len();
                grown?;
            }
        }
        Ok(())
    }

    /// Sets a module's entry, in the record and in the module's word. Returns the former block, to be dropped
    /// when the lock is released.
    ///
    /// # Safety
    /// `thread` is alive, and the registry's lock is held.
    pub(super) unsafe fn set(
        thread: NonNull<Thread>,
        words: &BlockWords,
        index: usize,
        start: *mut u8,
        block: Option<Block>,
    ) -> Option<Block> {
        // SAFETY: the caller's promise; fields are borrowed one by one, see `Thread`.
        unsafe {
            let thread = thread.as_ptr();
            let (room, blocks) = (&(*thread).room, &mut (*thread).blocks);
            if let Some(entry) = room.get(index) {
                entry.store(start, Ordering::Release);
            }
            words.set((*thread).thread_pointer, index, start);
            blocks.get_mut(index).and_then(|entry| std::mem::replace(entry, block))
        }
    }
}

impl Block {
    /// A new copy of a module's initial values, and the start of the block in it. No lock is held, neither here
    /// nor when it is dropped: collectors hear of it.
    pub(super) fn new(initial: &Initial) -> Result<(Block, *mut u8), Error> {
        // `calloc` returns large blocks as untouched zero pages. It aligns to 16 only.
        let room = initial.size.saturating_add(initial.align);
        // SAFETY: `calloc` has no preconditions.
        let allocation = unsafe { libc::calloc(1, room) };
        let start = allocation.cast::<u8>();
        let skip = distance_to(initial.residue, initial.align, start.addr());
        if allocation.is_null() {
            return Err(Error::out_of_memory(room as u64));
        }
        // SAFETY: skip < align, so `size` bytes from there lie in the allocation. The template has at most
        // `size` bytes (checked by `Image`) and is mapped while its module is registered, which it is: code
        // of the image is running, or the image is bound to it.
        let start = unsafe {
            let start = start.add(skip);
            ptr::copy_nonoverlapping(initial.template, start, initial.template_len);
            start
        };
        let block = Block { roots: Roots::none(), allocation };
        let collectors = collectors::known();
        if !collectors.is_none() {
            let range = start.addr()..start.addr().saturating_add(initial.size);
            block.roots.register(collectors, std::iter::once(range))?;
        }
        Ok((block, start))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.roots.remove();
        // SAFETY: from `calloc` in `new`, freed once.
        unsafe { libc::free(self.allocation) };
    }
}
