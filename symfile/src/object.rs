//! Relocatable objects: what a code generator writes, and places in memory itself.
//!
//! The sections get the addresses where their code and data are. The debug sections get their relocations, as a linker
//! would apply them. The result has the form that every debugger reads.
//!
//! Sources: gABI chapter 4, "Relocation"; psABI x86-64 and AAELF64, "Relocation Types".

#![forbid(unsafe_code)]

use goblin::elf::header::{EM_AARCH64, EM_X86_64, ET_DYN, ET_REL};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_LOAD};
use goblin::elf::section_header::{
    SHF_ALLOC, SHF_COMPRESSED, SHF_EXECINSTR, SHF_WRITE, SHN_LORESERVE, SHN_UNDEF, SHT_NOBITS,
    SHT_PROGBITS, SHT_RELA, SHT_STRTAB, SHT_SYMTAB,
};
use goblin::elf::sym::{STT_TLS, st_type};
use goblin::elf64::header::Header;
use goblin::elf64::program_header::ProgramHeader;
use goblin::elf64::reloc::Rela;
use goblin::elf64::section_header::SectionHeader;
use goblin::elf64::sym::Sym;
use scroll::{LE, Pread};

use crate::Error;
use crate::base::addr::FileOffset;
use crate::base::fallible::{TryGrow, require_memory_for_next, try_collect, try_copy, try_vec};
use crate::base::filler::Filler;
use crate::builder::compression;
use crate::builder::elf_writer::{Contents, Elf, NOTHING};
use crate::builder::headers::{Headers, SYMBOL_SIZE, file_range, get, image_header, put};
use crate::builder::portable::contain_contents;
use crate::dwarf::budget::Budget;

const RELA_SIZE: usize = goblin::elf64::reloc::SIZEOF_RELA;

/// A relocation of data, by what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Relocation {
    size: usize,
    /// The place is subtracted.
    is_relative: bool,
    /// The value is one in the thread's block: no section's address is added.
    is_thread_local: bool,
}

fn relocation(machine: u16, kind: u32) -> Option<Option<Relocation>> {
    let stores =
        |size, is_relative, is_thread_local| Relocation { size, is_relative, is_thread_local };
    Some(Some(match (machine, kind) {
        // R_X86_64_NONE, R_AARCH64_NONE.
        (_, 0) | (EM_AARCH64, 256) => return Some(None),
        // R_X86_64_64, R_AARCH64_ABS64.
        (EM_X86_64, 1) | (EM_AARCH64, 257) => stores(8, false, false),
        // R_X86_64_32, R_X86_64_32S, R_AARCH64_ABS32.
        (EM_X86_64, 10 | 11) | (EM_AARCH64, 258) => stores(4, false, false),
        // R_X86_64_PC32, R_X86_64_PLT32, R_AARCH64_PREL32.
        (EM_X86_64, 2 | 4) | (EM_AARCH64, 261) => stores(4, true, false),
        // R_X86_64_PC64, R_AARCH64_PREL64.
        (EM_X86_64, 24) | (EM_AARCH64, 260) => stores(8, true, false),
        // R_X86_64_DTPOFF64, R_X86_64_DTPOFF32.
        (EM_X86_64, 17) => stores(8, false, true),
        (EM_X86_64, 21) => stores(4, false, true),
        _ => return None,
    }))
}

/// A section of the object.
struct Section {
    header: SectionHeader,
    /// Where it is in memory. 0 for sections that are not loaded.
    address: u64,
    /// What the symfile has of it.
    contents: Option<Vec<u8>>,
}

/// The symfile of an object whose sections are at these addresses.
pub(crate) fn symfile(
    object: &[u8],
    addresses: &dyn Fn(&str) -> Option<u64>,
    budget: &Budget,
) -> Result<Vec<u8>, Error> {
    let header = image_header(object).map_err(|error| Error::malformed(error.what, error.at))?;
    if header.e_type != ET_REL {
        return Err(Error::malformed("object: it is not relocatable", FileOffset(16)));
    }
    let headers = Headers::parse(&header, object)
        .map_err(|what| Error::malformed(what, FileOffset(header.e_shoff)))?;
    let mut sections = sections(object, &headers, addresses, budget)?;
    place_frames(&mut sections, &headers);
    let symbols = symbols(object, &headers)?;
    for (index, table) in headers.list.iter().enumerate() {
        require_memory_for_next(index)?;
        if table.sh_type == SHT_RELA {
            relocate(object, &header, table, &symbols, &mut sections, &headers, budget)?;
        }
    }
    write(&header, sections, &symbols)
}

