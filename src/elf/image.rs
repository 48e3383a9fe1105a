//! From bytes to a validated image.
//!
//! [`Image::parse`] is the gate: the bytes are hostile before it, and what comes out of it is a
//! type whose every range lies in the bytes, so that no later stage can be handed raw input. It
//! copies nothing and maps nothing. What `ld.so` refuses is refused here too, in `ld.so`'s terms
//! where it has them; section headers are never read, since a loader does not need them.
//!
//! Sources: gABI chapters "ELF Header", "Program Header", "Dynamic Section"; glibc
//! `elf/dl-load.c` for what is refused. goblin gives the names of the numbers; this file, the
//! dynamic section and the symbol table are the only ones that use it.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::ops::{Deref, Range};
use std::sync::Arc;

use goblin::elf64::dynamic::{
    DF_1_NODELETE, DF_1_NOW, DF_1_PIE, DF_BIND_NOW, DF_SYMBOLIC, DF_TEXTREL, DT_BIND_NOW, DT_FINI,
    DT_FINI_ARRAY, DT_FINI_ARRAYSZ, DT_FLAGS, DT_FLAGS_1, DT_GNU_HASH, DT_HASH, DT_INIT,
    DT_INIT_ARRAY, DT_INIT_ARRAYSZ, DT_JMPREL, DT_NEEDED, DT_NULL, DT_PLTGOT, DT_PLTREL,
    DT_PLTRELSZ, DT_REL, DT_RELA, DT_RELAENT, DT_RELASZ, DT_RPATH, DT_RUNPATH, DT_SONAME,
    DT_STRTAB, DT_SYMBOLIC, DT_SYMTAB, DT_TEXTREL, DT_VERDEF, DT_VERNEED, DT_VERSYM,
};
use goblin::elf64::header::{
    EI_ABIVERSION, EI_CLASS, EI_DATA, EI_OSABI, EI_VERSION, ELFCLASS64, ELFDATA2LSB, ELFMAG,
    ELFOSABI_GNU, ELFOSABI_NONE, ET_DYN, ET_EXEC, ET_REL, EV_CURRENT, SIZEOF_EHDR, SIZEOF_IDENT,
};
use goblin::elf64::program_header::{
    PF_R, PF_W, PF_X, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_GNU_STACK, PT_LOAD, PT_NOTE,
    PT_TLS, ProgramHeader, SIZEOF_PHDR,
};

use crate::arch::Machine;
use crate::base::addr::{PageSize, Vaddr};
use crate::base::error::{Error, Place};
use crate::base::fallible::{
    TryGrow, require_memory_for_next, try_collect, try_collect_ok, try_vec,
};
use crate::base::limits::{self, Limits};
use crate::elf::dynamic::{Dynamic, ReadAt, u16_at, u32_at, u64_at};
use crate::elf::rela::{Packed, RELA_SIZE, Rela};
use crate::elf::symbol::{SymbolLayout, SymbolTable};

/// The longest name of a library, or list of folders, that is believed.
const MAX_NAME: usize = libc::PATH_MAX as usize;
/// The largest `EI_ABIVERSION` of a GNU image that glibc takes.
const MAX_ABIVERSION: u8 = 3;
/// Where the unused bytes of `e_ident` begin.
const EI_PAD: usize = 9;
/// `DT_RELR` and its companions: packed relative relocations (gABI proposal, in glibc since 2.36).
const DT_RELRSZ: u64 = 35;
const DT_RELR: u64 = 36;
const DT_RELRENT: u64 = 37;
/// Libraries that this one stands in for (gABI of Solaris, in glibc too).
const DT_AUXILIARY: u64 = 0x7fff_fffd;
const DT_FILTER: u64 = 0x7fff_ffff;
/// Android's packed tables: with and without addends, and its own tags for `DT_RELR`.
const DT_ANDROID_REL: u64 = 0x6000_000f;
const DT_ANDROID_RELA: u64 = 0x6000_0011;
const DT_ANDROID_RELASZ: u64 = 0x6000_0012;
const DT_ANDROID_RELR: u64 = 0x6fff_e000;
const DT_ANDROID_RELRSZ: u64 = 0x6fff_e001;
const DT_ANDROID_RELRENT: u64 = 0x6fff_e003;

/// A validated shared library, not yet in place.
pub(crate) struct Image<B> {
    bytes: B,
    pub(crate) decoded: Arc<Decoded>,
}

