//! What an image says of itself, decoded from its program headers and its dynamic section.
//!
//! [`Decoded::parse`] checks all of it: every range lies in the bytes or in the segments, every name
//! in the string table. What `ld.so` refuses is refused here too, in `ld.so`'s terms where it has
//! them. [`Decoded`] holds no bytes.
//!
//! Sources: gABI "Dynamic Section"; glibc `elf/dl-load.c`.

#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::ops::Range;

use goblin::elf64::dynamic::{
    DF_1_NODEFLIB, DF_1_NODELETE, DF_1_NOOPEN, DF_1_NOW, DF_1_PIE, DF_BIND_NOW, DF_SYMBOLIC,
    DF_TEXTREL, DT_BIND_NOW, DT_FINI, DT_FINI_ARRAY, DT_FINI_ARRAYSZ, DT_FLAGS, DT_FLAGS_1,
    DT_GNU_HASH, DT_HASH, DT_INIT, DT_INIT_ARRAY, DT_INIT_ARRAYSZ, DT_JMPREL, DT_NEEDED, DT_NULL,
    DT_PLTGOT, DT_RELA, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRTAB, DT_SYMBOLIC, DT_SYMTAB,
    DT_TEXTREL, DT_VERDEF, DT_VERNEED, DT_VERSYM,
};
use goblin::elf64::program_header::{PT_NOTE, ProgramHeader};

use crate::arch::Machine;
use crate::base::addr::Vaddr;
use crate::base::error::{Error, Place};
use crate::base::fallible::{
    TryGrow, check_room, require_memory_for_next, try_c_string, try_collect, try_collect_ok,
    try_vec,
};
use crate::base::faults::Faults;
use crate::base::limits::{self, Limits};
use crate::elf::dynamic::{
    DT_ANDROID_RELA, DT_ANDROID_RELR, DT_AUXILIARY, DT_FILTER, DT_RELR, Dynamic,
};
use crate::elf::program_headers::{ProgramHeaders, no_dynamic_section};
use crate::elf::properties;
use crate::elf::read::{ReadAt, u64_at};
use crate::elf::relocation_tables::RelocationTables;
use crate::elf::segment::{FileView, Segment, TlsSegment};
use crate::elf::symbol_table::{SymbolLayout, SymbolTable};

/// The tables that may follow the symbol table.
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

/// The decoded headers and dynamic section. It holds no bytes, so it can stay with a loaded library
/// after the bytes are freed.
pub(crate) struct Decoded {
    /// The machine that the image is for.
    pub machine: &'static Machine,
    /// The program headers unchanged, for `dl_iterate_phdr`.
    pub program_headers: Vec<ProgramHeader>,
    /// `PT_DYNAMIC`.
    pub dynamic: Range<Vaddr>,
    /// The `PT_LOAD`s: ascending, no two of them overlap.
    pub segments: Vec<Segment>,
    pub symbols: SymbolLayout,
    pub soname: Option<CString>,
    /// The strings of `DT_NEEDED`, `DT_FILTER` and `DT_AUXILIARY`, in order.
    pub needed: Vec<CString>,
    /// Which of `needed` are filtees, ascending.
    pub filtees: Vec<Filtee>,
    /// `DT_RPATH`: where `ld.so` searches for what this image needs, and what the libraries need that it
    /// loads for it. `None` if there is a `DT_RUNPATH`, which replaces it.
    pub rpath: Option<CString>,
    /// `DT_RUNPATH`: where `ld.so` searches for what this image itself needs.
    pub runpath: Option<CString>,
    /// `DF_1_NODEFLIB`: neither the cache nor the system's folders are searched.
    pub no_default_folders: bool,
    pub relocations: RelocationTables,
    pub tls: Option<TlsSegment>,
    /// `PT_GNU_RELRO`, as stated; it holds a whole page, and lies between the first segment and the last.
    pub relro: Option<Range<Vaddr>>,
    /// `PT_GNU_EH_FRAME`; inside one segment's file-backed part.
    pub eh_frame_hdr: Option<Range<Vaddr>>,
    pub init: Option<Vaddr>,
    pub init_array: Option<Range<Vaddr>>,
    pub fini: Option<Vaddr>,
    pub fini_array: Option<Range<Vaddr>>,
    /// `DT_SYMBOLIC`: references are looked up in the image itself first.
    pub symbolic: bool,
    /// `DT_TEXTREL`: relocations apply to segments that are not writable.
    pub text_relocations: bool,
    /// `DT_PLTGOT`, unless the image must not be bound lazily (`DF_BIND_NOW`).
    pub plt_got: Option<Vaddr>,
    /// `DF_1_NODELETE`: the image must stay mapped.
    pub nodelete: bool,
    /// `DF_1_NOOPEN`: only a program that is linked to the image may load it.
    pub no_open: bool,
    /// The levels of the instruction set that the image needs, as its machine has them.
    pub isa_needed: u32,
    /// The image's code marks the targets of its indirect branches.
    pub branch_targets: bool,
    /// The bit in `st_other` of functions whose calls are never bound lazily; 0 if the image calls none.
    pub variant_pcs: u8,
    /// The image's PLT expects signed addresses.
    pub signed_plt: bool,
}

