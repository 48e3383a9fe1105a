//! The thread pointer: the word at `fs:0`, which holds its own address. This file reads no other memory.

#![allow(unsafe_code)]

use std::arch::asm;

/// The thread pointer of the thread with glibc's descriptor at `pthread`: that very address.
pub(crate) fn thread_pointer_of(pthread: usize) -> usize {
    pthread
}

/// The thread pointer of the calling thread.
pub(crate) fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: the psABI: the word at fs:0 is the thread pointer itself. Reads nothing else.
    unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags)) };
    pointer
}
