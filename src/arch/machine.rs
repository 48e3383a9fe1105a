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
    /// The names of these levels, from the lowest. A level's bit in the property is its index.
    pub isa_levels: &'static [&'static str],
    /// The type of the GNU property of code that marks the targets of its indirect branches, and its bit for that.
    pub branch_targets: Option<(u32, u32)>,
    /// How an image names functions with other calling conventions than the psABI's.
    pub variant_pcs: Option<VariantPcs>,
    /// The dynamic tag of images whose PLT expects signed addresses, which no loader of glibc's stores.
    pub signed_plt: Option<u64>,
    /// The flags of this machine's libraries in `ld.so`'s cache (glibc `_DL_CACHE_DEFAULT_ID`).
    pub cache_flags: u32,
    /// The size of the smallest pages that its systems have.
    pub smallest_page: u64,
    /// The alignment that linkers give segments: the size of the largest pages.
    pub segment_align: usize,
}

/// A machine that has no table here. Of its files, only what all machines have in common can be read.
pub(crate) static UNKNOWN: Machine = Machine {
    name: "another machine",
    // gABI `EM_NONE`.
    e_machine: 0,
    relative: u32::MAX,
    reloc_kinds: &[],
    reloc_name: |_| "an unknown relocation type",
    isa_needed: 0,
    isa_levels: &[],
    branch_targets: None,
    variant_pcs: None,
    signed_plt: None,
    cache_flags: 0,
    smallest_page: 0x1000,
    segment_align: 0x1000,
};

/// The marks of functions with other calling conventions than the psABI's. A lazy PLT keeps the registers that pass
/// arguments by those only, so such functions are bound when the image is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VariantPcs {
    /// The dynamic tag of images that call one.
    pub tag: u64,
    /// The bit in their symbols' `st_other`.
    pub st_other: u8,
}

impl Machine {
    /// Whether its relocations are known.
    pub(crate) fn is_known(&self) -> bool {
        self.e_machine != UNKNOWN.e_machine
    }

    /// The kind of a relocation, from the low half of its `r_info`.
    #[inline]
    pub(crate) fn reloc_kind(&self, r_type: u32) -> Option<RelocKind> {
        self.reloc_kinds.get(r_type as usize).copied().flatten()
    }
}

impl Machine {
    /// The names of the levels that this value of [`Machine::isa_needed`] names, from the lowest.
    pub(crate) fn isa_levels(&self, needed: u32) -> impl Iterator<Item = &'static str> {
        let levels = self.isa_levels.iter().copied().enumerate();
        levels.filter(move |(level, _)| needed >> level & 1 != 0).map(|(_, name)| name)
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
