//! From an image's bytes to the ELF file that a debugger is given in its stead: a pure function.
//!
//! That symfile is an ELF file inside another one. The *outer* file has the image's sections at
//! their run-time addresses, without contents, since a debugger reads those from the process. Only
//! `.eh_frame` and the symbol table have contents, and `.gnu_debugdata`, which is the *inner* file
//! in .xz framing: the same sections at the addresses that the image states, and its DWARF as it
//! came. gdb made that section for small symbol tables of stripped files, but reads a whole ELF
//! file from it, and slides it: the distance is that between sections of the same name outside
//! and inside. So the DWARF is never parsed here, whatever gdb can read works, compressed sections
//! included, and no byte of it depends on where the image lies, but for the locations of thread-local
//! variables ([`super::thread_local`]).
//!
//! An image whose section headers are missing or cannot be trusted is served by its segments and
//! its dynamic symbols: names and backtraces, no lines.
//!
//! The bytes are hostile. Whatever they say, this neither panics nor takes more than a few times
//! their length of memory. How they are read is in [`super::sections`].
//!
//! Sources: gABI chapters 4 ("Sections", "Symbol Table") and 5; gdb's `symfile.c` (`read_symbols`,
//! `addr_info_make_relative`) and `minidebug.c`; LSB Core 10.6 for `.eh_frame` and its header. The
//! rules that no document states were found by experiment with gdb 8.1 to 18.1, and are named
//! where they are obeyed.

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf::header::{EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG, ET_DYN, SELFMAG};
use goblin::elf::section_header::{
    SHF_ALLOC, SHN_LORESERVE, SHN_UNDEF, SHT_NOBITS, SHT_PROGBITS, SHT_STRTAB, SHT_SYMTAB,
};
use goblin::elf::sym::{STB_LOCAL, STT_TLS, st_bind, st_type};
use goblin::elf64::header::Header;
use goblin::elf64::section_header::SectionHeader;
use goblin::elf64::sym::Sym;
use scroll::{LE, Pread};

use super::Instance;
use super::elf::{Contents, Elf, HEADER_SIZE, NOTHING, SECTION_SIZE, SYMBOL_SIZE, get, put};
use super::sections::{Role, Sections, Source};
use super::thread_local::{self, LOCATION, Site};
use super::xz::StoredXz;
use crate::addr::{FileOffset, Vaddr};

/// How much a symfile tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detail {
    /// Names of functions and variables, and how to walk the stack.
    Symbols,
    /// The image's own debug sections too.
    Full,
}

/// Why there is no symfile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SymfileError {
    /// The bytes are not what they should be.
    #[error("malformed {what} at offset {at} of the image")]
    Malformed {
        /// What is malformed.
        what: &'static str,
        /// Where it is.
        at: FileOffset,
    },
    /// Only from an image that is nearly as large as the address space.
    #[error("a symfile for an image of {len} bytes would be too large")]
    TooLarge {
        /// The image's length.
        len: usize,
    },
}

/// A symfile but for where the image lies.
#[derive(Clone, Debug)]
pub(crate) struct SymfileTemplate {
    /// The outer file, with addresses as the image states them.
    bytes: Vec<u8>,
    /// Where in `bytes` its section headers are: of those with `SHF_ALLOC`, `sh_addr` moves.
    sections: Range<usize>,
    /// Where in `bytes` its symbols are: of those that [`moves`], `st_value` moves.
    symbols: Range<usize>,
    /// The locations of thread-local variables: each with where its bytes are in `bytes`.
    thread_locals: Vec<(Site, [usize; LOCATION])>,
}

impl SymfileTemplate {
    /// What is the same for all instances of the image. Copies its debug sections once.
    pub(crate) fn new(
        source: &Source<'_>,
        detail: Detail,
    ) -> Result<SymfileTemplate, SymfileError> {
        let header = image_header(source.bytes)?;
        let too_large = SymfileError::TooLarge { len: source.bytes.len() };
        let sections = Sections::stated(&header, source).unwrap_or_else(|fault| {
            log::debug!("section headers of an image are disregarded: {fault}");
            Sections::made_up(source)
        });
        Self::from_sections(&header, sections, source, detail).ok_or(too_large)
    }

