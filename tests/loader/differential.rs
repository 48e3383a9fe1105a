//! Real libraries, loaded by `dlopen` and from their bytes into the same process: what they export
//! must be the same, and every word that was relocated must say the same thing.
//!
//! A word that points into the library is compared as an offset; all others must be equal, since
//! both copies see the same process. The differences that there may be are listed at
//! [`explanation`]; anything else fails.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::fs;
use std::ops::Range;

use crate::common::{AnyWay, Opened, isolated, system_library, system_library_of};
use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;
use goblin::elf::sym::{
    STB_GLOBAL, STB_GNU_UNIQUE, STB_WEAK, STT_GNU_IFUNC, STT_TLS, STV_DEFAULT, STV_PROTECTED,
};
use libc::{RTLD_LOCAL, RTLD_NOW};
use memdl::{Library, Loader};

const R_DTPMOD64: u32 = 16;
const R_TPOFF64: u32 = 18;
const R_TLSDESC: u32 = 36;
const R_RELATIVE: u32 = 8;
const DT_RELR: u64 = 36;
const DT_RELRSZ: u64 = 35;

/// What only `ld.so` can do for its libraries, and memdl does for its images: their imports of
/// these are bound to memdl's versions.
const SERVICES: [&str; 28] = [
    "__tls_get_addr",
    "__cxa_thread_atexit_impl",
    "__cxa_thread_atexit",
    "__cxa_atexit",
    "__cxa_at_quick_exit",
    "__cxa_finalize",
    "__register_atfork",
    "dladdr",
    "dladdr1",
    "dl_iterate_phdr",
    "_dl_find_object",
    "dlopen",
    "dlinfo",
    "pthread_key_create",
    "pthread_key_delete",
    "tss_create",
    "tss_delete",
    "dlclose",
    "dlsym",
    "dlvsym",
    "dlerror",
    "mprotect",
    "pkey_mprotect",
    "munmap",
    "mremap",
    "mmap",
    "mmap64",
    "syscall",
];

/// Why a relocated word may differ; `None` if nothing explains it.
fn explanation(relocation: &Relocation) -> Option<&'static str> {
    match relocation.r_type {
        R_DTPMOD64 => Some("each copy is a module with thread-local storage of its own"),
        R_TLSDESC => Some("resolver and argument are those of each loader"),
        R_TPOFF64 if relocation.own => Some("each copy has its own place in the static block"),
        _ if SERVICES.contains(&&*relocation.symbol) => Some("memdl's service"),
        _ => None,
    }
}

/// A place that the file's tables relocate.
#[derive(Debug)]
struct Relocation {
    place: u64,
    r_type: u32,
    /// Empty if there is none.
    symbol: String,
    /// The file defines the symbol itself, or there is none.
    own: bool,
}

/// Both copies of one library.
struct Pair<'a> {
    elf: Elf<'a>,
    file: &'a [u8],
    ours: Library,
    our_range: Range<usize>,
    theirs: Opened,
    their_range: Range<usize>,
}

