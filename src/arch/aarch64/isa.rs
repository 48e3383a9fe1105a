//! What an image may ask of the processor: guarded branch targets. This machine has no levels of the instruction set.
//!
//! Sources: Linux, "ARM64 ELF hwcaps", `HWCAP_PACA`, `HWCAP2_BTI`, `PROT_BTI`; glibc `sysdeps/aarch64/dl-bti.c`.

#![allow(unsafe_code)]

use std::ffi::c_int;

const PROT_BTI: c_int = 0x10;
const HWCAP2_BTI: u64 = 1 << 17;
const HWCAP_PACA: u64 = 1 << 30;

/// What is added to the protection of executable pages whose code marks the targets of its indirect branches
/// (`BTI`): a branch to another instruction faults then. 0 if this processor does not check that.
pub(crate) fn branch_protection() -> c_int {
    // SAFETY: no preconditions.
    if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_BTI != 0 { PROT_BTI } else { 0 }
}

/// Whether this processor checks signatures of addresses (`PAC`).
pub(crate) fn checks_signatures() -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::getauxval(libc::AT_HWCAP) & HWCAP_PACA != 0 }
}

/// The folders in `glibc-hwcaps` whose libraries this processor runs: glibc names none for this machine.
pub(crate) fn hwcaps_folders() -> &'static [&'static str] {
    &[]
}

/// Nothing: no property names a level.
pub(crate) fn lacking_isa(_needed: u32) -> Option<(String, Vec<&'static str>)> {
    None
}
