//! Single instructions, as text for assembly of other folders. This file writes none of them to memory.

/// The instruction that returns to the caller. Its first bytes are not those of a breakpoint. A macro, because
/// `global_asm!` takes literals only.
#[cfg_attr(
    not(feature = "exported-debug-symbols"),
    allow(unused_macros, reason = "`build.rs` writes that function")
)]
macro_rules! return_instruction {
    () => {
        "ret"
    };
}
#[cfg_attr(
    not(feature = "exported-debug-symbols"),
    allow(unused_imports, reason = "as above")
)]
pub(crate) use return_instruction;

/// The instructions that jump to a function, and change neither the stack nor the arguments.
macro_rules! jump_instruction {
    ($function:literal) => {
        concat!("bti c\n b ", $function)
    };
}
pub(crate) use jump_instruction;

/// Defines a function of two or three arguments that passes its return address to `$to` as one more
/// argument: the result depends on the calling image.
macro_rules! with_return_address {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($a:ident: $A:ty, $b:ident: $B:ty) => $to:path;) => {
        $(#[$doc])*
        #[unsafe(naked)]
        $vis unsafe extern "C-unwind" fn $name($a: $A, $b: $B) -> *mut std::ffi::c_void {
            std::arch::naked_asm!("bti c", "mov x2, x30", "b {}", sym $to)
        }
    };
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident($a:ident: $A:ty, $b:ident: $B:ty, $c:ident: $C:ty) => $to:path;
    ) => {
        $(#[$doc])*
        #[unsafe(naked)]
        $vis unsafe extern "C-unwind" fn $name($a: $A, $b: $B, $c: $C) -> *mut std::ffi::c_void {
            std::arch::naked_asm!("bti c", "mov x3, x30", "b {}", sym $to)
        }
    };
}
pub(crate) use with_return_address;

/// Defines a function that asks `$answer`, a function of the same arguments, at most three, which returns
/// two words: the result, and 0 if the C library's `$real` is to answer instead, with the same arguments and
/// return address.
macro_rules! unless_answered {
    ($(#[$doc:meta])* fn $name:ident => $answer:path, else $real:ident;) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C-unwind" fn $name() {
            std::arch::naked_asm!(
                ".cfi_startproc",
                "bti c",
                "stp x29, x30, [sp, #-48]!",
                ".cfi_def_cfa_offset 48",
                ".cfi_offset x29, -48",
                ".cfi_offset x30, -40",
                "mov x29, sp",
                "stp x0, x1, [sp, #16]",
                "str x2, [sp, #32]",
                "bl {answer}",
                "mov x16, x1",
                "ldr x2, [sp, #32]",
                "ldr x1, [sp, #24]",
                "cbnz x16, 2f",
                "ldr x0, [sp, #16]",
                "2:",
                "ldp x29, x30, [sp], #48",
                ".cfi_def_cfa_offset 0",
                ".cfi_restore x29",
                ".cfi_restore x30",
                "cbz x16, 3f",
                "ret",
                "3:",
                "adrp x16, :got:{real}",
                "ldr x16, [x16, :got_lo12:{real}]",
                "br x16",
                ".cfi_endproc",
                answer = sym $answer,
                real = sym libc::$real,
            )
        }
    };
}
pub(crate) use unless_answered;