/// What each section becomes, before relocations.
fn sections(
    object: &[u8],
    headers: &Headers,
    addresses: &dyn Fn(&str) -> Option<u64>,
    budget: &Budget,
) -> Result<Vec<Section>, Error> {
    let mut sections = try_vec(headers.list.len())?;
    // Thousands of sections may have the same contents. Those of a code generator share none.
    let mut left = object.len();
    for (index, header) in headers.list.iter().enumerate() {
        require_memory_for_next(index)?;
        let name = headers.names.get(header.sh_name);
        let is_loaded = header.sh_flags & u64::from(SHF_ALLOC) != 0;
        let mut section = Section { header: *header, address: 0, contents: None };
        let mut bytes = || {
            let malformed = || Error::malformed("section", FileOffset(header.sh_offset));
            let bytes = file_range(object, header.sh_offset, header.sh_size);
            let bytes = bytes.ok_or_else(malformed)?;
            left = left.checked_sub(bytes.len()).ok_or_else(malformed)?;
            Ok::<_, Error>(bytes)
        };
        if headers.names.is_debug(header.sh_name) && !is_loaded {
            let packed = bytes()?;
            let unpacked = compression::section(&name, header, packed, budget);
            section.contents = Some(match unpacked {
                Some(Ok(unpacked)) => unpacked,
                Some(Err(error)) => return Err(Error::packed(&name, &error)),
                None => try_copy(packed)?,
            });
            section.header.sh_flags &= !u64::from(SHF_COMPRESSED);
        } else if name == ".eh_frame" && is_loaded {
            section.contents = Some(try_copy(bytes()?)?);
            section.address = addresses(&name).unwrap_or_default();
        } else if is_loaded {
            section.address = addresses(&name).unwrap_or_default();
        } else if matches!(header.sh_type, SHT_STRTAB | SHT_SYMTAB) {
            section.contents = Some(try_copy(bytes()?)?);
        }
        sections.push(section);
    }
    Ok(sections)
}

/// Gives `.eh_frame`, if nobody has placed it, an address behind the code. Debuggers read it from the file.
fn place_frames(sections: &mut [Section], headers: &Headers) {
    let is_code =
        |it: &&Section| it.header.sh_flags & u64::from(SHF_EXECINSTR) != 0 && it.address != 0;
    let ends =
        sections.iter().filter(is_code).map(|it| it.address.saturating_add(it.header.sh_size));
    let behind = ends.max().and_then(|end| end.checked_next_multiple_of(8)).unwrap_or_default();
    for section in sections {
        if section.address == 0 && headers.names.is(section.header.sh_name, ".eh_frame") {
            section.address = behind;
        }
    }
}

/// The symbols, and where their names are: those of the only table that there may be.
fn symbols(object: &[u8], headers: &Headers) -> Result<Vec<Sym>, Error> {
    let Some(table) = headers.list.iter().find(|it| it.sh_type == SHT_SYMTAB) else {
        return Ok(Vec::new());
    };
    let malformed = || Error::malformed("symbol table", FileOffset(table.sh_offset));
    if table.sh_entsize != SYMBOL_SIZE as u64 {
        return Err(malformed());
    }
    let entries = file_range(object, table.sh_offset, table.sh_size).ok_or_else(malformed)?;
    let mut symbols = try_vec(entries.len() / SYMBOL_SIZE)?;
    symbols.extend(entries.chunks_exact(SYMBOL_SIZE).map(get::<Sym>));
    Ok(symbols)
}

/// The address of a symbol, or its value if it is in no section.
fn value(symbol: &Sym, sections: &[Section]) -> u64 {
    let section = u32::from(symbol.st_shndx);
    if section == SHN_UNDEF {
        return 0;
    }
    let address = match section < SHN_LORESERVE {
        true => sections.get(usize::from(symbol.st_shndx)).map_or(0, |section| section.address),
        false => 0,
    };
    address.wrapping_add(symbol.st_value)
}