    fn from_sections(
        header: &Header,
        mut sections: Sections<'_>,
        source: &Source<'_>,
        detail: Detail,
    ) -> Option<SymfileTemplate> {
        sections.provide_text();
        let symbols = match sections.symbols {
            Some((entries, strings)) => Symbols::copied(entries, strings),
            None => Symbols::from_dynamic(source, &sections),
        };
        let name = [".symtab", ".strtab", ".gnu_debugdata", ".shstrtab"]
            .map(|name| sections.names.add(name));

        let inner = match detail {
            Detail::Full if sections.has_dwarf() => Some(inner(header, &sections)?),
            _ => None,
        };
        let debugdata = match &inner {
            Some((head, contents)) => {
                let pieces = [&head[..]].into_iter().chain(contents.iter().copied());
                Contents::Xz(StoredXz::new(pieces.collect())?)
            }
            None => Contents::Bytes(sections.debugdata.unwrap_or_default()),
        };

        let sites = if inner.is_some() { sites(&sections, source.tls_size) } else { Vec::new() };

        let mut outer = Elf::new(header, ET_DYN);
        for section in &sections.list {
            match section.role {
                Role::Loaded => outer.push(section.header, Contents::Bytes(section.contents)),
                // A slot is left where a section was, for the sake of the symbols' `st_shndx`.
                Role::LeftOut | Role::Debug => outer.push(SectionHeader::default(), NOTHING),
            };
        }
        let section = |name, sh_type| SectionHeader {
            sh_name: name,
            sh_type,
            sh_addralign: 1,
            ..SectionHeader::default()
        };
        let strtab = outer.push(section(name[1], SHT_STRTAB), Contents::Bytes(&symbols.strings));
        let symtab = outer.push(
            SectionHeader {
                sh_link: u32::from(strtab),
                sh_info: symbols.locals,
                sh_entsize: SYMBOL_SIZE as u64,
                sh_addralign: 8,
                ..section(name[0], SHT_SYMTAB)
            },
            Contents::Bytes(&symbols.entries),
        );
        outer.header.e_shstrndx =
            outer.push(section(name[3], SHT_STRTAB), Contents::Bytes(&sections.names.0));
        if debugdata.len() != 0 {
            outer.push(section(name[2], SHT_PROGBITS), debugdata);
        }

        let len = outer.lay_out()?;
        let mut bytes = Vec::with_capacity(len);
        outer.write_headers(&mut bytes);
        let sections = HEADER_SIZE..bytes.len();
        for (_, contents) in &outer.sections {
            contents.write(&mut bytes);
        }
        let start = outer.sections.get(usize::from(symtab))?.0.sh_offset as usize;
        let thread_locals = match outer.sections.last() {
            Some((header, Contents::Xz(xz))) => places(sites, xz, header.sh_offset as usize),
            _ => Vec::new(),
        };
        Some(SymfileTemplate {
            bytes,
            sections,
            symbols: start..start + symbols.entries.len(),
            thread_locals,
        })
    }

    /// The symfile of this instance.
    pub(crate) fn at(&self, instance: Instance) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        self.adapt_to(instance, &mut bytes);
        bytes
    }

    /// As [`SymfileTemplate::at`], for the only instance: copies nothing.
    pub(crate) fn into_symfile(mut self, instance: Instance) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.adapt_to(instance, &mut bytes);
        bytes
    }

    fn adapt_to(&self, instance: Instance, bytes: &mut [u8]) {
        let Instance { load_bias, thread_locals } = instance;
        for (site, places) in &self.thread_locals {
            for (place, byte) in places.iter().zip(site.location(thread_locals)) {
                if let Some(at) = bytes.get_mut(*place) {
                    *at = byte;
                }
            }
        }
        let moved = |stated: u64| load_bias.apply(Vaddr(stated)) as u64;
        let sections = bytes.get_mut(self.sections.clone()).unwrap_or_default();
        for place in sections.chunks_exact_mut(SECTION_SIZE) {
            let mut section: SectionHeader = get(place);
            if section.sh_flags & u64::from(SHF_ALLOC) != 0 {
                section.sh_addr = moved(section.sh_addr);
                put(place, section);
            }
        }
        let symbols = bytes.get_mut(self.symbols.clone()).unwrap_or_default();
        for place in symbols.chunks_exact_mut(SYMBOL_SIZE) {
            let mut symbol: Sym = get(place);
            if moves(&symbol) {
                symbol.st_value = moved(symbol.st_value);
                put(place, symbol);
            }
        }
    }
}

