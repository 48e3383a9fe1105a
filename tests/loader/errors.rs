//! What cannot be loaded is an error that says what and where; it never panics, hangs, takes more
//! memory than its size calls for, or leaves anything behind.
//!
//! Where an image comes close to being loaded, `Loader::prepare` is asked, which is safe and runs
//! nothing of it.

use std::ffi::c_void;
use std::fs;
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::machine::{FOREIGN, OWN};
use crate::common::{
    AnyWay, Opened, assert_agrees, build, build_program, bytes, debug_entries, has_linker,
    is_sanitized, isolated, limit, load_and_run, machine, maps, peak_of, repository, run,
};
use goblin::elf::dynamic::*;
use goblin::elf::program_header::{
    PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_GNU_STACK, PT_LOAD, PT_NULL, PT_TLS,
};
use libc::{RTLD_LOCAL, RTLD_NOW};
use memdl::{Error, Limits, Loader};

const PHDR: usize = 56;
const RELA: usize = 24;
/// Fields of a program header.
const OFFSET: usize = 8;
const VADDR: usize = 16;
const FILESZ: usize = 32;
const MEMSZ: usize = 40;
const ALIGN: usize = 48;
/// Far more than preparing any of the test libraries takes, and far less than a hang.
const LONG: Duration = Duration::from_secs(2);

/// The error of a load that must fail.
fn refused(loader: &Loader, bytes: &[u8], what: &str) -> Error {
    let report = loader.inspect(bytes);
    // SAFETY: the libraries of `testlibs/`, however changed, do no harm in their constructors; the
    // load is expected to fail before.
    let loaded = unsafe { loader.load(bytes) };
    assert_agrees(&report, &loaded, what);
    match loaded {
        Ok(_) => panic!("{what}: it was loaded"),
        Err(error) => error,
    }
}

fn assert_says(error: &Error, fragments: &[&str], what: &str) {
    let text = error.to_string();
    for fragment in fragments {
        assert!(text.contains(fragment), "{what}: `{fragment}` is not in: {text}");
    }
}

/// The kinds of fault that a caller can tell apart.
#[derive(Debug, PartialEq, Clone, Copy)]
enum Kind {
    Malformed,
    Unsupported,
    Missing,
    Limit,
}
use Kind::{Limit, Malformed, Missing, Unsupported};

fn kind(error: &Error) -> Kind {
    match error {
        Error::Malformed { .. } => Malformed,
        Error::Unsupported { .. } => Unsupported,
        Error::Missing { .. } => Missing,
        Error::Limit { .. } => Limit,
        other => panic!("unexpected: {other}"),
    }
}

/// A library whose fields can be changed.
struct Edit {
    bytes: Vec<u8>,
}

impl Edit {
    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().unwrap())
    }

    fn set(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn set32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn set16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Where the program headers of this type lie.
    fn phdrs(&self, p_type: u32) -> Vec<usize> {
        let table = self.word(32) as usize;
        (0..usize::from(self.half(56)))
            .map(|index| table + index * PHDR)
            .filter(|&at| u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap()) == p_type)
            .collect()
    }

    fn phdr(&self, p_type: u32) -> usize {
        *self.phdrs(p_type).first().expect("no such program header")
    }

    fn set_phdr(&mut self, phdr: usize, field: usize, value: u64) {
        self.set(phdr + field, value);
    }

    /// The end of the image's last page.
    fn end(&self) -> u64 {
        let last = *self.phdrs(PT_LOAD).last().unwrap();
        (self.word(last + VADDR) + self.word(last + MEMSZ)).next_multiple_of(4096)
    }

    /// Where the last segment's memory ends.
    fn memory_end(&self) -> u64 {
        let last = *self.phdrs(PT_LOAD).last().unwrap();
        self.word(last + VADDR) + self.word(last + MEMSZ)
    }

    fn word32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    /// Where the buckets of `DT_GNU_HASH` lie, and how many there are.
    fn buckets(&self) -> (usize, usize) {
        let at = self.table(DT_GNU_HASH);
        (at + 16 + 8 * self.word32(at + 8) as usize, self.word32(at) as usize)
    }

    fn first_bucket(&self) -> usize {
        let (start, count) = self.buckets();
        (0..count).map(|index| start + 4 * index).find(|&at| self.word32(at) != 0).unwrap()
    }

    /// Where the last link of the chain behind the last bucket lies.
    fn last_link(&self) -> usize {
        let (start, count) = self.buckets();
        let symoffset = self.word32(self.table(DT_GNU_HASH) + 4);
        let last = (0..count).map(|index| self.word32(start + 4 * index)).max().unwrap();
        let chain = start + 4 * count;
        let mut links = (chain + 4 * (last - symoffset) as usize..).step_by(4);
        links.find(|&at| self.word32(at) & 1 != 0).unwrap()
    }

    /// How many dynamic symbols there are.
    fn symbols(&self) -> u32 {
        goblin::elf::Elf::parse(&self.bytes).unwrap().dynsyms.len() as u32
    }

    /// The first segment with these flags.
    fn segment(&self, p_flags: u8) -> usize {
        let loads = self.phdrs(PT_LOAD);
        *loads.iter().find(|&&at| self.bytes[at + 4] == p_flags).expect("no such segment")
    }

    /// Where an address of the image lies in the file.
    fn offset(&self, vaddr: u64) -> usize {
        let load = self.phdrs(PT_LOAD).into_iter().find(|&at| {
            self.word(at + 16) <= vaddr && vaddr < self.word(at + 16) + self.word(at + 32)
        });
        let at = load.expect("no segment has this address");
        (vaddr - self.word(at + 16) + self.word(at + 8)) as usize
    }

    /// Where the entry with this tag lies.
    fn entry(&self, tag: u64) -> usize {
        let start = self.word(self.phdr(PT_DYNAMIC) + 8) as usize;
        let mut entries = (start..).step_by(16).take_while(|&at| self.word(at) != DT_NULL);
        entries.find(|&at| self.word(at) == tag).unwrap_or_else(|| panic!("no {tag:#x}"))
    }

    /// Where the value of the entry with this tag lies.
    fn value(&self, tag: u64) -> usize {
        self.entry(tag) + 8
    }

    /// Where the table that this entry points to lies.
    fn table(&self, tag: u64) -> usize {
        self.offset(self.word(self.value(tag)))
    }

    fn set_value(&mut self, tag: u64, value: u64) {
        self.set(self.value(tag), value);
    }

    fn set_tag(&mut self, tag: u64, other: u64) {
        self.set(self.entry(tag), other);
    }

    /// The first entry of `DT_RELA` with a symbol.
    fn symbolic_rela(&self) -> usize {
        let count = self.word(self.value(DT_RELASZ)) as usize / RELA;
        let all = (0..count).map(|index| self.table(DT_RELA) + index * RELA);
        all.into_iter()
            .find(|&at| self.word(at + 8) >> 32 != 0)
            .expect("no relocation has a symbol")
    }
}

impl Edit {
    /// The entry of the symbol that [`Edit::symbolic_rela`] names.
    fn first_bound_symbol(&self) -> usize {
        self.table(DT_SYMTAB) + (self.word(self.symbolic_rela() + 8) >> 32) as usize * 24
    }
}

/// A library with a little of everything.
fn everything(flags: &[&str]) -> Vec<u8> {
    // The layout that linkers have for x86-64 without being asked.
    let layout = "-Wl,-z,separate-code,-z,max-page-size=4096";
    let common = ["-Wl,-soname,libeverything.so", "-fuse-ld=bfd", "-Wl,-init,twice", layout];
    bytes("gcc", "loading/everything.c", &[&common, flags].concat())
}

const NOWHERE: u64 = 0x7fff_0000;

