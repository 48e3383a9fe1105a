//! x86-64 (AMD64 psABI): the numbers of its relocations, and its thread-local storage.
//!
//! Peculiar to the machine: thread-local blocks lie below the thread pointer (TLS variant II), the
//! thread pointer is the word at `fs:0`, and the compiler's access to a thread-local of a shared
//! library is a call of `__tls_get_addr` with the address of a `{module, offset}` pair in `rdi`.
//!
//! Source: "System V Application Binary Interface, AMD64 Architecture Processor Supplement",
//! table 4.9 (relocation types); U. Drepper, "ELF Handling For Thread-Local Storage", section 3.4.6.

#![allow(unsafe_code)]

use super::{Machine, RelocKind};

/// gABI `EM_X86_64`.
pub(crate) const E_MACHINE: u16 = 62;

/// AMD64.
pub(crate) static MACHINE: Machine =
    Machine { name: "x86-64", e_machine: E_MACHINE, relative: 8, reloc_kinds: &KINDS, reloc_name };

const KINDS: [Option<RelocKind>; 38] = {
    let mut kinds = [None; 38];
    kinds[0] = Some(RelocKind::None);
    kinds[1] = Some(RelocKind::Absolute);
    kinds[2] = Some(RelocKind::PcRelative32);
    kinds[5] = Some(RelocKind::Copy);
    kinds[6] = Some(RelocKind::GlobDat);
    kinds[7] = Some(RelocKind::JumpSlot);
    kinds[8] = Some(RelocKind::Relative);
    kinds[10] = Some(RelocKind::Absolute32);
    kinds[16] = Some(RelocKind::TlsModule);
    kinds[17] = Some(RelocKind::TlsOffset);
    kinds[18] = Some(RelocKind::TlsThreadPointerOffset);
    kinds[24] = Some(RelocKind::PcRelative);
    kinds[32] = Some(RelocKind::Size32);
    kinds[33] = Some(RelocKind::Size);
    kinds[36] = Some(RelocKind::TlsDescriptor);
    kinds[37] = Some(RelocKind::Indirect);
    kinds
};

fn reloc_name(r_type: u32) -> &'static str {
    const NAMES: [&str; 43] = [
        "R_X86_64_NONE",
        "R_X86_64_64",
        "R_X86_64_PC32",
        "R_X86_64_GOT32",
        "R_X86_64_PLT32",
        "R_X86_64_COPY",
        "R_X86_64_GLOB_DAT",
        "R_X86_64_JUMP_SLOT",
        "R_X86_64_RELATIVE",
        "R_X86_64_GOTPCREL",
        "R_X86_64_32",
        "R_X86_64_32S",
        "R_X86_64_16",
        "R_X86_64_PC16",
        "R_X86_64_8",
        "R_X86_64_PC8",
        "R_X86_64_DTPMOD64",
        "R_X86_64_DTPOFF64",
        "R_X86_64_TPOFF64",
        "R_X86_64_TLSGD",
        "R_X86_64_TLSLD",
        "R_X86_64_DTPOFF32",
        "R_X86_64_GOTTPOFF",
        "R_X86_64_TPOFF32",
        "R_X86_64_PC64",
        "R_X86_64_GOTOFF64",
        "R_X86_64_GOTPC32",
        "R_X86_64_GOT64",
        "R_X86_64_GOTPCREL64",
        "R_X86_64_GOTPC64",
        "R_X86_64_GOTPLT64",
        "R_X86_64_PLTOFF64",
        "R_X86_64_SIZE32",
        "R_X86_64_SIZE64",
        "R_X86_64_GOTPC32_TLSDESC",
        "R_X86_64_TLSDESC_CALL",
        "R_X86_64_TLSDESC",
        "R_X86_64_IRELATIVE",
        "R_X86_64_RELATIVE64",
        "R_X86_64_39",
        "R_X86_64_40",
        "R_X86_64_GOTPCRELX",
        "R_X86_64_REX_GOTPCRELX",
    ];
    NAMES.get(r_type as usize).copied().unwrap_or("an unknown relocation type")
}

#[cfg(target_arch = "x86_64")]
pub(crate) use native::{
    FINDER_MARK, bind_call, call_ifunc_resolver, finder, look_at_processor, signal_returns,
    static_pool_offset, thread_pointer, thread_pointer_of, tls_get_addr, tls_slots,
    tlsdesc_dynamic, tlsdesc_static, tlsdesc_undefined,
};

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

#[cfg(target_arch = "x86_64")]
mod native {
    use std::arch::{asm, global_asm, naked_asm};
    use std::ffi::c_void;
    use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

