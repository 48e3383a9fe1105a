//! The thread pointer: the register `TPIDR_EL0`, and what lies above it. This file reads no memory.

#![allow(unsafe_code)]

use std::arch::asm;
use std::ops::RangeInclusive;

/// The alignment that `ld.so` gives every thread's static area at least (`TLS_TCB_ALIGN`).
pub(crate) const STATIC_AREA_ALIGN: usize = 16;

/// A thread's static area of this size: it begins at the thread pointer (TLS variant I).
pub(crate) fn static_area(thread_pointer: usize, size: usize) -> RangeInclusive<usize> {
    thread_pointer..=thread_pointer.saturating_add(size)
}

/// The thread pointer of the calling thread.
pub(crate) fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: reads a register that every program may read.
    unsafe {
        asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}
