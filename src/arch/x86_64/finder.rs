//! The function that unwinders call in place of `_dl_find_object`.
//!
//! A macro, since the function and the list that it names are those of the file that invokes it, in a
//! folder above this one.

/// Defines `finder()`, and the function whose address it gives: goes on to `$function`, with the
/// address of `$ring` behind it.
macro_rules! define_finder {
    ($function:path, $ring:path) => {
        /// What the names of the variables below begin with: its own name has a hash of this crate in it, so
        /// that another version of memdl can be linked into the same program.
        static OWN: u8 = 0;

        // What unwinders call instead of `_dl_find_object`: goes on to memdl's own, and is known as one of
        // memdl's by other copies of it, of whatever version (`unwind::Link`).
        std::arch::global_asm!(
            ".pushsection .text.memdl_find_object, \"ax\", @progbits",
            // All of it is in one page.
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

        /// The distance of the words that tell of a finder from its start.
        const FINDER_MARK: usize = 16;
    };
}
pub(crate) use define_finder;