    use crate::tls::{
        DESCRIPTOR_OFFSET_BITS, NO_BLOCK, POOL, POOL_ALIGN, SLOTS, STARTS, STARTS_LEN, TlsIndex,
        address_slow, descriptor_slow,
    };
    use crate::unwind::{RING, find_object};

    /// Room for the extended state of the components in [`STATE_MASK`], in the standard form, whose
    /// last one ends at 2,688 on every processor there is, and a little more.
    const STATE_AREA: usize = 2816;
    /// SSE, AVX, and the three of AVX-512: all that a function may be passed arguments in, or that
    /// a descriptor's caller may hold values in.
    const STATE_MASK: u32 = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7;

    /// Whether the system has enabled `xsave`.
    static HAS_XSAVE: AtomicU8 = AtomicU8::new(0);

    /// Finds out what the assembly below must know of the processor; to be called before an image
    /// refers to it. Not for every image: virtual machines take microseconds for each question.
    pub(crate) fn look_at_processor() {
        const OSXSAVE: u32 = 1 << 27;
        static DONE: AtomicBool = AtomicBool::new(false);
        if !DONE.load(Ordering::Acquire) {
            let has_xsave = std::arch::x86_64::__cpuid(1).ecx & OSXSAVE != 0;
            HAS_XSAVE.store(u8::from(has_xsave), Ordering::Relaxed);
            DONE.store(true, Ordering::Release);
        }
    }

    /// Saves all registers that a C function may change, but rax and rdi, and aligns the stack;
    /// `rbp` holds what it was. Between this and [`restore_registers`], rax and rdi are as before.
    macro_rules! save_registers {
        () => {
            concat!(
                "push rbp\n mov rbp, rsp\n",
                "push rcx\n push rdx\n push rsi\n push r8\n push r9\n push r10\n push r11\n",
                "sub rsp, {state}\n and rsp, -64\n",
                // The header of the state must be zero but for what xsave writes.
                "mov r8, rax\n",
                "xor eax, eax\n",
                "mov qword ptr [rsp + 512], rax\n mov qword ptr [rsp + 520], rax\n",
                "mov qword ptr [rsp + 528], rax\n mov qword ptr [rsp + 536], rax\n",
                "mov qword ptr [rsp + 544], rax\n mov qword ptr [rsp + 552], rax\n",
                "mov qword ptr [rsp + 560], rax\n mov qword ptr [rsp + 568], rax\n",
                "cmp byte ptr [rip + {xsave}], 0\n je 20f\n",
                "mov eax, {mask}\n xor edx, edx\n xsave64 [rsp]\n jmp 21f\n",
                "20: fxsave64 [rsp]\n",
                "21: mov rax, r8\n",
            )
        };
    }

    /// Undoes [`save_registers`]; rax keeps the value that it has.
    macro_rules! restore_registers {
        () => {
            concat!(
                "mov r8, rax\n",
                "cmp byte ptr [rip + {xsave}], 0\n je 22f\n",
                "mov eax, {mask}\n xor edx, edx\n xrstor64 [rsp]\n jmp 23f\n",
                "22: fxrstor64 [rsp]\n",
                "23: mov rax, r8\n",
                "lea rsp, [rbp - 56]\n",
                "pop r11\n pop r10\n pop r9\n pop r8\n pop rsi\n pop rdx\n pop rcx\n pop rbp\n",
            )
        };
    }

    /// What the names of the variables below begin with: its own name has a hash of this crate in it, so
    /// that another version of memdl can be linked into the same program.
    static OWN: u8 = 0;

