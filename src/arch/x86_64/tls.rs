//! Access to thread-local variables: the functions that compiled code calls, and the per-thread
//! variables that these read.
//!
//! Thread-local blocks lie below the thread pointer (TLS variant II). Compiled code accesses a
//! thread-local of a shared library by a call of `__tls_get_addr` with the address of a
//! `{module, offset}` pair in `rdi`.
//!
//! A macro, because it calls functions and uses sizes of the file that invokes it, in a folder above
//! this one. It allocates no block: those functions do.
//!
//! Source: U. Drepper, "ELF Handling For Thread-Local Storage", 3.4.6.

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
        // call. The instructions have the prefixes by which linkers know the sequence.

        /// The calling thread's static pool.
        ///
        /// It is assembly because [`OWN`] is replaced as text in the variable's name.
        #[cfg(not(feature = "shared-static-tls"))]
        #[unsafe(naked)]
        pub(crate) extern "C" fn static_pool() -> *mut u8 {
            std::arch::naked_asm!(
                "sub rsp, 8",
                ".byte 0x66",
                "lea rdi, [rip + {own}_static_pool@TLSGD]",
                ".byte 0x66, 0x66, 0x48",
                "call __tls_get_addr@PLT",
                "add rsp, 8",
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
                "sub rsp, 8",
                ".byte 0x66",
                "lea rdi, [rip + {own}_tls_slots@TLSGD]",
                ".byte 0x66, 0x66, 0x48",
                "call __tls_get_addr@PLT",
                "add rsp, 8",
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
                "mov rax, qword ptr [rip + {own}_static_pool@GOTTPOFF]",
                "add rax, qword ptr fs:0",
                "ret",
                own = sym OWN,
            )
        }

        /// As above.
        #[cfg(feature = "shared-static-tls")]
        #[unsafe(naked)]
        pub(crate) extern "C" fn tls_slots() -> *mut *mut u8 {
            std::arch::naked_asm!(
                "mov rax, qword ptr [rip + {own}_tls_slots@GOTTPOFF]",
                "add rax, qword ptr fs:0",
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
        /// `index` must point to a pair that a relocation filled in. It follows the psABI's convention for C
        /// functions, but the stack may be misaligned: old compilers leave it so at this call.
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn tls_get_addr(index: *const TlsIndex) -> *mut std::ffi::c_void {
            std::arch::naked_asm!(
                "mov rax, qword ptr [rdi]",
                "btr rax, 63",
                "jnc 2f",
                "cmp rax, qword ptr [rip + {slot_count}]",
                "jae 4f",
                "mov rcx, qword ptr [rip + {slots_at}]",
                "mov rax, qword ptr fs:[rcx + rax * 8]",
                // `NO_BLOCK` is less than zero.
                "test rax, rax",
                "jle 3f",
                "add rax, qword ptr [rdi + 8]",
                "ret",
                "2:",
                "jmp qword ptr [rip + __tls_get_addr@GOTPCREL]",
                // Beyond the slots: the thread's record has the rest.
                "4:",
                "mov rcx, qword ptr [rip + {record_at}]",
                "test rcx, rcx",
                "jz 3f",
                "mov rcx, qword ptr fs:[rcx]",
                "test rcx, rcx",
                "jz 3f",
                "cmp rax, qword ptr [rcx + {len}]",
                "jae 3f",
                "mov rcx, qword ptr [rcx + {starts}]",
                "mov rax, qword ptr [rcx + rax * 8]",
                "test rax, rax",
                "jz 3f",
                "add rax, qword ptr [rdi + 8]",
                "ret",
                "3:",
                "push rbp",
                "mov rbp, rsp",
                "and rsp, -16",
                "call {slow}",
                "leave",
                "ret",
                slot_count = sym SLOT_COUNT,
                slots_at = sym SLOTS_AT,
                record_at = sym RECORD_AT,
                starts = const STARTS,
                len = const STARTS_LEN,
                slow = sym $address_slow,
            )
        }

        // TLS descriptors: compiled code calls the first word of a pair in its GOT with the address of
        // the pair in rax, and gets the variable's distance from the thread pointer in rax. Every other
        // register must be as it was, vector registers included, whatever the stack's alignment.
        // Source: A. Oliva, G. Araujo, "Thread-Local Storage Descriptors for IA32 and AMD64/EM64T".

        /// Resolver of variables at a fixed distance from the thread pointer, which is the argument.
        ///
        /// # Safety
        /// Only compiled code may call it, through a descriptor. The same holds for the two below.
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn tlsdesc_static() {
            std::arch::naked_asm!("mov rax, qword ptr [rax + 8]", "ret")
        }

        /// Resolver of undefined weak variables: the argument is the address.
        ///
        /// # Safety
        /// As [`tlsdesc_static`].
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn tlsdesc_undefined() {
            std::arch::naked_asm!("mov rax, qword ptr [rax + 8]", "sub rax, qword ptr fs:0", "ret")
        }

        /// Resolver of all others: the argument is the module and the offset, packed into one word
        /// (`TlsDescArgument` in `base/tls_index.rs`).
        ///
        /// # Safety
        /// As [`tlsdesc_static`].
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn tlsdesc_dynamic() {
            std::arch::naked_asm!(
                "push rcx",
                "mov rax, qword ptr [rax + 8]",
                // Without its top bit, an id of memdl is the slot. An id of the host has no top bit.
                "mov rcx, rax",
                "btr rcx, 63",
                "jnc 3f",
                "shr rcx, {bits}",
                "cmp rcx, qword ptr [rip + {slot_count}]",
                "jae 4f",
                "shl rcx, 3",
                "add rcx, qword ptr [rip + {slots_at}]",
                "mov rcx, qword ptr fs:[rcx]",
                "2:",
                "test rcx, rcx",
                "jle 3f",
                // The offset is the low bits, sign-extended.
                "shl rax, 64 - {bits}",
                "sar rax, 64 - {bits}",
                "add rax, rcx",
                "sub rax, qword ptr fs:0",
                "pop rcx",
                "ret",
                // Beyond the slots: the thread's record has the rest.
                "4:",
                "push rdx",
                "mov rdx, qword ptr [rip + {record_at}]",
                "test rdx, rdx",
                "jz 5f",
                "mov rdx, qword ptr fs:[rdx]",
                "test rdx, rdx",
                "jz 5f",
                "cmp rcx, qword ptr [rdx + {len}]",
                "jae 5f",
                "mov rdx, qword ptr [rdx + {starts}]",
                "mov rcx, qword ptr [rdx + rcx * 8]",
                "pop rdx",
                "jmp 2b",
                "5:",
                "pop rdx",
                // The thread's first access. The function that it calls may use any register.
                "3:",
                "push rdi",
                "mov rdi, rax",
                "call {preserving}",
                "sub rax, qword ptr fs:0",
                "pop rdi",
                "pop rcx",
                "ret",
                bits = const DESCRIPTOR_OFFSET_BITS,
                slot_count = sym SLOT_COUNT,
                slots_at = sym SLOTS_AT,
                record_at = sym RECORD_AT,
                starts = const STARTS,
                len = const STARTS_LEN,
                preserving = sym descriptor_slow_preserving,
            )
        }

        /// Calls `$descriptor_slow` with rdi, and preserves all registers except rax and rdi.
        #[unsafe(naked)]
        unsafe extern "C" fn descriptor_slow_preserving() {
            std::arch::naked_asm!(
                $crate::arch::x86_64::registers::save_registers!(),
                "call {slow}",
                $crate::arch::x86_64::registers::restore_registers!(),
                "ret",
                state = const $crate::arch::x86_64::registers::STATE_AREA,
                mask = const $crate::arch::x86_64::registers::STATE_MASK,
                xsave = sym $crate::arch::x86_64::registers::HAS_XSAVE,
                slow = sym $descriptor_slow,
            )
        }
    };
}
pub(crate) use define_tls;
