//! The functions that unwinders call in place of `_dl_find_object` and `dl_iterate_phdr`.
//!
//! A macro, because it names a function and a list of the file that invokes it, in a folder above this
//! one. It searches nothing itself: it jumps to that function.

/// Defines `$name()`, which gives the address of a function that jumps to `$function`. The address of
/// `$ring` is stored behind its code, with a mark of 16 bytes before it.
macro_rules! define_marked {
    ($name:ident, $suffix:literal, $mark:literal, $function:path, $ring:path) => {
        /// The prefix of the symbols below. Its name contains a hash of this crate, so that another version of
        /// memdl can be linked into the same program.
        static OWN: u8 = 0;

        // Unwinders call this function instead of the C library's. It jumps to memdl's own. Other copies of
        // memdl, of any version, recognize it by its mark (`unwind::ring`).
        std::arch::global_asm!(
            ".pushsection .text.memdl_unwind, \"ax\", @progbits",
            // Aligned, so that it does not cross a page.
            ".balign 64",
            concat!(".globl {own}", $suffix),
            concat!(".hidden {own}", $suffix),
            concat!(".type {own}", $suffix, ", @function"),
            concat!("{own}", $suffix, ":"),
            ".cfi_startproc",
            "bti c",
            "b {function}",
            ".cfi_endproc",
            ".balign 16",
            concat!(".ascii \"", $mark, "\\0\""),
            ".8byte {ring} - .",
            concat!(".size {own}", $suffix, ", . - {own}", $suffix),
            ".popsection",
            function = sym $function,
            ring = sym $ring,
            own = sym OWN,
        );

        /// The address of the function above.
        #[unsafe(naked)]
        pub(super) extern "C" fn $name() -> usize {
            std::arch::naked_asm!(
                "bti c",
                concat!("adrp x0, {own}", $suffix),
                concat!("add x0, x0, :lo12:{own}", $suffix),
                "ret",
                own = sym OWN,
            )
        }
    };
}
pub(crate) use define_marked;

/// The distance of the mark from the start of the function.
pub(crate) const MARK_DISTANCE: usize = 16;
