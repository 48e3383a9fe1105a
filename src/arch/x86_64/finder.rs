//! The function that unwinders call in place of `_dl_find_object`.
//!
//! A macro, because it names a function and a list of the file that invokes it, in a folder above this
//! one. It searches nothing itself: it jumps to that function.

/// Defines `finder()`, which gives the address of a function that jumps to `$function`. The address of
/// `$ring` is stored behind its code.
macro_rules! define_finder {
    ($function:path, $ring:path) => {
        /// The prefix of the symbols below. Its name contains a hash of this crate, so that another version of
        /// memdl can be linked into the same program.
        static OWN: u8 = 0;

        // Unwinders call this function instead of `_dl_find_object`. It jumps to memdl's own. Other copies of
        // memdl, of any version, recognize it by its mark (`unwind::Link`).
        std::arch::global_asm!(
            ".pushsection .text.memdl_find_object, \"ax\", @progbits",
            // Aligned, so that it does not cross a page.
            ".balign 64",
            ".globl {own}_find_object",
            ".hidden {own}_find_object",
            ".type {own}_find_object, @function",
            "{own}_find_object:",
            ".cfi_startproc",
            "jmp {function}",
            ".cfi_endproc",
            ".balign 16",
            ".ascii \"memdl finder v1\\0\"",
            ".8byte {ring} - .",
            ".size {own}_find_object, . - {own}_find_object",
            ".popsection",
            function = sym $function,
            ring = sym $ring,
            own = sym OWN,
        );

        /// The address of the function above.
        #[unsafe(naked)]
        extern "C" fn finder() -> usize {
            std::arch::naked_asm!("lea rax, [rip + {own}_find_object]", "ret", own = sym OWN)
        }

        /// The distance of the mark from the start of the function.
        const FINDER_MARK: usize = 16;
    };
}
pub(crate) use define_finder;
