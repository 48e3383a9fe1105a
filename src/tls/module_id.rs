//! The calling thread's variables of any module, `ld.so`'s or memdl's, by the module's id.
//!
//! Registers no module ([`crate::tls::module`] does). These are functions and not methods of [`ModuleId`], so
//! that an import shows who asks for threads and not only for a number.
//!
//! Sources: U. Drepper, "ELF Handling For Thread-Local Storage", 3.4; glibc `_dl_get_tls_static_info`.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

use crate::arch;
use crate::base::error::Error;
use crate::base::tls_index::{ModuleId, OURS, TlsIndex};
use crate::tls::access::{current_thread, tls_get_addr, try_address};
use crate::tls::registry::registry;
use crate::tls::thread::Thread;
use crate::tls::words::is_in_static_area;

/// The calling thread's address of the variable at `offset` in the block of `module`.
///
/// # Safety
/// The module is loaded, and `offset` lies in its block.
unsafe fn address(module: ModuleId, offset: u64) -> *mut c_void {
    let index = TlsIndex { ti_module: module.0, ti_offset: offset as usize };
    // SAFETY: a pair as relocations store it; the rest is the caller's promise.
    unsafe { tls_get_addr(&index) }
}

/// As [`address`], with an error if there is no memory for a block of memdl's. For a block of a library of
/// `ld.so`, the C library ends the process then.
///
/// # Safety
/// As [`address`].
pub(crate) unsafe fn variable_address(module: ModuleId, offset: u64) -> Result<*mut c_void, Error> {
    if module.0 & OURS == 0 {
        // SAFETY: the caller's promise.
        return Ok(unsafe { address(module, offset) });
    }
    let index = TlsIndex { ti_module: module.0, ti_offset: offset as usize };
    try_address(&index)
}

/// The calling thread's block of one of memdl's modules, if the thread has one. Allocates none.
pub(crate) fn allocated_block(module: ModuleId) -> Option<*mut c_void> {
    if let Some(offset) = static_offset(module) {
        let start = arch::thread_pointer().wrapping_add_signed(offset);
        return Some(ptr::with_exposed_provenance_mut(start));
    }
    let thread = current_thread().ok()?;
    // SAFETY: the calling thread's own record.
    let start = unsafe { Thread::start(thread, module.0 & !OURS) };
    (!start.is_null()).then_some(start.cast())
}

/// The distance of the module's block from the thread pointer, if it is the same in every thread.
pub(crate) fn static_offset(module: ModuleId) -> Option<isize> {
    if module.0 & OURS != 0 {
        let index = module.0 & !OURS;
        return registry().modules.get(index).copied().flatten()?.static_offset;
    }
    // A library of `ld.so`: its block is in the static area if it lies there in this thread.
    // SAFETY: a module id that a loaded library has; offset 0 is in every block.
    let address = unsafe { address(module, 0) }.addr();
    is_in_static_area(address).then(|| address.wrapping_sub(arch::thread_pointer()) as isize)
}

/// The distance from the thread pointer of the block of the first module: the executable's, or that of the first
/// library with thread-local storage. There is one, since memdl has thread-local variables itself.
pub(crate) fn first_module_offset() -> isize {
    // SAFETY: the first module is never unloaded, and offset 0 is in every block.
    let first = unsafe { address(ModuleId(1), 0) }.addr();
    first.wrapping_sub(arch::thread_pointer()) as isize
}