impl Decoded {
    /// Decodes the file `bytes`, whose program headers are `headers`.
    pub(super) fn parse(
        bytes: &[u8],
        headers: ProgramHeaders,
        machine: &'static Machine,
        limits: &Limits,
        faults: &mut Faults,
    ) -> Result<Decoded, Error> {
        let view = FileView { bytes, segments: &headers.segments };
        let (section, dynamic) = dynamic_section(&headers, &view)?;
        let flags = dynamic.get(DT_FLAGS).unwrap_or(0);
        let flags_1 = dynamic.get(DT_FLAGS_1).unwrap_or(0);
        if flags_1 & DF_1_PIE != 0 {
            faults.note(Error::unsupported(
                "a position-independent executable (DF_1_PIE), not a shared library",
            ))?;
        }

        let tables = TABLES.iter().filter_map(|&tag| dynamic.address(tag));
        let symbols = SymbolLayout::of_image(&dynamic, &view, tables.chain([section.start]))?;
        let table = SymbolTable::over(&symbols, &view).ok_or_else(Decoded::no_symbols)?;
        let Names { soname, needed, filtees, rpath, runpath } =
            Names::parse(&dynamic, &table, limits)?;
        // What lies outside the segments counts as absent.
        let notes = headers.properties.clone().and_then(|notes| view.read(notes));
        let property = |kind| notes.map_or(0, |notes| properties::word(notes, kind));
        let has = |kind, bit| property(kind) & bit != 0;
        let variant_pcs = machine.variant_pcs.filter(|it| dynamic.get(it.tag).is_some());
        let relocations = RelocationTables::parse(&dynamic, &view, limits);
        let relocations = faults.noted(relocations)?.unwrap_or_default();
        let mut function =
            |tag| faults.noted(function(&dynamic, &headers.segments, tag)).map(Option::flatten);
        let (init, fini) = (function(DT_INIT)?, function(DT_FINI)?);
        let mut functions = |tag, size| {
            faults.noted(functions(&dynamic, &headers.segments, tag, size)).map(Option::flatten)
        };
        Ok(Decoded {
            machine,
            dynamic: section,
            soname,
            needed,
            filtees,
            rpath,
            runpath,
            no_default_folders: flags_1 & DF_1_NODEFLIB != 0,
            relocations,
            init,
            init_array: functions(DT_INIT_ARRAY, DT_INIT_ARRAYSZ)?,
            fini,
            fini_array: functions(DT_FINI_ARRAY, DT_FINI_ARRAYSZ)?,
            symbolic: dynamic.get(DT_SYMBOLIC).is_some() || flags & DF_SYMBOLIC != 0,
            text_relocations: dynamic.get(DT_TEXTREL).is_some() || flags & DF_TEXTREL != 0,
            plt_got: dynamic.address(DT_PLTGOT).filter(|_| {
                dynamic.get(DT_BIND_NOW).is_none()
                    && flags & DF_BIND_NOW == 0
                    && flags_1 & DF_1_NOW == 0
            }),
            nodelete: flags_1 & DF_1_NODELETE != 0,
            no_open: flags_1 & DF_1_NOOPEN != 0,
            isa_needed: if machine.isa_needed == 0 { 0 } else { property(machine.isa_needed) },
            branch_targets: machine.branch_targets.is_some_and(|(kind, bit)| has(kind, bit)),
            variant_pcs: variant_pcs.map_or(0, |it| it.st_other),
            signed_plt: machine.signed_plt.is_some_and(|tag| dynamic.get(tag).is_some()),
            symbols,
            program_headers: headers.table,
            segments: headers.segments,
            tls: headers.tls,
            relro: headers.relro,
            eh_frame_hdr: headers.eh_frame_hdr,
        })
    }

