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
    Machine { name: "x86-64", e_machine: E_MACHINE, reloc_kind, reloc_name };

fn reloc_kind(r_type: u32) -> Option<RelocKind> {
    Some(match r_type {
        0 => RelocKind::None,
        1 => RelocKind::Absolute,
        2 => RelocKind::PcRelative32,
        5 => RelocKind::Copy,
        6 => RelocKind::GlobDat,
        7 => RelocKind::JumpSlot,
        8 => RelocKind::Relative,
        10 => RelocKind::Absolute32,
        16 => RelocKind::TlsModule,
        17 => RelocKind::TlsOffset,
        18 => RelocKind::TlsThreadPointerOffset,
        24 => RelocKind::PcRelative,
        32 => RelocKind::Size32,
        33 => RelocKind::Size,
        36 => RelocKind::TlsDescriptor,
        37 => RelocKind::Indirect,
        _ => return None,
    })
}

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
pub(crate) use native::{call_ifunc_resolver, tls_get_addr, tls_slots};

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

#[cfg(target_arch = "x86_64")]
mod native {
    use std::arch::{asm, global_asm, naked_asm};
    use std::ffi::c_void;

    use crate::tls::{SLOTS, TlsIndex, address_slow};

    // Every thread's pointers to its blocks of the first `SLOTS` modules, in the static part of
    // the thread-local storage of whatever memdl is linked into: at a constant distance from the
    // thread pointer, so that code and debuggers reach them without a call.
    global_asm!(
        ".pushsection .tbss.memdl_tls_slots, \"awT\", @nobits",
        ".p2align 3",
        ".globl memdl_tls_slots",
        ".hidden memdl_tls_slots",
        ".type memdl_tls_slots, @object",
        ".size memdl_tls_slots, {size}",
        "memdl_tls_slots:",
        ".zero {size}",
        ".popsection",
        size = const SLOTS * 8,
    );

    /// The thread pointer of the calling thread.
    fn thread_pointer() -> usize {
        let pointer;
        // SAFETY: the psABI: the word at fs:0 is the thread pointer itself. Reads nothing else.
        unsafe {
            asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags))
        };
        pointer
    }

    /// The calling thread's slots: `SLOTS` words, zero when the thread starts.
    pub(crate) fn tls_slots() -> *mut *mut u8 {
        let offset: usize;
        // SAFETY: initial-exec access to the variable above: the GOT entry holds its distance
        // from the thread pointer, and is only read.
        unsafe {
            asm!(
                "mov {}, qword ptr [rip + memdl_tls_slots@GOTTPOFF]",
                out(reg) offset,
                options(nostack, readonly, preserves_flags)
            );
        }
        thread_pointer().wrapping_add(offset) as *mut *mut u8
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
            "cmp rax, {slots}",
            "jae 3f",
            "mov rcx, qword ptr [rip + memdl_tls_slots@GOTTPOFF]",
            "mov rax, qword ptr fs:[rcx + rax * 8]",
            "test rax, rax",
            "jz 3f",
            "add rax, qword ptr [rdi + 8]",
            "ret",
            "2:",
            "jmp qword ptr [rip + __tls_get_addr@GOTPCREL]",
            "3:",
            "push rbp",
            "mov rbp, rsp",
            "and rsp, -16",
            "call {slow}",
            "leave",
            "ret",
            slots = const SLOTS,
            slow = sym address_slow,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_agree() {
        assert_eq!(reloc_name(37), "R_X86_64_IRELATIVE");
        assert_eq!(reloc_name(42), "R_X86_64_REX_GOTPCRELX");
        assert_eq!(reloc_kind(37), Some(RelocKind::Indirect));
        assert_eq!(reloc_kind(16), Some(RelocKind::TlsModule));
        assert_eq!((reloc_kind(3), reloc_kind(43)), (None, None));
        assert_eq!(reloc_name(43), "an unknown relocation type");
    }
}
