//! The symfile builder, with images that compilers make and with damaged ones.

use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use goblin::elf::header::{EI_CLASS, EI_DATA};
use goblin::elf::section_header::{SHF_ALLOC, SHT_NOBITS, SHT_PROGBITS};
use goblin::elf::sym::{STT_TLS, st_type};
use goblin::elf64::header::Header;
use goblin::elf64::program_header::{PF_W, PF_X, PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader};
use goblin::elf64::section_header::SectionHeader;
use goblin::elf64::sym::Sym;
use scroll::{LE, Pread};

use super::error::SymfileError;
use super::headers::{SECTION_SIZE, SYMBOL_SIZE, get, put};
use super::ifuncs::Ifuncs;
use super::instance::{Instance, Symfile};
use super::layout::moves;
use super::source::{DynamicSymbol, Policy, Source, SourceSegment};
use super::storage::{Storage, StorageError};
use super::template::{Dwarf, Instances, SymfileTemplate};
use crate::base::addr::{FileOffset, LoadBias, Vaddr};
use crate::base::filler::Filler;
use crate::builder::source::ReadAt;
use crate::dwarf::budget::Allowance;
use crate::dwarf::tls_locations::{self, ThreadLocals};

/// Vectors: nothing of the process is needed to build a symfile.
struct Heap;

/// The bytes that instances share, and the ranges that each has for itself.
#[derive(Clone)]
struct HeapFile {
    bytes: Vec<u8>,
    own: Vec<Range<usize>>,
}

impl Deref for HeapFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Storage for Heap {
    type Own = Vec<u8>;
    type Shared = HeapFile;
    type View = HeapFile;

    fn page_size() -> usize {
        4096
    }

    fn own(len: usize, fill: impl FnOnce(&mut Filler<'_>)) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0xaa; len];
        fill(&mut Filler::new(&mut bytes));
        Ok(bytes)
    }

    fn shared(
        len: usize,
        own: Vec<Range<usize>>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<HeapFile, StorageError> {
        let mut bytes = vec![0; len];
        fill(&mut bytes);
        Ok(HeapFile { bytes, own })
    }

    fn view(shared: &HeapFile) -> Result<HeapFile, StorageError> {
        Ok(shared.clone())
    }

    fn get_mut(view: &mut HeapFile, range: Range<usize>) -> Option<&mut [u8]> {
        let holds = |own: &Range<usize>| own.start <= range.start && range.end <= own.end;
        view.own.iter().any(holds).then_some(())?;
        view.bytes.get_mut(range)
    }
}

pub const CODE: &str = "
    #include <string.h>
    __thread int per_thread = 1;
    int data = 2;
    static int zero[100];
    static int hidden(const char *s) { return zero[strlen(s)]++; }
    int visible(const char *s) { return hidden(s) + data + per_thread; }";
pub const DATA: &str = "struct { int a; double b; } data = { 5, 2.5 };";

/// A directory of its own for each test; gone when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(test: &str) -> Scratch {
        let name = format!("memdl-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn compiled(&self, code: &str, flags: &[&str]) -> Vec<u8> {
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

/// What the loader would tell of an image it trusts.
struct Segments<'a> {
    bytes: &'a [u8],
    list: Vec<SourceSegment>,
    /// Where each is in the bytes.
    files: Vec<Range<usize>>,
    eh_frame: Option<Range<Vaddr>>,
}

impl ReadAt for Segments<'_> {
    fn read(&self, range: Range<Vaddr>) -> Option<&[u8]> {
        let len = range.end.checked_sub(range.start)?;
        self.read_to_end(range.start)?.get(..len as usize)
    }

    fn read_to_end(&self, start: Vaddr) -> Option<&[u8]> {
        let holds = |segment: &SourceSegment| segment.addresses.contains(&start);
        let index = self.list.iter().position(holds)?;
        let skipped = start.checked_sub(self.list[index].addresses.start)?;
        self.bytes.get(self.files[index].clone())?.get(skipped as usize..)
    }
}

fn segments(bytes: &[u8]) -> Segments<'_> {
    let header: Header = bytes.pread_with(0, LE).unwrap();
    let mut segments = Segments { bytes, list: vec![], files: vec![], eh_frame: None };
    let mut eh_frame_hdr = None;
    for i in 0..usize::from(header.e_phnum) {
        let at = header.e_phoff as usize + i * 56;
        let segment: ProgramHeader = bytes.pread_with(at, LE).unwrap();
        let addresses = Vaddr(segment.p_vaddr).range(segment.p_memsz).unwrap();
        let start = segment.p_offset as usize;
        match segment.p_type {
            PT_LOAD => {
                segments.files.push(start..start + segment.p_filesz as usize);
                segments.list.push(SourceSegment {
                    addresses,
                    executable: segment.p_flags & PF_X != 0,
                    writable: segment.p_flags & PF_W != 0,
                });
            }
            PT_GNU_EH_FRAME => eh_frame_hdr = Some(addresses),
            _ => {}
        }
    }
    segments.eh_frame = eh_frame_hdr.and_then(|hdr| frames(&hdr, &segments));
    segments
}