    /// The dynamic symbols, read from `memory`.
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
    /// relocates in the mapped section: the address of each value, and the value. Some runtimes read
    /// them.
    pub(crate) fn moved_dynamic_entries(
        &self,
        memory: &impl ReadAt,
    ) -> Result<Vec<(Vaddr, Vaddr)>, Error> {
        /// Each has one entry, usually.
        const MOVED: usize = 8;
        let is_moved = |tag: u64| {
            matches!(
                tag,
                DT_HASH
                    | DT_PLTGOT
                    | DT_STRTAB
                    | DT_SYMTAB
                    | DT_RELA
                    | DT_JMPREL
                    | DT_VERSYM
                    | DT_GNU_HASH
            )
        };
        let section = memory.read(self.dynamic.clone()).unwrap_or(&[]);
        let tag = |entry: &[u8]| u64_at(entry, 0).unwrap_or(DT_NULL);
        let entries = section.chunks_exact(16).take_while(|entry| tag(entry) != DT_NULL);
        let moved = entries.zip((self.dynamic.start.0..).step_by(16)).filter_map(|(entry, at)| {
            let value = u64_at(entry, 8)?;
            is_moved(tag(entry)).then_some((Vaddr(at).checked_add(8)?, Vaddr(value)))
        });
        let mut list = try_vec(MOVED)?;
        list.try_extend(moved)?;
        Ok(list)
    }

    /// Whether a `DT_NEEDED` entry `name` means this image, which its caller calls `own_name`.
    pub(crate) fn is_called(&self, own_name: &str, name: &[u8]) -> bool {
        self.names(own_name).any(|it| it == name)
    }

    /// The names that [`Decoded::is_called`] accepts.
    pub(crate) fn names<'a>(&'a self, own_name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let soname = self.soname.as_deref().map(CStr::to_bytes);
        soname.into_iter().chain([own_name.as_bytes()])
    }
}

/// A library whose definitions come before those of the image that names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Filtee {
    /// Its index in [`Decoded::needed`].
    pub index: usize,
    /// `DT_AUXILIARY`: the image does without it.
    pub is_optional: bool,
}

/// The strings of the dynamic section.
struct Names {
    soname: Option<CString>,
    needed: Vec<CString>,
    filtees: Vec<Filtee>,
    rpath: Option<CString>,
    runpath: Option<CString>,
}

/// From this length on, a name is no small allocation. Later stages copy it a few times.
const LONG_NAME: usize = 4096;

impl Names {
    fn parse(
        dynamic: &Dynamic<'_>,
        table: &SymbolTable<'_>,
        limits: &Limits,
    ) -> Result<Names, Error> {
        // As in `ld.so`, a name has any length: the work to read all of them is bounded.
        let string = |tag: u64, offset: u64| {
            let name = u32::try_from(offset).ok().and_then(|offset| table.string(offset));
            let what = "a name lies outside the string table";
            let name = name.ok_or_else(|| Error::malformed(what, Place::Dynamic(tag)))?;
            table.check_work()?;
            if name.len() > LONG_NAME {
                check_room(name.len().saturating_mul(8))?;
            }
            Ok(try_c_string(name)?.unwrap_or_default())
        };
        let one = |tag: u64| dynamic.get(tag).map(|offset| string(tag, offset)).transpose();
        // Usually there is no filtee, and then only the tags of the first kind are compared.
        let has_filtees = dynamic.get(DT_AUXILIARY).or(dynamic.get(DT_FILTER)).is_some();
        let is_needed =
            |tag: u64| tag == DT_NEEDED || has_filtees && (tag == DT_AUXILIARY || tag == DT_FILTER);
        if dynamic.len() as u64 > limits.needed {
            let count = dynamic.all_with(is_needed).count() as u64;
            limits::check("the number of needed libraries", count, limits.needed)?;
        }
        let soname = one(DT_SONAME)?;
        let needed = dynamic.all_with(is_needed).enumerate().map(|(index, (tag, offset))| {
            require_memory_for_next(index)?;
            string(tag, offset)
        });
        let needed = try_collect_ok::<_, Error>(needed)?;
        let filtees = if has_filtees {
            let all = dynamic.all_with(is_needed).enumerate();
            let filtees = all.filter(|(_, (tag, _))| *tag != DT_NEEDED);
            try_collect(
                filtees.map(|(index, (tag, _))| Filtee { index, is_optional: tag == DT_AUXILIARY }),
            )?
        } else {
            Vec::new()
        };
        let runpath = one(DT_RUNPATH)?;
        let rpath = if runpath.is_none() { one(DT_RPATH)? } else { None };
        Ok(Names { soname, needed, filtees, rpath, runpath })
    }
}