    // Every thread's pointers to its blocks of the first `SLOTS` modules, in the static part of
    // the thread-local storage of whatever memdl is linked into: at a constant distance from the
    // thread pointer, so that code and debuggers reach them without a call.
    global_asm!(
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
    // pointer (initial exec). It is initialised data (a byte that is not zero makes it so), since
    // what new threads get in it is what stands in the initial values of the object that memdl is
    // linked into.
    global_asm!(
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

    /// The distance of the static pool from the thread pointer, the same in every thread.
    ///
    /// Like all that names such a variable, it is assembly in which [`OWN`] is replaced as text.
    #[unsafe(naked)]
    pub(crate) extern "C" fn static_pool_offset() -> isize {
        naked_asm!(
            // Initial-exec access: the GOT entry holds the distance from the thread pointer.
            "mov rax, qword ptr [rip + {own}_static_pool@GOTTPOFF]",
            "ret",
            own = sym OWN,
        )
    }

    /// The distance of the calling thread's slots from the thread pointer, the same in every thread.
    #[unsafe(naked)]
    extern "C" fn tls_slots_offset() -> isize {
        naked_asm!("mov rax, qword ptr [rip + {own}_tls_slots@GOTTPOFF]", "ret", own = sym OWN)
    }

    // What unwinders call instead of `_dl_find_object`: goes on to memdl's own, and is known as one of
    // memdl's by other copies of it, of whatever version (`unwind::Link`).
    global_asm!(
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
        function = sym find_object,
        ring = sym RING,
        own = sym OWN,
    );

    /// The address of the function above.
    #[unsafe(naked)]
    pub(crate) extern "C" fn finder() -> usize {
        naked_asm!("lea rax, [rip + {own}_find_object]", "ret", own = sym OWN)
    }

    /// The distance of the words that tell of a finder from its start.
    pub(crate) const FINDER_MARK: usize = 16;

    /// The thread pointer of the thread with glibc's descriptor at `pthread`: that very address.
    pub(crate) fn thread_pointer_of(pthread: usize) -> usize {
        pthread
    }

    /// The thread pointer of the calling thread.
    pub(crate) fn thread_pointer() -> usize {
        let pointer;
        // SAFETY: the psABI: the word at fs:0 is the thread pointer itself. Reads nothing else.
        unsafe {
            asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags))
        };
        pointer
    }

    /// The calling thread's slots: `SLOTS` words. When the thread starts the first is zero and the others
    /// are `NO_BLOCK`.
    pub(crate) fn tls_slots() -> *mut *mut u8 {
        thread_pointer().wrapping_add_signed(tls_slots_offset()) as *mut *mut u8
    }

