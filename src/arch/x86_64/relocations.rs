//! The numbers and names of AMD64's relocations. The formulas are in `arch/reloc_kind.rs`.
//!
//! Source: "System V Application Binary Interface, AMD64 Architecture Processor Supplement",
//! table 4.9.

#![forbid(unsafe_code)]

use crate::arch::machine::Machine;
use crate::arch::reloc_kind::RelocKind;
use crate::arch::x86_64::isa::{ISA_NEEDED, LEVEL_NAMES};

/// AMD64.
pub(crate) static MACHINE: Machine = Machine {
    name: "x86-64",
    // gABI `EM_X86_64`.
    e_machine: 62,
    relative: 8,
    reloc_kinds: &KINDS,
    reloc_name,
    isa_needed: ISA_NEEDED,
    isa_levels: &LEVEL_NAMES,
    branch_targets: None,
    variant_pcs: None,
    signed_plt: None,
    cache_flags: 0x0303,
    smallest_page: 0x1000,
    segment_align: 0x1000,
};

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
    kinds[16] = Some(RelocKind::DtpMod);
    kinds[17] = Some(RelocKind::DtpOff);
    kinds[18] = Some(RelocKind::TpOff);
    kinds[24] = Some(RelocKind::PcRelative);
    kinds[32] = Some(RelocKind::Size32);
    kinds[33] = Some(RelocKind::Size);
    kinds[36] = Some(RelocKind::TlsDesc);
    kinds[37] = Some(RelocKind::IRelative);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_agree() {
        assert_eq!(reloc_name(37), "R_X86_64_IRELATIVE");
        assert_eq!(reloc_name(42), "R_X86_64_REX_GOTPCRELX");
        assert_eq!(MACHINE.reloc_kind(37), Some(RelocKind::IRelative));
        assert_eq!(MACHINE.reloc_kind(16), Some(RelocKind::DtpMod));
        assert_eq!((MACHINE.reloc_kind(3), MACHINE.reloc_kind(43)), (None, None));
        assert_eq!(reloc_name(43), "an unknown relocation type");
    }
}
