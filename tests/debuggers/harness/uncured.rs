//! Unloading as memdl would do it without its cure for stale breakpoints, to prove that it needs
//! one. Nothing in memdl can be told to do so; this uses what anybody can: the list that debuggers
//! read has a name, and memory can be unmapped by its owner's neighbour.
//!
//! Source: "JIT Compilation Interface" in the gdb manual.

use std::ops::Range;
use std::ptr;

use memdl::Library;

/// `struct jit_descriptor`.
#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *mut Entry,
    first: *mut Entry,
}

/// `struct jit_code_entry`.
#[repr(C)]
struct Entry {
    next: *mut Entry,
    previous: *mut Entry,
    symfile: *const u8,
    symfile_size: u64,
}

const UNREGISTER: u32 = 2;

// memdl's own, which are hidden, but not from what is linked with it.
unsafe extern "C" {
    safe fn __jit_debug_register_code();
    static mut __jit_debug_descriptor: Descriptor;
}

/// Takes the library's entry out of the list, tells the debugger, and unmaps the library; gives
/// where it was. All as in memdl's unloading (`src/debug/jit.rs`), but for the second, empty event.
///
/// It must be the only library. The process must end without the end of `main`: memdl still
/// believes that the library is there.
pub fn unload(library: Library) -> Range<usize> {
    let range = library.address_range();
    // Whatever memdl would do to it now would be done to memory that is not its own.
    std::mem::forget(library);
    // SAFETY: this process has one thread that loads, so nobody else changes the list meanwhile;
    // its entry is valid, as it is still registered. What is unmapped belongs to the library, of
    // which nothing runs or will.
    unsafe {
        let descriptor = &raw mut __jit_debug_descriptor;
        let entry = (*descriptor).first;
        assert!(!entry.is_null() && (*entry).next.is_null(), "not the only one");
        (*descriptor).first = ptr::null_mut();
        (*descriptor).relevant = entry;
        (*descriptor).action = UNREGISTER;
        __jit_debug_register_code();
        (*descriptor).action = 0;
        (*descriptor).relevant = ptr::null_mut();
        let start = ptr::with_exposed_provenance_mut(range.start);
        assert_eq!(libc::munmap(start, range.len()), 0);
    }
    range
}
