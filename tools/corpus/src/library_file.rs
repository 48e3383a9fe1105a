//! What an ELF file says, by itself, of what is to be compared: exports, and places that relocations
//! write to. Reads with goblin, not with memdl; looks at no process.

use std::collections::HashMap;
use std::ops::Range;

use goblin::elf::Elf;
use goblin::elf::dynamic::{
    DT_FINI, DT_FINI_ARRAY, DT_FINI_ARRAYSZ, DT_INIT, DT_INIT_ARRAY, DT_INIT_ARRAYSZ,
};
use goblin::elf::program_header::{PT_DYNAMIC, PT_LOAD, PT_TLS};
use goblin::elf::reloc::{R_X86_64_COPY, R_X86_64_NONE, R_X86_64_RELATIVE};
use goblin::elf::sym::{STB_GLOBAL, STB_GNU_UNIQUE, STB_WEAK, STV_HIDDEN, STV_INTERNAL};

use crate::Result;

const DT_RELRSZ: u64 = 35;
const DT_RELR: u64 = 36;
/// A tag that says nothing to any loader.
const DT_IGNORED: u64 = 0x6000_0000;

/// What this tool knows of a library, from its file alone.
pub struct Facts {
    pub exports: Vec<Export>,
    pub places: Vec<Place>,
    /// Stated addresses, from the first segment to the last.
    pub span: Range<u64>,
    pub has_tls: bool,
    pub sections: Vec<(String, Range<u64>)>,
    pub needed: Vec<String>,
    /// `DT_RUNPATH`, or else `DT_RPATH`.
    pub folders: Vec<String>,
}

/// A symbol that other libraries can bind to.
pub struct Export {
    pub name: String,
    pub version: Option<String>,
    pub kind: u8,
    pub size: u64,
    pub value: u64,
    pub is_absolute: bool,
}

/// What a dynamic relocation writes.
pub struct Place {
    pub at: u64,
    pub r_type: u32,
    pub addend: i64,
    pub symbol: Option<String>,
}

impl Facts {
    pub fn read(bytes: &[u8]) -> Result<Facts> {
        let elf = Elf::parse(bytes)?;
        let segments = || elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD);
        let start = segments().map(|segment| segment.p_vaddr).min().ok_or("no segment")?;
        let end = segments().map(|segment| segment.p_vaddr.saturating_add(segment.p_memsz)).max();
        let sections = elf.section_headers.iter().filter(|section| section.sh_addr != 0);
        let sections = sections.filter_map(|section| {
            let name = elf.shdr_strtab.get_at(section.sh_name)?.to_owned();
            Some((name, section.sh_addr..section.sh_addr.checked_add(section.sh_size)?))
        });
        let paths = if elf.runpaths.is_empty() { &elf.rpaths } else { &elf.runpaths };
        let folders = paths.iter().flat_map(|paths| paths.split(':')).map(str::to_owned);
        Ok(Facts {
            needed: elf.libraries.iter().map(|&name| name.to_owned()).collect(),
            folders: folders.collect(),
            exports: exports(&elf),
            places: places(&elf, bytes),
            span: (start & !0xfff)..(end.unwrap_or(start).saturating_add(0xfff) & !0xfff),
            has_tls: elf.program_headers.iter().any(|header| header.p_type == PT_TLS),
            sections: sections.collect(),
        })
    }

    pub fn section(&self, at: u64) -> &str {
        let found = self.sections.iter().find(|(_, range)| range.contains(&at));
        found.map_or("?", |(name, _)| name)
    }
}

