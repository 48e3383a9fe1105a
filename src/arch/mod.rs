//! The machine-dependent code. No other folder names a machine.
//!
//! A relocation has one name for all machines ([`RelocKind`]), with its formula. A machine is a table
//! of numbers ([`Machine`]), a few constants, and a little assembly. To port memdl, write a folder
//! beside `x86_64`, and add its two lines below. The tables compile on every host, so that they can be
//! tested on any; the assembly is under `cfg`. This folder loads nothing, and imports no other.

#[cfg(not(target_arch = "x86_64"))]
compile_error!(
    "memdl supports x86-64 only so far: build the program for x86_64-unknown-linux-gnu."
);

mod machine;
mod reloc_kind;
pub(crate) mod x86_64;

pub(crate) use machine::{Machine, machine_name};
pub(crate) use reloc_kind::RelocKind;
#[cfg(target_arch = "x86_64")]
#[cfg_attr(
    not(feature = "exported-debug-symbols"),
    allow(unused_imports, reason = "`build.rs` writes that function")
)]
pub(crate) use x86_64::return_instruction;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    E_MACHINE, LIBUNWIND_CACHES, LIBUNWIND_STEPS, MACHINE, MARK_DISTANCE, bind_call,
    call_ifunc_resolver, define_marked, define_tls, define_tls_variables, detect_xsave, first_nul,
    hwcaps_folders, isa_levels, jump_instruction, lacking_isa, linked_caches, linked_unwinders,
    signal_returns, thread_pointer, thread_pointer_of, unless_answered, with_return_address,
};
