//! The thread pointer: the word at `fs:0`, which holds its own address, and what lies below it. This file reads no
//! other memory.

#![allow(unsafe_code)]

use std::arch::asm;
use std::ops::RangeInclusive;

/// The alignment that `ld.so` gives every thread's static area at least (`TLS_TCB_ALIGN`).
pub(crate) const STATIC_AREA_ALIGN: usize = 64;

/// A thread's static area of this size: it ends at the thread pointer (TLS variant II).
pub(crate) fn static_area(thread_pointer: usize, size: usize) -> RangeInclusive<usize> {
    thread_pointer.saturating_sub(size)..=thread_pointer
}

/// The thread pointer of the calling thread.
pub(crate) fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: the psABI: the word at fs:0 is the thread pointer itself. Reads nothing else.
    unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags)) };
    pointer
}
