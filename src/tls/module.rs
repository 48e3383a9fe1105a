//! An image's registration as a module: its blocks exist for as long as this does.
//!
//! Never runs code of the image.
//!
//! Source: U. Drepper, "ELF Handling For Thread-Local Storage".

#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr;

use crate::arch;
use crate::base::addr::{distance_to, len_of};
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_zeroed};
use crate::base::tls_index::{ModuleId, OURS};
use crate::elf::segment::TlsSegment;
use crate::host::{process, threads};
use crate::memory::mapping::Mapping;
use crate::memory::stage::Stage;
use crate::tls::access::{
    free_own_block, register_own_pool, static_pool_offset, thread_exit_key, tls_slots,
};
use crate::tls::layout::{SLOTS, THREAD_SLOT};
use crate::tls::registry::{free_blocks, registry};
use crate::tls::thread::Initial;

/// An image's registration. Threads can have blocks of it for as long as this lives.
pub(crate) struct TlsModule {
    index: usize,
    /// The range of the pool that is its block in every thread.
    pool: Option<Range<usize>>,
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
        thread_exit_key()?;
        let mut registry = registry();
        registry.pool.reserve_entry()?;
        let modules = &mut registry.modules;
        let free = modules.iter().enumerate().skip(THREAD_SLOT + 1).find(|(_, it)| it.is_none());
        let index = free.map_or(modules.len().max(THREAD_SLOT + 1), |(index, _)| index);
        modules.try_lengthen(index.saturating_add(1), None)?;
        let Initial { size, align, residue, .. } = initial;
        let pool = if in_pool { Some(registry.pool.take(size, align, residue)?) } else { None };
        initial.static_offset = pool.as_ref().map(offset_in_pool);
        *registry.module(index) = Some(initial);
        Ok(TlsModule { index, pool })
    }

    /// Writes the initial values of an image whose block lies in the pool, for every thread that exists or
    /// will be created. Does nothing for other images.
    pub(crate) fn fill_pool(&self) -> Result<(), Error> {
        let Some(range) = &self.pool else { return Ok(()) };
        register_own_pool()?;
        let values = self.initial_values()?;
        // First for new threads, so that none is missed between the two.
        let own = arch::thread_pointer().wrapping_add_signed(static_pool_offset());
        process::write_tls_template(own, range.start, &values)?;
        TlsModule::write_pool(range, &values)
    }

    /// Zeroes the module's range of the pool in every thread, as far as the system permits, so that the next
    /// image there does not find this one's values.
    fn clear_pool(&self) {
        let Some(range) = &self.pool else { return };
        let zeroes = vec![0; range.len()];
        let has_values = registry().module(self.index).is_some_and(|it| it.template_len > 0);
        let own = arch::thread_pointer().wrapping_add_signed(static_pool_offset());
        // In the same order as above. If this fails, the next image's values are written all the same.
        let cleared = match has_values {
            true => process::write_tls_template(own, range.start, &zeroes),
            false => Ok(()),
        };
        if let Err(error) = cleared.and(TlsModule::write_pool(range, &zeroes)) {
            log::debug!("thread-local variables of an unloaded image are not cleared: {error}");
        }
    }

    /// Gives every thread the initial values again.
    ///
    /// No code of the image runs, and no code uses its variables, or a pointer to one.
    pub(crate) fn reset(&self) -> Result<(), Error> {
        // New threads get them from `fill_pool`.
        if let Some(range) = &self.pool {
            return TlsModule::write_pool(range, &self.initial_values()?);
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
            Some(range) => TlsModule::write_own(range, &self.initial_values()?),
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

    /// Writes to a module's range of the pool in every thread that exists.
    fn write_pool(range: &Range<usize>, values: &[u8]) -> Result<(), Error> {
        TlsModule::write_own(range, values);
        threads::write_to_others(offset_in_pool(range), values)
    }

    /// Writes to a module's range of the pool in the calling thread.
    fn write_own(range: &Range<usize>, values: &[u8]) {
        let start = arch::thread_pointer().wrapping_add_signed(offset_in_pool(range)) as *mut u8;
        // SAFETY: a range of the pool, in this thread's static thread-local storage, that was taken for this
        // module, and that nothing refers to while its image does not run.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), start, values.len()) };
    }

    pub(crate) fn id(&self) -> ModuleId {
        ModuleId(OURS | self.index)
    }

    /// The place of every thread's block.
    pub(crate) fn block_place(&self) -> BlockPlace {
        match &self.pool {
            Some(range) => BlockPlace::At(offset_in_pool(range)),
            None if self.index < SLOTS => {
                let slots = tls_slots().addr().wrapping_sub(arch::thread_pointer());
                let slot = slots.wrapping_add(self.index.wrapping_mul(size_of::<usize>()));
                BlockPlace::BehindPointerAt(slot as isize)
            }
            None => BlockPlace::Elsewhere,
        }
    }
}

/// The distance of a range of the pool from the thread pointer, in every thread.
fn offset_in_pool(range: &Range<usize>) -> isize {
    static_pool_offset().wrapping_add_unsigned(range.start)
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
        if let Some(range) = &self.pool {
            registry.pool.free(range);
        }
    }
}
