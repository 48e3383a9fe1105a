//! The libraries that are loaded: of the repository, generated, and of the system.
//!
//! Some libraries ask never to be unloaded (`DF_1_NODELETE`), others never are since they define
//! `STB_GNU_UNIQUE` symbols. `dlopen` of such a file would measure a load once and a look into a
//! list from then on. So every way gets a copy in which that flag is cleared and such symbols are
//! plain global ones.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use goblin::elf::Elf;
use goblin::elf::section_header::SHT_DYNSYM;

use super::ways::dlopen;
use crate::common::{build, system_library};

/// A kind of library that is measured.
pub struct Kind {
    pub name: &'static str,
    /// A function that takes a small number or nothing and returns a number.
    pub symbol: &'static CStr,
    file: fn() -> PathBuf,
}

pub const LIBRARIES: &[Kind] = &[
    Kind { name: "tiny", symbol: c"foo", file: tiny },
    Kind { name: "relocations", symbol: c"f1", file: || exports(10_000, 50_000) },
    Kind { name: "virtual-tables", symbol: c"entry", file: virtual_tables },
    Kind { name: "rust", symbol: c"rust_sum", file: rust },
    Kind { name: "data-64M", symbol: c"entry", file: || sized(64 << 20, "data") },
    Kind { name: "bss-64M", symbol: c"entry", file: || sized(64 << 20, "bss") },
    Kind { name: "libz", symbol: c"zlibCompileFlags", file: || system("libz.so.1") },
    Kind {
        name: "libsqlite3",
        symbol: c"sqlite3_libversion_number",
        file: || system("libsqlite3.so.0"),
    },
    Kind { name: "libcrypto", symbol: c"OpenSSL_version_num", file: || system("libcrypto.so.3") },
    Kind {
        name: "libstdc++",
        symbol: c"_ZNSt6chrono3_V212steady_clock3nowEv",
        file: || system("libstdc++.so.6"),
    },
    Kind {
        name: "libpython",
        symbol: c"Py_IsInitialized",
        file: || system("libpython3.11.so.1.0"),
    },
    Kind {
        name: "libopenblas",
        symbol: c"openblas_get_num_threads",
        file: || system("libopenblas.so.0"),
    },
    Kind { name: "libLLVM", symbol: c"LLVMIsMultithreaded", file: llvm },
];

impl Kind {
    pub fn named(name: &str) -> &'static Kind {
        let found = LIBRARIES.iter().find(|kind| kind.name == name);
        found.unwrap_or_else(|| panic!("no such library: {name}"))
    }

    /// The file, built if it has to be.
    pub fn file(&self) -> PathBuf {
        (self.file)()
    }

    /// Reads the file, and opens what it needs.
    pub fn open(&self, file: &Path) -> Subject {
        Subject::open(file, self.symbol)
    }
}

/// A library in a process that is ready to load it.
pub struct Subject {
    pub bytes: Vec<u8>,
    pub path: CString,
    pub symbol: &'static CStr,
    /// The paths of the libraries that it needs. They are open, for good, so that nobody measures
    /// loading them.
    pub needed: Vec<CString>,
}

impl Subject {
    pub fn open(file: &Path, symbol: &'static CStr) -> Subject {
        let bytes = fs::read(file).unwrap();
        let needed: Vec<CString> = Elf::parse(&bytes)
            .unwrap()
            .libraries
            .iter()
            .map(|name| opened_path(dlopen(&CString::new(*name).unwrap(), libc::RTLD_NOW)))
            .collect();
        let path = CString::new(file.as_os_str().as_bytes()).unwrap();
        Subject { bytes, path, symbol, needed }
    }
}

/// The path of an open library.
fn opened_path(handle: *mut c_void) -> CString {
    #[repr(C)]
    struct LinkMap {
        bias: usize,
        name: *const c_char,
    }
    let mut map: *const LinkMap = std::ptr::null();
    const RTLD_DI_LINKMAP: c_int = 2;
    // SAFETY: an open handle; the request writes one pointer, to a structure that begins like this
    // and lives as long as the library.
    unsafe {
        assert_eq!(libc::dlinfo(handle, RTLD_DI_LINKMAP, (&raw mut map).cast()), 0);
        CStr::from_ptr((*map).name).to_owned()
    }
}

