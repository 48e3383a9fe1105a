//! Access to thread-local variables: the functions that compiled code calls, and the per-thread
//! variables that these read.
//!
//! Thread-local blocks lie above the thread pointer (TLS variant I). Compiled code accesses a thread-local of a
//! shared library by the resolver of a TLS descriptor, or, if it was compiled so, by a call of `__tls_get_addr`.
//!
//! A macro, because it calls functions and uses sizes of the file that invokes it, in a folder above
//! this one. It allocates no block: those functions do.
//!
//! Sources: SYSVABI64, "Thread Local Storage"; U. Drepper, "ELF Handling For Thread-Local Storage"; glibc
//! `sysdeps/aarch64/dl-tlsdesc.S`.

/// Defines every thread's slots and static pool, and the functions that find those of the calling thread.
///
/// The invoking file must have in scope the constants `SLOTS`, `NO_BLOCK`, `POOL`, `POOL_ALIGN`.
macro_rules! define_tls_variables {
    () => {
        /// The prefix of the symbols below. Its name contains a hash of this crate, so that another version of
        /// memdl can be linked into the same program.
        static OWN: u8 = 0;

        // Every thread's pointers to its blocks of the first `SLOTS` modules, in the thread-local storage of the
        // object that memdl is linked into. Where that is static, they are at a constant distance from the
        // thread pointer, so that code and debuggers reach them without a call.
        std::arch::global_asm!(
            ".pushsection .tdata.memdl_tls_slots, \"awT\", @progbits",
            ".p2align 3",
            ".globl {own}_tls_slots",
            ".hidden {own}_tls_slots",
            ".type {own}_tls_slots, @object",
            ".size {own}_tls_slots, {size}",
            "{own}_tls_slots:",
            ".8byte 0",
            ".rept {slots} - 1",
            ".8byte {no_block}",
            ".endr",
            ".popsection",
            size = const SLOTS * 8,
            slots = const SLOTS,
            no_block = const NO_BLOCK,
            own = sym OWN,
        );

        // Memory for the blocks of images whose variables have a fixed distance from the thread
        // pointer (initial exec). It is initialised data, which a nonzero byte ensures: new threads get a
        // copy of the initial values of the object that memdl is linked into, and memdl changes those.
        std::arch::global_asm!(
            ".pushsection .tdata.memdl_static_pool, \"awT\", @progbits",
            ".balign {align}",
            ".globl {own}_static_pool",
            ".hidden {own}_static_pool",
            ".type {own}_static_pool, @object",
            ".size {own}_static_pool, {size}",
            "{own}_static_pool:",
            ".zero {size} - 1",
            ".byte 1",
            ".popsection",
            align = const POOL_ALIGN,
            size = const POOL,
            own = sym OWN,
        );

        // The two below ask as general dynamic code does: of a library that was opened with `dlopen`, the
        // storage need not be static, of which `dlopen` has little. In an executable the linker replaces the
        // call. It knows the sequence by these very instructions and registers.

        /// The calling thread's static pool.
        ///
        /// It is assembly because [`OWN`] is replaced as text in the variable's name.
        #[cfg(not(feature = "shared-static-tls"))]
        #[unsafe(naked)]
        pub(crate) extern "C" fn static_pool() -> *mut u8 {
            std::arch::naked_asm!(
                "bti c",
                "stp x29, x30, [sp, #-16]!",
                "mov x29, sp",
                "adrp x0, :tlsdesc:{own}_static_pool",
                "ldr x1, [x0, :tlsdesc_lo12:{own}_static_pool]",
                "add x0, x0, :tlsdesc_lo12:{own}_static_pool",
                ".tlsdesccall {own}_static_pool",
                "blr x1",
                "mrs x1, tpidr_el0",
                "add x0, x1, x0",
                "ldp x29, x30, [sp], #16",
                "ret",
                own = sym OWN,
            )
        }

        /// The calling thread's slots: `SLOTS` words. When the thread starts the first is zero and the others
        /// are `NO_BLOCK`.
        #[cfg(not(feature = "shared-static-tls"))]
        #[unsafe(naked)]
        pub(crate) extern "C" fn tls_slots() -> *mut *mut u8 {
            std::arch::naked_asm!(
                "bti c",
                "stp x29, x30, [sp, #-16]!",
                "mov x29, sp",
                "adrp x0, :tlsdesc:{own}_tls_slots",
                "ldr x1, [x0, :tlsdesc_lo12:{own}_tls_slots]",
                "add x0, x0, :tlsdesc_lo12:{own}_tls_slots",
                ".tlsdesccall {own}_tls_slots",
                "blr x1",
                "mrs x1, tpidr_el0",
                "add x0, x1, x0",
                "ldp x29, x30, [sp], #16",
                "ret",
                own = sym OWN,
            )
        }

        /// As above, as initial exec code: the GOT entry holds the distance, and `dlopen` makes the storage of
        /// the library static, or refuses the library.
        #[cfg(feature = "shared-static-tls")]
        #[unsafe(naked)]
        pub(crate) extern "C" fn static_pool() -> *mut u8 {
            std::arch::naked_asm!(
                "bti c",
                "mrs x1, tpidr_el0",
                "adrp x0, :gottprel:{own}_static_pool",
                "ldr x0, [x0, :gottprel_lo12:{own}_static_pool]",
                "add x0, x1, x0",
                "ret",
                own = sym OWN,
            )
        }

        /// As above.
        #[cfg(feature = "shared-static-tls")]
        #[unsafe(naked)]
        pub(crate) extern "C" fn tls_slots() -> *mut *mut u8 {
            std::arch::naked_asm!(
                "bti c",
                "mrs x1, tpidr_el0",
                "adrp x0, :gottprel:{own}_tls_slots",
                "ldr x0, [x0, :gottprel_lo12:{own}_tls_slots]",
                "add x0, x1, x0",
                "ret",
                own = sym OWN,
            )
        }
    };
}
pub(crate) use define_tls_variables;

