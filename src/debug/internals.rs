//! The parts of `debug/` that [`crate::internals`] offers to fuzzers. It holds no code of its own.

#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use goblin::elf::section_header::{SHF_ALLOC, SHF_COMPRESSED, SHT_NOBITS};
use goblin::elf64::section_header::SectionHeader;

use super::level::DebugLevel;
use super::published::WRAPPED_ONLY;
use super::storage::Symfile;
use crate::base::addr::LoadBias;
use memdl_symfile::Limits as Maximum;
use memdl_symfile::builder::compression;
use memdl_symfile::builder::headers::{Headers, file_range, image_header};
use memdl_symfile::builder::ifuncs::Ifuncs;
use memdl_symfile::builder::instance::Instance;
use memdl_symfile::dwarf::addresses::{Addresses, DwarfSection, is_index};
use memdl_symfile::dwarf::budget::Allowance;
use memdl_symfile::dwarf::tls_locations::ThreadLocals;

/// The bytes of a symfile in this form.
pub(crate) fn symfile(
    mut symfile: Symfile,
    form: DebugLevel,
    load_bias: LoadBias,
) -> Result<Vec<u8>, String> {
    match form {
        DebugLevel::Off => Ok(Vec::new()),
        DebugLevel::Symbols | DebugLevel::Full => {
            symfile.show_dwarf(form == DebugLevel::Full);
            let names = symfile.function_at(load_bias.get().wrapping_add(0x1000));
            Ok([symfile.shown(), names.unwrap_or_default()].concat())
        }
        DebugLevel::Portable => {
            let thread_locals = ThreadLocals::Elsewhere;
            let instance = Instance { load_bias, thread_locals, ifuncs: Ifuncs::default() };
            let parts = symfile.parts().map_err(|error| error.to_string())?;
            let portable = parts.portable(&instance).map_err(|error| error.to_string())?;
            Ok(portable.contents().to_vec())
        }
    }
}

/// The debug sections of an ELF file by name, unpacked.
pub(crate) fn debug_sections(file: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let header = image_header(file).map_err(|error| error.to_string())?;
    let headers = Headers::parse(&header, file)?;
    let budget = Allowance::new(Maximum::default(), file.len()).budget();
    let mut sections = Vec::new();
    for header in &headers.list {
        let is_debug = headers.names.is_debug(header.sh_name)
            && header.sh_type != SHT_NOBITS
            && header.sh_flags & u64::from(SHF_ALLOC) == 0;
        if !is_debug {
            continue;
        }
        let name = headers.names.get(header.sh_name);
        let contents = file_range(file, header.sh_offset, header.sh_size).unwrap_or_default();
        let contents = match compression::section(&name, header, contents, &budget) {
            Some(unpacked) => unpacked.map_err(|error| error.to_string())?,
            None => contents.to_vec(),
        };
        sections.push((name.replacen(".zdebug_", ".debug_", 1), contents));
    }
    Ok(sections)
}

/// How many bytes the debug sections of the file have, unpacked; their addresses are moved.
pub(crate) fn rewrite_dwarf(file: &[u8], load_bias: LoadBias) -> Result<usize, String> {
    let mut sections = debug_sections(file)?;
    sections.retain(|(name, _)| !is_index(name));
    let read: Vec<DwarfSection<'_>> =
        sections.iter().map(|(name, contents)| DwarfSection { name, contents }).collect();
    let budget = Allowance::new(Maximum::default(), file.len()).budget();
    let addresses = Addresses::find(&read, &budget).map_err(|error| error.to_string())?;
    for (index, (_, contents)) in sections.iter_mut().enumerate() {
        addresses.relocate(index, contents, load_bias);
    }
    Ok(sections.iter().map(|(_, contents)| contents.len()).sum())
}

/// The contents of a compressed section, unpacked.
pub(crate) fn inflate(section: &[u8], by_name: bool) -> Result<Vec<u8>, String> {
    let flag = if by_name { 0 } else { u64::from(SHF_COMPRESSED) };
    let header = SectionHeader { sh_flags: flag, ..SectionHeader::default() };
    let name = if by_name { ".zdebug_info" } else { ".debug_info" };
    let budget = Allowance::new(Maximum::default(), section.len()).budget();
    let unpacked = compression::section(name, &header, section, &budget);
    unpacked.unwrap_or_else(|| Ok(section.to_vec())).map_err(|error| error.to_string())
}

/// Makes [`DebugLevel::Full`] the wrapped form from now on, even where a debugger is there.
pub(crate) fn wrapped_only() {
    WRAPPED_ONLY.store(true, Ordering::Relaxed);
}