/// The defined dynamic symbols that are visible, in table order.
fn exports(elf: &Elf<'_>) -> Vec<Export> {
    let mut versions: HashMap<u16, String> = HashMap::new();
    for definition in elf.verdef.iter().flat_map(|verdef| verdef.iter()) {
        let name = definition.iter().next().and_then(|aux| elf.dynstrtab.get_at(aux.vda_name));
        if let Some(name) = name
            && definition.vd_ndx > 1
        {
            versions.insert(definition.vd_ndx, name.to_owned());
        }
    }
    let is_export = |symbol: &goblin::elf::Sym| {
        symbol.st_shndx != 0
            && matches!(symbol.st_bind(), STB_GLOBAL | STB_WEAK | STB_GNU_UNIQUE)
            && !matches!(symbol.st_visibility(), STV_HIDDEN | STV_INTERNAL)
    };
    let table = elf.dynsyms.iter().enumerate().filter(|(_, symbol)| is_export(symbol));
    table
        .filter_map(|(index, symbol)| {
            let versym = elf.versym.as_ref().and_then(|versym| versym.get_at(index));
            // Index 0 is local, whatever the binding says.
            if versym.as_ref().is_some_and(|versym| versym.version() == 0) {
                return None;
            }
            Some(Export {
                name: elf.dynstrtab.get_at(symbol.st_name)?.to_owned(),
                version: versym.and_then(|versym| versions.get(&versym.version()).cloned()),
                kind: symbol.st_type(),
                size: symbol.st_size,
                value: symbol.st_value,
                is_absolute: symbol.st_shndx == 0xfff1,
            })
        })
        .collect()
}

/// All places that dynamic relocations write to, in table order.
fn places(elf: &Elf<'_>, bytes: &[u8]) -> Vec<Place> {
    let tables = elf.dynrelas.iter().chain(elf.pltrelocs.iter());
    let mut places: Vec<Place> = tables
        .filter(|rela| !matches!(rela.r_type, R_X86_64_NONE | R_X86_64_COPY))
        .map(|rela| {
            let symbol = (rela.r_sym != 0).then(|| elf.dynsyms.get(rela.r_sym)).flatten();
            Place {
                at: rela.r_offset,
                r_type: rela.r_type,
                addend: rela.r_addend.unwrap_or(0),
                symbol: symbol
                    .and_then(|symbol| Some(elf.dynstrtab.get_at(symbol.st_name)?.into())),
            }
        })
        .collect();
    let tags = || elf.dynamic.iter().flat_map(|dynamic| dynamic.dyns.iter());
    let value = |tag| tags().find(|entry| entry.d_tag == tag).map(|entry| entry.d_val);
    let word = |at: u64| {
        let offset = usize::try_from(file_offset(elf, at)?).ok()?;
        bytes.get(offset..offset + 8)?.try_into().ok().map(u64::from_le_bytes)
    };
    if let (Some(table), Some(size)) = (value(DT_RELR), value(DT_RELRSZ)) {
        let mut next = 0;
        for entry in (0..size / 8).filter_map(|index| word(table + index * 8)) {
            let (start, bits, step) =
                if entry & 1 == 0 { (entry, 1, 8) } else { (next, entry >> 1, 63 * 8) };
            for at in (0..63).filter(|bit| bits >> bit & 1 == 1).map(|bit| start + bit * 8) {
                let addend = word(at).unwrap_or(0) as i64;
                places.push(Place { at, r_type: R_X86_64_RELATIVE, addend, symbol: None });
            }
            next = start + step;
        }
    }
    places
}

fn file_offset(elf: &Elf<'_>, at: u64) -> Option<u64> {
    let segment = elf
        .program_headers
        .iter()
        .find(|header| header.p_type == PT_LOAD && header.vm_range().contains(&(at as usize)))?;
    Some(at - segment.p_vaddr + segment.p_offset)
}

/// The library without what runs when it is loaded or unloaded.
pub fn without_constructors(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let table = {
        let elf = Elf::parse(&bytes)?;
        let header = elf.program_headers.iter().find(|header| header.p_type == PT_DYNAMIC);
        header.ok_or("no dynamic section")?.file_range()
    };
    for entry in
        bytes.get_mut(table).ok_or("dynamic section outside the file")?.chunks_exact_mut(16)
    {
        let tag = u64::from_le_bytes(entry[..8].try_into()?);
        if let DT_INIT | DT_INIT_ARRAY | DT_INIT_ARRAYSZ | DT_FINI | DT_FINI_ARRAY
        | DT_FINI_ARRAYSZ = tag
        {
            entry[..8].copy_from_slice(&DT_IGNORED.to_le_bytes());
        }
        if tag == 0 {
            break;
        }
    }
    Ok(bytes)
}
