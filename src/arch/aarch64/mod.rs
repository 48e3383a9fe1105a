//! AArch64 (AAPCS64): relocation numbers, thread-local storage, PLT entries, signal frames, the instruction cache.
//!
//! The peculiarities of the machine: thread-local blocks lie above the thread pointer (TLS variant I), which is the
//! register `TPIDR_EL0`; compiled code accesses a thread-local of a shared library by the resolver of a TLS
//! descriptor; text that was written as data is executed only after the caches were made to agree. Code that a
//! processor with BTI reaches by an indirect branch begins with `bti`, so each naked function does.
//!
//! Sources: "Procedure Call Standard for the Arm 64-bit Architecture (AAPCS64)"; "ELF for the Arm 64-bit
//! Architecture (AArch64)" (AAELF64); "System V ABI for the Arm 64-bit Architecture" (SYSVABI64).

#[cfg(target_arch = "aarch64")]
mod bytes;
#[cfg(target_arch = "aarch64")]
mod caches;
#[cfg(target_arch = "aarch64")]
mod finder;
#[cfg(target_arch = "aarch64")]
mod instructions;
#[cfg(target_arch = "aarch64")]
mod isa;
#[cfg(target_arch = "aarch64")]
mod plt;
#[cfg(target_arch = "aarch64")]
pub(crate) mod registers;
mod relocations;
#[cfg(target_arch = "aarch64")]
mod signals;
#[cfg(target_arch = "aarch64")]
pub(crate) mod thread_pointer;
#[cfg(target_arch = "aarch64")]
mod tls;
#[cfg(target_arch = "aarch64")]
mod unwinders;

#[cfg(target_arch = "aarch64")]
pub(crate) use bytes::first_nul;
#[cfg(target_arch = "aarch64")]
pub(crate) use caches::sync_instructions;
#[cfg(target_arch = "aarch64")]
pub(crate) use finder::{MARK_DISTANCE, define_marked};
#[cfg(target_arch = "aarch64")]
#[cfg_attr(
    not(feature = "exported-debug-symbols"),
    allow(unused_imports, reason = "`build.rs` writes that function")
)]
pub(crate) use instructions::return_instruction;
#[cfg(target_arch = "aarch64")]
pub(crate) use instructions::{jump_instruction, unless_answered, with_return_address};
#[cfg(target_arch = "aarch64")]
pub(crate) use isa::{branch_protection, checks_signatures, hwcaps_folders, lacking_isa};
#[cfg(target_arch = "aarch64")]
pub(crate) use plt::{bind_call, call_ifunc_resolver};
#[cfg(target_arch = "aarch64")]
pub(crate) use registers::detect_registers;
pub(crate) use relocations::MACHINE;
#[cfg(target_arch = "aarch64")]
pub(crate) use signals::is_signal_return;
#[cfg(target_arch = "aarch64")]
pub(crate) use thread_pointer::{STATIC_AREA_ALIGN, static_area, thread_pointer};
#[cfg(target_arch = "aarch64")]
pub(crate) use tls::{define_tls, define_tls_variables};
#[cfg(target_arch = "aarch64")]
pub(crate) use unwinders::{LIBUNWIND_CACHES, LIBUNWIND_STEPS, linked_caches, linked_unwinders};
