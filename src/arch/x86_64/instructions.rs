//! Instructions that other folders put into functions and into memory.

/// The first byte in memory of a breakpoint that a debugger has set (`int3`).
pub(crate) const BREAKPOINT: u8 = 0xcc;

/// The instruction that returns to the caller. Its first byte is not [`BREAKPOINT`]. A macro,
/// since `global_asm!` takes literals only.
macro_rules! return_instruction {
    () => {
        "ret"
    };
}
pub(crate) use return_instruction;

/// The instruction that goes on to a function, leaving the stack and all arguments as they are.
macro_rules! jump_instruction {
    ($function:literal) => {
        concat!("jmp ", $function)
    };
}
pub(crate) use jump_instruction;

/// Functions of two or three arguments that pass their return address on as one more: what they
/// do depends on who called them.
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
