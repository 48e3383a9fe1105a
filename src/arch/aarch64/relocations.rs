//! The numbers and names of AArch64's relocations. The formulas are in `arch/reloc_kind.rs`.
//!
//! Of the ABI's data relocations, the ones are here that `ld.so` applies: linkers make no others in a shared
//! library.
//!
//! Sources: "ELF for the Arm 64-bit Architecture (AArch64)", "Relocation"; glibc `sysdeps/aarch64/dl-machine.h`.

#![forbid(unsafe_code)]

use crate::arch::machine::{Machine, VariantPcs};
use crate::arch::reloc_kind::RelocKind;

/// `R_AARCH64_COPY`, the first of the relocations that only dynamic linkers apply.
const COPY: usize = 1024;

/// AArch64 with pointers of 64 bits (LP64).
pub(crate) static MACHINE: Machine = Machine {
    name: "AArch64",
    // gABI `EM_AARCH64`.
    e_machine: 183,
    relative: 1027,
    reloc_kinds: &KINDS,
    reloc_name,
    isa_needed: 0,
    isa_levels: &[],
    branch_targets: Some((0xc000_0000, 1)),
    variant_pcs: Some(VariantPcs { tag: 0x7000_0005, st_other: 0x80 }),
    signed_plt: Some(0x7000_0003),
    cache_flags: 0x0a03,
    smallest_page: 0x1000,
    segment_align: 0x1_0000,
};

const KINDS: [Option<RelocKind>; COPY + 9] = {
    let mut kinds = [None; COPY + 9];
    kinds[0] = Some(RelocKind::None);
    // The number that it had in drafts of the ABI.
    kinds[256] = Some(RelocKind::None);
    kinds[257] = Some(RelocKind::Absolute);
    kinds[COPY] = Some(RelocKind::Copy);
    // S + A on this machine.
    kinds[COPY + 1] = Some(RelocKind::Absolute);
    kinds[COPY + 2] = Some(RelocKind::JumpSlot);
    kinds[COPY + 3] = Some(RelocKind::Relative);
    kinds[COPY + 4] = Some(RelocKind::DtpMod);
    kinds[COPY + 5] = Some(RelocKind::DtpOff);
    kinds[COPY + 6] = Some(RelocKind::TpOff);
    kinds[COPY + 7] = Some(RelocKind::TlsDesc);
    kinds[COPY + 8] = Some(RelocKind::IRelative);
    kinds
};

fn reloc_name(r_type: u32) -> &'static str {
    match r_type {
        0 | 256 => "R_AARCH64_NONE",
        257 => "R_AARCH64_ABS64",
        258 => "R_AARCH64_ABS32",
        259 => "R_AARCH64_ABS16",
        260 => "R_AARCH64_PREL64",
        261 => "R_AARCH64_PREL32",
        262 => "R_AARCH64_PREL16",
        275 => "R_AARCH64_ADR_PREL_PG_HI21",
        277 => "R_AARCH64_ADD_ABS_LO12_NC",
        282 => "R_AARCH64_JUMP26",
        283 => "R_AARCH64_CALL26",
        286 => "R_AARCH64_LDST64_ABS_LO12_NC",
        307 => "R_AARCH64_GOTREL64",
        308 => "R_AARCH64_GOTREL32",
        311 => "R_AARCH64_ADR_GOT_PAGE",
        312 => "R_AARCH64_LD64_GOT_LO12_NC",
        314 => "R_AARCH64_PLT32",
        1024 => "R_AARCH64_COPY",
        1025 => "R_AARCH64_GLOB_DAT",
        1026 => "R_AARCH64_JUMP_SLOT",
        1027 => "R_AARCH64_RELATIVE",
        1028 => "R_AARCH64_TLS_DTPMOD",
        1029 => "R_AARCH64_TLS_DTPREL",
        1030 => "R_AARCH64_TLS_TPREL",
        1031 => "R_AARCH64_TLSDESC",
        1032 => "R_AARCH64_IRELATIVE",
        _ => "an unknown relocation type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_agree() {
        for (r_type, name, kind) in [
            (257, "R_AARCH64_ABS64", Some(RelocKind::Absolute)),
            (1025, "R_AARCH64_GLOB_DAT", Some(RelocKind::Absolute)),
            (1026, "R_AARCH64_JUMP_SLOT", Some(RelocKind::JumpSlot)),
            (1027, "R_AARCH64_RELATIVE", Some(RelocKind::Relative)),
            (1031, "R_AARCH64_TLSDESC", Some(RelocKind::TlsDesc)),
            (1032, "R_AARCH64_IRELATIVE", Some(RelocKind::IRelative)),
            (261, "R_AARCH64_PREL32", None),
            (1033, "an unknown relocation type", None),
        ] {
            assert_eq!((reloc_name(r_type), MACHINE.reloc_kind(r_type)), (name, kind));
        }
        assert_eq!(MACHINE.reloc_kind(MACHINE.relative), Some(RelocKind::Relative));
    }
}