/// What an image says of itself, all of it checked. Holds no bytes, so it stays with a loaded
/// library when the bytes are gone.
pub(crate) struct Decoded {
    /// The program headers as they stand, for those who ask for them (`dl_iterate_phdr`).
    pub program_headers: Vec<ProgramHeader>,
    /// `PT_DYNAMIC`.
    pub dynamic: Range<Vaddr>,
    /// The `PT_LOAD`s: ascending, none overlapping another.
    pub segments: Vec<Segment>,
    pub symbols: SymbolLayout,
    pub soname: Option<CString>,
    /// The `DT_NEEDED` strings in order.
    pub needed: Vec<CString>,
    /// `DT_RUNPATH`, or else `DT_RPATH`: where needed libraries are searched first.
    pub run_path: Option<CString>,
    pub relocations: RelocationTables,
    pub tls: Option<TlsSegment>,
    /// `PT_GNU_RELRO`, as stated; it starts in a writable segment, and ends no later than the last.
    pub relro: Option<Range<Vaddr>>,
    /// `PT_GNU_EH_FRAME`; inside one segment's file-backed part.
    pub eh_frame_hdr: Option<Range<Vaddr>>,
    pub init: Option<Vaddr>,
    pub init_array: Option<Range<Vaddr>>,
    pub fini: Option<Vaddr>,
    pub fini_array: Option<Range<Vaddr>>,
    /// `DT_SYMBOLIC`: references look into the image itself first.
    pub symbolic: bool,
    /// `DT_TEXTREL`: relocations apply to segments that are not writable.
    pub text_relocations: bool,
    /// `DT_PLTGOT`, unless the image must not be bound lazily (`DF_BIND_NOW`).
    pub plt_got: Option<Vaddr>,
    /// `DF_1_NODELETE`: never to be unmapped.
    pub nodelete: bool,
}

/// A `PT_LOAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// `p_vaddr .. p_vaddr + p_memsz`; not empty.
    pub addresses: Range<Vaddr>,
    /// `p_offset .. p_offset + p_filesz`; lies in the bytes, no longer than `addresses`.
    pub file: Range<usize>,
    pub access: Access,
    /// `p_align`: a power of two, at least a page.
    pub align: u64,
}

/// What may be done with a segment's memory; never both `write` and `execute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

/// `PT_TLS`: a thread's copy of the image's thread-local variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSegment {
    /// Initial values (`p_filesz` bytes); may be empty.
    pub template: Range<Vaddr>,
    /// Size of a block (`p_memsz`); what is behind the template is zero.
    pub size: u64,
    /// A power of two; the block's address is congruent to `template.start` modulo this.
    pub align: u64,
}

/// The relocation tables, each a whole number of entries inside one segment's file-backed part.
#[derive(Clone, Debug, Default)]
pub(crate) struct RelocationTables {
    /// `DT_RELR`: words of 8 bytes.
    pub relr: Option<Range<Vaddr>>,
    /// `DT_RELA`.
    pub rela: Option<Range<Vaddr>>,
    /// `DT_ANDROID_RELA`: bytes of a stream that was read to its end once.
    pub packed: Option<Range<Vaddr>>,
    /// `DT_JMPREL`, the PLT's.
    pub jmprel: Option<Range<Vaddr>>,
}

/// `PT_LOAD`s and all else that the program headers say, before the dynamic section is read.
#[derive(Default)]
struct Headers {
    table: Vec<ProgramHeader>,
    segments: Vec<Segment>,
    dynamic: Option<Range<Vaddr>>,
    tls: Option<TlsSegment>,
    relro: Option<Range<Vaddr>>,
    eh_frame_hdr: Option<Range<Vaddr>>,
}

impl<B: Deref<Target = [u8]>> Image<B> {
    /// Validates `bytes` as a shared library for `machine`.
    pub(crate) fn parse(
        bytes: B,
        machine: &Machine,
        page: PageSize,
        limits: &Limits,
    ) -> Result<Image<B>, Error> {
        limits::check("the size of the image, in bytes", bytes.len() as u64, limits.image_bytes)?;
        check_elf_header(&bytes, machine)?;
        let headers = Headers::parse(&bytes, page, limits)?;
        let decoded = Decoded::parse(&bytes, headers, limits)?;
        Ok(Image { bytes, decoded: Arc::new(decoded) })
    }

    /// The received bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Who holds the received bytes.
    pub(crate) fn owner(&self) -> &B {
        &self.bytes
    }

    /// As [`Image::owner`]. The bytes that it leaves there must be the same ones, or none.
    pub(crate) fn owner_mut(&mut self) -> &mut B {
        &mut self.bytes
    }

    /// The contents of each `PT_NOTE`.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &[u8]> {
        self.decoded.notes(self)
    }

    /// The image's dynamic symbols, as received. An error where the bytes are gone
    /// ([`Image::take_buffer`]).
    pub(crate) fn symbols(&self) -> Result<SymbolTable<'_>, Error> {
        self.decoded.symbols_in(self)
    }

    /// The relocations of all tables but `DT_RELR`, the PLT's last.
    pub(crate) fn relas(&self) -> impl Iterator<Item = Rela> + '_ {
        self.decoded.relocations.relas(self)
    }
}