/// The dynamic section, up to its `DT_NULL` at least. As in `ld.so`, that ends it, and not a size.
fn dynamic_section<'a>(
    headers: &ProgramHeaders,
    view: &'a FileView<'_>,
) -> Result<(Range<Vaddr>, Dynamic<'a>), Error> {
    let stated = headers.dynamic.clone().ok_or_else(no_dynamic_section)?;
    let at = Place::Address(stated.start);
    if let Some(section) = view.read(stated.clone()) {
        let dynamic = Dynamic::parse(section);
        if dynamic.is_terminated() {
            return Ok((stated, dynamic));
        }
    }
    let section = view
        .read_to_end(stated.start)
        .ok_or_else(|| Error::malformed("the dynamic section lies outside the segments", at))?;
    let dynamic = Dynamic::parse(section);
    let range = stated.start.range(section.len() as u64).filter(|_| dynamic.is_terminated());
    let range = range
        .ok_or_else(|| Error::malformed("the dynamic section does not end with DT_NULL", at))?;
    Ok((range, dynamic))
}

/// The function at tag `tag` (`DT_INIT`, `DT_FINI`).
fn function(dynamic: &Dynamic<'_>, segments: &[Segment], tag: u64) -> Result<Option<Vaddr>, Error> {
    let Some(address) = dynamic.address(tag) else { return Ok(None) };
    // The bytes behind the file-backed part are zeros, which are no function.
    let executable =
        |segment: &Segment| segment.access.execute && segment.file_end_behind(address).is_some();
    if segments.iter().any(executable) {
        Ok(Some(address))
    } else {
        let what = format!("{address} is not in executable memory");
        Err(Error::malformed(what, Place::Dynamic(tag)))
    }
}

/// The array of functions at tag `tag`, whose size in bytes is at tag `size` (`DT_INIT_ARRAY`,
/// `DT_FINI_ARRAY`).
fn functions(
    dynamic: &Dynamic<'_>,
    segments: &[Segment],
    tag: u64,
    size: u64,
) -> Result<Option<Range<Vaddr>>, Error> {
    let malformed = |what: &'static str| Error::malformed(what, Place::Dynamic(tag));
    if dynamic.get(tag).is_some() && dynamic.get(size).is_none() {
        return Err(malformed("an array of functions without its size"));
    }
    let Some(range) = dynamic.table(tag, size) else { return Ok(None) };
    let is_array = |range: &Range<Vaddr>| {
        let len = range.end.checked_sub(range.start);
        range.start.0.is_multiple_of(8) && len.is_some_and(|len| len.is_multiple_of(8))
    };
    let mut readable = segments.iter().filter(|segment| segment.access.read);
    range
        .filter(is_array)
        .filter(|range| readable.any(|segment| segment.contains(range)))
        .map(Some)
        .ok_or_else(|| malformed("an array of functions lies outside the segments"))
}

#[cfg(test)]
mod tests {
    use goblin::elf64::dynamic::DT_STRSZ;

    use super::*;
    use crate::base::addr::PageSize;
    use crate::elf::test_image::{
        DYNAMIC, DYNAMIC_HEADER, END, INIT_ARRAY, Library, P_FILESZ, P_TYPE, P_VADDR, TEXT,
    };

    fn parse(library: &Library, limits: &Limits) -> Result<Decoded, Error> {
        let page = PageSize::new(0x1000).unwrap();
        let headers = ProgramHeaders::parse(&library.bytes, page, limits, &mut Faults::End)?;
        Decoded::parse(&library.bytes, headers, &crate::arch::MACHINE, limits, &mut Faults::End)
    }

