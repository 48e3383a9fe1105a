//! Exceptions and backtraces through images.
//!
//! An unwinder must find the frame description of a program counter. For `ld.so`'s libraries, it asks the C
//! library for the library's `PT_GNU_EH_FRAME`, and searches the sorted table in it. That costs nothing when a
//! library is loaded, and a binary search for each frame of a throw.
//!
//! So images are found the same way. Each unwinder in the process calls the C library through a word of the global
//! offset table of the object that it is in. That word is changed: to one that finds images ([`finder`]) where the
//! unwinder calls `_dl_find_object`, to one that shows them ([`walker`]) where it calls `dl_iterate_phdr`. Both pass
//! on what is not about images. No other object's calls are affected. Which unwinders there are is found out at the
//! first load, and again when `ld.so` has loaded a library since ([`serve`]).
//!
//! Other copies of memdl in the process do the same, and ask each other ([`ring`]).
//!
//! Never reads frame descriptions: unwinders do.
//!
//! Sources: glibc manual "Dynamic Linker Introspection"; libgcc `unwind-dw2-fde-dip.c`, `unwind-dw2-fde.c`.

#![allow(unsafe_code)]

mod caches;
mod directory;
mod finder;
mod ring;
pub(crate) mod serve;
mod table;
mod walker;

use std::sync::Arc;

use crate::base::error::Error;
use crate::elf::decoded::Decoded;
use crate::host::link_map::LinkMap;
use crate::memory::mapping::Mapping;
use crate::memory::stage::Sealed;

pub(crate) use finder::find_object;

/// An image that is registered with unwinders. Dropped before the mapping.
pub(crate) struct Registration {
    start: usize,
    /// What was registered with an unwinder that finds images no other way.
    section: Option<serve::Section>,
    /// Its program headers are in the table until this is dropped.
    _decoded: Arc<Decoded>,
}

/// In a child just after the fork: forgets readers, since threads that were reading do not exist here.
pub(crate) fn after_fork_in_child() {
    table::after_fork_in_child();
}

impl Registration {
    /// Registers an image, with or without unwind information.
    pub(crate) fn new(
        decoded: &Arc<Decoded>,
        mapping: &Mapping<Sealed>,
        link_map: &LinkMap,
    ) -> Result<Registration, Error> {
        let addresses = mapping.address_range();
        let hdr = decoded.eh_frame_hdr.as_ref();
        table::enter(&directory::Entry {
            start: addresses.start,
            end: addresses.end,
            eh_frame_hdr: hdr.map_or(0, |hdr| mapping.load_bias().apply(hdr.start)),
            link_map,
            name: link_map.l_name,
            load_bias: mapping.load_bias().get(),
            headers: decoded.program_headers.as_ptr().cast(),
            header_count: decoded.program_headers.len() as u16,
        })?;
        // From here on, its drop removes the entry.
        let mut registration =
            Registration { start: addresses.start, section: None, _decoded: decoded.clone() };
        registration.section = serve::serve(decoded, mapping)?;
        // A library that was here before may still be in them.
        caches::empty();
        Ok(registration)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.section = None;
        table::remove(self.start);
        caches::empty();
    }
}