impl<B: Deref<Target = [u8]>> ReadAt for Image<B> {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        FileView { bytes: &self.bytes, segments: &self.decoded.segments }
            .find(range.start, Some(range.end))
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        FileView { bytes: &self.bytes, segments: &self.decoded.segments }.find(start, None)
    }
}

/// The bytes by stated address. Those of a segment that cannot be read in memory are not there: what a
/// loader needs of an image, it needs when that is in place.
struct FileView<'a> {
    bytes: &'a [u8],
    segments: &'a [Segment],
}

impl<'a> FileView<'a> {
    fn find(&self, start: Vaddr, end: Option<Vaddr>) -> Option<&'a [u8]> {
        let holds = |segment: &&Segment| segment.access.read && segment.addresses.contains(&start);
        let segment = self.segments.iter().find(holds)?;
        let skip = usize::try_from(start.checked_sub(segment.addresses.start)?).ok()?;
        let tail = self.bytes.get(segment.file.clone())?.get(skip..)?;
        match end {
            None => Some(tail),
            Some(end) => tail.get(..usize::try_from(end.checked_sub(start)?).ok()?),
        }
    }
}

impl ReadAt for FileView<'_> {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        self.find(range.start, Some(range.end))
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        self.find(start, None)
    }
}

impl Segment {
    /// Where what the file has of this segment ends, if `address` is in that.
    fn file_end_behind(&self, address: Vaddr) -> Option<Vaddr> {
        let end = self.addresses.start.checked_add(self.file.len() as u64)?;
        (self.addresses.start <= address && address < end).then_some(end)
    }

    /// Whether `range` lies in this segment.
    pub(crate) fn contains(&self, range: &Range<Vaddr>) -> bool {
        self.addresses.start <= range.start
            && range.start <= range.end
            && range.end <= self.addresses.end
    }
}

/// Checks `e_ident` and the fields that decide whether this is a file for us at all.
fn check_elf_header(bytes: &[u8], machine: &Machine) -> Result<(), Error> {
    let malformed = |what: String| Err(Error::malformed(what, Place::Header));
    if bytes.is_empty() {
        return malformed("no bytes at all".into());
    }
    if !bytes.starts_with(ELFMAG) {
        let start: Vec<u8> = bytes.iter().take(4).copied().collect();
        return malformed(format!("not an ELF file: it starts with {start:02x?}, not 7f 45 4c 46"));
    }
    if bytes.len() < SIZEOF_EHDR {
        return malformed(format!(
            "truncated: {} bytes, the ELF header alone has {SIZEOF_EHDR}",
            bytes.len()
        ));
    }
    let half = |offset| u16_at(bytes, offset).unwrap_or(0);
    let ident = |index: usize| bytes.get(index).copied().unwrap_or(0);
    match ident(EI_CLASS) {
        ELFCLASS64 => {}
        1 => return Err(Error::unsupported("a 32-bit image (ELFCLASS32)")),
        class => return malformed(format!("EI_CLASS is {class}")),
    }
    match ident(EI_DATA) {
        ELFDATA2LSB => {}
        2 => return Err(Error::unsupported("a big-endian image (ELFDATA2MSB)")),
        data => return malformed(format!("EI_DATA is {data}")),
    }
    let e_version = u32_at(bytes, 20).unwrap_or(0);
    for version in [u32::from(ident(EI_VERSION)), e_version] {
        if version != u32::from(EV_CURRENT) {
            return malformed(format!("ELF version {version} is not {EV_CURRENT}"));
        }
    }
    // What `ld.so` takes.
    match (ident(EI_OSABI), ident(EI_ABIVERSION)) {
        (ELFOSABI_NONE, 0) | (ELFOSABI_GNU, 0..=MAX_ABIVERSION) => {}
        (ELFOSABI_NONE | ELFOSABI_GNU, version) => {
            return Err(Error::unsupported(format!("ELF file ABI version {version} invalid")));
        }
        (system, _) => {
            let what = format!("an image for another system (EI_OSABI {system})");
            return Err(Error::unsupported(what));
        }
    }
    if bytes.get(EI_PAD..SIZEOF_IDENT).is_none_or(|padding| padding.iter().any(|&byte| byte != 0)) {
        return malformed("nonzero padding in e_ident".into());
    }
    if half(18) != machine.e_machine {
        let (is, want, name) = (half(18), machine.e_machine, machine.name);
        return Err(Error::unsupported(format!(
            "an image for another machine: e_machine is {is}, {name} is {want}"
        )));
    }
    match half(16) {
        ET_DYN => {}
        ET_EXEC => {
            return Err(Error::unsupported("an executable (ET_EXEC), not a shared library"));
        }
        ET_REL => {
            return Err(Error::unsupported("an object file (ET_REL): link it with -shared"));
        }
        other => return malformed(format!("e_type is {other}, not ET_DYN (3)")),
    }
    if usize::from(half(54)) != SIZEOF_PHDR {
        return malformed(format!("e_phentsize is {}, not {SIZEOF_PHDR}", half(54)));
    }
    Ok(())
}

