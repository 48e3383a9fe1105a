//! The target of the entries of a lazy PLT, and the call of an IFUNC resolver. The function that binds
//! is in a folder above: this file calls it through a pointer.
//!
//! Sources: SYSVABI64 "Program Linkage Table"; glibc `sysdeps/aarch64/dl-trampoline.S`, `dl-irel.h`, `sys/ifunc.h`.

#![allow(unsafe_code)]

use std::arch::naked_asm;

/// The target of an image's PLT entry for a function that is not bound yet. `x16` is the address of the third word
/// of the global offset table; the second is a pointer to `Plt`, whose first word is the function that binds. The
/// PLT has pushed two words on the stack: the address of the function's word in that table, whose words for
/// functions begin at the fourth, in the order of the relocations; and the caller's `x30`.
///
/// It preserves the registers that pass arguments. Functions with other conventions (`STO_AARCH64_VARIANT_PCS`)
/// are never bound lazily.
///
/// # Safety
/// Reached from a PLT only.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn bind_call() {
    naked_asm!(
        ".cfi_startproc",
        // The PLT's two words.
        ".cfi_def_cfa_offset 16",
        ".cfi_offset x30, -8",
        "bti c",
        "stp x29, x30, [sp, #-224]!",
        ".cfi_def_cfa_offset 240",
        ".cfi_offset x29, -240",
        "mov x29, sp",
        "stp x0, x1, [sp, #16]",
        "stp x2, x3, [sp, #32]",
        "stp x4, x5, [sp, #48]",
        "stp x6, x7, [sp, #64]",
        "stp x8, x9, [sp, #80]",
        "stp q0, q1, [sp, #96]",
        "stp q2, q3, [sp, #128]",
        "stp q4, q5, [sp, #160]",
        "stp q6, q7, [sp, #192]",
        "ldr x0, [x16, #-8]",
        "ldr x1, [sp, #224]",
        "sub x1, x1, x16",
        "lsr x1, x1, #3",
        "sub x1, x1, #1",
        "ldr x2, [x0]",
        "blr x2",
        "mov x16, x0",
        "ldp q0, q1, [sp, #96]",
        "ldp q2, q3, [sp, #128]",
        "ldp q4, q5, [sp, #160]",
        "ldp q6, q7, [sp, #192]",
        "ldp x0, x1, [sp, #16]",
        "ldp x2, x3, [sp, #32]",
        "ldp x4, x5, [sp, #48]",
        "ldp x6, x7, [sp, #64]",
        "ldp x8, x9, [sp, #80]",
        "ldp x29, x30, [sp], #224",
        ".cfi_def_cfa_offset 16",
        ".cfi_restore x29",
        "ldr x30, [sp, #8]",
        "add sp, sp, #16",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x30",
        "br x16",
        ".cfi_endproc",
    )
}

/// glibc's `__ifunc_arg_t`.
#[repr(C)]
struct IfuncArgument {
    size: u64,
    hwcap: u64,
    hwcap2: u64,
}

/// glibc's `_IFUNC_ARG_HWCAP`: there is a second argument.
const HAS_ARGUMENT: u64 = 1 << 62;

/// Calls an IFUNC resolver and returns the address that it chose.
///
/// # Safety
/// `resolver` must be the address of a resolver, in relocated executable memory.
pub(crate) unsafe fn call_ifunc_resolver(resolver: usize) -> usize {
    // SAFETY: no preconditions.
    let [hwcap, hwcap2] =
        [libc::AT_HWCAP, libc::AT_HWCAP2].map(|it| unsafe { libc::getauxval(it) });
    let argument = IfuncArgument { size: size_of::<IfuncArgument>() as u64, hwcap, hwcap2 };
    // SAFETY: the caller's promise. The arguments are glibc's.
    unsafe {
        let resolver: unsafe extern "C" fn(u64, *const IfuncArgument) -> usize =
            std::mem::transmute(resolver);
        resolver(hwcap | HAS_ARGUMENT, &raw const argument)
    }
}
