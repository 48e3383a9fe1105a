//! An image's registration as a module: its blocks exist for as long as this does.
//!
//! Never runs code of the image.
//!
//! Source: U. Drepper, "ELF Handling For Thread-Local Storage".

#![allow(unsafe_code)]

use std::ptr;

use crate::arch;
use crate::base::addr::{distance_to, len_of};
use crate::base::error::Error;
use crate::base::fallible::try_zeroed;
use crate::base::tls_index::{ModuleId, OURS};
use crate::elf::segment::TlsSegment;
use crate::host::{process, static_tls, threads};
use crate::memory::mapping::Mapping;
use crate::memory::stage::Stage;
use crate::tls::access::{free_own_block, register_own_pool, words};
use crate::tls::layout::{POOL, POOL_ALIGN};
use crate::tls::registry::{free_blocks, registry};
use crate::tls::static_pool::{Part, PoolBlock, Template};
use crate::tls::thread::Initial;
use crate::tls::words::{Words, static_area_size, static_pool};

/// An image's registration. Threads can have blocks of it for as long as this lives.
pub(crate) struct TlsModule {
    index: usize,
    /// Its block in every thread, if that lies in the pool.
    pool: Option<PoolBlock>,
}

impl TlsModule {
    /// Registers the thread-local segment of an image that is being loaded. Its template is read at each
    /// thread's first access, and so not before the image is relocated.
    ///
    /// With `in_pool`, the block lies at the same distance from the thread pointer in every thread;
    /// [`TlsModule::fill_pool`] must be called when the image is relocated.
    pub(crate) fn new<S: Stage>(
        segment: &TlsSegment,
        mapping: &Mapping<S>,
        in_pool: bool,
    ) -> Result<TlsModule, Error> {
        let template = mapping.load_bias().apply(segment.template.start);
        let mut initial = Initial {
            template: template as *const u8,
            template_len: len_of(&segment.template) as usize,
            size: segment.size as usize,
            align: segment.align as usize,
            residue: distance_to(segment.template.start.0 as usize, segment.align as usize, 0),
            static_offset: None,
            is_used: false,
        };
        let words = words()?;
        let pool = if in_pool { Some(take_from_pool(&initial, words)?) } else { None };
        initial.static_offset = pool.as_ref().map(|block| block.distance);
        let mut registry = registry();
        match registry.add(initial, words) {
            Ok(index) => Ok(TlsModule { index, pool }),
            Err(error) => {
                pool.iter().for_each(|block| registry.pool.free(block));
                Err(error)
            }
        }
    }

    /// Writes the initial values of an image whose block lies in the pool, for every thread that exists or
    /// will be created. Does nothing for other images.
    pub(crate) fn fill_pool(&self) -> Result<(), Error> {
        let Some(block) = &self.pool else { return Ok(()) };
        register_own_pool()?;
        let values = self.initial_values()?;
        // First for new threads, so that none is missed between the two.
        block.write_template(&values)?;
        block.write(&values)
    }

    /// Zeroes the module's range of the pool in every thread, as far as the system permits, so that the next
    /// image there does not find this one's values.
    fn clear_pool(&self) {
        let Some(block) = &self.pool else { return };
        let zeroes = vec![0; block.len()];
        let has_values = registry().module(self.index).is_some_and(|it| it.template_len > 0);
        // In the same order as above. If this fails, the next image's values are written all the same.
        let cleared = match has_values {
            true => block.write_template(&zeroes),
            false => Ok(()),
        };
        if let Err(error) = cleared.and(block.write(&zeroes)) {
            logged!(debug, "thread-local variables of an unloaded image are not cleared: {error}");
        }
    }

    /// Gives every thread the initial values again.
    ///
    /// No code of the image runs, and no code uses its variables, or a pointer to one.
    pub(crate) fn reset(&self) -> Result<(), Error> {
        // New threads get them from `fill_pool`.
        if let Some(block) = &self.pool {
            return block.write(&self.initial_values()?);
        }
        let is_used = {
            let mut registry = registry();
            let module = registry.module(self.index).as_mut();
            module.is_some_and(|module| std::mem::take(&mut module.is_used))
        };
        if is_used {
            free_blocks(self.index);
        }
        Ok(())
    }

    /// Gives the calling thread the initial values again, and frees its block.
    ///
    /// The thread runs no code of the image, and no code uses its variables of the image, or a pointer to one.
    pub(crate) fn leave_thread(&self) -> Result<(), Error> {
        match &self.pool {
            Some(block) => block.write_own(&self.initial_values()?),
            None => free_own_block(self.index),
        }
        Ok(())
    }

    fn initial_values(&self) -> Result<Vec<u8>, Error> {
        let initial = *registry().module(self.index);
        let Some(initial) = initial else { return Ok(Vec::new()) };
        let mut values = try_zeroed(initial.size)?;
        // SAFETY: the template lies in the image's mapping, which outlives this, and is at most as long as a
        // block (checked by `Image`).
        unsafe {
            let template = initial.template;
            ptr::copy_nonoverlapping(template, values.as_mut_ptr(), initial.template_len);
        }
        Ok(values)
    }

    pub(crate) fn id(&self) -> ModuleId {
        ModuleId(OURS | self.index)
    }

