//! Bytes for the unit tests of this folder: a whole shared library, and symbol tables alone.
//!
//! The library is valid and as small as it can be with a part of each kind. Tests change single fields
//! of it. It is never loaded.

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf64::dynamic::*;
use goblin::elf64::header::{ELFCLASS64, ELFDATA2LSB, ELFMAG, ET_DYN, EV_CURRENT, SIZEOF_EHDR};
use goblin::elf64::program_header::*;

use crate::arch::MACHINE;
use crate::base::addr::Vaddr;
use crate::elf::dynamic::{DT_RELR, DT_RELRENT, DT_RELRSZ, Dynamic};
use crate::elf::gnu_hash::gnu_hash;
use crate::elf::read::ReadAt;
use crate::elf::sysv_hash::sysv_hash;

// Where the parts of the library are: addresses equal offsets.
const SYMTAB: u64 = 0x280;
const STRTAB: u64 = 0x300;
const HASH: u64 = 0x340;
pub(super) const RELA: u64 = 0x380;
pub(super) const JMPREL: u64 = 0x3b0;
pub(super) const RELR: u64 = 0x3c8;
pub(super) const EH_FRAME_HDR: u64 = 0x400;
pub(super) const TEXT: u64 = 0x1000;
pub(super) const DYNAMIC: u64 = 0x2000;
pub(super) const INIT_ARRAY: u64 = 0x2300;
/// The end of the file.
pub(super) const END: u64 = 0x2310;

/// The strings: `\0f\0v\0libneeded.so\0libself.so\0/lib/path\0`.
const STRINGS: &[u8] = b"\0f\0v\0libneeded.so\0libself.so\0/lib/path\0";
const F: u32 = 1;
const V: u32 = 3;
const NEEDED: u64 = 5;
const SONAME: u64 = 18;
const RUN_PATH: u64 = 29;

/// The library's program headers, by index.
pub(super) const TEXT_HEADER: usize = 1;
pub(super) const DATA_HEADER: usize = 2;
pub(super) const DYNAMIC_HEADER: usize = 3;
pub(super) const TLS_HEADER: usize = 4;
pub(super) const RELRO_HEADER: usize = 5;
pub(super) const EH_FRAME_HEADER: usize = 6;
pub(super) const STACK_HEADER: usize = 7;

// The fields of a program header, by offset.
pub(super) const P_TYPE: usize = 0;
pub(super) const P_FLAGS: usize = 4;
pub(super) const P_OFFSET: usize = 8;
pub(super) const P_VADDR: usize = 16;
pub(super) const P_FILESZ: usize = 32;
pub(super) const P_MEMSZ: usize = 40;
pub(super) const P_ALIGN: usize = 48;

/// A shared library.
pub(super) struct Library {
    pub bytes: Vec<u8>,
}

