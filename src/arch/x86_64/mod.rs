//! x86-64 (AMD64 psABI): relocation numbers, levels of the instruction set, thread-local storage, PLT entries, signal frames.
//!
//! The peculiarities of the machine: thread-local blocks lie below the thread pointer (TLS variant II),
//! the thread pointer is the word at `fs:0`, and compiled code accesses a thread-local of a shared
//! library by a call of `__tls_get_addr` with the address of a `{module, offset}` pair in `rdi`.
//!
//! Source: "System V Application Binary Interface, AMD64 Architecture Processor Supplement",
//! table 4.9 (relocation types); U. Drepper, "ELF Handling For Thread-Local Storage", section 3.4.6.

#[cfg(target_arch = "x86_64")]
mod bytes;
#[cfg(target_arch = "x86_64")]
mod caches;
#[cfg(target_arch = "x86_64")]
mod finder;
#[cfg(target_arch = "x86_64")]
mod instructions;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
mod isa;
#[cfg(target_arch = "x86_64")]
mod plt;
#[cfg(target_arch = "x86_64")]
pub(crate) mod registers;
mod relocations;
#[cfg(target_arch = "x86_64")]
mod signals;
#[cfg(target_arch = "x86_64")]
pub(crate) mod thread_pointer;
#[cfg(target_arch = "x86_64")]
mod tls;
#[cfg(target_arch = "x86_64")]
mod unwinders;

#[cfg(target_arch = "x86_64")]
pub(crate) use bytes::first_nul;
#[cfg(target_arch = "x86_64")]
pub(crate) use caches::sync_instructions;
#[cfg(target_arch = "x86_64")]
pub(crate) use finder::{MARK_DISTANCE, define_marked};
#[cfg(target_arch = "x86_64")]
#[cfg_attr(
    not(feature = "exported-debug-symbols"),
    allow(unused_imports, reason = "`build.rs` writes that function")
)]
pub(crate) use instructions::return_instruction;
#[cfg(target_arch = "x86_64")]
pub(crate) use instructions::{jump_instruction, unless_answered, with_return_address};
#[cfg(target_arch = "x86_64")]
pub(crate) use isa::{branch_protection, checks_signatures, hwcaps_folders, lacking_isa};
#[cfg(target_arch = "x86_64")]
pub(crate) use plt::{bind_call, call_ifunc_resolver};
#[cfg(target_arch = "x86_64")]
pub(crate) use registers::detect_registers;
pub(crate) use relocations::MACHINE;
#[cfg(target_arch = "x86_64")]
pub(crate) use signals::is_signal_return;
#[cfg(target_arch = "x86_64")]
pub(crate) use thread_pointer::{STATIC_AREA_ALIGN, static_area, thread_pointer};
#[cfg(target_arch = "x86_64")]
pub(crate) use tls::{define_tls, define_tls_variables};
#[cfg(target_arch = "x86_64")]
pub(crate) use unwinders::{LIBUNWIND_CACHES, LIBUNWIND_STEPS, linked_caches, linked_unwinders};