/// Applies a table of relocations, if its section is in the symfile.
fn relocate(
    object: &[u8],
    header: &Header,
    table: &SectionHeader,
    symbols: &[Sym],
    sections: &mut [Section],
    headers: &Headers,
    budget: &Budget,
) -> Result<(), Error> {
    let malformed = || Error::malformed("table of relocations", FileOffset(table.sh_offset));
    let index = table.sh_info as usize;
    let Some(target) = sections.get_mut(index) else { return Err(malformed()) };
    let is_shown = headers.names.is_debug(target.header.sh_name)
        || headers.names.is(target.header.sh_name, ".eh_frame");
    let Some(mut contents) = target.contents.take().filter(|_| is_shown) else { return Ok(()) };
    let address = target.address;
    let entries = file_range(object, table.sh_offset, table.sh_size).ok_or_else(malformed)?;
    if table.sh_entsize != RELA_SIZE as u64 {
        return Err(malformed());
    }
    // Thousands of tables may have the same entries.
    let steps = budget.step(entries.len() / RELA_SIZE);
    steps.map_err(|over| Error::debug_information(&over))?;
    for place in entries.chunks_exact(RELA_SIZE) {
        let rela: Rela = place.pread_with(0, LE).map_err(|_| malformed())?;
        let (symbol, kind) = ((rela.r_info >> 32) as usize, rela.r_info as u32);
        let relocation = relocation(header.e_machine, kind)
            .ok_or(Error::Relocation { kind, section: headers.names.get(table.sh_name) })?;
        let Some(Relocation { size, is_relative, is_thread_local }) = relocation else { continue };
        let symbol = symbols.get(symbol).ok_or_else(malformed)?;
        let value = match is_thread_local {
            true => symbol.st_value,
            false => value(symbol, sections),
        };
        let mut value = value.wrapping_add_signed(rela.r_addend);
        if is_relative {
            value = value.wrapping_sub(address.wrapping_add(rela.r_offset));
        }
        let start = usize::try_from(rela.r_offset).map_err(|_| malformed())?;
        let end = start.checked_add(size).ok_or_else(malformed)?;
        let place = contents.get_mut(start..end).ok_or_else(malformed)?;
        place.copy_from_slice(value.to_le_bytes().get(..size).unwrap_or_default());
    }
    if let Some(target) = sections.get_mut(index) {
        target.contents = Some(contents);
    }
    Ok(())
}

/// The file.
fn write(header: &Header, mut sections: Vec<Section>, symbols: &[Sym]) -> Result<Vec<u8>, Error> {
    let mut values = try_vec(symbols.len())?;
    values.extend(symbols.iter().map(|symbol| value(symbol, &sections)));
    let mut symtab = 0;
    for (index, section) in (0..).zip(&mut sections) {
        if section.header.sh_type != SHT_SYMTAB {
            continue;
        }
        symtab = index;
        let entries = section.contents.as_deref_mut().unwrap_or_default();
        for (place, value) in entries.chunks_exact_mut(SYMBOL_SIZE).zip(&values) {
            let symbol: Sym = get(place);
            if st_type(symbol.st_info) != STT_TLS {
                put(place, Sym { st_value: *value, ..symbol });
            }
        }
    }
    let mut file = Elf::new(header, ET_DYN);
    for section in sections.iter().filter(|section| section.address != 0) {
        let flags = section.header.sh_flags;
        let flag = |of: u32, flag: u32| if flags & u64::from(of) != 0 { flag } else { 0 };
        file.segments.try_push(ProgramHeader {
            p_type: PT_LOAD,
            p_flags: PF_R | flag(SHF_EXECINSTR, PF_X) | flag(SHF_WRITE, PF_W),
            p_vaddr: section.address,
            p_paddr: section.address,
            p_memsz: section.header.sh_size,
            p_align: 1,
            ..ProgramHeader::default()
        })?;
    }
    file.segments.sort_unstable_by_key(|segment| segment.p_vaddr);
    for section in &sections {
        let mut header = SectionHeader { sh_addr: section.address, ..section.header };
        match &section.contents {
            Some(contents) => {
                if !matches!(header.sh_type, SHT_STRTAB | SHT_SYMTAB) {
                    header.sh_type = SHT_PROGBITS;
                }
                file.push(header, Contents::Bytes(contents))?
            }
            None if section.address != 0 => {
                header.sh_type = SHT_NOBITS;
                file.push(header, NOTHING)?
            }
            // The others keep their numbers, which symbols refer to.
            None => file.push(SectionHeader::default(), NOTHING)?,
        };
    }
    file.header.e_shstrndx = header.e_shstrndx;
    let too_large = || Error::malformed("object: its symfile would be too large", FileOffset(0));
    let len = file.lay_out(symtab, 1).ok_or_else(too_large)?;
    let with_contents = file.sections.iter().map(|(section, _)| *section);
    let with_contents: Vec<SectionHeader> = try_collect(with_contents.filter(|section| {
        section.sh_type == SHT_PROGBITS && section.sh_flags & u64::from(SHF_ALLOC) != 0
    }))?;
    for segment in &mut file.segments {
        contain_contents(segment, &with_contents);
    }
    Ok(Filler::filled(len, |out| file.write(symtab, 1, out))?)
}
