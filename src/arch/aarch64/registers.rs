//! Assembly that saves and restores every register that a C function may change.
//!
//! Compiled code that calls a TLS descriptor's resolver expects its registers unchanged, but for `x0` and the flags.
//! With SVE the vector registers are longer, and there are predicate registers. The register of first faults is left
//! alone: nothing that is called here uses it. The macros give text for `naked_asm!`; this file calls nothing.
//!
//! Sources: SYSVABI64, "TLS descriptors"; AAPCS64, "SIMD and Floating-Point registers", "Scalable vector registers".

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

/// Whether the processor has SVE.
pub(crate) static HAS_SVE: AtomicU8 = AtomicU8::new(0);

/// Sets [`HAS_SVE`]. It must be called before an image refers to the assembly below.
pub(crate) fn detect_registers() {
    const HWCAP_SVE: u64 = 1 << 22;
    // SAFETY: no preconditions.
    let has_sve = unsafe { libc::getauxval(libc::AT_HWCAP) } & HWCAP_SVE != 0;
    HAS_SVE.store(u8::from(has_sve), Ordering::Relaxed);
}

/// Saves all registers that a C function may change, except `x0`. `x29` holds the address of the saved `x29`.
macro_rules! save_registers {
    () => {
        concat!(
            "stp x29, x30, [sp, #-160]!\n mov x29, sp\n",
            ".cfi_def_cfa x29, 160\n .cfi_offset x29, -160\n .cfi_offset x30, -152\n",
            "stp x1, x2, [sp, #16]\n stp x3, x4, [sp, #32]\n stp x5, x6, [sp, #48]\n",
            "stp x7, x8, [sp, #64]\n stp x9, x10, [sp, #80]\n stp x11, x12, [sp, #96]\n",
            "stp x13, x14, [sp, #112]\n stp x15, x16, [sp, #128]\n stp x17, x18, [sp, #144]\n",
            "adrp x1, {has_sve}\n ldrb w1, [x1, :lo12:{has_sve}]\n cbnz w1, 20f\n",
            "sub sp, sp, #512\n",
            "stp q0, q1, [sp, #0]\n stp q2, q3, [sp, #32]\n stp q4, q5, [sp, #64]\n stp q6, q7, [sp, #96]\n",
            "stp q8, q9, [sp, #128]\n stp q10, q11, [sp, #160]\n stp q12, q13, [sp, #192]\n stp q14, q15, [sp, #224]\n",
            "stp q16, q17, [sp, #256]\n stp q18, q19, [sp, #288]\n stp q20, q21, [sp, #320]\n stp q22, q23, [sp, #352]\n",
            "stp q24, q25, [sp, #384]\n stp q26, q27, [sp, #416]\n stp q28, q29, [sp, #448]\n stp q30, q31, [sp, #480]\n",
            "b 21f\n",
            "20:\n .arch_extension sve\n",
            "addvl sp, sp, #-32\n",
            "str z0, [sp, #0, mul vl]\n str z1, [sp, #1, mul vl]\n str z2, [sp, #2, mul vl]\n str z3, [sp, #3, mul vl]\n",
            "str z4, [sp, #4, mul vl]\n str z5, [sp, #5, mul vl]\n str z6, [sp, #6, mul vl]\n str z7, [sp, #7, mul vl]\n",
            "str z8, [sp, #8, mul vl]\n str z9, [sp, #9, mul vl]\n str z10, [sp, #10, mul vl]\n str z11, [sp, #11, mul vl]\n",
            "str z12, [sp, #12, mul vl]\n str z13, [sp, #13, mul vl]\n str z14, [sp, #14, mul vl]\n str z15, [sp, #15, mul vl]\n",
            "str z16, [sp, #16, mul vl]\n str z17, [sp, #17, mul vl]\n str z18, [sp, #18, mul vl]\n str z19, [sp, #19, mul vl]\n",
            "str z20, [sp, #20, mul vl]\n str z21, [sp, #21, mul vl]\n str z22, [sp, #22, mul vl]\n str z23, [sp, #23, mul vl]\n",
            "str z24, [sp, #24, mul vl]\n str z25, [sp, #25, mul vl]\n str z26, [sp, #26, mul vl]\n str z27, [sp, #27, mul vl]\n",
            "str z28, [sp, #28, mul vl]\n str z29, [sp, #29, mul vl]\n str z30, [sp, #30, mul vl]\n str z31, [sp, #31, mul vl]\n",
            "addpl sp, sp, #-16\n",
            "str p0, [sp, #0, mul vl]\n str p1, [sp, #1, mul vl]\n str p2, [sp, #2, mul vl]\n str p3, [sp, #3, mul vl]\n",
            "str p4, [sp, #4, mul vl]\n str p5, [sp, #5, mul vl]\n str p6, [sp, #6, mul vl]\n str p7, [sp, #7, mul vl]\n",
            "str p8, [sp, #8, mul vl]\n str p9, [sp, #9, mul vl]\n str p10, [sp, #10, mul vl]\n str p11, [sp, #11, mul vl]\n",
            "str p12, [sp, #12, mul vl]\n str p13, [sp, #13, mul vl]\n str p14, [sp, #14, mul vl]\n str p15, [sp, #15, mul vl]\n",
            ".arch_extension nosve\n",
            "21:\n",
        )
    };
}
pub(crate) use save_registers;

