//! Exceptions and backtraces through images: `.eh_frame` is registered with the process's
//! unwinder for the life of the image.
//!
//! An unwinder finds the frame description of a program counter through `ld.so`'s list of
//! libraries, or among what was registered by hand. libgcc's `__register_frame` takes the start
//! of an `.eh_frame` section and walks it, up to a length of zero, when something is next thrown:
//! so what is registered is walked here first, with bounds, and what does not end is not
//! registered.
//!
//! Source: libgcc `unwind-dw2-fde.c`.

#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::eh_frame::EhFrame;
use crate::image::Facts;
use crate::map::{Mapping, Sealed};

unsafe extern "C" {
    fn __register_frame(begin: *const c_void);
    fn __deregister_frame(begin: *const c_void);
}

/// An `.eh_frame` that the unwinder knows of; taken back when dropped, before the mapping goes.
pub(crate) struct Registration {
    begin: usize,
}

impl Registration {
    /// Registers an image's unwind information; `None` if it has none that can be used.
    pub(crate) fn new(facts: &Facts, mapping: &Mapping<Sealed>) -> Option<Registration> {
        let eh_frame = EhFrame::locate(facts.eh_frame_hdr.clone()?, mapping)?;
        if !eh_frame.terminated {
            return None;
        }
        let begin = mapping.load_bias().apply(eh_frame.range.start);
        // SAFETY: `locate` walked the section up to its terminator, inside mapped memory that
        // outlives this registration (drop order in `Loaded`) and that is not written.
        unsafe { __register_frame(begin as *const c_void) };
        Some(Registration { begin })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: registered by `new`, taken back once.
        unsafe { __deregister_frame(self.begin as *const c_void) };
    }
}