impl Headers {
    fn parse(bytes: &[u8], page: PageSize, limits: &Limits) -> Result<Headers, Error> {
        let e_phoff = u64_at(bytes, 32).unwrap_or(0);
        let e_phnum = u16_at(bytes, 56).unwrap_or(0);
        let table = usize::try_from(e_phoff)
            .ok()
            .and_then(|start| {
                bytes.get(start..)?.get(..usize::from(e_phnum).checked_mul(SIZEOF_PHDR)?)
            })
            .ok_or_else(|| {
                let what = format!(
                    "truncated: {e_phnum} program headers at {e_phoff:#x} do not fit into the file"
                );
                Error::malformed(what, Place::Header)
            })?;
        let count = usize::from(e_phnum);
        let mut headers = Headers { table: try_vec(count)?, ..Headers::default() };
        for (index, entry) in table.chunks_exact(SIZEOF_PHDR).enumerate() {
            let word = |offset| u64_at(entry, offset).unwrap_or(0);
            let header = ProgramHeader {
                p_type: u32_at(entry, 0).unwrap_or(0),
                p_flags: u32_at(entry, 4).unwrap_or(0),
                p_offset: word(8),
                p_vaddr: word(16),
                p_paddr: word(24),
                p_filesz: word(32),
                p_memsz: word(40),
                p_align: word(48),
            };
            headers.add(index, &header, bytes, page, limits)?;
            headers.table.try_push(header)?;
        }
        if headers.segments.is_empty() {
            return Err(Error::malformed("object file has no loadable segments", Place::Header));
        }
        headers.check_against_segments()?;
        Ok(headers)
    }

    /// Takes in one `Elf64_Phdr`.
    fn add(
        &mut self,
        index: usize,
        header: &ProgramHeader,
        bytes: &[u8],
        page: PageSize,
        limits: &Limits,
    ) -> Result<(), Error> {
        let malformed = |what: String| Error::malformed(what, Place::Segment(index));
        let ProgramHeader { p_type, p_flags, p_offset, p_filesz, p_memsz, p_align, .. } = *header;
        let p_vaddr = Vaddr(header.p_vaddr);

        match p_type {
            PT_LOAD | PT_DYNAMIC | PT_TLS | PT_GNU_RELRO => {}
            // Its size is nobody's business but the table's own.
            PT_GNU_EH_FRAME => {
                let end = p_vaddr.checked_add(p_filesz).unwrap_or(p_vaddr);
                self.eh_frame_hdr = Some(p_vaddr..end);
                return Ok(());
            }
            PT_GNU_STACK if p_flags & PF_X != 0 => {
                return Err(Error::unsupported(
                    "an executable stack (PT_GNU_STACK with PF_X): link with -z noexecstack",
                ));
            }
            _ => return Ok(()),
        }
        let addresses = p_vaddr.range(p_memsz).ok_or_else(|| {
            malformed(format!("p_vaddr {p_vaddr} + p_memsz {p_memsz:#x} wraps around"))
        })?;
        if matches!(p_type, PT_LOAD | PT_DYNAMIC | PT_TLS) && p_filesz > p_memsz {
            return Err(malformed(format!(
                "p_filesz {p_filesz:#x} is larger than p_memsz {p_memsz:#x}"
            )));
        }
        let in_memory = p_vaddr..p_vaddr.checked_add(p_filesz.min(p_memsz)).unwrap_or(p_vaddr);
        let align = p_align.max(1);
        if matches!(p_type, PT_LOAD | PT_TLS) && !align.is_power_of_two() {
            return Err(malformed(format!("p_align {p_align:#x} is not a power of two")));
        }
        match p_type {
            PT_LOAD if p_memsz == 0 => {}
            PT_LOAD => {
                let file = usize::try_from(p_offset)
                    .ok()
                    .zip(usize::try_from(p_filesz).ok())
                    .and_then(|(start, len)| Some(start..start.checked_add(len)?))
                    // Linkers leave anything in `p_offset` where there is nothing in the file.
                    .or((p_filesz == 0).then_some(0..0))
                    .filter(|file| file.is_empty() || file.end <= bytes.len())
                    .ok_or_else(|| {
                        let len = bytes.len();
                        malformed(format!(
                            "truncated: the segment needs {p_filesz:#x} bytes at {p_offset:#x}, the file has {len:#x}"
                        ))
                    })?;
                limits::check("a segment's alignment, in bytes", align, limits.alignment)?;
                // 0 and 1 ask for none.
                let align = if align == 1 { page.get() } else { align };
                if align < page.get() {
                    return Err(malformed(format!(
                        "ELF load command alignment {p_align:#x} not page-aligned"
                    )));
                }
                // Not modulo `p_align`: some versions of mold and patchelf write segments that are
                // aligned in memory and not in the file, and `ld.so` takes them.
                let misalignment = p_vaddr.0.wrapping_sub(p_offset) & page.mask();
                if misalignment != 0 && p_filesz != 0 {
                    return Err(malformed(format!(
                        "ELF load command address/offset not properly aligned: p_vaddr {p_vaddr} and p_offset \
                         {p_offset:#x} differ modulo the page size {:#x}",
                        page.get()
                    )));
                }
                let access = Access {
                    // x86 and most others cannot map memory that is executable but not readable.
                    read: p_flags & (PF_R | PF_X) != 0 || p_flags & PF_W != 0,
                    write: p_flags & PF_W != 0,
                    execute: p_flags & PF_X != 0,
                };
                if access.write && access.execute {
                    let text = format!(
                        "program header {index}: a segment that is writable and executable"
                    );
                    return Err(Error::unsupported(text));
                }
                if let Some(last) = self.segments.last() {
                    // The pages must not meet either, since each has one protection.
                    let last_end = last.addresses.end.page_ceil(page);
                    if last_end.is_none_or(|end| end > addresses.start.page_floor(page)) {
                        return Err(malformed(
                            "PT_LOAD segments overlap, share a page or are not in ascending order"
                                .into(),
                        ));
                    }
                }
                if addresses.end.page_ceil(page).is_none() {
                    return Err(malformed(
                        "the segment ends in the last page of the address space".into(),
                    ));
                }
                let first = self.segments.first().map_or(addresses.start, |it| it.addresses.start);
                // The segments ascend.
                let span = addresses.end.checked_sub(first).unwrap_or(u64::MAX);
                self.segments.try_push(Segment { addresses, file, access, align })?;
                limits::check("the address space of the image, in bytes", span, limits.image_span)?;
            }
            PT_DYNAMIC => self.dynamic = Some(in_memory),
            PT_TLS if p_memsz == 0 => {}
            PT_TLS => {
                if self.tls.is_some() {
                    return Err(malformed("a second PT_TLS".into()));
                }
                limits::check(
                    "a block of thread-local variables, in bytes",
                    p_memsz,
                    limits.tls_block,
                )?;
                limits::check(
                    "a thread-local block's alignment, in bytes",
                    align,
                    limits.alignment,
                )?;
                self.tls = Some(TlsSegment { template: in_memory, size: p_memsz, align });
            }
            PT_GNU_RELRO if p_memsz != 0 => self.relro = Some(addresses),
            _ => {}
        }
        Ok(())
    }

