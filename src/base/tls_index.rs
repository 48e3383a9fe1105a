//! The name of a thread-local variable in compiled code: its module, and its offset in the module's
//! block. These are the numbers and their encoding only; `tls/` gives out the ids.
//!
//! Source: U. Drepper, "ELF Handling For Thread-Local Storage", 3.4.

#![forbid(unsafe_code)]

/// The bit that is set in the module ids of memdl; `ld.so` counts from 1.
pub(crate) const OURS: usize = 1 << 63;
/// The number of offset bits in a [`TlsDescArgument`].
pub(crate) const DESCRIPTOR_OFFSET_BITS: u32 = 48;

/// The argument of `__tls_get_addr`, which relocations fill in (glibc's `tls_index`).
#[repr(C)]
pub(crate) struct TlsIndex {
    pub ti_module: usize,
    pub ti_offset: usize,
}

/// The id of a module with thread-local storage, of `ld.so` or of memdl. `R_*_DTPMOD` stores it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ModuleId(pub(crate) usize);

/// The argument of a TLS descriptor for a variable whose block each thread allocates. The high bits hold
/// the module id, with the top bit set for a module of memdl; the low bits hold the signed offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TlsDescArgument(pub(crate) u64);

impl TlsDescArgument {
    const MODULE_BITS: u32 = u64::BITS - DESCRIPTOR_OFFSET_BITS - 1;

    /// `None` if the module id or the offset does not fit.
    pub(crate) fn new(module: ModuleId, offset: i64) -> Option<TlsDescArgument> {
        let number = (module.0 & !OURS) as u64;
        let sign_bits = u64::BITS - DESCRIPTOR_OFFSET_BITS;
        let fits = number >> Self::MODULE_BITS == 0 && offset << sign_bits >> sign_bits == offset;
        let low = offset as u64 & ((1 << DESCRIPTOR_OFFSET_BITS) - 1);
        fits.then_some(TlsDescArgument(
            (module.0 & OURS) as u64 | number << DESCRIPTOR_OFFSET_BITS | low,
        ))
    }

    pub(crate) fn index(self) -> TlsIndex {
        let sign_bits = u64::BITS - DESCRIPTOR_OFFSET_BITS;
        let number = (self.0 & !(OURS as u64)) >> DESCRIPTOR_OFFSET_BITS;
        TlsIndex {
            ti_module: number as usize | self.0 as usize & OURS,
            ti_offset: ((self.0 << sign_bits) as i64 >> sign_bits) as usize,
        }
    }
}
