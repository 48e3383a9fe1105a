//! Single instructions, as bytes and as text for assembly of other folders. This file writes none of
//! them to memory.

/// The instruction that returns to the caller. Its first byte is not that of a breakpoint. A macro, because
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

/// The instruction that jumps to a function, and changes neither the stack nor the arguments.
macro_rules! jump_instruction {
    ($function:literal) => {
        concat!("jmp ", $function)
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
            std::arch::naked_asm!("mov rdx, qword ptr [rsp]", "jmp {}", sym $to)
        }
    };
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident($a:ident: $A:ty, $b:ident: $B:ty, $c:ident: $C:ty) => $to:path;
    ) => {
        $(#[$doc])*
        #[unsafe(naked)]
        $vis unsafe extern "C-unwind" fn $name($a: $A, $b: $B, $c: $C) -> *mut std::ffi::c_void {
            std::arch::naked_asm!("mov rcx, qword ptr [rsp]", "jmp {}", sym $to)
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
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "push rsi",
                ".cfi_adjust_cfa_offset 8",
                "push rdx",
                ".cfi_adjust_cfa_offset 8",
                "call {answer}",
                "mov r11, rdx",
                "pop rdx",
                ".cfi_adjust_cfa_offset -8",
                "pop rsi",
                ".cfi_adjust_cfa_offset -8",
                "pop rdi",
                ".cfi_adjust_cfa_offset -8",
                "test r11, r11",
                "jz 2f",
                "ret",
                "2:",
                "jmp qword ptr [rip + {real}@GOTPCREL]",
                ".cfi_endproc",
                answer = sym $answer,
                real = sym libc::$real,
            )
        }
    };
}
pub(crate) use unless_answered;
