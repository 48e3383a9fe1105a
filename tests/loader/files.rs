//! Files that linkers and tools write, and that look odd: what `dlopen` loads, memdl loads. Each is built or
//! changed here, opened by `dlopen`, and loaded in all ways.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Opened, WAYS, build, bytes, call_run, can_link, glibc, isolated, load_in_way};
use crate::helpers::{apart, read};
use libc::RTLD_NOW;
use memdl::{Error, Loader};

/// A file of a test, with these bytes.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{name}.so"));
    fs::write(&path, bytes).unwrap();
    path
}

/// What `run` returns in `dlopen`'s hands, or `dlopen`'s error.
fn by_dlopen(path: &Path) -> String {
    apart(|| match Opened::try_new(path, RTLD_NOW) {
        Some(opened) => opened.run().to_string(),
        None => Opened::refusal(path, RTLD_NOW),
    })
}

fn by_memdl(loader: &Loader, bytes: &[u8], way: &str) -> String {
    // SAFETY: a library of `testlibs/`.
    apart(|| match unsafe { load_in_way(loader, bytes, way) } {
        Ok(library) => call_run(&library).to_string(),
        Err(error) => error.to_string(),
    })
}

fn host(path: &Path) -> Loader {
    Loader::new().system_libraries(true).name(path.to_str().unwrap())
}

/// `run` is content, by `dlopen` and in all ways.
fn assert_runs(path: &Path, what: &str) {
    // Older ones refuse some of these files, and load others at wrong addresses.
    if glibc() >= (2, 36) {
        assert_eq!(by_dlopen(path), "42", "{what}: dlopen");
    }
    for way in WAYS {
        assert_eq!(by_memdl(&host(path), &read(path), way), "42", "{what}: {way}");
    }
}

/// All refuse the file: `dlopen` with this text, memdl with that one.
fn assert_refused(loader: &Loader, path: &Path, theirs: &str, ours: &str) {
    let error = by_dlopen(path);
    assert!(error.contains(theirs), "{error}");
    for way in WAYS {
        let error = by_memdl(loader, &read(path), way);
        assert!(error.contains(ours), "{way}: {error}");
    }
}

/// The program headers of a file, to be changed.
struct Headers {
    bytes: Vec<u8>,
}

const OFFSET: usize = 8;
const VADDR: usize = 16;
const FILESZ: usize = 32;
const MEMSZ: usize = 40;
const ALIGN: usize = 48;

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const TLS: u32 = 7;
const EH_FRAME: u32 = 0x6474_e550;
const STACK: u32 = 0x6474_e551;
const RELRO: u32 = 0x6474_e552;

impl Headers {
    fn count(&self) -> usize {
        u16::from_le_bytes(self.bytes[56..58].try_into().unwrap()).into()
    }

    fn place(&self, index: usize, field: usize) -> usize {
        u64::from_le_bytes(self.bytes[32..40].try_into().unwrap()) as usize + index * 56 + field
    }