    /// What other headers point at must lie in the segments.
    fn check_against_segments(&mut self) -> Result<(), Error> {
        let in_file = |range: &Range<Vaddr>| {
            self.segments.iter().any(|segment| {
                segment.access.read
                    && segment.contains(range)
                    && range.end.checked_sub(segment.addresses.start)
                        <= Some(segment.file.len() as u64)
            })
        };
        if let Some(tls) = &self.tls
            && !tls.template.is_empty()
            && !in_file(&tls.template)
        {
            let at = Place::Address(tls.template.start);
            return Err(Error::malformed(
                "PT_TLS: the initial values lie outside the segments",
                at,
            ));
        }
        // It may span several segments; linkers pad it up to a page boundary of theirs, which may
        // lie behind the last.
        let mut writable = self.segments.iter().filter(|segment| segment.access.write);
        let end = |segment: &Segment| {
            segment.addresses.end.0.div_ceil(segment.align).saturating_mul(segment.align)
        };
        let last_end = writable.clone().map(end).max().unwrap_or(0);
        if let Some(relro) = &self.relro
            && (relro.end > Vaddr(last_end)
                || !writable.any(|segment| segment.addresses.contains(&relro.start)))
        {
            let at = Place::Address(relro.start);
            return Err(Error::malformed("PT_GNU_RELRO lies outside the writable segments", at));
        }
        // Unwind information is not needed to run: one that points nowhere is as good as none. Unwinders
        // look at its start only, so a size that cannot be is as good as any.
        self.eh_frame_hdr = self.eh_frame_hdr.take().and_then(|hdr| {
            let mut readable = self.segments.iter().filter(|segment| segment.access.read);
            let end = readable.find_map(|segment| segment.file_end_behind(hdr.start))?;
            let is_whole = hdr.start < hdr.end && hdr.end <= end;
            Some(hdr.start..if is_whole { hdr.end } else { end })
        });
        Ok(())
    }
}