type Change = fn(&mut Edit);
/// A change of one field, and what the error must say.
#[rustfmt::skip]
const CORRUPTIONS: &[(&str, Change, Kind, &[&str])] = &[
    // The ELF header.
    ("magic", |e| e.bytes[1] = b'e', Malformed, &["not an ELF file", "7f, 65"]),
    ("class 32", |e| e.bytes[4] = 1, Unsupported, &["32-bit"]),
    ("class 9", |e| e.bytes[4] = 9, Malformed, &["EI_CLASS is 9", "header"]),
    ("big endian", |e| e.bytes[5] = 2, Unsupported, &["big-endian"]),
    ("data 0", |e| e.bytes[5] = 0, Malformed, &["EI_DATA is 0"]),
    ("ident version", |e| e.bytes[6] = 2, Malformed, &["version 2"]),
    ("version", |e| e.set32(20, 7), Malformed, &["version 7"]),
    ("FreeBSD", |e| e.bytes[7] = 9, Unsupported, &["another system", "9"]),
    ("another machine", |e| e.set16(18, FOREIGN.e_machine), Unsupported, &[FOREIGN.name, "this process is", OWN.name]),
    ("ET_EXEC", |e| e.set16(16, 2), Unsupported, &["ET_EXEC", "executable"]),
    ("ET_REL", |e| e.set16(16, 1), Unsupported, &["ET_REL", "object file", "-shared"]),
    ("ET_CORE", |e| e.set16(16, 4), Malformed, &["e_type is 4"]),
    ("e_phentsize", |e| e.set16(54, 32), Malformed, &["e_phentsize is 32"]),
    ("e_phoff", |e| e.set(32, u64::MAX - 8), Malformed, &["program headers", "truncated"]),
    ("e_phnum 0", |e| e.set16(56, 0), Malformed, &["no loadable segments"]),
    ("e_phnum", |e| e.set16(56, 0xffff), Malformed, &["65535 program headers"]),
    ("ABI version", |e| e.bytes[8] = 1, Unsupported, &["ABI version 1"]),
    ("GNU ABI version", |e| { e.bytes[7] = 3; e.bytes[8] = 4 }, Unsupported, &["ABI version 4"]),
    ("padding", |e| e.bytes[15] = 1, Malformed, &["nonzero padding in e_ident"]),
    // Segments.
    ("PT_TLS p_memsz 0", |e| e.set_phdr(e.phdr(PT_TLS), MEMSZ, 0), Malformed, &["larger than p_memsz 0x0"]),
    ("unreadable tables", |e| e.set32(e.segment(4) + 4, 0), Malformed, &["string table", "d_tag 0x5"]),
    ("p_offset", |e| e.set_phdr(e.segment(4), OFFSET, 0x1000_0000), Malformed, &["truncated", "0x10000000", "program header 0"]),
    ("p_vaddr wraps", |e| e.set_phdr(e.segment(6), VADDR, u64::MAX - 0xff), Malformed, &["wraps around", "p_vaddr"]),
    ("p_vaddr", |e| e.set_phdr(e.segment(6), VADDR, 0x7008), Malformed, &["not properly aligned", "p_vaddr 0x7008"]),
    ("W+X", |e| e.set32(e.segment(6) + 4, 7), Unsupported, &["writable and executable", "program header"]),
    ("overlap", |e| { let data = e.segment(6); e.set_phdr(data, VADDR, e.word(data + VADDR) % 4096) }, Malformed, &["overlap"]),
    ("p_align large", |e| e.set_phdr(e.segment(4), ALIGN, 1 << 40), Limit, &["alignment"]),
    ("p_memsz large", |e| e.set_phdr(e.segment(6), MEMSZ, 1 << 40), Limit, &["address space"]),
    ("p_memsz larger", |e| e.set_phdr(e.segment(6), MEMSZ, u64::MAX - 0x10000), Limit, &["address space"]),
    ("no PT_DYNAMIC", |e| e.set32(e.phdr(PT_DYNAMIC), PT_NULL), Malformed, &["no dynamic section"]),
    ("PT_DYNAMIC", |e| e.set_phdr(e.phdr(PT_DYNAMIC), VADDR, NOWHERE), Malformed, &["dynamic section lies outside", "0x7fff0000"]),
    ("PT_TLS", |e| e.set_phdr(e.phdr(PT_TLS), VADDR, NOWHERE), Malformed, &["PT_TLS", "outside", "0x7fff0000"]),
    ("PT_TLS size", |e| e.set_phdr(e.phdr(PT_TLS), MEMSZ, 1), Malformed, &["p_filesz", "larger"]),
    ("PT_TLS alignment", |e| e.set_phdr(e.phdr(PT_TLS), ALIGN, 1 << 40), Limit, &["alignment"]),
    ("RELRO", |e| { let relro = e.phdr(PT_GNU_RELRO); e.set_phdr(relro, VADDR, NOWHERE); e.set_phdr(relro, MEMSZ, 4096) }, Malformed, &["PT_GNU_RELRO", "0x7fff0000"]),
    ("RELRO wraps", |e| e.set_phdr(e.phdr(PT_GNU_RELRO), MEMSZ, u64::MAX - 8192), Malformed, &["PT_GNU_RELRO"]),
    ("stack", |e| e.set32(e.phdr(PT_GNU_STACK) + 4, 7), Unsupported, &["executable stack", "noexecstack"]),
    // The dynamic section.
    ("no DT_NULL", |e| { let data = e.segment(6); let end = e.word(data + VADDR) + e.word(data + FILESZ); e.set_phdr(e.phdr(PT_DYNAMIC), VADDR, end - 8) }, Malformed, &["does not end with DT_NULL"]),
    ("empty PT_DYNAMIC", |e| e.set_phdr(e.phdr(PT_DYNAMIC), FILESZ, 0), Malformed, &["no dynamic section"]),
    ("no DT_STRTAB", |e| e.set_tag(DT_STRTAB, DT_DEBUG), Malformed, &["no string table"]),
    ("DT_STRTAB", |e| e.set_value(DT_STRTAB, NOWHERE), Malformed, &["string table", "d_tag 0x5"]),
    ("DT_STRSZ", |e| e.set_value(DT_STRSZ, 1 << 40), Malformed, &["string table"]),
    ("DT_STRSZ wraps", |e| e.set_value(DT_STRSZ, u64::MAX), Malformed, &["string table"]),
    ("no DT_SYMTAB", |e| e.set_tag(DT_SYMTAB, DT_DEBUG), Malformed, &["no symbol table"]),
    ("DT_SYMTAB", |e| e.set_value(DT_SYMTAB, NOWHERE), Malformed, &["symbol table", "d_tag 0x6"]),
    ("DT_SYMENT", |e| e.set_value(DT_SYMENT, 16), Malformed, &["symbols of an unknown size"]),
    ("DT_GNU_HASH", |e| e.set_value(DT_GNU_HASH, NOWHERE), Malformed, &["hash table lies outside"]),
    ("nbuckets", |e| e.set32(e.table(DT_GNU_HASH), 0), Malformed, &["hash table contradicts itself"]),
    ("nbuckets large", |e| e.set32(e.table(DT_GNU_HASH), u32::MAX), Malformed, &["hash table contradicts itself"]),
    ("bloom size", |e| e.set32(e.table(DT_GNU_HASH) + 8, 3), Malformed, &["hash table contradicts itself"]),
    ("no end of a chain", |e| { let at = e.last_link(); e.bytes[at] &= !1 }, Malformed, &["table"]),
    ("bucket", |e| { let at = e.first_bucket(); e.set32(at, 0x7fff_ffff) }, Malformed, &["hash table contradicts itself"]),
    ("bucket below", |e| { let at = e.first_bucket(); e.set32(at, 1) }, Malformed, &["hash table contradicts itself"]),
    ("DT_HASH too", |e| e.set_tag(DT_RELACOUNT, DT_HASH), Malformed, &["hash table", "d_tag 0x4"]),
    ("DT_HASH elsewhere", |e| { let at = e.entry(DT_RELACOUNT); e.set(at, DT_HASH); e.set(at + 8, NOWHERE) }, Malformed, &["hash table", "d_tag 0x4"]),
    ("the end of names", |e| { let at = e.value(DT_STRSZ); e.set(at, e.word(at) - 1) }, Malformed, &["does not end with a NUL", "d_tag 0xa"]),
    ("st_name of any", |e| { let at = e.table(DT_SYMTAB) + 24; e.set32(at, e.word(e.value(DT_STRSZ)) as u32) }, Malformed, &["name", "string table", "dynamic symbol 1"]),
    ("DT_SYMTAB later", |e| { let at = e.value(DT_SYMTAB); e.set(at, e.word(at) + 24) }, Malformed, &["symbol table reaches into another table"]),
    ("version index", |e| { let at = e.table(DT_VERSYM); e.set16(at + 2, 77) }, Malformed, &["version index 77", "dynamic symbol 1"]),
    ("vn_version", |e| e.set16(e.table(DT_VERNEED), 2), Malformed, &["version needs"]),
    ("vn_file", |e| { let at = e.table(DT_VERNEED) + 4; e.set32(at, e.word(e.value(DT_STRSZ)) as u32) }, Malformed, &["version's name", "0x6ffffffe"]),
    ("vna_name", |e| e.set32(e.table(DT_VERNEED) + 24, u32::MAX), Malformed, &["version's name", "0x6ffffffe"]),
    ("DT_VERSYM", |e| e.set_value(DT_VERSYM, NOWHERE), Malformed, &["version table"]),
    ("DT_VERNEED", |e| e.set_value(DT_VERNEED, NOWHERE), Malformed, &["version needs"]),
    ("vn_aux", |e| e.set32(e.table(DT_VERNEED) + 8, 0x7fff_ffff), Malformed, &["version needs contradict"]),
    ("vna_next", |e| { let at = e.table(DT_VERNEED); e.set16(at + 2, 9); e.set32(at + 28, 1 << 20) }, Malformed, &["version needs contradict"]),
    ("vn_cnt 0", |e| e.set16(e.table(DT_VERNEED) + 2, 0), Malformed, &["versions overlap, or are more", "0x6ffffffe"]),
    ("DT_VERNEEDNUM 0", |e| e.set_value(DT_VERNEEDNUM, 0), Malformed, &["versions overlap, or are more", "0x6ffffffe"]),
    ("vna_next 1", |e| e.set32(e.table(DT_VERNEED) + 28, 1), Malformed, &["versions overlap, or are more", "0x6ffffffe"]),
    ("DT_VERDEF", |e| { let versions = e.word(e.value(DT_VERNEED)); let at = e.entry(DT_RELACOUNT); e.set(at, DT_VERDEF); e.set(at + 8, versions) }, Malformed, &["versions overlap, or are more", "0x6ffffffc"]),
    ("DT_FILTER", |e| { let at = e.entry(DT_RELACOUNT); e.set(at, 0x7fff_ffff); e.set(at + 8, 1 << 20) }, Malformed, &["name", "string table", "0x7fffffff"]),
    ("DT_AUXILIARY", |e| { let at = e.entry(DT_RELACOUNT); e.set(at, 0x7fff_fffd); e.set(at + 8, u64::MAX) }, Malformed, &["name", "string table", "0x7ffffffd"]),
    ("DT_SONAME", |e| e.set_value(DT_SONAME, 1 << 30), Malformed, &["name", "string table", "d_tag 0xe"]),
    ("DT_NEEDED", |e| e.set_value(DT_NEEDED, 1 << 33), Malformed, &["name", "string table", "d_tag 0x1"]),
    ("DT_RELA", |e| e.set_value(DT_RELA, NOWHERE), Malformed, &["relocation table", "d_tag 0x7"]),
    ("DT_RELASZ", |e| e.set_value(DT_RELASZ, 25), Malformed, &["relocation table"]),
    ("DT_RELASZ large", |e| e.set_value(DT_RELASZ, 24 << 32), Malformed, &["relocation table"]),
    ("no DT_RELASZ", |e| e.set_tag(DT_RELASZ, DT_DEBUG), Malformed, &["without its size", "d_tag 0x7"]),
    ("no DT_RELA", |e| e.set_tag(DT_RELA, DT_DEBUG), Malformed, &["without a table", "d_tag 0x7"]),
    ("no DT_PLTRELSZ", |e| e.set_tag(DT_PLTRELSZ, DT_DEBUG), Malformed, &["without its size", "d_tag 0x17"]),
    ("no DT_INIT_ARRAYSZ", |e| e.set_tag(DT_INIT_ARRAYSZ, DT_DEBUG), Malformed, &["without its size", "d_tag 0x19"]),
    ("DT_INIT 0", |e| e.set_value(DT_INIT, 0), Malformed, &["0x0 is not in executable memory", "d_tag 0xc"]),
    ("DT_RELAENT", |e| e.set_value(DT_RELAENT, 16), Malformed, &["unknown size"]),
    ("DT_REL", |e| e.set_tag(DT_RELACOUNT, DT_REL), Unsupported, &["DT_REL", "without addends"]),
    ("DT_PLTREL", |e| e.set_value(DT_PLTREL, DT_REL), Unsupported, &["DT_PLTREL", "without addends"]),
    ("DT_JMPREL", |e| e.set_value(DT_JMPREL, NOWHERE), Malformed, &["relocation table", "d_tag 0x17"]),
    ("DT_ANDROID_REL", |e| e.set_tag(DT_RELACOUNT, 0x6000_000f), Unsupported, &["DT_ANDROID_REL", "without addends"]),
    ("DT_INIT", |e| e.set_value(DT_INIT, e.word(e.value(DT_INIT_ARRAY))), Malformed, &["not in executable memory", "d_tag 0xc"]),
    ("DT_FINI", |e| e.set_value(DT_FINI, NOWHERE), Malformed, &["not in executable memory", "d_tag 0xd"]),
    ("DT_INIT behind the code", |e| { let code = e.segment(5); e.set_value(DT_INIT, e.word(code + VADDR) + e.word(code + MEMSZ)) }, Malformed, &["not in executable memory", "d_tag 0xc"]),
    ("DT_FINI in zeros", |e| { let code = e.segment(5); let fini = e.word(e.value(DT_FINI)); e.set_phdr(code, FILESZ, fini - e.word(code + VADDR)) }, Malformed, &["not in executable memory", "d_tag 0xd"]),
    ("DT_INIT_ARRAY", |e| e.set_value(DT_INIT_ARRAY, NOWHERE), Malformed, &["array of functions", "d_tag 0x19"]),
    ("DT_INIT_ARRAYSZ", |e| e.set_value(DT_INIT_ARRAYSZ, 7), Malformed, &["array of functions"]),
    ("DT_FINI_ARRAY", |e| e.set_value(DT_FINI_ARRAY, e.word(e.value(DT_FINI_ARRAY)) + 4), Malformed, &["array of functions", "d_tag 0x1a"]),
    // Relocations.
    ("unknown type", |e| e.set32(e.symbolic_rela() + 8, 200), Unsupported, &["relocation type 200", "0x"]),
    ("symbol index of a relative one", |e| { let at = e.table(DT_RELA) + 12; e.set32(at, e.symbols()) }, Malformed, &[machine::RELATIVE.name, "names symbol", "does not exist"]),
    ("symbol index of none", |e| { let at = e.symbolic_rela(); e.set32(at + 8, 0); e.set32(at + 12, u32::MAX) }, Malformed, &[machine::NONE.name, "names symbol 4294967295", "does not exist"]),
    ("copy", |e| e.set32(e.symbolic_rela() + 8, machine::COPY.number), Unsupported, &[machine::COPY.name, "executables"]),
    ("symbol index", |e| e.set32(e.symbolic_rela() + 12, 0xff_ffff), Malformed, &["symbol 16777215", "does not exist", "relocation at 0x"]),
    ("symbol index just beyond", |e| { let at = e.symbolic_rela() + 12; e.set32(at, e.symbols()) }, Malformed, &["symbol", "does not exist", "relocation at 0x"]),
    ("symbol index of a call", |e| { let at = e.table(DT_JMPREL) + 12; e.set32(at, e.symbols()) }, Malformed, &[machine::JUMP_SLOT.name, "names symbol", "does not exist"]),
    ("r_offset behind p_memsz", |e| { let at = e.table(DT_RELA); e.set(at, e.memory_end()) }, Malformed, &["not writable"]),
    ("r_offset across p_memsz", |e| { let at = e.symbolic_rela(); e.set(at, e.memory_end() - 4) }, Malformed, &["not writable"]),
    ("r_offset before p_vaddr", |e| { let at = e.table(DT_RELA); e.set(at, e.word(e.segment(6) + VADDR) - 8) }, Malformed, &["not writable"]),
    ("symbol name", |e| e.set32(e.first_bound_symbol(), u32::MAX), Malformed, &["name", "string table", "dynamic symbol"]),
    ("r_offset in code", |e| e.set(e.table(DT_RELA), e.word(e.segment(5) + VADDR)), Malformed, &[machine::RELATIVE.name, "not writable", "relocation at 0x"]),
    ("r_offset", |e| e.set(e.symbolic_rela(), NOWHERE), Malformed, &["not writable", "0x7fff0000"]),
    ("r_offset wraps", |e| e.set(e.symbolic_rela(), u64::MAX - 3), Malformed, &["not writable", "0xfffffffffffffffc"]),
    ("r_offset at the end", |e| e.set(e.table(DT_RELA), e.end() - 4), Malformed, &["not writable"]),
];

