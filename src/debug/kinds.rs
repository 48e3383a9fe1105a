//! Which kinds of debug information a file has, by its section headers.
//!
//! Reads headers of sections and of compilation units only, and decides nothing.
//!
//! Sources: DWARF 5, section 7.5.1 "Unit Headers"; gdb manual "Separate Debug Files", "MiniDebugInfo"; gABI
//! "Section Header" (`SHF_COMPRESSED`).

#![forbid(unsafe_code)]

use goblin::elf::section_header::{SHF_COMPRESSED, SHT_NOBITS, SHT_SYMTAB};

use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_lossy};
use crate::elf::read::{string_at, u16_at, u32_at, u64_at};
use crate::elf::sections::{Section, sections};

/// A kind of debug information in a file: an element of [`Report::debug_information`](crate::Report::debug_information).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DebugInformation {
    /// DWARF (`.debug_info`).
    #[non_exhaustive]
    Dwarf {
        /// Whether the section is compressed.
        compressed: bool,
    },
    /// Skeletons of split DWARF (`-gsplit-dwarf`): the rest is in files of their own (`.dwo`, `.dwp`). Not
    /// recognized where `.debug_info` is compressed.
    SplitDwarf,
    /// The name of a file that was split off (`.gnu_debuglink`).
    #[non_exhaustive]
    Link {
        /// The file's name, without a folder.
        file: String,
    },
    /// The name of a file that several libraries share (`.gnu_debugaltlink`, made by dwz).
    #[non_exhaustive]
    SharedLink {
        /// The file's path.
        file: String,
    },
    /// Names of functions, compressed (`.gnu_debugdata`, "MiniDebugInfo").
    Mini,
    /// The static symbol table (`.symtab`), which a stripped library does not have.
    SymbolTable,
}

/// The kinds in this file. None if it has no section headers that can be read.
pub(crate) fn kinds(file: &[u8]) -> Result<Vec<DebugInformation>, Error> {
    let mut kinds = Vec::new();
    let find = |name: &str| {
        let is_it = |it: &Section<'_>| it.sh_type != SHT_NOBITS && is_perhaps_compressed(it, name);
        sections(file).find(is_it)
    };
    if let Some(info) = find(".debug_info") {
        let compressed =
            info.sh_flags & u64::from(SHF_COMPRESSED) != 0 || info.name == b".zdebug_info";
        kinds.try_push(DebugInformation::Dwarf { compressed })?;
        let units = info.contents.filter(|_| !compressed).unwrap_or_default();
        if has_skeleton(units, find(".debug_addr").is_some()) {
            kinds.try_push(DebugInformation::SplitDwarf)?;
        }
    }
    let link = |name: &str| {
        let contents = find(name).and_then(|section| section.contents);
        contents.and_then(|contents| string_at(contents, 0)).map(try_lossy).transpose()
    };
    if let Some(file) = link(".gnu_debuglink")? {
        kinds.try_push(DebugInformation::Link { file })?;
    }
    if let Some(file) = link(".gnu_debugaltlink")? {
        kinds.try_push(DebugInformation::SharedLink { file })?;
    }
    if find(".gnu_debugdata").is_some() {
        kinds.try_push(DebugInformation::Mini)?;
    }
    if sections(file).any(|section| section.sh_type == SHT_SYMTAB) {
        kinds.try_push(DebugInformation::SymbolTable)?;
    }
    Ok(kinds)
}

/// Whether it has this name of a debug section, or its name when compressed: `.zdebug_info` for `.debug_info`.
fn is_perhaps_compressed(section: &Section<'_>, name: &str) -> bool {
    let unpacked = name.strip_prefix('.').map(str::as_bytes);
    section.name == name.as_bytes() || section.name.strip_prefix(b".z") == unpacked
}

/// Whether a unit is a skeleton: it says so in DWARF 5; before, only skeletons use `.debug_addr`.
fn has_skeleton(mut units: &[u8], has_addresses: bool) -> bool {
    const DW_UT_SKELETON: u8 = 4;
    // Every turn takes the unit's header.
    while let Some(len) = u32_at(units, 0) {
        let (start, len) = match len {
            u32::MAX => (12, u64_at(units, 4).unwrap_or(u64::MAX)),
            len => (4, u64::from(len)),
        };
        let Some(unit) = units.get(start..) else { break };
        match u16_at(unit, 0) {
            Some(5) if unit.get(2) == Some(&DW_UT_SKELETON) => return true,
            Some(4) if has_addresses => return true,
            _ => {}
        }
        let next = usize::try_from(len).ok().and_then(|len| unit.get(len..));
        units = next.unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skeletons_are_known_by_their_unit_headers() {
        let unit = |version: u16, kind: u8| {
            let mut unit = 8u32.to_le_bytes().to_vec();
            unit.extend(version.to_le_bytes());
            unit.extend([kind, 0, 0, 0, 0, 0]);
            unit
        };
        let plain = [unit(5, 1), unit(4, 0)].concat();
        assert!(!has_skeleton(&plain, false));
        assert!(has_skeleton(&plain, true));
        assert!(has_skeleton(&[plain.clone(), unit(5, 4)].concat(), false));
        assert!(!has_skeleton(&[plain, vec![0xff; 20]].concat(), false));
    }
}