/// The section that a table of `.eh_frame_hdr` points to, as GNU ld writes it: a distance of 4 bytes. It ends with an
/// entry of length zero.
fn frames(hdr: &Range<Vaddr>, segments: &Segments<'_>) -> Option<Range<Vaddr>> {
    let distance: i32 = segments.read(hdr.clone())?.pread_with(4, LE).ok()?;
    let start = Vaddr(hdr.start.0.wrapping_add(4).wrapping_add_signed(distance.into()));
    let bytes = segments.read_to_end(start)?;
    let mut len = 4;
    while let Ok(entry @ 1..) = bytes.pread_with::<u32>(len - 4, LE) {
        len += entry as usize + 4;
    }
    start.range(len as u64)
}

pub fn template<S: Storage>(bytes: &[u8]) -> SymfileTemplate<S> {
    template_by(bytes, bytes, Instances::One, 0).unwrap()
}

/// As of `bytes`, with what the dynamic section says taken from `sound`.
fn template_by<S: Storage>(
    bytes: &[u8],
    sound: &[u8],
    instances: Instances,
    tls_size: u64,
) -> Result<SymfileTemplate<S>, SymfileError> {
    let memory = segments(sound);
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
        file: Some(bytes),
        memory: &memory,
        segments: &memory.list,
        eh_frame: &|| memory.eh_frame.clone(),
        tls_size,
        dynamic_symbols: &|show| (0..1000).for_each(|_| show(visible)),
        policy: Policy { publishes_build_id: true, debugger_listens: false },
        e_machine: 62,
    };
    made(&source, instances)
}

fn made<S: Storage>(
    source: &Source<'_>,
    instances: Instances,
) -> Result<SymfileTemplate<S>, SymfileError> {
    let allowance = Allowance::new(Default::default(), source.len());
    SymfileTemplate::new(source, instances, allowance, Dwarf::Opened)
}

