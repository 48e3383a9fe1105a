//! The names by which unwinders are known, and what the linker has bound to them.
//!
//! Decides nothing: `host/unwinders.rs` does.
//!
//! Sources: nongnu libunwind `include/libunwind-aarch64.h`; LSB Core "Exception Handling".

#![allow(unsafe_code)]

/// The functions that step from frame to frame in nongnu libunwind: of the process itself, and of any.
pub(crate) const LIBUNWIND_STEPS: [&[u8]; 2] = [b"_ULaarch64_step", b"_Uaarch64_step"];

/// nongnu libunwind's function that empties its caches, and the address space of the process, for which it does.
pub(crate) const LIBUNWIND_CACHES: [&[u8]; 2] =
    [b"_Uaarch64_flush_cache", b"_ULaarch64_local_addr_space"];

/// Defines a function that gives the address of a symbol, or 0 where none is linked. Weak: nothing is linked
/// because of it.
macro_rules! address_of {
    ($name:ident, $symbol:literal) => {
        #[unsafe(naked)]
        extern "C" fn $name() -> usize {
            std::arch::naked_asm!(
                concat!(".weak ", $symbol),
                "bti c",
                concat!("adrp x0, :got:", $symbol),
                concat!("ldr x0, [x0, :got_lo12:", $symbol, "]"),
                "ret",
            )
        }
    };
}

address_of!(local_step, "_ULaarch64_step");
address_of!(any_step, "_Uaarch64_step");
address_of!(llvm_step, "unw_step");
address_of!(set_register, "_Unwind_SetGR");
address_of!(flush_cache, "_Uaarch64_flush_cache");
address_of!(local_address_space, "_ULaarch64_local_addr_space");

/// The addresses of functions of unwinders that this object can call: first those that [`LIBUNWIND_STEPS`] names.
pub(crate) fn linked_unwinders() -> [usize; 4] {
    [local_step(), any_step(), llvm_step(), set_register()]
}

/// The addresses of what [`LIBUNWIND_CACHES`] names.
pub(crate) fn linked_caches() -> [usize; 2] {
    [flush_cache(), local_address_space()]
}