    /// The place of every thread's block.
    pub(crate) fn block_place(&self) -> BlockPlace {
        match &self.pool {
            Some(block) => BlockPlace::At(block.distance),
            None => match registry().words.distance(self.index) {
                Some(distance) => BlockPlace::BehindPointerAt(distance),
                None => BlockPlace::Elsewhere,
            },
        }
    }
}

/// Fails if a load of an image with this segment would surely find no room for its block at the same distance in
/// every thread. Takes none.
///
/// Whether `ld.so` has room left can be found out only by taking it, so there can be less room than this assumes.
pub(crate) fn check_static_room(segment: &TlsSegment) -> Result<(), Error> {
    let (size, align) = (segment.size as usize, segment.align as usize);
    let residue = distance_to(segment.template.start.0 as usize, align, 0);
    let words = words()?;
    if let Some(block) = take_known(size, align, residue, words)? {
        registry().pool.free(&block);
        return Ok(());
    }
    let len = size.saturating_add(residue);
    let most = static_area_size();
    if most != 0 && len > most { Err(no_room(len, "it is larger than all of it")) } else { Ok(()) }
}

/// A block in one of the pool's parts.
fn take_known(
    size: usize,
    align: usize,
    residue: usize,
    words: &Words,
) -> Result<Option<PoolBlock>, Error> {
    let pool = &mut registry().pool;
    if let (true, Some(distance)) = (pool.is_empty(), words.pool()) {
        pool.add(Part::new(distance, POOL_ALIGN, POOL, Template::Own))?;
    }
    pool.take(size, align, residue)
}

/// A block in the pool. If no part of it has room, the process's static storage gets a new one.
fn take_from_pool(initial: &Initial, words: &Words) -> Result<PoolBlock, Error> {
    let Initial { size, align, residue, .. } = *initial;
    if let Some(block) = take_known(size, align, residue, words)? {
        return Ok(block);
    }
    // Without the lock, since this calls `ld.so`.
    let len = size.saturating_add(residue).next_multiple_of(POOL_ALIGN);
    let reserved = static_tls::reserve(len).map_err(|reason| no_room(len, &reason))?;
    let template = Template::At(reserved.template.expose_provenance());
    let block = {
        let pool = &mut registry().pool;
        pool.add(Part::new(reserved.distance, static_tls::ALIGN, len, template))?;
        pool.take(size, align, residue)?
    };
    // Another thread can have taken the new part.
    block.ok_or_else(|| no_room(len, "several threads need it at once"))
}

/// No room for an image's block in static thread-local storage.
#[cold]
fn no_room(len: usize, reason: &str) -> Error {
    logged!(debug, "no static thread-local storage: {reason}");
    let most = registry().pool.len() as u64;
    Error::limit(NO_ROOM, most.saturating_add(len as u64), most)
}

/// What an image lacks, and the ways out.
const NO_ROOM: &str = "the initial-exec thread-local storage of all images in place, in bytes \
    (start the program with GLIBC_TUNABLES=glibc.rtld.optional_static_tls=BYTES, glibc's room for \
    `dlopen`; or build memdl with its feature `large-static-tls`, for executables, or \
    `shared-static-tls`, for libraries that are opened with `dlopen`)";

impl PoolBlock {
    /// Writes the values that new threads get.
    fn write_template(&self, values: &[u8]) -> Result<(), Error> {
        match self.template {
            Template::Own => {
                process::write_tls_template(static_pool().addr(), self.start(), values)
            }
            Template::At(start) => {
                let start =
                    ptr::with_exposed_provenance_mut::<u8>(start.wrapping_add(self.start()));
                // SAFETY: as many bytes of a reserved part's initial values, which are writable for good, and which
                // `ld.so` reads when it creates a thread. The range was taken for this block.
                unsafe { ptr::copy_nonoverlapping(values.as_ptr(), start, values.len()) };
                Ok(())
            }
        }
    }

    /// Writes to the block in every thread that exists.
    fn write(&self, values: &[u8]) -> Result<(), Error> {
        self.write_own(values);
        threads::write_to_others(self.distance, values)
    }

    /// Writes to the block in the calling thread.
    fn write_own(&self, values: &[u8]) {
        let start = arch::thread_pointer().wrapping_add_signed(self.distance) as *mut u8;
        // SAFETY: a range of the pool, in this thread's static thread-local storage, that was taken for this
        // module, and that nothing refers to while its image does not run.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), start, values.len()) };
    }
}

/// The place of a module's block in every thread, as a distance from the thread pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BlockPlace {
    /// The block itself.
    At(isize),
    /// A pointer to the block, [`NO_BLOCK`](crate::tls::layout::NO_BLOCK) until the thread's first access.
    BehindPointerAt(isize),
    /// There is no constant distance.
    Elsewhere,
}

impl Drop for TlsModule {
    fn drop(&mut self) {
        self.clear_pool();
        // Before the index is free for another module. No code of the image runs, so no thread makes a block.
        free_blocks(self.index);
        let mut registry = registry();
        *registry.module(self.index) = None;
        if let Some(block) = &self.pool {
            registry.pool.free(block);
        }
    }
}
