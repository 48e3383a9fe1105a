//! How compiled code names a thread-local variable: by its module and its offset in the module's block.
//!
//! Source: U. Drepper, "ELF Handling For Thread-Local Storage", 3.4.

/// The argument of `__tls_get_addr`, as relocations fill it in.
#[repr(C)]
pub(crate) struct TlsIndex {
    pub ti_module: usize,
    pub ti_offset: usize,
}

/// The id of a module with thread-local storage, `ld.so`'s or ours: what `R_*_DTPMOD` stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ModuleId(pub(crate) usize);