    fn refusal(library: &Library) -> String {
        parse(library, &Limits::default()).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn the_dynamic_section_of_a_library_is_decoded() {
        let decoded = parse(&Library::new(), &Limits::default()).unwrap();
        assert_eq!(decoded.soname.as_deref(), Some(c"libself.so"));
        assert_eq!(decoded.needed, [c"libneeded.so"]);
        assert_eq!((decoded.runpath.as_deref(), &decoded.rpath), (Some(c"/lib/path"), &None));
        assert_eq!(decoded.init, Some(Vaddr(TEXT)));
        assert_eq!(decoded.init_array, Some(Vaddr(INIT_ARRAY)..Vaddr(INIT_ARRAY + 8)));
        assert_eq!((decoded.fini, &decoded.fini_array), (None, &None));
        assert!(!decoded.symbolic && !decoded.text_relocations && !decoded.nodelete);
        assert!(decoded.is_called("other", b"libself.so") && decoded.is_called("x", b"x"));
        assert!(!decoded.is_called("x", b"libneeded.so"));
    }

    #[test]
    fn flags_count_by_either_tag() {
        let mut library = Library::new();
        library.set_tag(DT_PLTGOT, DYNAMIC);
        let lazy = parse(&library, &Limits::default()).unwrap();
        assert_eq!(lazy.plt_got, Some(Vaddr(DYNAMIC)));
        library.set_tag(DT_FLAGS, DF_SYMBOLIC | DF_TEXTREL);
        library.set_tag(DT_FLAGS_1, DF_1_NODELETE | DF_1_NOW);
        let decoded = parse(&library, &Limits::default()).unwrap();
        assert!(decoded.symbolic && decoded.text_relocations && decoded.nodelete);
        assert_eq!(decoded.plt_got, None, "bound at load");
        library.set_tag(DT_FLAGS_1, DF_1_PIE);
        assert!(refusal(&library).contains("DF_1_PIE"));
    }

    #[test]
    fn entries_that_lead_out_of_the_image_are_refused() {
        for (tag, value, expected) in [
            (DT_NEEDED, 0x1000, "a name lies outside the string table"),
            (DT_SONAME, 1 << 32, "a name lies outside the string table"),
            (DT_FILTER, 0x1000, "a name lies outside the string table"),
            (DT_STRSZ, 5, "a name lies outside the string table"),
            (DT_STRSZ, 4, "does not end with a NUL"),
            (DT_STRTAB, 0x9000, "the string table lies outside"),
            (DT_SYMTAB, 0x9000, "the symbol table lies outside"),
            (DT_INIT, TEXT + 0x10, "is not in executable memory"),
            (DT_FINI, DYNAMIC, "is not in executable memory"),
            (DT_INIT_ARRAY, INIT_ARRAY + 4, "an array of functions lies outside"),
            (DT_INIT_ARRAYSZ, 0x1_0000, "an array of functions lies outside"),
            (DT_FINI_ARRAY, INIT_ARRAY, "an array of functions without its size"),
        ] {
            let mut library = Library::new();
            library.set_tag(tag, value);
            let error = refusal(&library);
            assert!(error.contains(expected), "{tag:#x} {value:#x}: {error}");
        }
        let limits = Limits { needed: 0, ..Limits::default() };
        let error = parse(&Library::new(), &limits).map(drop).unwrap_err();
        assert!(matches!(error, Error::Limit { needed: 1, .. }));
    }

    #[test]
    fn a_dynamic_section_that_is_missing_or_has_no_end_is_refused() {
        let mut library = Library::new();
        // The end counts, not the size.
        for size in [1, 0x20, 0x301, u64::MAX] {
            library.set_header(DYNAMIC_HEADER, P_FILESZ, size);
            let decoded = parse(&library, &Limits::default()).unwrap();
            assert_eq!(decoded.needed, [c"libneeded.so"], "{size:#x}");
        }
        library.set_header(DYNAMIC_HEADER, P_VADDR, END - 8);
        assert!(refusal(&library).contains("does not end with DT_NULL"));
        library.set_header(DYNAMIC_HEADER, P_FILESZ, 0);
        assert!(refusal(&library).contains("no dynamic section"));
        library.set_header(DYNAMIC_HEADER, P_FILESZ, 0x20);
        library.set_header(DYNAMIC_HEADER, P_VADDR, 0x9000);
        assert!(refusal(&library).contains("lies outside the segments"));
        library.set_header(DYNAMIC_HEADER, P_TYPE, 0);
        assert!(refusal(&library).contains("no dynamic section"));
    }

    #[test]
    fn addresses_in_the_dynamic_section_are_given_with_their_places() {
        let library = Library::new();
        let decoded = parse(&library, &Limits::default()).unwrap();
        let view = FileView { bytes: &library.bytes, segments: &decoded.segments };
        let moved = decoded.moved_dynamic_entries(&view).unwrap();
        assert_eq!(moved.len(), 5);
        for (at, value) in moved {
            assert_eq!(u64_at(&library.bytes, at.0 as usize), Some(value.0));
        }
    }
}