impl Pair<'_> {
    fn our_address(&self, stated: u64) -> usize {
        self.ours.load_bias().wrapping_add(stated as usize)
    }

    fn their_address(&self, stated: u64) -> usize {
        self.theirs.load_bias().wrapping_add(stated as usize)
    }

    /// The word at this stated address in each copy.
    fn words(&self, stated: u64) -> (usize, usize) {
        let read = |address: usize| {
            // SAFETY: a place in a readable segment of a library that is in place.
            unsafe { (address as *const usize).read_unaligned() }
        };
        (read(self.our_address(stated)), read(self.their_address(stated)))
    }

    /// Whether the two say the same thing.
    fn same(&self, ours: usize, theirs: usize) -> bool {
        let into_both = self.our_range.contains(&ours) && self.their_range.contains(&theirs);
        ours == theirs
            || into_both && ours - self.our_range.start == theirs - self.their_range.start
    }

    /// A word, as a human would want it told.
    fn describe(&self, word: usize) -> String {
        let copies = [("our", &self.our_range), ("their", &self.their_range)];
        for (whose, range) in copies {
            if range.contains(&word) {
                return format!("{word:#x} ({whose} copy + {:#x})", word - range.start);
            }
        }
        // SAFETY: writes one record; the names in it are C strings.
        unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            if libc::dladdr(word as *const c_void, &mut info) == 0 || info.dli_fname.is_null() {
                return format!("{word:#x}");
            }
            let file = CStr::from_ptr(info.dli_fname).to_string_lossy();
            let offset = word - info.dli_fbase.addr();
            let name = (!info.dli_sname.is_null()).then(|| CStr::from_ptr(info.dli_sname));
            format!("{word:#x} ({file} + {offset:#x}, {name:?})")
        }
    }

    /// The places of `DT_RELA`, `DT_JMPREL` and `DT_RELR`.
    fn relocations(&self) -> Vec<Relocation> {
        let mut all = Vec::new();
        for rela in self.elf.dynrelas.iter().chain(self.elf.pltrelocs.iter()) {
            let symbol = self.elf.dynsyms.get(rela.r_sym).unwrap();
            let name = self.elf.dynstrtab.get_at(symbol.st_name).unwrap();
            all.push(Relocation {
                place: rela.r_offset,
                r_type: rela.r_type,
                symbol: name.to_owned(),
                own: rela.r_sym == 0 || symbol.st_shndx != 0,
            });
        }
        let dynamic = &self.elf.dynamic.as_ref().unwrap().dyns;
        let value = |tag| dynamic.iter().find(|entry| entry.d_tag == tag).map(|entry| entry.d_val);
        if let (Some(start), Some(size)) = (value(DT_RELR), value(DT_RELRSZ)) {
            let mut at = 0;
            for offset in (0..size).step_by(8) {
                let (_, entry) = self.words(start + offset);
                let entry = entry as u64;
                let (from, bits) = if entry & 1 == 0 { (entry, 1) } else { (at, entry >> 1) };
                let places = (0..63).filter(|bit| bits >> bit & 1 == 1).map(|bit| from + bit * 8);
                all.extend(places.map(|place| Relocation {
                    place,
                    r_type: R_RELATIVE,
                    symbol: String::new(),
                    own: true,
                }));
                at = if entry & 1 == 0 { entry + 8 } else { at + 63 * 8 };
            }
        }
        all
    }

    /// By name and version, where the file says that its exports are.
    fn exports(&self) -> BTreeMap<(String, Option<String>), Export> {
        let mut versions: BTreeMap<u16, String> = BTreeMap::new();
        const VER_FLG_BASE: u16 = 1;
        for definition in self.elf.verdef.iter().flat_map(|section| section.iter()) {
            let name = definition.iter().next().unwrap().vda_name;
            if definition.vd_flags & VER_FLG_BASE == 0 {
                let name = self.elf.dynstrtab.get_at(name).unwrap();
                versions.insert(definition.vd_ndx, name.to_owned());
            }
        }
        let mut exports = BTreeMap::new();
        for (index, symbol) in self.elf.dynsyms.iter().enumerate() {
            let is_export = symbol.st_shndx != 0
                && [STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE].contains(&symbol.st_bind())
                && [STV_DEFAULT, STV_PROTECTED].contains(&symbol.st_visibility())
                // `ld.so` takes a symbol with the value 0 for none, but for these.
                && (symbol.st_value != 0 || symbol.st_type() == STT_TLS || symbol.st_shndx == 0xfff1);
            if is_export {
                let name = self.elf.dynstrtab.get_at(symbol.st_name).unwrap().to_owned();
                let versym = self.elf.versym.as_ref().and_then(|table| table.get_at(index));
                let version =
                    versym.as_ref().and_then(|versym| versions.get(&versym.version()).cloned());
                let default = versym.is_none_or(|versym| !versym.is_hidden());
                let is_unique = symbol.st_bind() == STB_GNU_UNIQUE;
                let fact = (symbol.st_value, symbol.st_type(), default, is_unique);
                exports.insert((name, version), fact);
            }
        }
        exports
    }
}

/// An export: its value, its type, whether it is the default version, whether it is unique.
type Export = (u64, u8, bool, bool);

/// Loads a library both ways and compares the copies.
fn compare(name: &str) {
    let path = system_library(name);
    let file = fs::read(&path).unwrap();
    let theirs = Opened::new(&path, RTLD_NOW | RTLD_LOCAL);
    // SAFETY: a library of the distribution.
    let ours = unsafe { Loader::new().system_libraries(true).load_any_way(&file) };
    let ours = ours.unwrap_or_else(|error| panic!("{error}"));
    let our_range = ours.address_range();
    let start = our_range.start.wrapping_sub(ours.load_bias()).wrapping_add(theirs.load_bias());
    let their_range = start..start + our_range.len();
    let elf = Elf::parse(&file).unwrap();
    let pair = Pair { elf, file: &file, ours, our_range, theirs, their_range };
    let exports = compare_exports(&pair);
    let words = compare_words(&pair);
    let bytes = compare_constant_bytes(&pair);
    println!("{name}: {exports} exports, {words} relocated words, {bytes} constant bytes");
    // `dlclose` of libpython 3.13 leaves a key of `pthread_key_create` whose function is gone: the thread's end
    // crashes. memdl deletes such a key.
    std::mem::forget(pair.theirs);
}