#[test]
fn each_corruption_is_told() {
    let original = everything(&[]);
    load_and_run(&Loader::new(), &original, "the original");
    let mut wrong = Vec::new();
    for (what, change, expected, fragments) in CORRUPTIONS {
        let mut edit = Edit { bytes: original.clone() };
        change(&mut edit);
        assert_ne!(edit.bytes, original, "{what}: nothing was changed");
        let check = AssertUnwindSafe(|| {
            let loader = Loader::new().name("changed.so");
            let error = match loader.template(&edit.bytes) {
                Err(error) => error,
                Ok(_) => panic!("{what}: prepare takes it"),
            };
            let of_load = refused(&loader, &edit.bytes, what);
            assert_eq!(of_load.to_string(), error.to_string(), "{what}");
            assert_eq!(kind(&error), *expected, "{what}: {error}");
            assert_says(&error, fragments, what);
            assert!(error.to_string().starts_with("changed.so: "), "{what}: {error}");
        });
        if let Err(panic) = catch_unwind(check) {
            let text = panic.downcast::<String>().map_or("?".into(), |text| *text);
            wrong.push(text);
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CORRUPTIONS.len(), wrong.join("\n"));
}

/// A constructor that is no code is found out before anything runs, where `dlopen` would crash.
#[test]
fn constructors_and_destructors_are_code() {
    let file = everything(&[]);
    let elf = goblin::elf::Elf::parse(&file).unwrap();
    let (dynamic, rela) = (elf.dynamic.as_ref().unwrap(), elf.dynamic.as_ref().unwrap().info.rela);
    for tag in [DT_INIT_ARRAY, DT_FINI_ARRAY] {
        let array = dynamic.dyns.iter().find(|entry| entry.d_tag == tag).unwrap().d_val;
        let index = elf.dynrelas.iter().position(|rela| rela.r_offset == array).unwrap();
        // In the image, but in its data; nowhere; and behind the code, on its last page.
        let mut headers = elf.program_headers.iter();
        let code = headers.find(|it| it.p_type == PT_LOAD && it.is_executable()).unwrap();
        for addend in [array, 1 << 44, code.p_vaddr + code.p_memsz] {
            let mut bad = file.clone();
            let at = rela + index * RELA + 16;
            bad[at..at + 8].copy_from_slice(&addend.to_le_bytes());
            let error = refused(&Loader::new(), &bad, "no code");
            assert_eq!(kind(&error), Malformed, "{error}");
            assert_says(&error, &["which is to be called, is in no library"], "no code");
        }
    }
}

#[test]
fn what_is_no_shared_library() {
    let source = "testlibs/loading/everything.c";
    let library = everything(&[]);
    let cases: Vec<(&str, Vec<u8>, Kind, &[&str])> = vec![
        ("empty", vec![], Malformed, &["no bytes at all"]),
        ("one byte", vec![0x7f], Malformed, &["not an ELF file"]),
        ("text", b"#!/bin/sh\necho hello\n".to_vec(), Malformed, &["not an ELF file", "a script"]),
        ("zeroes", vec![0; 100_000], Malformed, &["not an ELF file"]),
        ("header only", library[..64].to_vec(), Malformed, &["truncated", "program headers"]),
        ("half a header", library[..32].to_vec(), Malformed, &["truncated", "32 bytes"]),
        ("archive", b"!<arch>\n".to_vec(), Malformed, &["not an ELF file"]),
        (
            "object file",
            fs::read(build_program("gcc", source, &["-c", "-fPIC"])).unwrap(),
            Unsupported,
            &["ET_REL", "-shared"],
        ),
        (
            "executable",
            fs::read(build_program(
                "gcc",
                source,
                &["-no-pie", "-Wl,--entry=run", "-nostartfiles"],
            ))
            .unwrap(),
            Unsupported,
            &["ET_EXEC"],
        ),
        (
            "position-independent executable",
            fs::read(build_program(
                "gcc",
                source,
                &["-pie", "-fPIE", "-Wl,--entry=run", "-nostartfiles"],
            ))
            .unwrap(),
            Unsupported,
            &["DF_1_PIE", "executable"],
        ),
        (
            "executable stack",
            everything(&["-Wl,-z,execstack"]),
            Unsupported,
            &["executable stack", "noexecstack"],
        ),
        (
            "32-bit",
            {
                let mut header = library[..64].to_vec();
                header[4] = 1;
                header
            },
            Unsupported,
            &["32-bit"],
        ),
    ];
    for (what, bytes, expected, fragments) in cases {
        let error = Loader::new().name("it").template(&bytes).expect_err(what);
        assert_eq!(kind(&error), expected, "{what}: {error}");
        assert_says(&error, fragments, what);
        assert_says(&error, &["it: "], what);
    }
    // The running program, as an executable of another making.
    let error = Loader::new().template(&fs::read("/proc/self/exe").unwrap()).unwrap_err();
    assert_says(&error, &["executable"], "the test itself");
}

#[test]
fn truncated_at_every_length() {
    let library = everything(&["-s"]);
    let end_of_segments = {
        let edit = Edit { bytes: library.clone() };
        let ends = edit.phdrs(PT_LOAD).into_iter().map(|at| edit.word(at + 8) + edit.word(at + 32));
        ends.max().unwrap() as usize
    };
    assert!(end_of_segments < library.len());
    let loader = Loader::new();
    for len in 0..library.len() {
        let result = catch_unwind(AssertUnwindSafe(|| loader.template(&library[..len])));
        match result {
            Err(_) => panic!("prepare panics at a length of {len}"),
            Ok(Ok(_)) => assert!(len >= end_of_segments, "taken at a length of {len}"),
            Ok(Err(error)) => {
                assert!(len < end_of_segments, "length {len}: {error}");
                assert_eq!(kind(&error), Malformed, "length {len}: {error}");
                let told = ["truncated", "not an ELF file", "no bytes"];
                let text = error.to_string();
                assert!(told.iter().any(|told| text.contains(told)), "length {len}: {text}");
            }
        }
        // What is behind the segments is of no use to a loader.
        if len >= end_of_segments && (len - end_of_segments) % 97 == 0 {
            load_and_run(&loader, &library[..len], "truncated");
        }
        if len < end_of_segments && len % 997 == 0 {
            refused(&loader, &library[..len], "truncated");
        }
    }
}

/// A generator of numbers that are the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Changes a few bytes or words, mostly where they matter.
fn mutate(bytes: &mut Vec<u8>, important: &[(usize, usize)], random: &mut Random) {
    const WORDS: [u64; 12] = [
        0,
        1,
        8,
        0x1000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 40,
        1 << 63,
        u64::MAX - 0xfff,
        u64::MAX - 7,
        u64::MAX,
    ];
    for _ in 0..1 + random.below(4) {
        let (start, len) = match random.below(8) {
            0 => (0, bytes.len()),
            _ => important[random.below(important.len())],
        };
        let at = start + random.below(len.max(1));
        if at + 8 > bytes.len() {
            continue;
        }
        let aligned = at & !7;
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at..at + 4].copy_from_slice(&(random.next() as u32).to_le_bytes()),
            3 => {
                let value = WORDS[random.below(WORDS.len())];
                bytes[aligned..aligned + 8].copy_from_slice(&value.to_le_bytes());
            }
            4 => {
                let value = WORDS[random.below(WORDS.len())] as u32;
                bytes[at & !3..][..4].copy_from_slice(&value.to_le_bytes());
            }
            5 => {
                // A value that may well be right somewhere else.
                let value = random.below(2 * bytes.len()) as u64;
                bytes[aligned..aligned + 8].copy_from_slice(&value.to_le_bytes());
            }
            _ => {
                let from = random.below(bytes.len() - 8);
                bytes.copy_within(from..from + 8, aligned);
            }
        }
    }
    if random.below(20) == 0 {
        bytes.truncate(random.below(bytes.len()));
    }
}