/// Whether the value of `symbol` is an address in the image, and not an offset or a plain number.
fn moves(symbol: &Sym) -> bool {
    let section = u32::from(symbol.st_shndx);
    section != SHN_UNDEF && section < SHN_LORESERVE && st_type(symbol.st_info) != STT_TLS
}

/// The locations of thread-local variables, each with the index of its section among the debug
/// sections.
fn sites(sections: &Sections<'_>, tls_size: u64) -> Vec<(usize, Site)> {
    if tls_size == 0 {
        return Vec::new();
    }
    let debug = sections.list.iter().filter(|section| section.role == Role::Debug);
    debug
        .enumerate()
        .filter(|(_, section)| sections.has_entries(section))
        .flat_map(|(index, section)| {
            let sites = thread_local::sites(section.contents, tls_size);
            sites.into_iter().map(move |site| (index, site))
        })
        .collect()
}

/// Each site with the places of its bytes in the outer file, of which the .xz file starts at
/// `start`. The first piece in that is the inner file's beginning, the others are its sections.
fn places(
    sites: Vec<(usize, Site)>,
    xz: &StoredXz<'_>,
    start: usize,
) -> Vec<(Site, [usize; LOCATION])> {
    let place = |(index, site): (usize, Site)| {
        let mut places = [0; LOCATION];
        for (skip, place) in places.iter_mut().enumerate() {
            *place = start.checked_add(xz.position(index + 1, site.at + skip)?)?;
        }
        Some((site, places))
    };
    sites.into_iter().filter_map(place).collect()
}

/// The inner file: its beginning, and what follows on it.
fn inner<'a>(header: &Header, sections: &Sections<'a>) -> Option<(Vec<u8>, Vec<&'a [u8]>)> {
    let mut inner = Elf::new(header, header.e_type);
    inner.push(SectionHeader::default(), NOTHING);
    inner.header.e_shstrndx = inner.push(
        SectionHeader {
            // As in the outer file, it was added last.
            sh_name: (sections.names.0.len() - ".shstrtab\0".len()) as u32,
            sh_type: SHT_STRTAB,
            sh_addralign: 1,
            ..SectionHeader::default()
        },
        Contents::Bytes(&sections.names.0),
    );
    let mut contents = vec![];
    for section in &sections.list {
        match section.role {
            Role::Loaded => {
                let sh_type = SHT_NOBITS;
                let header = SectionHeader { sh_type, ..section.header };
                inner.push(header, NOTHING);
            }
            Role::Debug => {
                inner.push(section.header, Contents::Bytes(section.contents));
                contents.push(section.contents);
            }
            Role::LeftOut => {}
        }
    }
    inner.lay_out()?;
    let mut head = Vec::new();
    inner.write_headers(&mut head);
    head.extend_from_slice(&sections.names.0);
    Some((head, contents))
}

/// The contents of `.symtab` and `.strtab`.
struct Symbols {
    entries: Vec<u8>,
    strings: Vec<u8>,
    /// How many local symbols come first.
    locals: u32,
}

impl Symbols {
    fn copied(entries: &[u8], strings: &[u8]) -> Symbols {
        let mut symbols =
            Symbols { entries: entries.to_vec(), strings: strings.to_vec(), locals: 0 };
        symbols.strings.push(0);
        symbols.entries.truncate(entries.len() - entries.len() % SYMBOL_SIZE);
        let mut locals = true;
        for place in symbols.entries.chunks_exact_mut(SYMBOL_SIZE) {
            let mut symbol: Sym = get(place);
            if symbol.st_name as usize >= symbols.strings.len() {
                symbol.st_name = symbols.strings.len() as u32 - 1;
                put(place, symbol);
            }
            locals &= st_bind(symbol.st_info) == STB_LOCAL;
            symbols.locals += u32::from(locals);
        }
        symbols
    }