fn tiny() -> PathBuf {
    build("cc", "bench/tiny.c", &["-O2", "-g"])
}

fn rust() -> PathBuf {
    build("rustc", "bench/functions.rs", &["-O", "-g"])
}

fn system(name: &str) -> PathBuf {
    unpinned(&system_library(name))
}

fn llvm() -> PathBuf {
    let names = ["libLLVM-15.so.1", "libLLVM-14.so.1", "libLLVM-16.so.1", "libLLVM-19.so.1"];
    let folder = Path::new("/usr/lib/x86_64-linux-gnu");
    let found = names.iter().map(|name| folder.join(name)).find(|path| path.exists());
    unpinned(&found.expect("no libLLVM: `sh tests/setup.sh` installs one"))
}

/// A file that is generated, in the folder for such files.
pub fn generated(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}"));
    if fs::read_to_string(&path).ok().as_deref() != Some(text) {
        fs::write(&path, text).unwrap();
    }
    path
}

/// Builds a shared library from generated text.
pub fn built(compiler: &str, name: &str, text: &str, flags: &[&str]) -> PathBuf {
    let source = generated(name, text);
    build(compiler, source.to_str().unwrap(), flags)
}

/// Functions `f1` to `fN` that return their number, and a table with so many pointers to them, each
/// a symbolic relocation.
pub fn exports(functions: usize, relocations: usize) -> PathBuf {
    let mut text = ".text\n".to_owned();
    for at in 1..=functions {
        writeln!(text, ".globl f{at}\n.type f{at},@function\nf{at}: mov ${at},%eax\nret").unwrap();
        writeln!(text, ".size f{at},.-f{at}").unwrap();
    }
    text.push_str(".section .data.rel,\"aw\"\n");
    for at in 0..relocations {
        writeln!(text, ".quad f{}", at % functions + 1).unwrap();
    }
    text.push_str(".section .note.GNU-stack,\"\",@progbits\n");
    built("gcc", &format!("exports-{functions}-{relocations}.S"), &text, &["-nostdlib"])
}

/// A function `entry`, and so many bytes in `.data`, `.bss` or `.rodata`.
pub fn sized(bytes: usize, section: &str) -> PathBuf {
    let (start, fill) = match section {
        "data" => (".data", format!(".fill {},8,1", bytes / 8)),
        "bss" => (".bss", format!(".skip {bytes}")),
        "rodata" => (".section .rodata", format!(".fill {},8,1", bytes / 8)),
        other => panic!("no such section: {other}"),
    };
    let text = format!(
        ".text\n.globl entry\n.type entry,@function\nentry: mov $1,%eax\nret\n.size entry,.-entry\n\
         {start}\n.globl bytes\n.p2align 4\nbytes: {fill}\n\
         .section .note.GNU-stack,\"\",@progbits\n"
    );
    built("gcc", &format!("{section}-{bytes}.S"), &text, &["-nostdlib"])
}

/// So many relative relocations.
pub fn relative(relocations: usize) -> PathBuf {
    let text = format!(
        ".text\n.globl entry\n.type entry,@function\nentry: mov $1,%eax\nret\n.size entry,.-entry\n\
         .section .data.rel,\"aw\"\n.rept {relocations}\n.quad entry_hidden\n.endr\n\
         .text\nentry_hidden: ret\n.section .note.GNU-stack,\"\",@progbits\n"
    );
    built("gcc", &format!("relative-{relocations}.S"), &text, &["-nostdlib"])
}

/// A library that imports so many functions of [`exports`]' library, which it needs.
pub fn imports(count: usize, from: &Path) -> PathBuf {
    let mut text = ".text\n.globl entry\n.type entry,@function\nentry: mov $1,%eax\nret\n\
         .size entry,.-entry\n.section .data.rel,\"aw\"\n"
        .to_owned();
    for at in 1..=count {
        writeln!(text, ".quad f{at}").unwrap();
    }
    text.push_str(".section .note.GNU-stack,\"\",@progbits\n");
    let flags = ["-nostdlib", "-Wl,--no-as-needed", from.to_str().unwrap()];
    built("gcc", &format!("imports-{count}.S"), &text, &flags)
}