/// Defines `tls_get_addr` and the resolvers of TLS descriptors.
///
/// The invoking file must have in scope the constants `DESCRIPTOR_OFFSET_BITS`, `STARTS`, `STARTS_LEN`, the type
/// `TlsIndex`, and the words `SLOT_COUNT`, `SLOTS_AT`, `RECORD_AT`.
macro_rules! define_tls {
    ($address_slow:path, $descriptor_slow:path) => {
        /// `__tls_get_addr` as images see it: their own modules first, all others the host's.
        ///
        /// The id of a module of memdl has bit 63 set, and the module's index in the other bits. For an index
        /// below `SLOTS` whose block exists, it takes a dozen instructions and no lock.
        ///
        /// # Safety
        /// `index` must point to a pair that a relocation filled in.
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn tls_get_addr(index: *const TlsIndex) -> *mut std::ffi::c_void {
            std::arch::naked_asm!(
                "bti c",
                "ldr x1, [x0]",
                "tbz x1, #63, 2f",
                "and x1, x1, #0x7fffffffffffffff",
                "adrp x2, {slot_count}",
                "ldr x2, [x2, :lo12:{slot_count}]",
                "mrs x3, tpidr_el0",
                "cmp x1, x2",
                "b.hs 4f",
                "adrp x2, {slots_at}",
                "ldr x2, [x2, :lo12:{slots_at}]",
                "add x2, x2, x3",
                "ldr x2, [x2, x1, lsl #3]",
                // `NO_BLOCK` is less than zero.
                "cmp x2, #0",
                "b.le 3f",
                "ldr x1, [x0, #8]",
                "add x0, x2, x1",
                "ret",
                "2:",
                "adrp x16, :got:__tls_get_addr",
                "ldr x16, [x16, :got_lo12:__tls_get_addr]",
                "br x16",
                // Beyond the slots: the thread's record has the rest.
                "4:",
                "adrp x2, {record_at}",
                "ldr x2, [x2, :lo12:{record_at}]",
                "cbz x2, 3f",
                "ldr x2, [x3, x2]",
                "cbz x2, 3f",
                "ldr x3, [x2, #{len}]",
                "cmp x1, x3",
                "b.hs 3f",
                "ldr x2, [x2, #{starts}]",
                "ldr x2, [x2, x1, lsl #3]",
                "cbz x2, 3f",
                "ldr x1, [x0, #8]",
                "add x0, x2, x1",
                "ret",
                "3:",
                "b {slow}",
                slot_count = sym SLOT_COUNT,
                slots_at = sym SLOTS_AT,
                record_at = sym RECORD_AT,
                starts = const STARTS,
                len = const STARTS_LEN,
                slow = sym $address_slow,
            )
        }

        // TLS descriptors: compiled code calls the first word of a pair in its GOT with the address of
        // the pair in x0, and gets the variable's distance from the thread pointer in x0. Every other
        // register must be as it was, vector registers included, but for the flags.

        /// Resolver of variables at a fixed distance from the thread pointer, which is the argument.
        ///
        /// # Safety
        /// Only compiled code may call it, through a descriptor. The same holds for the two below.
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn tlsdesc_static() {
            std::arch::naked_asm!("bti c", "ldr x0, [x0, #8]", "ret")
        }

        /// Resolver of undefined weak variables: the argument is the address.
        ///
        /// # Safety
        /// As [`tlsdesc_static`].
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn tlsdesc_undefined() {
            std::arch::naked_asm!(
                "bti c",
                "str x1, [sp, #-16]!",
                "ldr x0, [x0, #8]",
                "mrs x1, tpidr_el0",
                "sub x0, x0, x1",
                "ldr x1, [sp], #16",
                "ret",
            )
        }

        // Long because: it has an instruction in each line.
        /// Resolver of all others: the argument is the module and the offset, packed into one word
        /// (`TlsDescArgument` in `base/tls_index.rs`).
        ///
        /// # Safety
        /// As [`tlsdesc_static`].
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn tlsdesc_dynamic() {
            std::arch::naked_asm!(
                ".cfi_startproc",
                "bti c",
                "stp x1, x2, [sp, #-32]!",
                ".cfi_def_cfa_offset 32",
                "str x3, [sp, #16]",
                "ldr x0, [x0, #8]",
                // An id of the host has no top bit.
                "tbz x0, #63, 3f",
                // Without it, an id of memdl is the slot.
                "ubfx x1, x0, #{bits}, #63 - {bits}",
                "adrp x2, {slot_count}",
                "ldr x2, [x2, :lo12:{slot_count}]",
                "mrs x3, tpidr_el0",
                "cmp x1, x2",
                "b.hs 4f",
                "adrp x2, {slots_at}",
                "ldr x2, [x2, :lo12:{slots_at}]",
                "add x2, x2, x3",
                "ldr x1, [x2, x1, lsl #3]",
                "2:",
                "cmp x1, #0",
                "b.le 3f",
                // The offset is the low bits, sign-extended.
                "sbfx x0, x0, #0, #{bits}",
                "add x0, x0, x1",
                "sub x0, x0, x3",
                "5:",
                "ldr x3, [sp, #16]",
                "ldp x1, x2, [sp], #32",
                ".cfi_remember_state",
                ".cfi_def_cfa_offset 0",
                "ret",
                ".cfi_restore_state",
                // Beyond the slots: the thread's record has the rest.
                "4:",
                "adrp x2, {record_at}",
                "ldr x2, [x2, :lo12:{record_at}]",
                "cbz x2, 3f",
                "ldr x2, [x3, x2]",
                "cbz x2, 3f",
                "ldr x3, [x2, #{len}]",
                "cmp x1, x3",
                "b.hs 3f",
                "ldr x2, [x2, #{starts}]",
                "ldr x1, [x2, x1, lsl #3]",
                "mrs x3, tpidr_el0",
                "b 2b",
                // The thread's first access. The function that it calls may use any register.
                "3:",
                "stp x29, x30, [sp, #-16]!",
                ".cfi_def_cfa_offset 48",
                ".cfi_offset x29, -48",
                ".cfi_offset x30, -40",
                "mov x29, sp",
                "bl {preserving}",
                "mrs x3, tpidr_el0",
                "sub x0, x0, x3",
                "ldp x29, x30, [sp], #16",
                ".cfi_def_cfa_offset 32",
                ".cfi_restore x29",
                ".cfi_restore x30",
                "b 5b",
                ".cfi_endproc",
                bits = const DESCRIPTOR_OFFSET_BITS,
                slot_count = sym SLOT_COUNT,
                slots_at = sym SLOTS_AT,
                record_at = sym RECORD_AT,
                starts = const STARTS,
                len = const STARTS_LEN,
                preserving = sym descriptor_slow_preserving,
            )
        }

        /// Calls `$descriptor_slow` with x0, and preserves all registers except x0 and the flags.
        #[unsafe(naked)]
        unsafe extern "C" fn descriptor_slow_preserving() {
            std::arch::naked_asm!(
                ".cfi_startproc",
                "bti c",
                $crate::arch::aarch64::registers::save_registers!(),
                "bl {slow}",
                $crate::arch::aarch64::registers::restore_registers!(),
                "ret",
                ".cfi_endproc",
                has_sve = sym $crate::arch::aarch64::registers::HAS_SVE,
                slow = sym $descriptor_slow,
            )
        }
    };
}
pub(crate) use define_tls;
