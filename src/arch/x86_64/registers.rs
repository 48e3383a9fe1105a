//! Assembly that saves and restores every register that a C function may change.
//!
//! Compiled code that calls a TLS descriptor's resolver, or that reaches the lazy binder through a PLT
//! entry, expects its registers unchanged, vector registers included. The macros give text for
//! `naked_asm!`; this file calls nothing.
//!
//! Source: Intel SDM volume 1, chapter 13 (XSAVE).

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Size of the save area for the components in [`STATE_MASK`], in the standard form of XSAVE. The last of
/// them ends at 2,688 on every processor.
pub(crate) const STATE_AREA: usize = 2816;
/// SSE, AVX, and the three components of AVX-512: the vector registers that pass arguments, or in which
/// the caller of a descriptor's resolver may hold values.
pub(crate) const STATE_MASK: u32 = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7;

/// Whether the system has enabled `xsave`.
pub(crate) static HAS_XSAVE: AtomicU8 = AtomicU8::new(0);

/// Sets [`HAS_XSAVE`]. It must be called before an image refers to the assembly below. It asks the
/// processor once, because `cpuid` takes microseconds in a virtual machine.
pub(crate) fn detect_registers() {
    const OSXSAVE: u32 = 1 << 27;
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.load(Ordering::Acquire) {
        let has_xsave = std::arch::x86_64::__cpuid(1).ecx & OSXSAVE != 0;
        HAS_XSAVE.store(u8::from(has_xsave), Ordering::Relaxed);
        DONE.store(true, Ordering::Release);
    }
}

/// Saves all registers that a C function may change, except rax and rdi, and aligns the stack; `rbp`
/// holds the address of the saved `rbp`. It changes neither rax nor rdi.
macro_rules! save_registers {
    () => {
        concat!(
            "push rbp\n mov rbp, rsp\n",
            "push rcx\n push rdx\n push rsi\n push r8\n push r9\n push r10\n push r11\n",
            "sub rsp, {state}\n and rsp, -64\n",
            // The header of the save area must be zero, except for the fields that xsave writes.
            "mov r8, rax\n",
            "xor eax, eax\n",
            "mov qword ptr [rsp + 512], rax\n mov qword ptr [rsp + 520], rax\n",
            "mov qword ptr [rsp + 528], rax\n mov qword ptr [rsp + 536], rax\n",
            "mov qword ptr [rsp + 544], rax\n mov qword ptr [rsp + 552], rax\n",
            "mov qword ptr [rsp + 560], rax\n mov qword ptr [rsp + 568], rax\n",
            "cmp byte ptr [rip + {xsave}], 0\n je 20f\n",
            "mov eax, {mask}\n xor edx, edx\n xsave64 [rsp]\n jmp 21f\n",
            "20: fxsave64 [rsp]\n",
            "21: mov rax, r8\n",
        )
    };
}

pub(crate) use save_registers;

/// Undoes [`save_registers`]; rax keeps its current value.
macro_rules! restore_registers {
    () => {
        concat!(
            "mov r8, rax\n",
            "cmp byte ptr [rip + {xsave}], 0\n je 22f\n",
            "mov eax, {mask}\n xor edx, edx\n xrstor64 [rsp]\n jmp 23f\n",
            "22: fxrstor64 [rsp]\n",
            "23: mov rax, r8\n",
            "lea rsp, [rbp - 56]\n",
            "pop r11\n pop r10\n pop r9\n pop r8\n pop rsi\n pop rdx\n pop rcx\n pop rbp\n",
        )
    };
}
pub(crate) use restore_registers;