impl Decoded {
    fn parse(bytes: &[u8], headers: Headers, limits: &Limits) -> Result<Decoded, Error> {
        let view = FileView { bytes, segments: &headers.segments };
        let no_dynamic = || Error::malformed("object file has no dynamic section", Place::Header);
        let section = headers.dynamic.clone().ok_or_else(no_dynamic)?;
        let at = Place::Address(section.start);
        let dynamic = Dynamic::parse(view.read(section.clone()).ok_or_else(|| {
            Error::malformed("the dynamic section lies outside the segments", at)
        })?)?;
        if !dynamic.is_terminated() {
            return Err(Error::malformed("the dynamic section does not end with DT_NULL", at));
        }
        let flags = dynamic.get(DT_FLAGS).unwrap_or(0);
        let flags_1 = dynamic.get(DT_FLAGS_1).unwrap_or(0);
        if flags_1 & DF_1_PIE != 0 {
            return Err(Error::unsupported(
                "a position-independent executable (DF_1_PIE), not a shared library",
            ));
        }

        let tables = TABLES.iter().filter_map(|&tag| dynamic.address(tag));
        let symbols = SymbolLayout::of_image(&dynamic, &view, tables.chain([section.start]))?;
        let table = SymbolTable::over(&symbols, &view).ok_or_else(Decoded::no_symbols)?;
        let string = |tag: u64, offset: u64| {
            let name = u32::try_from(offset).ok().and_then(|offset| table.string(offset));
            let name = name.ok_or("a name lies outside the string table").and_then(|name| {
                let is_path = name.len() < MAX_NAME;
                if is_path { Ok(name) } else { Err("a library's name is longer than any path") }
            });
            let name = name.map_err(|what| Error::malformed(what, Place::Dynamic(tag)))?;
            Ok(CString::new(name).unwrap_or_default())
        };
        let needed_count = dynamic.all(DT_NEEDED).count() as u64;
        limits::check("the number of needed libraries", needed_count, limits.needed)?;
        let soname = dynamic.get(DT_SONAME).map(|offset| string(DT_SONAME, offset)).transpose()?;
        let needed = dynamic.all(DT_NEEDED).enumerate().map(|(index, offset)| {
            require_memory_for_next(index)?;
            string(DT_NEEDED, offset)
        });
        let needed = try_collect_ok::<_, Error>(needed)?;

        // What is not followed must be a name all the same: `ld.so` follows it.
        for tag in [DT_AUXILIARY, DT_FILTER] {
            if dynamic.get(tag).is_some() {
                dynamic.all(tag).try_for_each(|offset| string(tag, offset).map(drop))?;
            }
        }

        let [run_path, older] = [DT_RUNPATH, DT_RPATH]
            .map(|tag| dynamic.get(tag).map(|offset| string(tag, offset)).transpose());
        let run_path = run_path?.or(older?);

        let code = |tag: u64| match dynamic.address(tag) {
            None => Ok(None),
            Some(address) => {
                // Behind what the file has are zeros, which are no function.
                let executable = |segment: &Segment| {
                    segment.access.execute && segment.file_end_behind(address).is_some()
                };
                if headers.segments.iter().any(executable) {
                    Ok(Some(address))
                } else {
                    Err(Error::malformed(
                        format!("{address} is not in executable memory"),
                        Place::Dynamic(tag),
                    ))
                }
            }
        };
        let pointers = |tag: u64, size: u64| {
            let malformed = |what: &'static str| Error::malformed(what, Place::Dynamic(tag));
            if dynamic.get(tag).is_some() && dynamic.get(size).is_none() {
                return Err(malformed("an array of functions without its size"));
            }
            let Some(range) = dynamic.table(tag, size) else { return Ok(None) };
            let is_array = |range: &Range<Vaddr>| {
                let len = range.end.checked_sub(range.start);
                range.start.0.is_multiple_of(8) && len.is_some_and(|len| len.is_multiple_of(8))
            };
            let mut readable = headers.segments.iter().filter(|segment| segment.access.read);
            range
                .filter(is_array)
                .filter(|range| readable.any(|segment| segment.contains(range)))
                .map(Some)
                .ok_or_else(|| malformed("an array of functions lies outside the segments"))
        };
        Ok(Decoded {
            dynamic: section,
            soname,
            needed,
            run_path,
            relocations: RelocationTables::parse(&dynamic, &view, limits)?,
            init: code(DT_INIT)?,
            init_array: pointers(DT_INIT_ARRAY, DT_INIT_ARRAYSZ)?,
            fini: code(DT_FINI)?,
            fini_array: pointers(DT_FINI_ARRAY, DT_FINI_ARRAYSZ)?,
            symbolic: dynamic.get(DT_SYMBOLIC).is_some() || flags & DF_SYMBOLIC != 0,
            text_relocations: dynamic.get(DT_TEXTREL).is_some() || flags & DF_TEXTREL != 0,
            plt_got: dynamic.address(DT_PLTGOT).filter(|_| {
                dynamic.get(DT_BIND_NOW).is_none()
                    && flags & DF_BIND_NOW == 0
                    && flags_1 & DF_1_NOW == 0
            }),
            nodelete: flags_1 & DF_1_NODELETE != 0,
            symbols,
            program_headers: headers.table,
            segments: headers.segments,
            tls: headers.tls,
            relro: headers.relro,
            eh_frame_hdr: headers.eh_frame_hdr,
        })
    }
}