impl Library {
    pub(super) fn new() -> Library {
        let mut library = Library { bytes: vec![0; END as usize] };
        library.bytes[..4].copy_from_slice(ELFMAG);
        library.bytes[4..7].copy_from_slice(&[ELFCLASS64, ELFDATA2LSB, EV_CURRENT]);
        library.put(16, &ET_DYN.to_le_bytes());
        library.put(18, &MACHINE.e_machine.to_le_bytes());
        library.put(20, &u32::from(EV_CURRENT).to_le_bytes());
        library.put(32, &(SIZEOF_EHDR as u64).to_le_bytes());
        library.put(54, &(SIZEOF_PHDR as u16).to_le_bytes());
        library.put(56, &8u16.to_le_bytes());
        let page = 0x1000;
        for (index, [p_type, p_flags, at, p_filesz, p_memsz, p_align]) in [
            [PT_LOAD, PF_R, 0, 0x800, 0x800, page],
            [PT_LOAD, PF_R | PF_X, TEXT as u32, 0x10, 0x10, page],
            [PT_LOAD, PF_R | PF_W, DYNAMIC as u32, (END - DYNAMIC) as u32, 0x1800, page],
            [PT_DYNAMIC, PF_R | PF_W, DYNAMIC as u32, 0x300, 0x300, 8],
            [PT_TLS, PF_R, INIT_ARRAY as u32, 8, 0x20, 16],
            [PT_GNU_RELRO, PF_R, DYNAMIC as u32, 0x1000, 0x1000, 1],
            [PT_GNU_EH_FRAME, PF_R, EH_FRAME_HDR as u32, 12, 12, 4],
            [PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 16],
        ]
        .into_iter()
        .enumerate()
        {
            let header =
                [[p_type, p_flags], [at, 0], [at, 0], [at, 0], [p_filesz, 0], [p_memsz, 0]];
            let words = header.into_iter().chain([[p_align, 0]]).flatten();
            let entry: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
            library.put((SIZEOF_EHDR + index * SIZEOF_PHDR) as u64, &entry);
        }
        library.put(STRTAB, STRINGS);
        let symbols = [(0, 0, 0, 0), (F, 0x12, 2, TEXT), (V, 0x11, 3, 0x3000)];
        for (index, (name, info, section, value)) in (0..).zip(symbols) {
            library.put(SYMTAB + index * 24, &symbol(name, info, section, value));
        }
        library.put(HASH, &gnu_table(1, &[b"f", b"v"]));
        for (at, r_info, r_addend) in [(0x3008u64, 8u64, TEXT), (0x3010, 2 << 32 | 1, 0)] {
            let at_entry = RELA + (at - 0x3008) * 3;
            library.put(at_entry, &[at, r_info, r_addend].map(u64::to_le_bytes).concat());
        }
        library.put(JMPREL, &[0x3018u64, 1 << 32 | 7, 0].map(u64::to_le_bytes).concat());
        library.put(RELR, &[0x3020u64, 3].map(u64::to_le_bytes).concat());
        // Version 1; pointer to `.eh_frame`: absolute; no table.
        library.put(EH_FRAME_HDR, &[1, 0x04, 0xff, 0xff, 0x20, 0x04, 0, 0, 0, 0, 0, 0]);
        library.put(INIT_ARRAY, &TEXT.to_le_bytes());
        for (tag, value) in [
            (DT_NEEDED, NEEDED),
            (DT_SONAME, SONAME),
            (DT_RUNPATH, RUN_PATH),
            (DT_SYMTAB, SYMTAB),
            (DT_STRTAB, STRTAB),
            (DT_STRSZ, STRINGS.len() as u64),
            (DT_GNU_HASH, HASH),
            (DT_RELA, RELA),
            (DT_RELASZ, 48),
            (DT_RELAENT, 24),
            (DT_JMPREL, JMPREL),
            (DT_PLTRELSZ, 24),
            (DT_PLTREL, DT_RELA),
            (DT_RELR, RELR),
            (DT_RELRSZ, 16),
            (DT_RELRENT, 8),
            (DT_INIT, TEXT),
            (DT_INIT_ARRAY, INIT_ARRAY),
            (DT_INIT_ARRAYSZ, 8),
        ] {
            library.set_tag(tag, value);
        }
        library
    }

    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Sets a field of a program header; the field is 4 bytes wide if it is one of the first two.
    pub(super) fn set_header(&mut self, index: usize, field: usize, value: u64) {
        let width = if field < P_OFFSET { 4 } else { 8 };
        let at = (SIZEOF_EHDR + index * SIZEOF_PHDR + field) as u64;
        self.put(at, &value.to_le_bytes()[..width]);
    }

    /// Sets the value of a tag, or adds it.
    pub(super) fn set_tag(&mut self, tag: u64, value: u64) {
        let at = |entry: u64| (DYNAMIC + entry * 16) as usize;
        let stated = |entry: &u64| self.bytes[at(*entry)..][..8] == tag.to_le_bytes();
        let free = |entry: &u64| self.bytes[at(*entry)..][..8] == DT_NULL.to_le_bytes();
        let entry = (0..47).find(stated).or((0..47).find(free)).unwrap();
        self.put(DYNAMIC + entry * 16, &[tag, value].map(u64::to_le_bytes).concat());
    }
}

/// An `Elf64_Sym`.
fn symbol(st_name: u32, st_info: u8, st_shndx: u16, st_value: u64) -> Vec<u8> {
    let mut entry = st_name.to_le_bytes().to_vec();
    entry.extend([st_info, 0]);
    entry.extend(st_shndx.to_le_bytes());
    entry.extend(st_value.to_le_bytes());
    entry.extend(8u64.to_le_bytes());
    entry
}