fn compare_exports(pair: &Pair<'_>) -> usize {
    let mut wrong = Vec::new();
    let mut listed = BTreeMap::new();
    for symbol in pair.ours.symbols() {
        let key = (symbol.name().to_owned(), symbol.version().map(str::to_owned));
        listed.insert(key, (symbol.address(), symbol.is_default_version()));
    }
    let exports = pair.exports();
    for ((name, version), (st_value, kind, default, is_unique)) in &exports {
        let told = (name.clone(), version.clone());
        match listed.remove(&told) {
            None => wrong.push(format!("{name}@{version:?} is not listed")),
            Some((address, is_default)) => {
                let is_address = *kind != STT_TLS && pair.our_range.contains(&address);
                let expected =
                    if is_address { pair.our_address(*st_value) } else { *st_value as usize };
                if (address, is_default) != (expected, *default) {
                    wrong.push(format!("{name}@{version:?} is listed at {address:#x}"));
                }
            }
        }
        // Thread-local symbols have another address in every thread: api.rs tests them.
        if *kind == STT_TLS {
            continue;
        }
        let theirs = pair.theirs.symbol(name, version.as_deref()).addr();
        // SAFETY: only the address is looked at.
        let ours = unsafe {
            match version {
                None => pair.ours.get::<*mut c_void>(name),
                Some(version) => pair.ours.get_versioned::<*mut c_void>(name, version),
            }
        };
        let ours = ours.map_or(0, |symbol| symbol.as_raw_ptr().addr());
        let is_own = *kind == STT_GNU_IFUNC || ours == 0 || ours == pair.our_address(*st_value);
        let is_absolute = ours as u64 == *st_value;
        // There is one in the process: that of the copy that `ld.so` has loaded.
        let is_the_one = *is_unique && ours == theirs;
        if !pair.same(ours, theirs) || !(is_own || is_absolute || is_the_one) {
            let (ours, theirs) = (pair.describe(ours), pair.describe(theirs));
            wrong.push(format!("{name}@{version:?}: {ours}, dlsym {theirs}"));
        }
        if *default {
            // And under its bare name, which may be that of another version.
            // SAFETY: only the address is looked at.
            let bare = unsafe { pair.ours.get::<*mut c_void>(name) };
            let bare = bare.map_or(0, |symbol| symbol.as_raw_ptr().addr());
            let theirs = pair.theirs.symbol(name, None).addr();
            if !pair.same(bare, theirs) {
                let (bare, theirs) = (pair.describe(bare), pair.describe(theirs));
                wrong.push(format!("{name}, no version: {bare}, dlsym {theirs}"));
            }
        }
    }
    wrong.extend(listed.keys().map(|symbol| format!("{symbol:?} is listed, but not in the file")));
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), exports.len(), wrong.join("\n"));
    exports.len()
}

fn compare_words(pair: &Pair<'_>) -> usize {
    let mut wrong = Vec::new();
    let relocations = pair.relocations();
    for relocation in &relocations {
        let (ours, theirs) = pair.words(relocation.place);
        if !pair.same(ours, theirs) && explanation(relocation).is_none() {
            let (ours, theirs) = (pair.describe(ours), pair.describe(theirs));
            wrong.push(format!("{relocation:x?}: {ours}, dlopen {theirs}"));
        }
    }
    let shown = wrong.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {} words:\n{shown}", wrong.len(), relocations.len());
    relocations.len()
}

/// Segments that are not writable are the file's, to the last byte, in both.
fn compare_constant_bytes(pair: &Pair<'_>) -> usize {
    let mut count = 0;
    for ph in pair.elf.program_headers.iter().filter(|ph| ph.p_type == PT_LOAD && !ph.is_write()) {
        let len = ph.p_filesz as usize;
        // SAFETY: a readable segment of each copy, which nobody writes.
        let [ours, theirs] = [pair.our_address(ph.p_vaddr), pair.their_address(ph.p_vaddr)]
            .map(|address| unsafe { std::slice::from_raw_parts(address as *const u8, len) });
        let file = &pair.file[ph.p_offset as usize..][..len];
        assert!(ours == file, "the segment at {:#x} is not the file's", ph.p_vaddr);
        // `ld.so` relocates the dynamic section in place, which some put into constant memory.
        let differences = ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
        assert_eq!(differences, 0, "the segment at {:#x} is not as dlopen has it", ph.p_vaddr);
        count += len;
    }
    count
}

macro_rules! libraries {
    ($($test:ident $library:expr;)*) => {$(
        #[test]
        fn $test() {
            isolated(|| compare(&$library));
        }
    )*};
}

libraries! {
    zlib "libz.so.1";
    expat "libexpat.so.1";
    sqlite "libsqlite3.so.0";
    libcrypto system_library_of("libcrypto.so.", "");
    libssl system_library_of("libssl.so.", "");
    libstdcxx "libstdc++.so.6";
    libm "libm.so.6";
    libgfortran "libgfortran.so.5";
    libgomp "libgomp.so.1";
    python system_library_of("libpython3.", ".so.1.0");
}