    fn word(&self, index: usize, field: usize) -> u64 {
        let at = self.place(index, field);
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    fn set(&mut self, index: usize, field: usize, value: u64) {
        let at = self.place(index, field);
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// The indices of the headers of this type.
    fn of(&self, p_type: u32) -> Vec<usize> {
        let is_it = |index: &usize| self.word(*index, 0) as u32 == p_type;
        (0..self.count()).filter(is_it).collect()
    }
}

fn whole(flags: &[&str]) -> Headers {
    Headers { bytes: bytes("gcc", "files/whole.c", &[&["-O1"], flags].concat()) }
}

const LINKERS: [&[&str]; 4] = [
    &["-Wl,-z,now"],
    &["-Wl,-z,noseparate-code,-z,max-page-size=0x200000"],
    &["-fuse-ld=lld"],
    &["-fuse-ld=mold"],
];

fn layouts() -> impl Iterator<Item = &'static [&'static str]> {
    LINKERS.into_iter().filter(|flags| can_link(flags))
}

/// Spack and Nix write a folder for each dependency: the list has any length. So have names.
#[test]
fn strings_of_any_length() {
    isolated(|| {
        let folders = |count| {
            "/memdl/nowhere/with-a-long-name-of-sixty-four-characters-or-so/lib:".repeat(count)
        };
        for count in [61, 300, 3000] {
            for tags in ["-Wl,--enable-new-dtags", "-Wl,--disable-new-dtags"] {
                // A linker takes arguments of no more than 128 KiB.
                let rpaths = format!("-Wl,-rpath,{}", folders(count.min(1500)));
                let path = build("gcc", "files/whole.c", &["-O1", &rpaths, tags]);
                assert_runs(&path, &format!("{count} folders, {tags}"));
            }
        }
        let name = format!("{}.so", "x".repeat(5000));
        let soname = format!("-Wl,-soname,{name}");
        let named = build("gcc", "files/whole.c", &["-O1", &soname]);
        assert_runs(&named, "a long DT_SONAME");
        let provided = bytes("gcc", "files/part.c", &["-DIMPL=42", &soname]);
        let stub = build("gcc", "files/part.c", &["-DIMPL=42", &soname]);
        let needs = build("gcc", "files/part.c", &["-DCALL=run", stub.to_str().unwrap()]);
        for way in WAYS {
            let loader = Loader::new().provide(&*name, &*provided);
            assert_eq!(by_memdl(&loader, &read(&needs), way), "42");
        }
        let error = by_memdl(&host(&needs), &read(&needs), "copy");
        assert!(error.contains("needs libraries that are not there"), "{}", &error[..100]);
        assert!(by_dlopen(&needs).contains("cannot open shared object file"));
    });
}

/// A name that no file can have, and whose length on a stack would end the process.
#[test]
fn a_needed_name_of_3_mib() {
    isolated(|| {
        let name = "x".repeat(3 << 20);
        let source = file("long-name", b"").with_extension("s");
        fs::write(&source, format!(".globl {name}\n.data\n{name}: .long 42\n")).unwrap();
        let flags = ["-DCALL=run", "-DIMPL=42", "-Wl,--no-as-needed", "-lm", "-Wl,-z,noexecstack"];
        let flags = [&flags[..], &[source.to_str().unwrap()]].concat();
        let mut library = bytes("gcc", "files/part.c", &flags);
        let elf = goblin::elf::Elf::parse(&library).unwrap();
        let has_name = |symbol: &goblin::elf::Sym| {
            elf.dynstrtab.get_at(symbol.st_name).is_some_and(|it| it.len() == name.len())
        };
        let long = elf.dynsyms.iter().find(has_name).unwrap().st_name as u64;
        let needed = elf.dynamic.unwrap().dyns.iter().position(|entry| entry.d_tag == 1).unwrap();
        let headers = elf.program_headers.iter();
        let dynamic = headers.clone().find(|header| header.p_type == DYNAMIC).unwrap().p_offset;
        let at = dynamic as usize + needed * 16 + 8;
        library[at..at + 8].copy_from_slice(&long.to_le_bytes());
        for loader in [Loader::new(), Loader::new().system_libraries(true)] {
            let error = by_memdl(&loader, &library, "copy");
            assert!(error.contains("needs libraries that are not there"), "{error:.200}");
        }
    });
}

#[test]
fn alignments_above_a_page() {
    isolated(|| {
        for flags in layouts() {
            let aligned = build("gcc", "files/whole.c", &[&["-O1", "-DALIGNED"], flags].concat());
            // bfd before 2.38 may leave it out of the headers; then nobody can know.
            let headers = Headers { bytes: read(&aligned) };
            let says_so = headers.of(LOAD).into_iter().any(|it| headers.word(it, ALIGN) >= 8192);
            assert!(says_so || glibc() < (2, 36), "{flags:?}");
            if says_so {
                assert_runs(&aligned, &format!("{flags:?}"));
            }
        }
        // As patchelf 0.18 leaves it: congruent modulo the page size only.
        for flags in layouts() {
            let mut changed = whole(flags);
            for align in [0x2000, 0x10000, 0x20_0000, 0x4000_0000] {
                for index in changed.of(LOAD) {
                    changed.set(index, ALIGN, align);
                }
                assert_runs(&file("aligned", &changed.bytes), &format!("{flags:?} {align:#x}"));
            }
        }
        // Each instance lies as the image asks for.
        let template = Loader::new().system_libraries(true);
        let image = bytes("gcc", "files/whole.c", &["-O1", "-DALIGNED", "-fuse-ld=lld"]);
        // SAFETY: a library of `testlibs/`.
        let template = unsafe { template.prepare(&image) }.unwrap();
        // SAFETY: as above.
        let instances: Vec<_> =
            (0..20).map(|_| unsafe { template.instantiate() }.unwrap()).collect();
        assert!(instances.iter().all(|library| call_run(library) == 42));
    });
}

/// An alignment that is below a page, or no power of two, means nothing.
#[test]
fn alignments_that_mean_nothing() {
    isolated(|| {
        for flags in layouts() {
            for align in [0, 1, 2, 3, 0xfff, 0x1001, 0x3000, u64::MAX, u64::MAX - 4095] {
                let mut changed = whole(flags);
                for index in
                    changed.of(LOAD).into_iter().chain(changed.of(RELRO)).chain(changed.of(STACK))
                {
                    changed.set(index, ALIGN, align);
                }
                assert_runs(&file("align", &changed.bytes), &format!("{flags:?} {align:#x}"));
            }
            for align in [0, 1, 3, 12, 0x1001] {
                let mut changed = whole(flags);
                let index = changed.of(TLS)[0];
                changed.set(index, ALIGN, align);
                assert_runs(
                    &file("tls-align", &changed.bytes),
                    &format!("{flags:?} TLS {align:#x}"),
                );
            }
        }
    });
}

/// A segment of zeros has no place in the file.
#[test]
fn a_segment_without_bytes_of_the_file() {
    isolated(|| {
        for flags in layouts() {
            // The header of the unwinders' table becomes a segment behind the others. (Without that of the stack
            // glibc 2.41 refuses a file.)
            let mut changed = whole(flags);
            let last = *changed.of(LOAD).last().unwrap();
            let end = changed.word(last, VADDR) + changed.word(last, MEMSZ);
            // Headers of segments ascend: the rest moves behind them.
            let (from, to) = (changed.of(EH_FRAME)[0], last + 1);
            let entry = |headers: &Headers, index| {
                let at = headers.place(index, 0);
                headers.bytes[at..at + 56].to_vec()
            };
            for index in (to..from).rev() {
                let moved = entry(&changed, index);
                let at = changed.place(index + 1, 0);
                changed.bytes[at..at + 56].copy_from_slice(&moved);
            }
            let at = changed.place(to, 0);
            changed.bytes[at..at + 8].copy_from_slice(&[1, 0, 0, 0, 6, 0, 0, 0]);
            for (offset, align) in [(0, 0), (0x5000_0000, 1), (1 << 40, 0x1000), (0x10000, 3)] {
                for (field, value) in [
                    (OFFSET, offset),
                    (VADDR, end.next_multiple_of(0x1000)),
                    (FILESZ, 0),
                    (MEMSZ, 0x5000),
                    (ALIGN, align),
                ] {
                    changed.set(to, field, value);
                }
                assert_runs(&file("zeros", &changed.bytes), &format!("{flags:?} {offset:#x}"));
            }
            // Of no size at all, anywhere.
            for (field, value) in [(MEMSZ, 0), (OFFSET, 1 << 30)] {
                changed.set(to, field, value);
            }
            assert_runs(&file("nothing", &changed.bytes), &format!("{flags:?} empty"));
        }
    });
}

/// Fields that `ld.so` does not look at, or uses otherwise than one may think.
#[test]
fn sizes_that_decide_nothing() {
    isolated(|| {
        let assert_same = |p_type: u32, field: usize, value: u64| {
            let mut changed = whole(LINKERS[0]);
            let index = changed.of(p_type)[0];
            changed.set(index, field, value);
            assert_runs(&file("sizes", &changed.bytes), &format!("{p_type:#x} {field} {value:#x}"));
        };
        // The dynamic section ends with DT_NULL.
        for value in [1, 8, 0x1001, 1 << 40, u64::MAX] {
            assert_same(DYNAMIC, FILESZ, value);
            assert_same(DYNAMIC, MEMSZ, value);
        }
        // RELRO without a whole page protects nothing.
        for value in [0, 1, 0xfff, 0x1000, 0x9_0000, 1 << 40] {
            assert_same(RELRO, VADDR, value);
        }
        // All bytes of the file are mapped, and the later segment has the pages that two state.
        for value in [0, 1, 0x10, 0x1001, 0x2000, 0x3000] {
            assert_same(LOAD, MEMSZ, value);
        }
        for value in [0x800, 0xfff, 0x1000, 0x1001, 0x2000, 0x3000] {
            assert_same(LOAD, FILESZ, value);
        }
        // An empty dynamic section is that of debug information in a file of its own.
        let mut changed = whole(LINKERS[0]);
        let index = changed.of(DYNAMIC)[0];
        changed.set(index, FILESZ, 0);
        let path = file("empty-dynamic", &changed.bytes);
        let text = "object file has no dynamic section";
        assert_refused(&host(&path), &path, text, text);
    });
}

/// Two segments in one page, as `ld.so` maps them: the page is the later one's.
#[test]
fn segments_that_share_a_page() {
    isolated(|| {
        let mut changed = whole(&["-Wl,-z,noseparate-code", "-Wl,-z,norelro"]);
        let segments = changed.of(LOAD);
        assert_eq!(segments.len(), 2);
        // The code's segment grows up to the data, into the data's first page.
        let data = changed.word(segments[1], VADDR) - changed.word(segments[0], VADDR);
        changed.set(segments[0], MEMSZ, data);
        assert_runs(&file("shared-page", &changed.bytes), "zeros into the page of the data");
    });
}

/// A library that must not be opened at run time is not, nor is one that needs it.
#[test]
fn nodlopen() {
    isolated(|| {
        let flags = ["-O1", "-Wl,-z,nodlopen", "-Wl,-soname,libmemdl-noopen.so"];
        let path =
            build("gcc", "files/part.c", &[&flags[..], &["-DIMPL=42", "-DCALL=run"]].concat());
        let text = "shared object cannot be dlopen()ed";
        assert_refused(&host(&path), &path, text, text);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("files-noopen");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(&path, folder.join("libmemdl-noopen.so")).unwrap();
        let rpath = format!("-Wl,-rpath,{}", folder.display());
        let needs = ["-Wl,--no-as-needed", &rpath, path.to_str().unwrap(), "-DCALL=run"];
        let needs = build("gcc", "files/part.c", &needs);
        assert_refused(&host(&needs), &needs, text, text);
        let provided = Loader::new().provide("libmemdl-noopen.so", read(&path));
        assert_refused(&provided, &needs, text, text);
        // An auxiliary filter does without it.
        let auxiliary = ["-Wl,-f,libmemdl-noopen.so", &rpath, "-DIMPL=42", "-DCALL=run"];
        let auxiliary = build("gcc", "files/part.c", &auxiliary);
        assert_runs(&auxiliary, "an auxiliary filter");
    });
}

/// The note of GNU properties, with one property, in the assembler's text.
fn with_property(kind: &str, value: u32, flags: &[&str]) -> PathBuf {
    let text = format!(
        ".section .note.gnu.property,\"a\",@note\n.p2align 3\n.long 4, 16, 5\n.asciz \"GNU\"\n\
         .long {kind}, 4, {value:#x}, 0\n.section .note.GNU-stack,\"\",@progbits\n"
    );
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let source = folder.join(format!("files-property-{kind}-{value:x}.s"));
    fs::write(&source, text).unwrap();
    let flags = [&["-O1", "-DIMPL=42", source.to_str().unwrap()], flags].concat();
    build("gcc", "files/part.c", &flags)
}

#[cfg(target_arch = "x86_64")]
#[test]
fn levels_of_the_instruction_set() {
    isolated(|| {
        const NEEDED: &str = "0xc0008002";
        // What the system's loader says of this processor is the reference, level by level.
        let text = "CPU ISA level is lower than required";
        let mut refused = 0;
        for value in [0, 1, 2, 4, 8, 3, 7, 0xf, 0x10, 0x8000_0001] {
            let path = with_property(NEEDED, value, &["-DCALL=run"]);
            match by_dlopen(&path).as_str() {
                "42" => assert_runs(&path, &format!("level {value:#x}")),
                error => {
                    assert!(error.contains(text), "{error}");
                    refused += 1;
                    assert_refused(&host(&path), &path, text, "needs a processor of level ");
                }
            }
        }
        assert!(refused >= 2, "unknown levels are refused");
        // Of a needed library as well, from bytes and from the system; and even where it may be absent.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("files-isa");
        fs::create_dir_all(&folder).unwrap();
        let name = "libmemdl-isa.so";
        let needed = with_property(NEEDED, 0x20, &["-Wl,-soname,libmemdl-isa.so"]);
        fs::copy(&needed, folder.join(name)).unwrap();
        let rpath = format!("-Wl,-rpath,{}", folder.display());
        let needs = ["-Wl,--no-as-needed", &rpath, needed.to_str().unwrap(), "-DCALL=run"];
        let auxiliary = ["-Wl,-f,libmemdl-isa.so", &*rpath, "-DIMPL=42", "-DCALL=run"];
        for flags in [&needs, &auxiliary] {
            let path = build("gcc", "files/part.c", flags);
            assert_refused(&host(&path), &path, text, text);
            let provided = Loader::new().provide(name, read(&needed));
            assert_refused(&provided, &path, text, "needs a processor of level ");
        }
        // SAFETY: a library of `testlibs/`, which is refused.
        match unsafe { Loader::new().name("isa").load(&read(&needed)) } {
            Err(Error::Processor { image, level, lacking, .. }) => {
                assert_eq!((&*image, &*level), ("isa", "0x20 of GNU_PROPERTY_X86_ISA_1_NEEDED"));
                assert!(lacking.is_empty());
            }
            other => panic!("{other:?}"),
        }
        // Another property, and levels that are used where the processor has them.
        assert_runs(&with_property("0xc0010002", 0x20, &["-DCALL=run"]), "ISA_1_USED");
        assert_runs(&with_property("0xc0000002", 3, &["-DCALL=run"]), "FEATURE_1_AND");
    });
}

/// Notes that are malformed count as none.
#[test]
fn properties_that_are_malformed() {
    isolated(|| {
        let good = read(&with_property("0xc0008002", 0x20, &["-DCALL=run"]));
        let note = b"\x04\0\0\0\x10\0\0\0\x05\0\0\0GNU\0";
        let at = good.windows(note.len()).position(|it| it == note).unwrap();
        for (skip, value) in [(0, 5), (4, 8), (4, 12), (8, 1), (12, 0), (16, 1), (20, 3), (20, 8)] {
            let mut changed = good.clone();
            changed[at + skip..at + skip + 4].copy_from_slice(&u32::to_le_bytes(value));
            assert_runs(&file("note", &changed), &format!("{value} at {skip}"));
        }
    });
}