#[test]
fn mutated_images_never_panic_or_hang_or_take_much_memory() {
    isolated(|| {
        const ROUNDS: usize = 3000;
        let script = format!(
            "-Wl,--version-script={}",
            repository("testlibs/loading/versions.map").display()
        );
        let libraries = [
            everything(&["-g"]),
            everything(&["-Wl,--hash-style=sysv", "-Wl,-z,pack-relative-relocs"]),
            bytes("gcc", "loading/everything.c", &["-g", "-gz", "-fuse-ld=lld"]),
            bytes(
                "gcc",
                "loading/versions.c",
                &[if has_linker("mold") { "-fuse-ld=mold" } else { "-fuse-ld=lld" }, &script],
            ),
            bytes("gcc", "loading/ifunc.c", &["-g", "-gdwarf-4"]),
        ];
        let mut random = Random(0x6d65_6d64_6c21_2121);
        let (mut taken, mut slowest) = (0, Duration::ZERO);
        let loader = Loader::new().name("mutated");
        let peak = peak_of(|| {
            for library in &libraries {
                let edit = Edit { bytes: library.clone() };
                let mut important = vec![(0, 64 + PHDR * usize::from(edit.half(56)))];
                for p_type in [PT_DYNAMIC, PT_TLS, PT_GNU_EH_FRAME] {
                    for at in edit.phdrs(p_type) {
                        important.push((edit.word(at + 8) as usize, edit.word(at + 32) as usize));
                    }
                }
                // Symbols, strings, hashes, versions and relocations fill the first segment.
                let first = edit.phdr(PT_LOAD);
                important.push((0x190, edit.word(first + 32) as usize - 0x190));
                // And the section headers, which only debug entries look at.
                let sections = edit.word(40) as usize;
                important.push((sections, library.len() - sections));
                for round in 0..ROUNDS {
                    let mut bytes = library.clone();
                    let seed = random.0;
                    mutate(&mut bytes, &important, &mut random);
                    let start = Instant::now();
                    let result = catch_unwind(AssertUnwindSafe(|| loader.template(&bytes)));
                    let time = start.elapsed();
                    slowest = slowest.max(time);
                    assert!(time < limit(LONG), "round {round}, seed {seed:#x}: {time:?}");
                    match result {
                        Err(_) => panic!("round {round}, seed {seed:#x}: prepare panics"),
                        Ok(Ok(_)) => taken += 1,
                        Ok(Err(error)) => {
                            let text = error.to_string();
                            assert!(text.starts_with("mutated: "), "{text}");
                            assert!(text.len() < 100_000, "an error of {} bytes", text.len());
                        }
                    }
                }
            }
        });
        let all = ROUNDS * libraries.len();
        println!("{taken} of {all} were still fine; slowest {slowest:?}, peak {peak} bytes");
        assert!((all / 20..all * 19 / 20).contains(&taken), "{taken} of {all} were taken");
        assert!(peak < 128 << 20 || is_sanitized(), "{peak} bytes at the most");
    });
}