    fn from_dynamic(source: &Source<'_>, sections: &Sections<'_>) -> Symbols {
        let mut symbols = Symbols { entries: vec![0; SYMBOL_SIZE], strings: vec![0], locals: 1 };
        // Each has an entry of its own in the file, and names may share their ends but seldom do.
        let most = source.bytes.len();
        (source.dynamic_symbols)(&mut |dynamic| {
            let full = symbols.entries.len() > most
                || symbols.strings.len().saturating_add(dynamic.name.len()) > most;
            let Some(st_shndx) = sections.index_of(&dynamic) else {
                return;
            };
            if full {
                return;
            }
            let mut entry = [0; SYMBOL_SIZE];
            put(
                &mut entry,
                Sym {
                    st_name: symbols.strings.len() as u32,
                    st_info: dynamic.st_info,
                    st_other: dynamic.st_other,
                    st_shndx,
                    st_value: dynamic.st_value,
                    st_size: dynamic.st_size,
                },
            );
            symbols.entries.extend_from_slice(&entry);
            symbols.strings.extend_from_slice(dynamic.name);
            symbols.strings.push(0);
        });
        symbols
    }
}

/// The header of the image, if it is an ELF file of the kind we make.
fn image_header(bytes: &[u8]) -> Result<Header, SymfileError> {
    let malformed = |what, at| SymfileError::Malformed { what, at: FileOffset(at) };
    let header: Header = bytes.pread_with(0, LE).map_err(|_| malformed("file header", 0))?;
    if header.e_ident.get(..SELFMAG) != Some(&ELFMAG[..]) {
        return Err(malformed("file header", 0));
    }
    for (at, ours, what) in [
        (EI_CLASS, ELFCLASS64, "class: not 64 bits"),
        (EI_DATA, ELFDATA2LSB, "byte order: not little-endian"),
    ] {
        if header.e_ident.get(at) != Some(&ours) {
            return Err(malformed(what, at as u64));
        }
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::super::sections::{DynamicSymbol, SourceSegment};
    use super::*;
    use crate::addr::LoadBias;
    use crate::debug::ThreadLocals;
    use crate::dynamic::ReadAt;
    use crate::eh_frame::EhFrame;
    use goblin::elf64::program_header::{PF_W, PF_X, PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    const CODE: &str = "
        #include <string.h>
        __thread int per_thread = 1;
        int data = 2;
        static int zero[100];
        static int hidden(const char *s) { return zero[strlen(s)]++; }
        int visible(const char *s) { return hidden(s) + data + per_thread; }";
    const DATA: &str = "struct { int a; double b; } data = { 5, 2.5 };";

    /// A directory of its own for each test; gone when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Scratch {
            let name = format!("memdl-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        fn compiled(&self, code: &str, flags: &[&str]) -> Vec<u8> {
            let source = self.0.join("image.c");
            let library = self.0.join("image.so");
            std::fs::write(&source, code).unwrap();
            let output = run(
                "gcc",
                "cc",
                flags
                    .iter()
                    .copied()
                    .map(Path::new)
                    .chain(["-shared", "-fPIC", "-o"].map(Path::new))
                    .chain([&*library, &*source]),
            );
            assert!(output.status.success(), "{output:?}");
            std::fs::read(library).unwrap()
        }

        fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, contents).unwrap();
            path
        }

        /// Fails if `readelf` has to say anything about `file` beyond what is in it.
        fn assert_well_formed(&self, file: &[u8]) {
            let path = self.file("symfile", file);
            let output = run("binutils", "readelf", ["-aW".as_ref(), &*path]);
            assert!(output.status.success(), "{output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
            let report = String::from_utf8_lossy(&output.stdout);
            assert!(!report.contains("arning"), "{report}");
        }

        /// The inner file of `outer`.
        fn inner(&self, outer: &[u8]) -> Option<Vec<u8>> {
            let packed = section(outer, ".gnu_debugdata")?.1;
            let path = self.file("inner.xz", packed);
            let output = run("xz-utils", "xz", ["-dc".as_ref(), &*path]);
            assert!(output.status.success(), "{output:?}");
            Some(output.stdout)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn run<'a>(package: &str, tool: &str, args: impl IntoIterator<Item = &'a Path>) -> Output {
        Command::new(tool)
            .args(args)
            .output()
            .unwrap_or_else(|error| panic!("{tool}: {error}: install the package {package}"))
    }

    impl ReadAt for Source<'_> {
        fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
            self.contents(&range)
        }

        fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
            self.contents_from(start)
        }
    }

    /// What the loader would tell of an image it trusts.
    fn program_headers(bytes: &[u8]) -> (Vec<SourceSegment>, Option<Range<Vaddr>>) {
        let header: Header = bytes.pread_with(0, LE).unwrap();
        let (mut segments, mut eh_frame_hdr) = (vec![], None);
        for i in 0..usize::from(header.e_phnum) {
            let at = header.e_phoff as usize + i * 56;
            let segment: ProgramHeader = bytes.pread_with(at, LE).unwrap();
            let addresses = Vaddr(segment.p_vaddr).range(segment.p_memsz).unwrap();
            let start = segment.p_offset as usize;
            match segment.p_type {
                PT_LOAD => segments.push(SourceSegment {
                    addresses,
                    file: start..start + segment.p_filesz as usize,
                    executable: segment.p_flags & PF_X != 0,
                    writable: segment.p_flags & PF_W != 0,
                }),
                PT_GNU_EH_FRAME => eh_frame_hdr = Some(addresses),
                _ => {}
            }
        }
        let eh_frame = eh_frame_hdr.and_then(|hdr| {
            let source = Source {
                bytes,
                segments: &segments,
                eh_frame: None,
                tls_size: 0,
                dynamic_symbols: &|_| {},
            };
            Some(EhFrame::locate(hdr, &source)?.range)
        });
        (segments, eh_frame)
    }

    fn template(bytes: &[u8], detail: Detail) -> SymfileTemplate {
        template_by(bytes, bytes, detail).unwrap()
    }

    /// As of `bytes`, with what the dynamic section says taken from `sound`.
    fn template_by(
        bytes: &[u8],
        sound: &[u8],
        detail: Detail,
    ) -> Result<SymfileTemplate, SymfileError> {
        let (segments, eh_frame) = program_headers(sound);
        let visible = DynamicSymbol {
            name: b"visible",
            st_value: goblin::elf::Elf::parse(sound)
                .ok()
                .and_then(|elf| {
                    let mut symbols = elf.dynsyms.iter();
                    symbols.find(|symbol| elf.dynstrtab.get_at(symbol.st_name) == Some("visible"))
                })
                .map_or(0, |symbol| symbol.st_value),
            st_size: 7,
            st_info: 0x12,
            st_other: 0,
            st_shndx: 12,
        };
        let source = Source {
            bytes,
            segments: &segments,
            eh_frame,
            tls_size: 0,
            dynamic_symbols: &|show| (0..1000).for_each(|_| show(visible)),
        };
        SymfileTemplate::new(&source, detail)
    }

    fn section<'a>(bytes: &'a [u8], name: &str) -> Option<(SectionHeader, &'a [u8])> {
        let elf = goblin::elf::Elf::parse(bytes).unwrap();
        let mut sections = elf.section_headers.into_iter();
        let found = sections.find(|section| elf.shdr_strtab.get_at(section.sh_name) == Some(name));
        let header = SectionHeader::from(found?);
        let contents = match header.sh_type {
            SHT_NOBITS => &[],
            _ => &bytes[header.sh_offset as usize..][..header.sh_size as usize],
        };
        Some((header, contents))
    }

    fn without_section_headers(bytes: &[u8]) -> Vec<u8> {
        let mut header: Header = bytes.pread_with(0, LE).unwrap();
        (header.e_shoff, header.e_shnum, header.e_shstrndx) = (0, 0, 0);
        let mut bytes = bytes.to_vec();
        put(&mut bytes, header);
        bytes
    }

    fn bias(bytes: usize) -> Instance {
        let load_bias = LoadBias::between(Vaddr(0), bytes);
        Instance { load_bias, thread_locals: ThreadLocals::Elsewhere }
    }

    #[test]
    fn readelf_finds_nothing_wrong_with_a_symfile() {
        let scratch = Scratch::new("well-formed");
        let images = [
            scratch.compiled(CODE, &["-g", "-O2"]),
            scratch.compiled(CODE, &["-g", "-gz=zlib"]),
            scratch.compiled(CODE, &["-s"]),
            scratch.compiled(DATA, &["-g", "-nostdlib"]),
            without_section_headers(&scratch.compiled(CODE, &["-O2"])),
        ];
        for image in &images {
            for detail in [Detail::Full, Detail::Symbols] {
                let template = template(image, detail);
                assert_eq!(template.bytes.len(), template.bytes.capacity());
                let symfile = template.at(bias(0x7f12_3456_7000));
                assert_eq!(symfile, template.into_symfile(bias(0x7f12_3456_7000)));
                scratch.assert_well_formed(&symfile);
                assert!(section(&symfile, ".text").is_some());
                let Some(inner) = scratch.inner(&symfile) else {
                    continue;
                };
                scratch.assert_well_formed(&inner);
                assert!(section(&inner, ".text").is_some());
                assert!(section(&inner, ".symtab").is_none());
            }
        }
    }

    #[test]
    fn addresses_move_outside_and_stay_inside() {
        let scratch = Scratch::new("moves");
        let image = scratch.compiled(CODE, &["-g"]);
        let symfile = template(&image, Detail::Full).at(bias(0x1000_0000));
        let inner = scratch.inner(&symfile).unwrap();
        for name in [".text", ".data", ".bss", ".eh_frame", ".tdata"] {
            let stated = section(&image, name).unwrap().0;
            let (inside, outside) = (section(&inner, name), section(&symfile, name));
            assert_eq!(inside.unwrap().0.sh_addr, stated.sh_addr, "{name}");
            let outside = outside.unwrap().0;
            assert_eq!(outside.sh_addr, stated.sh_addr + 0x1000_0000, "{name}");
        }
        for name in [".debug_info", ".debug_line", ".debug_str", ".debug_abbrev"] {
            assert_eq!(section(&inner, name).unwrap().1, section(&image, name).unwrap().1);
            assert!(section(&symfile, name).is_none());
        }
        let [before, after] = [&image, &symfile].map(|bytes| {
            let symbols = section(bytes, ".symtab").unwrap().1;
            symbols.chunks(SYMBOL_SIZE).map(get).collect::<Vec<Sym>>()
        });
        assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            let distance = if moves(before) { 0x1000_0000 } else { 0 };
            assert_eq!(after.st_value, before.st_value + distance, "{before:?}");
        }
        let tls = after.iter().find(|symbol| st_type(symbol.st_info) == STT_TLS);
        assert_eq!(tls.unwrap().st_value, 0);
    }

    #[test]
    fn the_build_id_is_told_only_where_there_is_no_dwarf() {
        let scratch = Scratch::new("build-id");
        for (flag, told) in [("-g", false), ("-g0", true)] {
            let image = scratch.compiled(CODE, &[flag, "-Wl,--build-id"]);
            let symfile = template(&image, Detail::Full).at(bias(0));
            let (_, contents) = section(&symfile, ".note.gnu.build-id").unwrap();
            assert_eq!(!contents.is_empty(), told);
        }
    }

    #[test]
    fn without_section_headers_code_and_frames_and_names_are_found() {
        let scratch = Scratch::new("no-headers");
        let image = scratch.compiled(CODE, &["-O2"]);
        let bytes = without_section_headers(&image);
        let symfile = template_by(&bytes, &image, Detail::Full).unwrap().at(bias(0x1000));
        let (stated, made_up) = (section(&image, ".eh_frame"), section(&symfile, ".eh_frame"));
        let (stated, made_up) = (stated.unwrap(), made_up.unwrap());
        assert_eq!(made_up.0.sh_addr, stated.0.sh_addr + 0x1000);
        assert_eq!(made_up.1, stated.1);
        let symbols = section(&symfile, ".symtab").unwrap().1;
        let symbol: Sym = get(&symbols[SYMBOL_SIZE..2 * SYMBOL_SIZE]);
        let elf = goblin::elf::Elf::parse(&symfile).unwrap();
        assert_eq!(elf.strtab.get_at(symbol.st_name as usize), Some("visible"));
        let home = &elf.section_headers[usize::from(symbol.st_shndx)];
        assert_eq!(elf.shdr_strtab.get_at(home.sh_name), Some(".text"));
        assert!((home.sh_addr..home.sh_addr + home.sh_size).contains(&symbol.st_value));
    }

    #[test]
    fn dwarf_that_needs_a_second_file_is_left_out() {
        let scratch = Scratch::new("altlink");
        let image = scratch.compiled(CODE, &["-g"]);
        assert!(section(&template(&image, Detail::Full).bytes, ".gnu_debugdata").is_some());
        let library = scratch.file("image.so", &image);
        let note = scratch.file("note", b"/nowhere\0");
        let mut add = std::ffi::OsString::from("--add-section=.gnu_debugaltlink=");
        add.push(note);
        let output = run("binutils", "objcopy", [Path::new(&add), &library]);
        assert!(output.status.success(), "{output:?}");
        let image = std::fs::read(library).unwrap();
        assert!(section(&image, ".gnu_debugaltlink").is_some());
        assert!(section(&template(&image, Detail::Full).bytes, ".gnu_debugdata").is_none());
    }

    #[test]
    fn a_small_file_cannot_ask_for_much_memory() {
        let scratch = Scratch::new("overlap");
        let mut image = scratch.compiled(CODE, &["-g"]);
        let len = image.len();
        let header: Header = image.pread_with(0, LE).unwrap();
        for i in 1..usize::from(header.e_shnum) {
            let place = &mut image[header.e_shoff as usize + i * SECTION_SIZE..][..SECTION_SIZE];
            let mut section: SectionHeader = get(place);
            if section.sh_flags & u64::from(SHF_ALLOC) == 0 && section.sh_type == SHT_PROGBITS {
                (section.sh_offset, section.sh_size) = (0, len as u64);
                put(place, section);
            }
        }
        let symfile = template(&image, Detail::Full).into_symfile(bias(0));
        // There are seven or more such sections.
        assert!(symfile.len() < 3 * len);
    }

    #[test]
    fn what_is_no_elf_file_of_ours_is_an_error() {
        let scratch = Scratch::new("error");
        let image = scratch.compiled(DATA, &[]);
        let (segments, _) = program_headers(&image);
        for (at, value) in [(0, 0), (EI_CLASS, 1), (EI_DATA, 2)] {
            let mut bytes = image.clone();
            bytes[at] = value;
            let source = Source {
                bytes: &bytes,
                segments: &segments,
                eh_frame: None,
                tls_size: 0,
                dynamic_symbols: &|_| {},
            };
            let error = SymfileTemplate::new(&source, Detail::Full).unwrap_err();
            assert!(matches!(error, SymfileError::Malformed { at: found, .. }
                if found == FileOffset(at as u64)));
        }
    }

    /// The loader has checked the program headers, and nothing else; so all else is changed here.
    #[test]
    fn no_bytes_make_it_panic_or_grow() {
        let scratch = Scratch::new("mutation");
        let image = scratch.compiled(CODE, &["-g", "-O2"]);
        let header: Header = image.pread_with(0, LE).unwrap();
        let table = header.e_shoff as usize;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let values = [0, 1, 0x7f, 0x80, 0xff];
        for round in 0..3000 {
            let mut bytes = image.clone();
            for _ in 0..1 + random(8) {
                let at = match round % 4 {
                    0 => 40 + random(24),
                    1 | 2 => table + random(image.len() - table),
                    _ => 64 + random(image.len() - 64),
                };
                bytes[at] = match random(2) {
                    0 => values[random(values.len())],
                    _ => random(256) as u8,
                };
            }
            if round % 10 == 9 {
                bytes.truncate(64 + random(image.len() - 64));
            }
            if let Ok(template) = template_by(&bytes, &image, Detail::Full) {
                let symfile = template.into_symfile(bias(usize::MAX - 5));
                assert!(symfile.len() < 8 * image.len(), "round {round}");
            }
        }
    }
}