/// A `DT_GNU_HASH` table with one bucket for these names, the first of which is symbol `symoffset`.
fn gnu_table(symoffset: u32, names: &[&[u8]]) -> Vec<u8> {
    let mut words = vec![1, symoffset, 1, 6, u32::MAX, u32::MAX];
    words.push(if names.is_empty() { 0 } else { symoffset });
    let last = names.len().saturating_sub(1);
    words.extend(names.iter().zip(0..).map(|(name, index)| match index == last {
        true => gnu_hash(name) | 1,
        false => gnu_hash(name) & !1,
    }));
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// A `DT_HASH` table with one bucket, whose chain has these symbols in order.
fn sysv_table(symbols: u32, chain: Range<u32>) -> Vec<u8> {
    let mut words = vec![1, symbols, chain.start];
    words.extend((0..symbols).map(|it| {
        let next = it + 1;
        if chain.contains(&it) && chain.contains(&next) { next } else { 0 }
    }));
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Memory from address 0 on.
pub(super) struct Flat(pub Vec<u8>);

impl ReadAt for Flat {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        self.0.get(range.start.0 as usize..range.end.0 as usize)
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        self.0.get(start.0 as usize..)
    }
}

impl Flat {
    /// Appends `bytes`, aligned to 8, and gives their address.
    pub(super) fn add(&mut self, bytes: &[u8]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        let at = self.0.len() as u64;
        self.0.extend(bytes);
        at
    }
}

/// A dynamic section with these entries.
pub(super) fn dynamic(entries: &[(u64, u64)]) -> Dynamic<'static> {
    let bytes: Vec<u8> = entries
        .iter()
        .chain(&[(DT_NULL, 0)])
        .flat_map(|&(tag, value)| [tag, value].map(u64::to_le_bytes).concat())
        .collect();
    Dynamic::parse(bytes.leak())
}

/// The hash table of [`symbol_tables`].
#[derive(Clone, Copy, Debug)]
pub(super) enum HashKind {
    Gnu,
    Sysv,
}

/// A symbol of [`symbol_tables`]: name, `st_shndx`, `st_value`, `.gnu.version` entry.
pub(super) type TestSymbol = (&'static str, u16, u64, u16);

/// Symbol tables: global functions, the undefined ones first; the versions `V1`, `V2`, `V3` with the
/// indices 2, 3, 4; and the needed version `N` of `libn.so`, with the index 5.
pub(super) fn symbol_tables(symbols: &[TestSymbol], kind: HashKind) -> (Flat, Vec<(u64, u64)>) {
    let mut memory = Flat(vec![0; 0x40]);
    let mut strings = b"\0lib\0V1\0V2\0V3\0N\0libn.so\0".to_vec();
    let mut symtab = symbol(0, 0, 0, 0);
    for (name, section, value, _) in symbols {
        symtab.extend(symbol(strings.len() as u32, 0x12, *section, *value));
        strings.extend(name.bytes().chain([0]));
    }
    let undefined = symbols.iter().take_while(|symbol| symbol.1 == 0).count();
    let defined: Vec<&[u8]> = symbols[undefined..].iter().map(|it| it.0.as_bytes()).collect();
    let (first, count) = (undefined as u32 + 1, symbols.len() as u32 + 1);
    let versyms = [0].into_iter().chain(symbols.iter().map(|symbol| symbol.3));
    let versyms: Vec<u8> = versyms.flat_map(u16::to_le_bytes).collect();

    let mut verdef = Vec::new();
    for (index, name, text) in
        [(1u16, 1u32, &b"lib"[..]), (2, 5, b"V1"), (3, 8, b"V2"), (4, 11, b"V3")]
    {
        let flags = u16::from(index == 1);
        verdef.extend([1, flags, index, 1].map(u16::to_le_bytes).concat());
        let next = if index == 4 { 0 } else { 28 };
        verdef.extend([sysv_hash(text), 20, next, name, 0].map(u32::to_le_bytes).concat());
    }
    let mut verneed = [1u16, 1].map(u16::to_le_bytes).concat();
    verneed.extend([16u32, 16, 0, sysv_hash(b"N")].map(u32::to_le_bytes).concat());
    verneed.extend([0u16, 5].map(u16::to_le_bytes).concat());
    verneed.extend([14u32, 0].map(u32::to_le_bytes).concat());

    let (tag, table) = match kind {
        HashKind::Gnu => (DT_GNU_HASH, gnu_table(first, &defined)),
        HashKind::Sysv => (DT_HASH, sysv_table(count, first..count)),
    };
    let tags = vec![
        (DT_SYMTAB, memory.add(&symtab)),
        (DT_STRSZ, strings.len() as u64),
        (DT_STRTAB, memory.add(&strings)),
        (DT_VERSYM, memory.add(&versyms)),
        (DT_VERDEF, memory.add(&verdef)),
        (DT_VERDEFNUM, 4),
        (DT_VERNEED, memory.add(&verneed)),
        (DT_VERNEEDNUM, 1),
        (tag, memory.add(&table)),
    ];
    (memory, tags)
}
