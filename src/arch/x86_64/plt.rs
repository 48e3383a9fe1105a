//! The target of the entries of a lazy PLT, and the call of an IFUNC resolver. The function that binds
//! is in a folder above: this file calls it through a pointer.

#![allow(unsafe_code)]

use std::arch::naked_asm;

use crate::arch::x86_64::registers::{
    HAS_XSAVE, STATE_AREA, STATE_MASK, restore_registers, save_registers,
};

/// The target of an image's PLT entry for a function that is not bound yet. The PLT has pushed two words
/// on the stack: the word of its global offset table (a pointer to `Plt`, whose first word is the
/// function that binds), and the number of the entry.
///
/// It preserves all registers that pass arguments, `al` and the vector registers included; the psABI
/// leaves r11 free.
///
/// # Safety
/// Reached from a PLT only.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn bind_call() {
    naked_asm!(
        "push rax",
        "push rdi",
        "mov rdi, qword ptr [rsp + 16]",
        save_registers!(),
        "mov rsi, qword ptr [rbp + 32]",
        "call qword ptr [rdi]",
        restore_registers!(),
        "mov r11, rax",
        "pop rdi",
        "pop rax",
        "lea rsp, [rsp + 16]",
        "jmp r11",
        state = const STATE_AREA,
        mask = const STATE_MASK,
        xsave = sym HAS_XSAVE,
    )
}

/// Calls an IFUNC resolver and returns the address that it chose.
///
/// # Safety
/// `resolver` must be the address of a resolver, in relocated executable memory.
pub(crate) unsafe fn call_ifunc_resolver(resolver: usize) -> usize {
    // SAFETY: the caller's promise. On this machine a resolver takes no arguments.
    unsafe {
        let resolver: unsafe extern "C" fn() -> usize = std::mem::transmute(resolver);
        resolver()
    }
}