/// What may follow the symbol table.
const TABLES: [u64; 14] = [
    DT_STRTAB,
    DT_GNU_HASH,
    DT_HASH,
    DT_VERSYM,
    DT_VERDEF,
    DT_VERNEED,
    DT_RELA,
    DT_JMPREL,
    DT_RELR,
    DT_ANDROID_RELA,
    DT_ANDROID_RELR,
    DT_INIT_ARRAY,
    DT_FINI_ARRAY,
    DT_PLTGOT,
];

/// The bytes of a table, none if there is no such table.
fn table<'m>(range: &Option<Range<Vaddr>>, memory: &'m impl ReadAt) -> &'m [u8] {
    range.as_ref().and_then(|range| memory.read(range.clone())).unwrap_or(&[])
}

impl Decoded {
    /// The dynamic symbols, as they stand in `memory`.
    pub(crate) fn symbols_in<'a>(
        &'a self,
        memory: &'a impl ReadAt,
    ) -> Result<SymbolTable<'a>, Error> {
        SymbolTable::over(&self.symbols, memory).ok_or_else(Decoded::no_symbols)
    }

    fn no_symbols() -> Error {
        Error::malformed("symbol tables lie outside the image", Place::Header)
    }

    /// The contents of each `PT_NOTE`, read from `memory`.
    pub(crate) fn notes<'m>(&self, memory: &'m impl ReadAt) -> impl Iterator<Item = &'m [u8]> {
        let notes = self.program_headers.iter().filter(|header| header.p_type == PT_NOTE);
        notes.filter_map(|note| memory.read(Vaddr(note.p_vaddr).range(note.p_filesz)?))
    }

    /// The entries of the dynamic section, read from `memory`, whose values are addresses that `ld.so`
    /// moves in place: where the value stands, and what it is. Some runtimes read them.
    pub(crate) fn moved_dynamic_entries(
        &self,
        memory: &impl ReadAt,
    ) -> Result<Vec<(Vaddr, Vaddr)>, Error> {
        const MOVED: [u64; 8] =
            [DT_HASH, DT_PLTGOT, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_JMPREL, DT_VERSYM, DT_GNU_HASH];
        let section = memory.read(self.dynamic.clone()).unwrap_or(&[]);
        let tag = |entry: &[u8]| u64_at(entry, 0).unwrap_or(DT_NULL);
        let entries = section.chunks_exact(16).take_while(|entry| tag(entry) != DT_NULL);
        let moved = entries.zip((self.dynamic.start.0..).step_by(16)).filter_map(|(entry, at)| {
            let value = u64_at(entry, 8)?;
            MOVED.contains(&tag(entry)).then_some((Vaddr(at).checked_add(8)?, Vaddr(value)))
        });
        try_collect(moved)
    }

    /// Whether a `DT_NEEDED` entry of this name means an image with these facts that is called
    /// `own_name`.
    pub(crate) fn is_called(&self, own_name: &str, name: &[u8]) -> bool {
        self.soname.as_deref().is_some_and(|soname| soname.to_bytes() == name)
            || own_name.as_bytes() == name
    }
}