    /// `__tls_get_addr` as images see it: their own modules first, all others the host's.
    ///
    /// A module of memdl's has bit 63 of its id set and its index below; an index under `SLOTS`
    /// whose block exists takes a dozen instructions and no lock.
    ///
    /// # Safety
    /// `index` points to a pair that a relocation filled in. A C function of the psABI, but for
    /// the stack, which old compilers leave misaligned at this call.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C" fn tls_get_addr(index: *const TlsIndex) -> *mut c_void {
        naked_asm!(
            "mov rax, qword ptr [rdi]",
            "btr rax, 63",
            "jnc 2f",
            "mov rcx, qword ptr [rip + {own}_tls_slots@GOTTPOFF]",
            "cmp rax, {slots}",
            "jae 4f",
            "mov rax, qword ptr fs:[rcx + rax * 8]",
            // `NO_BLOCK` is less than zero.
            "test rax, rax",
            "jle 3f",
            "add rax, qword ptr [rdi + 8]",
            "ret",
            "2:",
            "jmp qword ptr [rip + __tls_get_addr@GOTPCREL]",
            // Beyond the slots: the thread's record, in slot 0, has the rest.
            "4:",
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
            slots = const SLOTS,
            starts = const STARTS,
            len = const STARTS_LEN,
            slow = sym address_slow,
            own = sym OWN,
        )
    }

    // TLS descriptors: compiled code calls the first word of a pair in its GOT with the address of
    // the pair in rax, and gets the variable's distance from the thread pointer in rax. Every other
    // register must be as it was, vector registers included, whatever the stack's alignment.
    // Source: A. Oliva, G. Araujo, "Thread-Local Storage Descriptors for IA32 and AMD64/EM64T".

    /// Resolver of variables at a fixed distance from the thread pointer, which is the argument.
    ///
    /// # Safety
    /// Called by compiled code through a descriptor only; so are the two below.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C" fn tlsdesc_static() {
        naked_asm!("mov rax, qword ptr [rax + 8]", "ret")
    }

    /// Resolver of weak variables that nothing defines: their address is the argument.
    ///
    /// # Safety
    /// As [`tlsdesc_static`].
    #[unsafe(naked)]
    pub(crate) unsafe extern "C" fn tlsdesc_undefined() {
        naked_asm!("mov rax, qword ptr [rax + 8]", "sub rax, qword ptr fs:0", "ret")
    }

    /// Resolver of all others: the argument is the module and the offset, packed into one word
    /// ([`crate::tls::Descriptor`]).
    ///
    /// # Safety
    /// As [`tlsdesc_static`].
    #[unsafe(naked)]
    pub(crate) unsafe extern "C" fn tlsdesc_dynamic() {
        naked_asm!(
            "push rcx",
            "mov rax, qword ptr [rax + 8]",
            // The module of ours is the slot, once the top bit is off; the host's have none.
            "mov rcx, rax",
            "btr rcx, 63",
            "jnc 3f",
            "shr rcx, {bits}",
            "cmp rcx, {slots}",
            "jae 4f",
            "shl rcx, 3",
            "add rcx, qword ptr [rip + {own}_tls_slots@GOTTPOFF]",
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
            // Beyond the slots: the thread's record, in slot 0, has the rest.
            "4:",
            "push rdx",
            "mov rdx, qword ptr [rip + {own}_tls_slots@GOTTPOFF]",
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
            // The thread's first access. What is called may use any register.
            "3:",
            "push rdi",
            "mov rdi, rax",
            "call {preserving}",
            "sub rax, qword ptr fs:0",
            "pop rdi",
            "pop rcx",
            "ret",
            bits = const DESCRIPTOR_OFFSET_BITS,
            slots = const SLOTS,
            starts = const STARTS,
            len = const STARTS_LEN,
            preserving = sym descriptor_slow_preserving,
            own = sym OWN,
        )
    }

    /// Calls [`descriptor_slow`] with rdi, and keeps all registers but rax and rdi.
    #[unsafe(naked)]
    unsafe extern "C" fn descriptor_slow_preserving() {
        naked_asm!(
            save_registers!(),
            "call {slow}",
            restore_registers!(),
            "ret",
            state = const STATE_AREA,
            mask = const STATE_MASK,
            xsave = sym HAS_XSAVE,
            slow = sym descriptor_slow,
        )
    }

    /// Where an image's PLT jumps to for a function that is not bound yet. On the stack are the two
    /// words that the PLT has pushed: what its global offset table held (`Plt`, whose first word is
    /// the function that binds), and the number of the entry.
    ///
    /// All that arguments are passed in stays as it is, `al` and the vector registers included; the
    /// psABI leaves r11 free.
    ///
    /// # Safety
    /// Reached from a PLT only.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C" fn bind_call() {
        naked_asm!(
            "push rax",
            "push rdi",
            "mov rdi, qword ptr [rsp + 16]",
            save_registers!(),
            "mov rsi, qword ptr [rbp + 32]",
            "call qword ptr [rdi]",
            restore_registers!(),
            "mov r11, rax",
            "pop rdi",
            "pop rax",
            "lea rsp, [rsp + 16]",
            "jmp r11",
            state = const STATE_AREA,
            mask = const STATE_MASK,
            xsave = sym HAS_XSAVE,
        )
    }

    /// Calls an IFUNC resolver and returns the function that it chose.
    ///
    /// # Safety
    /// `resolver` is the address of one, in relocated executable memory.
    pub(crate) unsafe fn call_ifunc_resolver(resolver: usize) -> usize {
        // SAFETY: the caller's promise. On this machine a resolver takes no arguments.
        unsafe {
            let resolver: unsafe extern "C" fn() -> usize = std::mem::transmute(resolver);
            resolver()
        }
    }

    /// The addresses that signal handlers return to: what a backtrace shows between a handler and
    /// what it has interrupted. The C library has one such place, and tells nobody but the kernel.
    pub(crate) fn signal_returns() -> Vec<usize> {
        /// `struct kernel_sigaction` of this machine (`rt_sigaction(2)`).
        #[repr(C)]
        #[derive(Default)]
        struct Action {
            handler: usize,
            flags: u64,
            restorer: usize,
            mask: u64,
        }
        const MOST_SIGNAL: libc::c_int = 64;
        let mut returns = Vec::new();
        for signal in 1..=MOST_SIGNAL {
            let mut action = Action::default();
            let mask_size = size_of_val(&action.mask);
            // SAFETY: asks, and changes nothing; the answer goes to the local, which is as large.
            unsafe {
                let nothing = std::ptr::null::<Action>();
                libc::syscall(libc::SYS_rt_sigaction, signal, nothing, &raw mut action, mask_size);
            }
            if action.restorer != 0 && !returns.contains(&action.restorer) {
                returns.push(action.restorer);
            }
        }
        returns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_agree() {
        assert_eq!(reloc_name(37), "R_X86_64_IRELATIVE");
        assert_eq!(reloc_name(42), "R_X86_64_REX_GOTPCRELX");
        assert_eq!(MACHINE.reloc_kind(37), Some(RelocKind::Indirect));
        assert_eq!(MACHINE.reloc_kind(16), Some(RelocKind::TlsModule));
        assert_eq!((MACHINE.reloc_kind(3), MACHINE.reloc_kind(43)), (None, None));
        assert_eq!(reloc_name(43), "an unknown relocation type");
    }
}