/// C++ classes with 10,000 virtual tables, known to this file alone as most are.
fn virtual_tables() -> PathBuf {
    let mut text =
        "struct Base { virtual int id() const = 0; virtual ~Base() {} };\nnamespace {\n".to_owned();
    for at in 0..10_000 {
        writeln!(
            text,
            "struct D{at} final : Base {{ int id() const override {{ return {at}; }} }};"
        )
        .unwrap();
    }
    text.push_str("}\nstatic const Base *make(int which) {\nswitch (which) {\n");
    for at in 0..10_000 {
        writeln!(text, "case {at}: return new D{at};").unwrap();
    }
    text.push_str(
        "}\nreturn nullptr;\n}\n\
         extern \"C\" int entry(int which) {\n\
         const Base *made = make(which);\nint id = made->id();\ndelete made;\nreturn id;\n}\n",
    );
    built("g++", "virtual-tables.cpp", &text, &["-O0"])
}

/// Functions on pages of their own, each jumping to the next one in an order without order: for
/// each instruction a new page.
pub fn scattered(pages: usize) -> PathBuf {
    // The increment is odd and the multiplier one more than a multiple of four: a full cycle over
    // a power of two (Hull and Dobell).
    assert!(pages.is_power_of_two());
    let next = |page: usize| (page * 1_664_525 + 1_013_904_223) % pages;
    let mut text = ".text\n.globl walk\n.type walk,@function\nwalk:\nxor %eax,%eax\n\
         1: call p0\ndec %rdi\njnz 1b\nret\n.size walk,.-walk\n"
        .to_owned();
    for page in 0..pages {
        // Not at the same place of each page, or they would all want the same cache lines.
        let place = page * 64 % 4032;
        writeln!(text, ".p2align 12\n.skip {place},0xcc\np{page}: inc %rax").unwrap();
        match next(page) {
            0 => writeln!(text, "ret").unwrap(),
            other => writeln!(text, "jmp p{other}").unwrap(),
        }
    }
    text.push_str(".section .note.GNU-stack,\"\",@progbits\n");
    built("gcc", &format!("scattered-{pages}.S"), &text, &["-nostdlib"])
}

/// The compute loop, a file of the repository.
pub fn compute() -> PathBuf {
    build("cc", "bench/compute.c", &["-O2"])
}

/// A copy that can be unloaded; the file itself if nothing in it is against that.
fn unpinned(file: &Path) -> PathBuf {
    let original = fs::read(file).unwrap();
    let mut bytes = original.clone();
    let elf = Elf::parse(&original).unwrap();
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    const DF_1_NODELETE: u64 = 8;
    let headers = &elf.program_headers;
    let dynamic =
        headers.iter().find(|header| header.p_type == goblin::elf::program_header::PT_DYNAMIC);
    for (at, entry) in elf.dynamic.iter().flat_map(|dynamic| dynamic.dyns.iter().enumerate()) {
        if entry.d_tag == DT_FLAGS_1 {
            let place = dynamic.unwrap().p_offset as usize + at * 16 + 8;
            let flags = entry.d_val & !DF_1_NODELETE;
            bytes[place..place + 8].copy_from_slice(&flags.to_le_bytes());
        }
    }
    let symbols = elf.section_headers.iter().find(|section| section.sh_type == SHT_DYNSYM);
    const STB_GLOBAL: u8 = 1;
    const STB_GNU_UNIQUE: u8 = 10;
    for (at, symbol) in elf.dynsyms.iter().enumerate() {
        if symbol.st_bind() == STB_GNU_UNIQUE {
            let place = symbols.unwrap().sh_offset as usize + at * 24 + 4;
            bytes[place] = STB_GLOBAL << 4 | symbol.st_type();
        }
    }
    if bytes == original {
        return file.to_owned();
    }
    let name = file.file_name().unwrap().to_str().unwrap();
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}"));
    if fs::read(&copy).ok().as_ref() != Some(&bytes) {
        fs::write(&copy, bytes).unwrap();
    }
    copy
}