/// An image made by hand: `tables` at [`TABLES`], readable; the dynamic section behind it, writable.
fn crafted(tables: &[u8], dynamic: &[(u64, u64)]) -> Vec<u8> {
    let mut file = vec![0; TABLES as usize];
    file[..4].copy_from_slice(b"\x7fELF");
    (file[4], file[5], file[6]) = (2, 1, 1);
    file.extend(tables);
    file.resize(file.len().next_multiple_of(4096), 0);
    let dynamic_at = file.len() as u64;
    for (tag, value) in dynamic.iter().chain([&(DT_NULL, 0)]) {
        file.extend(tag.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    let dynamic_len = file.len() as u64 - dynamic_at;
    let mut edit = Edit { bytes: take(&mut file) };
    for (at, value) in [(16, 3), (18, OWN.e_machine), (52, 64), (54, PHDR as u16), (56, 3)] {
        edit.set16(at, value);
    }
    edit.set32(20, 1);
    edit.set(32, 64);
    let headers = [
        (PT_LOAD, 4, 0, dynamic_at, 4096),
        (PT_LOAD, 6, dynamic_at, dynamic_len, 4096),
        (PT_DYNAMIC, 6, dynamic_at, dynamic_len, 8),
    ];
    for (index, (p_type, flags, start, len, align)) in headers.into_iter().enumerate() {
        let at = 64 + index * PHDR;
        edit.set32(at, p_type);
        edit.set32(at + 4, flags);
        for (field, value) in [(8, start), (16, start), (32, len), (40, len), (48, align)] {
            edit.set(at + field, value);
        }
    }
    edit.bytes
}

/// Where [`crafted`] puts its tables.
const TABLES: u64 = 0x1000;

fn symbol(name: u32, info: u8, section: u16, value: u64) -> Vec<u8> {
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend([info, 0]);
    bytes.extend(section.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes
}

#[test]
fn a_crafted_image_is_loaded() {
    let mut tables = vec![0; 24];
    tables.extend(symbol(1, 0x11, 1, TABLES + 48));
    let strings = TABLES + tables.len() as u64;
    tables.extend(b"\0thing\0\0");
    let hash = TABLES + tables.len() as u64;
    let words: [u32; 5] = [1, 2, 1, 0, 0];
    tables.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    let dynamic = [(DT_STRTAB, strings), (DT_STRSZ, 8), (DT_SYMTAB, TABLES), (DT_HASH, hash)];
    let file = crafted(&tables, &dynamic);
    // SAFETY: it has no code.
    let library = unsafe { Loader::new().load(&file) }.unwrap();
    // SAFETY: the bytes of the string table.
    let thing = unsafe { library.get::<*const [u8; 6]>("thing").unwrap() };
    // SAFETY: as above.
    assert_eq!(unsafe { &**thing }, b"\0thing");
}

/// `ld.so` asks for no more than that address and offset agree modulo the page: mold 1.10 and patchelf 0.18
/// write segments that are aligned further in memory only. 0 and 1 ask for no alignment, and of a
/// segment that has nothing in the file the offset means nothing.
#[test]
fn segments_are_aligned_in_memory_and_not_in_the_file() {
    let original = everything(&[]);
    for align in [0, 1, 0x2000, 0x1_0000, 0x20_0000] {
        let mut edit = Edit { bytes: original.clone() };
        for at in edit.phdrs(PT_LOAD) {
            edit.set_phdr(at, ALIGN, align);
        }
        let library = load_and_run(&Loader::new(), &edit.bytes, &format!("p_align {align:#x}"));
        assert_eq!(library.load_bias() as u64 % align.max(1), 0, "p_align {align:#x}");
    }
    // A fifth segment behind all others, with no bytes.
    let mut edit = Edit { bytes: original };
    let end = edit.end();
    let at = edit.phdr(PT_GNU_STACK);
    edit.set32(at, PT_LOAD);
    edit.set32(at + 4, 6);
    for (field, value) in
        [(OFFSET, 0x1234_5677), (VADDR, end), (FILESZ, 0), (MEMSZ, 0x1800), (ALIGN, 0x1000)]
    {
        edit.set_phdr(at, field, value);
    }
    let library = load_and_run(&Loader::new(), &edit.bytes, "an empty segment");
    let start = library.load_bias().wrapping_add(end as usize) as *const [u64; 0x300];
    // SAFETY: the segment's memory.
    assert!(unsafe { &*start }.iter().all(|&word| word == 0));
}

/// Names are whatever the image says. In a terminal an escape sequence acts, in a log a newline starts
/// the next entry.
#[test]
fn names_in_errors_cannot_forge_text() {
    const HOSTILE: &str = "A\x1b[31mB\nINFO ok\u{202e}\u{200b}\r\x7f\u{9b}";
    let mut strings = vec![0];
    let mut string = |text: &[u8]| {
        let at = strings.len() as u64;
        strings.extend_from_slice(text);
        strings.push(0);
        at
    };
    let [soname, library, name] =
        ["lib\n", "needs", ""].map(|prefix| string(format!("{prefix}{HOSTILE}").as_bytes()));
    let broken = string(b"C\x1b\xff\xfe");
    let file = |needed: &[u64]| {
        let mut tables = vec![0; 24];
        tables.extend(symbol(name as u32, 0x10, 0, 0));
        tables.extend(symbol(broken as u32, 0x10, 0, 0));
        let rela = TABLES + tables.len() as u64;
        let dynamic_at = TABLES + 0x1000;
        for symbol in 1u64..=2 {
            let words = [dynamic_at, symbol << 32 | u64::from(machine::ABSOLUTE.number), 0];
            tables.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        let strtab = TABLES + tables.len() as u64;
        tables.extend(&strings);
        let mut dynamic = vec![
            (DT_STRTAB, strtab),
            (DT_STRSZ, strings.len() as u64),
            (DT_SYMTAB, TABLES),
            (DT_SONAME, soname),
            (DT_RELA, rela),
            (DT_RELASZ, 2 * RELA as u64),
        ];
        dynamic.extend(needed.iter().map(|&name| (DT_NEEDED, name)));
        crafted(&tables, &dynamic)
    };
    let is_plain = |text: &str| {
        text.chars().all(|c| !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{200b}'))
    };
    let error = refused(&Loader::new(), &file(&[]), "hostile symbols");
    let text = error.to_string();
    assert!(is_plain(&text), "{text:?}");
    assert_says(&error, &[r"A\u{1b}[31mB\nINFO ok\u{202e}\u{200b}\r\u{7f}\u{9b}"], "symbols");
    let Error::Missing { image, symbols, .. } = &error else { panic!("{error}") };
    assert_eq!(symbols[0].name, HOSTILE, "fields have it as it stands");
    assert_eq!(*image, format!("lib\n{HOSTILE}"));
    let error = refused(&Loader::new().name("x\ty"), &file(&[library]), "a hostile library");
    assert!(is_plain(&error.to_string()), "{error:?}");
    assert_says(&error, &[r"x\ty: needs libraries", r"needsA\u{1b}[31mB\n"], "library");
    // Whoever looks a name up may have it from anywhere.
    let library = load_and_run(&Loader::new(), &everything(&[]), "to be searched");
    // SAFETY: there is no such symbol.
    let error = unsafe { library.get::<*const u8>("no\nsuch") }.err().unwrap();
    assert_says(&error, &[r"`no\nsuch`"], "lookup");
}

/// Small files that would make a careless loader work or allocate by the square of their size.
#[test]
fn small_files_cannot_ask_for_much() {
    isolated(|| {
        let long_name = vec![b'x'; 200_000];
        let strings = [&b"\0"[..], &long_name, b"\0"].concat();
        let base = |tables: &mut Vec<u8>| {
            let strtab = TABLES + tables.len() as u64;
            tables.extend(&strings);
            vec![(DT_STRTAB, strtab), (DT_STRSZ, strings.len() as u64)]
        };

        let needed = {
            let mut tables = vec![0; 24];
            let mut dynamic = base(&mut tables);
            dynamic.push((DT_SYMTAB, TABLES));
            dynamic.extend((0..20_000).map(|_| (DT_NEEDED, 1)));
            crafted(&tables, &dynamic)
        };
        let versions = {
            let mut tables = vec![0; 24];
            let count = 60_000u16;
            let need_at = TABLES + tables.len() as u64;
            for (half, word) in [(1u16, count), (0, 0)] {
                tables.extend(half.to_le_bytes());
                tables.extend(word.to_le_bytes());
            }
            tables.truncate(tables.len() - 4);
            for word in [1u32, 16, 0] {
                tables.extend(word.to_le_bytes());
            }
            for index in 0..u32::from(count) {
                for word in [0u32, (2 + index % 30_000) << 16, 1, 16] {
                    tables.extend(word.to_le_bytes());
                }
            }
            let mut dynamic = base(&mut tables);
            dynamic.extend([(DT_SYMTAB, TABLES), (DT_VERNEED, need_at), (DT_VERNEEDNUM, 1)]);
            crafted(&tables, &dynamic)
        };
        // References to symbols whose names are long, and which nobody defines; in a hash table
        // whose only chain is a circle.
        let symbols = {
            let count = 4_000u32;
            let mut tables = vec![0; 24];
            for index in 0..count {
                tables.extend(symbol(1 + index, 0x10, 0, 0));
            }
            let rela = TABLES + tables.len() as u64;
            for index in 1..=count {
                let word = u64::from(index) << 32 | 1;
                tables.extend([TABLES, word, 0].iter().flat_map(|word| word.to_le_bytes()));
            }
            let hash = TABLES + tables.len() as u64;
            tables.extend([1, count, 1].iter().flat_map(|word: &u32| word.to_le_bytes()));
            let links = (0..count).map(|index| if index + 1 == count { 1 } else { index + 1 });
            tables.extend(links.flat_map(u32::to_le_bytes));
            let mut dynamic = base(&mut tables);
            let size = u64::from(count) * RELA as u64;
            dynamic.extend([(DT_SYMTAB, TABLES), (DT_HASH, hash), (DT_RELA, rela)]);
            dynamic.push((DT_RELASZ, size));
            crafted(&tables, &dynamic)
        };
        for (what, file) in [("symbols", symbols), ("versions", versions), ("needed", needed)] {
            let mut told = String::new();
            let start = Instant::now();
            let peak = peak_of(|| {
                told = match Loader::new().template(&file) {
                    Ok(_) => "taken".into(),
                    Err(error) => error.to_string().chars().take(100).collect(),
                };
            });
            let time = start.elapsed();
            let len = file.len();
            println!("{what}: {len} bytes, {time:?}, {peak} bytes at the most: {told}");
            assert!(time < limit(2 * LONG), "{what}: {time:?} for {len} bytes ({told})");
            assert!(peak < 128 << 20, "{what}: {peak} bytes for {len} bytes ({told})");
        }
    });
}

/// `PT_GNU_RELRO` may reach beyond its segment's memory to the end of a page (linkers pad it), but
/// a large `p_align` must not let it reach the mappings of others.
#[test]
fn relro_never_reaches_beyond_the_image() {
    isolated(|| {
        let mut tables = vec![0; 24];
        tables.push(0);
        let dynamic = [(DT_STRTAB, TABLES + 24), (DT_STRSZ, 1), (DT_SYMTAB, TABLES)];
        let mut edit = Edit { bytes: crafted(&tables, &dynamic) };
        let end = 1u64 << 29;
        // A fourth header, and the alignment that lets it pass.
        edit.set16(56, 4);
        let at = 64 + 3 * PHDR;
        let writable = edit.segment(6);
        let start = edit.word(writable + 16);
        edit.set(writable + 48, end);
        edit.set32(at, PT_GNU_RELRO);
        edit.set32(at + 4, 4);
        for (field, value) in [(8, start), (16, start), (32, 16), (40, end - start), (48, 1)] {
            edit.set(at + field, value);
        }
        let before = maps();
        // SAFETY: it has no code.
        let result = unsafe { Loader::new().load(&edit.bytes) };
        let after = maps();
        if let Err(error) = &result {
            assert_eq!(kind(error), Malformed, "{error}");
        }
        // The heap may have grown; what was there has the protection that it had.
        for line in before.iter().filter(|line| !line.name.is_empty()) {
            let now = after.iter().find(|now| now.range.start == line.range.start);
            assert_eq!(now.map(|now| &now.access), Some(&line.access), "{line:?}");
        }
    });
}

fn stub(name: &str, function: &str, script: &str) -> std::path::PathBuf {
    let script = format!(
        "-Wl,--version-script={}",
        repository(&format!("testlibs/loading/{script}.map")).display()
    );
    let flags = [&*format!("-DSTUB={function}"), &*format!("-Wl,-soname,{name}"), &script];
    build("gcc", "loading/needs_much.c", &flags)
}

#[test]
fn all_missing_symbols_are_listed_with_their_versions() {
    let linked = stub("libone.so", "from_one", "stub_two");
    let user = build("gcc", "loading/needs_much.c", &["-DSYMBOLS", linked.to_str().unwrap()]);
    // The version is there, the symbol is not.
    let provided = fs::read(stub("libone.so", "something_else", "stub_two")).unwrap();
    let loader = Loader::new().name("user.so").provide("libone.so", provided);
    let error = refused(&loader, &fs::read(&user).unwrap(), "missing symbols");
    let Error::Missing { image, libraries, versions, symbols, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((&**image, libraries.len(), versions.len()), ("user.so", 0, 0));
    let mut listed: Vec<_> = symbols
        .iter()
        .map(|symbol| (&*symbol.name, symbol.version.as_deref(), &*symbol.needed_by))
        .collect();
    listed.sort_unstable();
    let expected = [
        ("absent_data", None, "user.so"),
        ("absent_function", None, "user.so"),
        ("absent_thread_local", None, "user.so"),
        ("from_one", Some("STUB_2"), "user.so"),
    ];
    assert_eq!(listed, expected);
    let told = ["absent_data", "absent_function", "absent_thread_local", "from_one@STUB_2"];
    assert_says(&error, &told, "missing symbols");
    assert_says(&error, &["define", "resolver"], "what to do about it");

    // What is defined is not listed; weak ones never are (everything.c has one).
    let partly = loader.define("absent_function", std::ptr::dangling());
    let error = refused(&partly, &fs::read(&user).unwrap(), "missing symbols").to_string();
    assert!(!error.contains("absent_function") && error.contains("absent_data"), "{error}");
}

#[test]
fn all_missing_libraries_are_listed_with_the_three_ways_to_supply_them() {
    let one = stub("libone.so", "from_one", "stub_one");
    let two = stub("libtwo.so", "from_two", "stub_two");
    let flags = [one.to_str().unwrap(), two.to_str().unwrap()];
    let user = build("gcc", "loading/needs_much.c", &flags);
    let file = fs::read(&user).unwrap();
    let three_ways = ["provide", "depends_on", "system_libraries"];
    let hardened = Loader::new().system_libraries(false);
    let error = refused(&hardened.clone().name("user.so"), &file, "missing libraries");
    let chosen = "libone.so [not loaded in this process, and system_libraries(false) was chosen]";
    assert_says(&error, &[chosen], "why");
    let Error::Missing { libraries, .. } = &error else { panic!("{error}") };
    let listed: Vec<_> =
        libraries.iter().map(|library| (&*library.name, &*library.needed_by)).collect();
    assert_eq!(listed, [("libone.so", "user.so"), ("libtwo.so", "user.so")]);
    assert_says(&error, &["libone.so", "libtwo.so"], "both");
    assert_says(&error, &three_ways, "what to do about it");
    assert!(Opened::refusal(&user, RTLD_NOW | RTLD_LOCAL).contains("libone.so"));

    // By default they are searched for, and the error has the system's reason.
    let error = refused(&Loader::new(), &file, "asking the system");
    assert!(!error.to_string().contains("system_libraries"), "{error}");
    let Error::Missing { libraries, .. } = &error else { panic!("{error}") };
    assert_eq!(libraries.len(), 2, "{error}");
    for library in libraries {
        let reason = library.reason.as_deref().unwrap_or("");
        assert!(reason.contains("cannot open shared object file"), "{reason}");
    }
    assert_says(&error, &["cannot open shared object file"], "asking the system");

    // What a provided library needs is named with it.
    let loader = hardened.name("top.so").provide("libmiddle.so", file);
    let middle =
        build("gcc", "loading/needs_much.c", &[flags[0], flags[1], "-Wl,-soname,libmiddle.so"]);
    let allow = "-Wl,--allow-shlib-undefined";
    let top = [middle.to_str().unwrap(), "-Wl,--no-as-needed", allow];
    let top = bytes("gcc", "loading/everything.c", &[&["-Wl,--no-as-needed"], &top[..]].concat());
    let error = refused(&loader, &top, "transitive");
    assert_says(&error, &["top.so", "libone.so (needed by libmiddle.so)"], "transitive");
}

#[test]
fn a_missing_version_is_found_out_before_anything_runs() {
    let linked = stub("libone.so", "from_one", "stub_two");
    let two = stub("libtwo.so", "from_two", "stub_two");
    let flags = [linked.to_str().unwrap(), two.to_str().unwrap()];
    let user = bytes("gcc", "loading/needs_much.c", &flags);
    let older = fs::read(stub("libone.so", "from_one", "stub_one")).unwrap();
    let right = Loader::new().name("user.so").provide("libtwo.so", fs::read(two).unwrap());
    let newer = fs::read(&linked).unwrap();
    load_and_run(&right.clone().provide("libone.so", newer), &user, "the right version");
    let error = refused(&right.provide("libone.so", older), &user, "missing version");
    let Error::Missing { versions, .. } = &error else { panic!("{error}") };
    let listed: Vec<_> = versions
        .iter()
        .map(|missing| (&*missing.library, &*missing.version, &*missing.needed_by))
        .collect();
    assert_eq!(listed, [("libone.so", "STUB_2", "user.so")]);
    assert_says(&error, &["STUB_2", "libone.so"], "missing version");
}

/// A host library that is too old for the image: the C library never has this version.
#[test]
fn a_version_that_the_hosts_library_lacks() {
    let mut file = bytes("gcc", "loading/old_realpath.c", &[]);
    let name = machine::FIRST_GLIBC;
    let other = name.replace("_2.", "_9.");
    let ended = |name: &str| format!("\0{name}\0").into_bytes();
    let at = file.windows(name.len() + 2).position(|bytes| bytes == ended(name)).unwrap();
    file[at..at + name.len() + 2].copy_from_slice(&ended(&other));
    // The hash beside it (`vna_hash`) is that of the gABI.
    let hash = |name: &[u8]| {
        name.iter().fold(0u32, |hash, &byte| {
            let hash = (hash << 4).wrapping_add(u32::from(byte));
            let top = hash & 0xf000_0000;
            (hash ^ top >> 24) & !top
        })
    };
    let (old, new) = (hash(name.as_bytes()).to_le_bytes(), hash(other.as_bytes()).to_le_bytes());
    let at = file.windows(4).position(|bytes| bytes == old).unwrap();
    file[at..at + 4].copy_from_slice(&new);
    let error = refused(&Loader::new(), &file, &other);
    assert_says(&error, &[&other, "libc.so.6"], "a version of libc");
    let Error::Missing { versions, .. } = &error else { panic!("{error}") };
    assert_eq!(versions.len(), 1);
}

#[test]
fn each_limit_is_enforced() {
    type Set = fn(&mut Limits, u64);
    let file = everything(&[]);
    let edit = Edit { bytes: file.clone() };
    let loads = edit.phdrs(PT_LOAD);
    let (first, last) = (loads[0], *loads.last().unwrap());
    let span = edit.word(last + 16) + edit.word(last + 40) - edit.word(first + 16);
    let tls = edit.word(edit.phdr(PT_TLS) + 40);
    let relocations = (edit.word(edit.value(DT_RELASZ)) + edit.word(edit.value(DT_PLTRELSZ))) / 24;
    // A limit, what the image needs of it, and a part of the text.
    let cases: [(Set, u64, &str); 5] = [
        (|limits, value| limits.image_bytes = value, file.len() as u64, "size of the image"),
        (|limits, value| limits.image_span = value, span, "address space"),
        (|limits, value| limits.alignment = value, 4096, "alignment"),
        (|limits, value| limits.tls_block = value, tls, "thread-local"),
        (|limits, value| limits.relocations = value, relocations, "relocations"),
    ];
    for (set, needs, text) in cases {
        let with = |value| {
            let mut limits = Limits::default();
            set(&mut limits, value);
            Loader::new().limits(limits)
        };
        load_and_run(&with(needs), &file, text);
        let error = refused(&with(needs - 1), &file, text);
        let Error::Limit { needed, limit, .. } = &error else { panic!("{text}: {error}") };
        assert_eq!((*needed, *limit), (needs, needs - 1), "{error}");
        assert_says(&error, &[text, "limit"], text);
    }

    let one = stub("libone.so", "from_one", "stub_one");
    let two = stub("libtwo.so", "from_two", "stub_two");
    let flags = [one.to_str().unwrap(), two.to_str().unwrap()];
    let user = bytes("gcc", "loading/needs_much.c", &flags);
    let with = |images| {
        let mut limits = Limits::default();
        limits.images = images;
        let loader = Loader::new().limits(limits);
        loader
            .provide("libone.so", fs::read(&one).unwrap())
            .provide("libtwo.so", fs::read(&two).unwrap())
    };
    load_and_run(&with(3), &user, "images");
    let error = refused(&with(2), &user, "images");
    let Error::Limit { needed: 3, limit: 2, .. } = &error else { panic!("{error}") };
}

/// How many libraries `ld.so` has added and removed since the process started.
fn dl_counts() -> (u64, u64) {
    unsafe extern "C" fn first(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        counts: *mut c_void,
    ) -> i32 {
        // SAFETY: both point to what they are said to point to, during this call.
        unsafe { *counts.cast::<(u64, u64)>() = ((*info).dlpi_adds, (*info).dlpi_subs) };
        1
    }
    let mut counts = (0, 0);
    // SAFETY: the callback matches.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut counts).cast()) };
    counts
}

#[test]
fn failed_loads_leave_the_process_as_it_was() {
    isolated(|| {
        let one = stub("libone.so", "from_one", "stub_one");
        let two = stub("libtwo.so", "from_two", "stub_two");
        let flags = [one.to_str().unwrap(), two.to_str().unwrap()];
        let user = bytes("gcc", "loading/needs_much.c", &flags);
        let mut late = Edit { bytes: everything(&["-g"]) };
        let at = late.symbolic_rela();
        late.set(at, NOWHERE);
        // The second member of a group fails when the first is in place.
        let mut bad_two = Edit { bytes: fs::read(&two).unwrap() };
        let at = bad_two.symbolic_rela();
        bad_two.set(at, NOWHERE);
        let provided = Loader::new().provide("libone.so", fs::read(&one).unwrap());
        let mut small = Limits::default();
        small.relocations = 3;
        let cases = [
            ("no ELF", Loader::new(), b"no".to_vec(), Malformed),
            ("late", Loader::new(), late.bytes, Malformed),
            ("missing library", Loader::new().system_libraries(true), user.clone(), Missing),
            ("one missing", provided.clone(), user.clone(), Missing),
            ("bad member", provided.provide("libtwo.so", bad_two.bytes), user.clone(), Malformed),
            ("limit", Loader::new().limits(small), everything(&["-g"]), Limit),
            (
                "symbols",
                Loader::new().scope(memdl::Scope::SelfFirst),
                bytes("gcc", "loading/loads_another.c", &[]),
                Missing,
            ),
        ];
        let round = || {
            for (what, loader, file, expected) in &cases {
                let error = refused(loader, file, what);
                assert_eq!(kind(&error), *expected, "{what}: {error}");
            }
        };
        for _ in 0..20 {
            round();
        }
        // The heaps of the C library grow and shrink, but no mapping comes or goes.
        let state = || {
            memdl::release_memory();
            (maps().len(), dl_counts(), debug_entries().len())
        };
        let before = state();
        for _ in 0..200 {
            round();
        }
        assert_eq!(state(), before, "mappings, ld.so's counts, entries for debuggers");
        assert_eq!(before.2, 0);
        // And a good one still works.
        let library = load_and_run(&Loader::new(), &everything(&["-g"]), "after all");
        assert_eq!(debug_entries().len(), 1);
        drop(library);
        assert_eq!(state(), before);
    });
}

/// What `ld.so` has no opinion of, or another than one would think.
#[test]
fn what_dlopen_takes_is_taken() {
    let original = everything(&[]);
    // A relocation without a symbol refers to where the image lies.
    let mut edit = Edit { bytes: original.clone() };
    let count = edit.word(edit.value(DT_RELASZ)) as usize / RELA;
    let relas: Vec<_> = (0..count).map(|index| edit.table(DT_RELA) + index * RELA).collect();
    // The first is in DT_RELACOUNT; a relative one that is not can be an absolute one instead.
    let of_relative = u64::from(machine::RELATIVE.number);
    let relative = relas.iter().rposition(|&at| edit.word(at + 8) == of_relative).unwrap();
    for (index, at) in relas.into_iter().enumerate().take(relative + 1) {
        assert_eq!(edit.word(at + 8), of_relative, "relocation {index}");
        edit.set(at + 8, machine::ABSOLUTE.number.into());
    }
    edit.set_tag(DT_RELACOUNT, DT_DEBUG);
    // What unwinders do not look at.
    let table = edit.phdr(PT_GNU_EH_FRAME);
    for (field, value) in [(FILESZ, 0), (MEMSZ, u64::MAX), (ALIGN, 3)] {
        edit.set_phdr(table, field, value);
    }
    edit.set_phdr(edit.phdr(PT_GNU_RELRO), ALIGN, 5);
    // More than there are.
    edit.set_value(DT_VERNEEDNUM, u64::MAX);
    edit.set16(edit.table(DT_VERNEED) + 2, u16::MAX);
    for debug in [memdl::DebugLevel::Off, memdl::DebugLevel::Full] {
        load_and_run(&Loader::new().debug(debug), &edit.bytes, "changed");
        let template = Loader::new().debug(debug).template(&edit.bytes).unwrap();
        // SAFETY: as `load_and_run`.
        let instance = unsafe { template.instantiate() }.unwrap();
        // SAFETY: `run` has this type.
        let run = unsafe { instance.get::<unsafe extern "C" fn() -> i32>("run") }.unwrap();
        // SAFETY: takes nothing.
        assert_eq!(unsafe { run() }, 42);
    }
}

/// A library's debug file in its place, and what servers and package managers deliver.
#[test]
fn what_is_no_library_is_called_by_its_name() {
    let library = build("gcc", "loading/order.c", &["-g"]);
    let debug = library.with_extension("debug-only");
    let copy = ["--only-keep-debug", library.to_str().unwrap(), debug.to_str().unwrap()];
    run(Command::new("objcopy").args(copy), "binutils");
    let error = refused(&Loader::new(), &fs::read(&debug).unwrap(), "a debug file");
    assert_says(&error, &["debug information", "Loader::debug_info"], "a debug file");
    for tool in ["gzip", "xz", "zstd"] {
        let output = Command::new(tool).args(["-c", library.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success());
        let error = refused(&Loader::new(), &output.stdout, tool);
        assert_says(&error, &[tool, "unpack it first"], tool);
    }
    // The name says which of several it is.
    let user = build("gcc", "api/uses_zlib.c", &["-Wl,--no-as-needed", "-l:libz.so.1"]);
    let loader = Loader::new().name("user.so").provide("libz.so.1", &b"PK\x03\x04 a wheel"[..]);
    let error = refused(&loader, &fs::read(user).unwrap(), "a wheel");
    assert_says(
        &error,
        &["libz.so.1: malformed image: not an ELF file, but a zip archive"],
        "a wheel",
    );
}

/// A library from this text.
fn compiled(name: &str, text: &str, flags: &[&str]) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("failures");
    fs::create_dir_all(&folder).unwrap();
    let (source, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    fs::write(&source, text).unwrap();
    let mut command = Command::new("gcc");
    command.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).args(flags);
    run(command.current_dir(&folder), "gcc");
    fs::read(library).unwrap()
}

#[test]
fn the_page_about_failures_quotes_the_errors() {
    let page = fs::read_to_string(repository("docs/troubleshooting.md")).unwrap();
    let plain = compiled("plain", "int plain;", &[]);
    let with = |at: usize, value: u8| {
        let mut bytes = plain.clone();
        bytes[at] = value;
        bytes
    };
    compiled("libdep", "int dep;", &["-Wl,-soname,libdep.so"]);
    let needs = ["-Wl,--no-as-needed", "libdep.so"];
    let large = "__thread char large[1 << 20] __attribute__((tls_model(\"initial-exec\")));
        char *use(void) { return large; }";
    let failures = [
        ("a gzip file", b"\x1f\x8b\x08\0".to_vec()),
        ("an executable", with(16, 2)),
        ("another machine", with(18, FOREIGN.e_machine as u8)),
        ("a symbol", compiled("logs", "void host_log(void); void f(void) { host_log(); }", &[])),
        ("a library", compiled("needs", "int needs;", &needs)),
        ("thread-local storage", compiled("large", large, &[])),
    ];
    let mut quotes = page.split("```text\n").skip(1).flat_map(|it| {
        let (block, _) = it.split_once("```").unwrap();
        block.lines()
    });
    for (what, bytes) in failures {
        let error = refused(&Loader::new(), &bytes, what).to_string();
        let mut quote = quotes.next().expect("the page has a quote for each failure").to_owned();
        // It quotes a process on x86-64.
        if what == "another machine" && OWN.name == "AArch64" {
            quote =
                quote.replace("AArch64", "?").replace("x86-64", "AArch64").replace('?', "x86-64");
        }
        assert!(error.contains(&quote), "{what}: docs/troubleshooting.md: `{quote}`, not: {error}");
    }
    assert_eq!(quotes.next(), None);
}