/// Undoes [`save_registers`]; `x0` keeps its current value.
macro_rules! restore_registers {
    () => {
        concat!(
            "adrp x1, {has_sve}\n ldrb w1, [x1, :lo12:{has_sve}]\n cbnz w1, 22f\n",
            "ldp q0, q1, [sp, #0]\n ldp q2, q3, [sp, #32]\n ldp q4, q5, [sp, #64]\n ldp q6, q7, [sp, #96]\n",
            "ldp q8, q9, [sp, #128]\n ldp q10, q11, [sp, #160]\n ldp q12, q13, [sp, #192]\n ldp q14, q15, [sp, #224]\n",
            "ldp q16, q17, [sp, #256]\n ldp q18, q19, [sp, #288]\n ldp q20, q21, [sp, #320]\n ldp q22, q23, [sp, #352]\n",
            "ldp q24, q25, [sp, #384]\n ldp q26, q27, [sp, #416]\n ldp q28, q29, [sp, #448]\n ldp q30, q31, [sp, #480]\n",
            "b 23f\n",
            "22:\n .arch_extension sve\n",
            "ldr p0, [sp, #0, mul vl]\n ldr p1, [sp, #1, mul vl]\n ldr p2, [sp, #2, mul vl]\n ldr p3, [sp, #3, mul vl]\n",
            "ldr p4, [sp, #4, mul vl]\n ldr p5, [sp, #5, mul vl]\n ldr p6, [sp, #6, mul vl]\n ldr p7, [sp, #7, mul vl]\n",
            "ldr p8, [sp, #8, mul vl]\n ldr p9, [sp, #9, mul vl]\n ldr p10, [sp, #10, mul vl]\n ldr p11, [sp, #11, mul vl]\n",
            "ldr p12, [sp, #12, mul vl]\n ldr p13, [sp, #13, mul vl]\n ldr p14, [sp, #14, mul vl]\n ldr p15, [sp, #15, mul vl]\n",
            "addpl sp, sp, #16\n",
            "ldr z0, [sp, #0, mul vl]\n ldr z1, [sp, #1, mul vl]\n ldr z2, [sp, #2, mul vl]\n ldr z3, [sp, #3, mul vl]\n",
            "ldr z4, [sp, #4, mul vl]\n ldr z5, [sp, #5, mul vl]\n ldr z6, [sp, #6, mul vl]\n ldr z7, [sp, #7, mul vl]\n",
            "ldr z8, [sp, #8, mul vl]\n ldr z9, [sp, #9, mul vl]\n ldr z10, [sp, #10, mul vl]\n ldr z11, [sp, #11, mul vl]\n",
            "ldr z12, [sp, #12, mul vl]\n ldr z13, [sp, #13, mul vl]\n ldr z14, [sp, #14, mul vl]\n ldr z15, [sp, #15, mul vl]\n",
            "ldr z16, [sp, #16, mul vl]\n ldr z17, [sp, #17, mul vl]\n ldr z18, [sp, #18, mul vl]\n ldr z19, [sp, #19, mul vl]\n",
            "ldr z20, [sp, #20, mul vl]\n ldr z21, [sp, #21, mul vl]\n ldr z22, [sp, #22, mul vl]\n ldr z23, [sp, #23, mul vl]\n",
            "ldr z24, [sp, #24, mul vl]\n ldr z25, [sp, #25, mul vl]\n ldr z26, [sp, #26, mul vl]\n ldr z27, [sp, #27, mul vl]\n",
            "ldr z28, [sp, #28, mul vl]\n ldr z29, [sp, #29, mul vl]\n ldr z30, [sp, #30, mul vl]\n ldr z31, [sp, #31, mul vl]\n",
            ".arch_extension nosve\n",
            "23:\n mov sp, x29\n",
            "ldp x1, x2, [sp, #16]\n ldp x3, x4, [sp, #32]\n ldp x5, x6, [sp, #48]\n",
            "ldp x7, x8, [sp, #64]\n ldp x9, x10, [sp, #80]\n ldp x11, x12, [sp, #96]\n",
            "ldp x13, x14, [sp, #112]\n ldp x15, x16, [sp, #128]\n ldp x17, x18, [sp, #144]\n",
            "ldp x29, x30, [sp], #160\n .cfi_def_cfa sp, 0\n .cfi_restore x29\n .cfi_restore x30\n",
        )
    };
}
pub(crate) use restore_registers;