fn shown(symfile: &Symfile<Heap>) -> Vec<u8> {
    symfile.shown().to_vec()
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

pub fn bias(bytes: usize) -> Instance {
    let load_bias = LoadBias::between(Vaddr(0), bytes);
    Instance { load_bias, thread_locals: ThreadLocals::Elsewhere, ifuncs: Ifuncs::default() }
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
        for with_dwarf in [true, false] {
            let template = template::<Heap>(image);
            let instance = bias(0x7f12_3456_7000);
            let symfiles =
                [template.at(&instance).unwrap(), template.into_symfile(&instance).unwrap()];
            let [symfile, same] = symfiles.map(|mut symfile| {
                symfile.show_dwarf(with_dwarf);
                shown(&symfile)
            });
            assert_eq!(symfile, same);
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
fn instances_share_what_has_no_addresses_in_the_portable_form() {
    let scratch = Scratch::new("portable");
    // Names of more than 64 KiB, and a thread-local variable.
    let functions = (0..2_000).map(|at| {
        format!(
            "int a_function_with_quite_a_long_name_of_the_number_{at}(void) {{ return {at}; }}\n"
        )
    });
    let code: String = [CODE.to_owned()].into_iter().chain(functions).collect();
    let image = scratch.compiled(&code, &["-g", "-O1"]);
    let many = template_by::<Heap>(&image, &image, Instances::Many, 4).unwrap();
    let places = [
        (0x10_0000_0000, ThreadLocals::AtDistance(-400)),
        (0x20_0000_0000, ThreadLocals::AtDistance(-800)),
        (0x30_0000_0000, ThreadLocals::BehindPointerAt(-80)),
        (0x7f12_3456_7000, ThreadLocals::Elsewhere),
    ];
    let instances = places.map(|(at, thread_locals)| Instance { thread_locals, ..bias(at) });
    // All are there at the same time.
    let shared = instances.each_ref().map(|instance| {
        let symfile = many.at(instance).unwrap();
        let mut portable = symfile.parts().unwrap().portable(instance).unwrap();
        let len = portable.contents().len();
        assert!(portable.owns(0..1) && !portable.owns(len - (1 << 16)..len));
        portable
    });
    for (instance, shared) in instances.iter().zip(&shared) {
        scratch.assert_well_formed(shared.contents());
        let one = template_by::<Heap>(&image, &image, Instances::One, 4).unwrap();
        let symfile = one.into_symfile(instance).unwrap();
        let alone = symfile.parts().unwrap().portable(instance).unwrap();
        let names = |file: &[u8]| {
            let elf = goblin::elf::Elf::parse(file).unwrap();
            let name = |at| elf.shdr_strtab.get_at(at).unwrap().to_owned();
            let mut names: Vec<String> =
                elf.section_headers.iter().map(|it| name(it.sh_name)).collect();
            names.sort();
            names
        };
        assert_eq!(names(shared.contents()), names(alone.contents()));
        for name in names(alone.contents()).iter().filter(|name| *name != ".shstrtab") {
            let [one, other] = [shared, &alone].map(|file| section(file.contents(), name).unwrap());
            assert!(one.1 == other.1, "{name} of {instance:?}");
            assert_eq!((one.0.sh_addr, one.0.sh_type), (other.0.sh_addr, other.0.sh_type));
        }
    }
}

#[test]
fn addresses_move_outside_and_stay_inside() {
    let scratch = Scratch::new("moves");
    let image = scratch.compiled(CODE, &["-g"]);
    let symfile = shown(&template(&image).at(&bias(0x1000_0000)).unwrap());
    let inner = scratch.inner(&symfile).unwrap();
    for name in [".text", ".data", ".bss", ".eh_frame", ".tdata"] {
        let stated = section(&image, name).unwrap().0;
        let (inside, outside) = (section(&inner, name), section(&symfile, name));
        assert_eq!(inside.unwrap().0.sh_addr, stated.sh_addr, "{name}");
        let outside = outside.unwrap().0;
        assert_eq!(outside.sh_addr, stated.sh_addr + 0x1000_0000, "{name}");
    }
    for name in [".debug_info", ".debug_line", ".debug_str", ".debug_abbrev"] {
        let mut stated = section(&image, name).unwrap().1.to_vec();
        // Only the location of `per_thread` is another.
        let mut site = None;
        let found = tls_locations::locations(&stated, 1, &mut |it| {
            site = Some(it);
            Ok::<_, ()>(())
        });
        assert!(found.is_ok());
        if let Some(site) = site {
            assert_eq!(name, ".debug_info");
            stated[site.at..site.at + site.len()]
                .copy_from_slice(&site.bytes(ThreadLocals::Elsewhere));
        }
        assert_eq!(section(&inner, name).unwrap().1, stated);
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
    // Its value would be taken for an offset in another block.
    assert!(before.iter().any(|symbol| st_type(symbol.st_info) == STT_TLS));
    assert!(!after.iter().any(|symbol| st_type(symbol.st_info) == STT_TLS));
}

#[test]
fn the_build_id_is_told_only_where_there_is_no_dwarf() {
    let scratch = Scratch::new("build-id");
    for (flag, told) in [("-g", false), ("-g0", true)] {
        let image = scratch.compiled(CODE, &[flag, "-Wl,--build-id"]);
        let symfile = shown(&template(&image).at(&bias(0)).unwrap());
        let (_, contents) = section(&symfile, ".note.gnu.build-id").unwrap();
        assert_eq!(!contents.is_empty(), told);
    }
}

#[test]
fn without_section_headers_code_and_frames_and_names_are_found() {
    let scratch = Scratch::new("no-headers");
    let image = scratch.compiled(CODE, &["-O2"]);
    let bytes = without_section_headers(&image);
    let symfile =
        shown(&template_by(&bytes, &image, Instances::One, 0).unwrap().at(&bias(0x1000)).unwrap());
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
fn dwarf_that_needs_a_second_file_is_kept_with_the_name_of_it() {
    let scratch = Scratch::new("altlink");
    let image = scratch.compiled(CODE, &["-g"]);
    let library = scratch.file("image.so", &image);
    let note = scratch.file("note", b"/nowhere\0");
    let mut add = std::ffi::OsString::from("--add-section=.gnu_debugaltlink=");
    add.push(note);
    let output = run("binutils", "objcopy", [Path::new(&add), &library]);
    assert!(output.status.success(), "{output:?}");
    let image = std::fs::read(library).unwrap();
    let inner = scratch.inner(&shown(&template(&image).at(&bias(0)).unwrap())).unwrap();
    assert_eq!(section(&inner, ".gnu_debugaltlink").unwrap().1, b"/nowhere\0");
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
    let symfile = shown(&template(&image).into_symfile(&bias(0)).unwrap());
    // There are seven or more such sections.
    assert!(symfile.len() < 3 * len);
}

#[test]
fn what_is_no_elf_file_of_ours_is_an_error() {
    let scratch = Scratch::new("error");
    let image = scratch.compiled(DATA, &[]);
    let memory = segments(&image);
    for (at, value) in [(0, 0), (EI_CLASS, 1), (EI_DATA, 2)] {
        let mut bytes = image.clone();
        bytes[at] = value;
        let source = Source {
            file: Some(&bytes),
            memory: &memory,
            segments: &memory.list,
            eh_frame: &|| None,
            tls_size: 0,
            dynamic_symbols: &|_| {},
            policy: Policy::default(),
            e_machine: 62,
        };
        let error = made::<Heap>(&source, Instances::One).err().unwrap();
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
        if let Ok(template) = template_by(&bytes, &image, Instances::One, 0) {
            let symfile = shown(&template.into_symfile(&bias(usize::MAX - 5)).unwrap());
            assert!(symfile.len() < 8 * image.len(), "round {round}");
        }
    }
}
