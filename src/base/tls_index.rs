//! The name of a thread-local variable in compiled code: its module, and its offset in the module's
//! block. These are the types only; `tls/` gives out the ids.
//!
//! Source: U. Drepper, "ELF Handling For Thread-Local Storage", 3.4.

/// The argument of `__tls_get_addr`, which relocations fill in (glibc's `tls_index`).
#[repr(C)]
pub(crate) struct TlsIndex {
    pub ti_module: usize,
    pub ti_offset: usize,
}

/// The id of a module with thread-local storage, of `ld.so` or of memdl. `R_*_DTPMOD` stores it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ModuleId(pub(crate) usize);
