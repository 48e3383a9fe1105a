//! Exceptions and backtraces through images: `.eh_frame` is registered with the process's
//! unwinder for the life of the image.
//!
//! An unwinder finds the frame description of a program counter through `ld.so`'s list of
//! libraries, or among what was registered by hand. libgcc's `__register_frame` takes the start
//! of an `.eh_frame` section and walks it, up to a length of zero, when something is next thrown:
//! so what is registered is walked here first, with bounds, and what does not end is not
//! registered.
//!
//! The section's place is told by `PT_GNU_EH_FRAME`, whose table begins with a pointer to it.
//!
//! Sources: LSB "Exception Frames", `.eh_frame_hdr`; libgcc `unwind-dw2-fde.c`.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::Range;

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian, Pointer};

use crate::addr::Vaddr;
use crate::dynamic::{ReadAt, u32_at, u64_at};
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
        let begin = eh_frame(facts.eh_frame_hdr.clone()?, mapping)?.start;
        let begin = mapping.load_bias().apply(begin);
        // SAFETY: `eh_frame` walked the section up to its terminator, inside mapped memory that
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

/// The `.eh_frame` section that the table at `hdr` points to, with its terminator; `None` unless
/// it has at least one entry and ends where its segment has bytes.
pub(crate) fn eh_frame(hdr: Range<Vaddr>, memory: &impl ReadAt) -> Option<Range<Vaddr>> {
    let table = memory.read(hdr.clone())?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(hdr.start.0);
    let parsed = EhFrameHdr::new(table, LittleEndian).parse(&bases, 8).ok()?;
    let Pointer::Direct(start) = parsed.eh_frame_ptr() else {
        return None;
    };
    let start = Vaddr(start);
    let section = memory.read_to_end(start)?;
    let end = terminated_len(section)?;
    Some(start..Vaddr(start.0 + end as u64))
}

/// The length of a sequence of length-prefixed records up to and with the length of zero that ends
/// it; `None` if it does not end, or holds no record.
fn terminated_len(section: &[u8]) -> Option<usize> {
    let mut at = 0usize;
    // Every turn but the last takes at least four bytes of the section.
    loop {
        let length = match u32_at(section, at)? {
            0 if at == 0 => return None,
            0 => return at.checked_add(4),
            u32::MAX => usize::try_from(u64_at(section, at.checked_add(4)?)?)
                .ok()?
                .checked_add(12)?,
            length => (length as usize).checked_add(4)?,
        };
        at = at.checked_add(length)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_section_that_ends_is_walked_to_its_end() {
        let record = [4u8, 0, 0, 0, 1, 2, 3, 4];
        let good = [&record[..], &record, &[0; 4], &[9; 4]].concat();
        assert_eq!(terminated_len(&good), Some(20));
        assert_eq!(terminated_len(&good[..16]), None);
        assert_eq!(terminated_len(&[0; 8]), None);
        assert_eq!(terminated_len(&[0xff; 64]), None);
        assert_eq!(
            terminated_len(&[
                0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0
            ]),
            Some(17)
        );
    }
}