impl RelocationTables {
    /// The relocations of all tables but `DT_RELR`, the PLT's last, read from `memory`.
    pub(crate) fn relas<'m>(&self, memory: &'m impl ReadAt) -> impl Iterator<Item = Rela> + 'm {
        self.relas_outside_plt(memory).chain(Rela::entries(table(&self.jmprel, memory)))
    }

    /// Of [`RelocationTables::relas`], those that are not in the PLT's table.
    pub(crate) fn relas_outside_plt<'m>(
        &self,
        memory: &'m impl ReadAt,
    ) -> impl Iterator<Item = Rela> + 'm {
        let packed = Packed::new(table(&self.packed, memory));
        let packed = packed.into_iter().flatten().map_while(Result::ok);
        Rela::entries(table(&self.rela, memory)).chain(packed)
    }

    /// Visits the same, as tables for [`Rela::entries`], up to the first error: loading is mostly what
    /// is done with each entry, and that takes a loop over a plain table to be quick.
    pub(crate) fn visit(
        &self,
        memory: &impl ReadAt,
        mut visit: impl FnMut(&[u8]) -> Result<(), Box<Error>>,
    ) -> Result<(), Error> {
        const MANY: usize = 256;
        let mut visit = |entries: &[u8]| visit(entries).map_err(|error| *error);
        visit(table(&self.rela, memory))?;
        let packed = Packed::new(table(&self.packed, memory));
        let mut packed = packed.into_iter().flatten().map_while(Result::ok);
        let mut unpacked = Vec::new();
        loop {
            unpacked.clear();
            unpacked.extend(packed.by_ref().take(MANY).flat_map(Rela::to_bytes));
            if unpacked.is_empty() {
                break;
            }
            visit(&unpacked)?;
        }
        visit(table(&self.jmprel, memory))
    }

    /// The words of the `DT_RELR` table, read from `memory`.
    pub(crate) fn relr_words<'m>(&self, memory: &'m impl ReadAt) -> impl Iterator<Item = u64> + 'm {
        table(&self.relr, memory).chunks_exact(8).map(|word| u64_at(word, 0).unwrap_or(0))
    }

    /// Where they all are.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range<Vaddr>> {
        [&self.relr, &self.rela, &self.packed, &self.jmprel].into_iter().flatten()
    }

    fn parse(
        dynamic: &Dynamic,
        view: &FileView<'_>,
        limits: &Limits,
    ) -> Result<RelocationTables, Error> {
        if dynamic.get(DT_REL).is_some() {
            return Err(Error::unsupported(
                "relocations without addends (DT_REL), which this machine does not use",
            ));
        }
        if dynamic.get(DT_ANDROID_REL).is_some() {
            return Err(Error::unsupported("packed relocations without addends (DT_ANDROID_REL)"));
        }
        let jmprel_is_rela = dynamic.get(DT_PLTREL).is_none_or(|kind| kind == DT_RELA);
        if dynamic.get(DT_JMPREL).is_some() && !jmprel_is_rela {
            return Err(Error::unsupported(
                "PLT relocations without addends (DT_PLTREL is DT_REL)",
            ));
        }
        let table = |start: u64, size: u64, entry: Option<u64>, want: u64| {
            if entry.and_then(|tag| dynamic.get(tag)).is_some_and(|stated| stated != want) {
                return Err(Error::malformed(
                    "relocations of an unknown size",
                    Place::Dynamic(start),
                ));
            }
            let stated_len = dynamic.get(size);
            if dynamic.get(start).is_some() != stated_len.is_some() && stated_len != Some(0) {
                let what = "a relocation table without its size, or a size without a table";
                return Err(Error::malformed(what, Place::Dynamic(start)));
            }
            let Some(range) = dynamic.table(start, size) else {
                return Ok(None);
            };
            range
                .filter(|_| stated_len.is_some_and(|len| len.is_multiple_of(want)))
                .filter(|range| view.read(range.clone()).is_some())
                .map(Some)
                .ok_or_else(|| {
                    Error::malformed(
                        "a relocation table lies outside the image",
                        Place::Dynamic(start),
                    )
                })
        };
        let mut rela = table(DT_RELA, DT_RELASZ, Some(DT_RELAENT), RELA_SIZE)?;
        let jmprel = table(DT_JMPREL, DT_PLTRELSZ, None, RELA_SIZE)?;
        let relr = match table(DT_RELR, DT_RELRSZ, Some(DT_RELRENT), 8)? {
            Some(relr) => Some(relr),
            None => table(DT_ANDROID_RELR, DT_ANDROID_RELRSZ, Some(DT_ANDROID_RELRENT), 8)?,
        };
        let packed = table(DT_ANDROID_RELA, DT_ANDROID_RELASZ, None, 1)?;
        // Some linkers count the PLT's entries in DT_RELASZ too; applied twice, they would be
        // right still, but IFUNC resolvers would run twice.
        if let (Some(all), Some(plt)) = (&mut rela, &jmprel)
            && all.end == plt.end
            && all.start <= plt.start
        {
            all.end = plt.start;
        }
        let len = |range: &Range<Vaddr>| range.end.checked_sub(range.start).unwrap_or(0);
        // All lie in the file: their sum is far from what a u64 holds.
        let mut total = 0u64;
        for (range, size) in [(&rela, RELA_SIZE), (&jmprel, RELA_SIZE), (&relr, 8)] {
            let entries = range.as_ref().map_or(0, len).checked_div(size);
            total = total.saturating_add(entries.unwrap_or(0));
        }
        if let Some(words) = relr.clone().and_then(|range| view.read(range))
            && u64_at(words, 0).is_some_and(|first| first & 1 != 0)
        {
            let what = "DT_RELR begins with a bitmap, which has no address to begin at";
            return Err(Error::malformed(what, Place::Dynamic(DT_RELR)));
        }
        if let Some(packed) = packed.clone().and_then(|range| view.read(range)) {
            let malformed = |_| {
                let what = "the packed relocations contradict themselves";
                Error::malformed(what, Place::Dynamic(DT_ANDROID_RELA))
            };
            let packed = Packed::new(packed).map_err(malformed)?;
            total = total.saturating_add(packed.len());
            limits::check("the number of relocations", total, limits.relocations)?;
            for rela in packed {
                rela.map_err(malformed)?;
            }
        }
        limits::check("the number of relocations", total, limits.relocations)?;
        Ok(RelocationTables { relr, rela, packed, jmprel })
    }
}
