//! A machine as a value: its numbers and names. It holds no code that depends on the processor, so each
//! can be tested on any.

#![forbid(unsafe_code)]

use crate::arch::reloc_kind::RelocKind;

/// The numbers and names of a machine.
pub(crate) struct Machine {
    /// The machine's name, for errors.
    pub name: &'static str,
    /// gABI `e_machine`.
    pub e_machine: u16,
    /// The number of [`RelocKind::Relative`], which most relocations have.
    pub relative: u32,
    /// The kinds of relocations, by the low half of `r_info`; `None` for a number that is no dynamic
    /// relocation, or one that memdl does not support.
    pub reloc_kinds: &'static [Option<RelocKind>],
    /// The psABI's name of a relocation type, for errors.
    pub reloc_name: fn(r_type: u32) -> &'static str,
    /// The type of the GNU property with the levels of the instruction set that an image needs; 0 if the
    /// machine has none.
    pub isa_needed: u32,
    /// The flags of this machine's libraries in `ld.so`'s cache (glibc `_DL_CACHE_DEFAULT_ID`).
    pub cache_flags: u32,
}

impl Machine {
    /// The kind of a relocation, from the low half of its `r_info`.
    #[inline]
    pub(crate) fn reloc_kind(&self, r_type: u32) -> Option<RelocKind> {
        self.reloc_kinds.get(r_type as usize).copied().flatten()
    }
}

/// The usual name of a machine, by gABI `e_machine`.
pub(crate) fn machine_name(e_machine: u16) -> Option<&'static str> {
    Some(match e_machine {
        2 | 43 => "SPARC",
        3 => "x86 (32 bits)",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "PowerPC64",
        22 => "s390",
        40 => "ARM (32 bits)",
        50 => "IA-64",
        62 => "x86-64",
        183 => "AArch64",
        243 => "RISC-V",
        247 => "BPF",
        258 => "LoongArch",
        _ => return None,
    })
}
