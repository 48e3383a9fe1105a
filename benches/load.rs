//! Load, look one symbol up, unload: memdl from bytes, with and without debug information, beside
//! what executors do today (`memfd` + `dlopen("/proc/self/fd/N")`) and `dlopen` of a file.
//!
//! `cargo bench --bench load`. All alternatives run in one process; compare their ratios, not the
//! absolute times of one machine with another's.

use std::ffi::{CStr, CString, c_void};
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

use criterion::{Criterion, criterion_group, criterion_main};
use memdl::{Debug, Loader};

/// A library to load, and the symbol to look up in it.
struct Subject {
    name: &'static str,
    path: PathBuf,
    symbol: &'static CStr,
}

fn subjects() -> Vec<Subject> {
    let tiny = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-tiny.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/testlibs/foo.c");
    let status = Command::new("cc")
        .args(["-O2", "-g", "-shared", "-fPIC", "-o"])
        .arg(&tiny)
        .arg(source)
        .status()
        .expect("a C compiler: `sh tests/setup.sh` installs one");
    assert!(status.success());
    let sqlite = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"]
        .into_iter()
        .map(|folder| Path::new(folder).join("libsqlite3.so.0"))
        .find(|path| path.exists())
        .expect("libsqlite3: `sh tests/setup.sh` installs it");
    vec![
        Subject { name: "tiny", path: tiny, symbol: c"foo" },
        Subject { name: "libsqlite3", path: sqlite, symbol: c"sqlite3_libversion_number" },
    ]
}

fn dlopen(path: &CStr) -> *mut c_void {
    // SAFETY: a C string; the libraries of this benchmark have harmless constructors.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null());
    handle
}

/// Looks `symbol` up and closes `handle`.
fn finish(handle: *mut c_void, symbol: &CStr) {
    // SAFETY: an open handle and a C string.
    unsafe {
        assert!(!black_box(libc::dlsym(handle, symbol.as_ptr())).is_null());
        libc::dlclose(handle);
    }
}

/// What executors do today.
fn memfd_dlopen(bytes: &[u8], symbol: &CStr) {
    // SAFETY: plain system calls on a descriptor of our own; the mapping is as long as the file,
    // and gone before the descriptor is.
    unsafe {
        let descriptor = libc::memfd_create(c"image".as_ptr(), 0);
        assert!(descriptor >= 0);
        assert_eq!(libc::ftruncate(descriptor, bytes.len() as libc::off_t), 0);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let map = libc::mmap(
            std::ptr::null_mut(),
            bytes.len(),
            protection,
            libc::MAP_SHARED,
            descriptor,
            0,
        );
        assert_ne!(map, libc::MAP_FAILED);
        map.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        libc::munmap(map, bytes.len());
        let path = CString::new(format!("/proc/self/fd/{descriptor}")).unwrap();
        let handle = dlopen(&path);
        libc::close(descriptor);
        finish(handle, symbol);
    }
}

fn memdl_load(loader: &Loader, bytes: &[u8], symbol: &CStr) {
    // SAFETY: as `dlopen`; the symbol is only looked up.
    unsafe {
        let library = loader.load(bytes).unwrap();
        black_box(library.get::<*mut c_void>(symbol.to_bytes()).unwrap());
        library.close().unwrap();
    }
}

fn load(criterion: &mut Criterion) {
    // What the libraries need stays in the process, so that nobody measures loading it.
    dlopen(c"libm.so.6");
    for Subject { name, path, symbol } in subjects() {
        let bytes = fs::read(&path).unwrap();
        let file = CString::new(path.to_str().unwrap()).unwrap();
        let off = Loader::new().debug(Debug::Off);
        let mut group = criterion.benchmark_group(name);
        group.bench_function("memdl, debug off", |b| b.iter(|| memdl_load(&off, &bytes, symbol)));
        let full = Loader::new().debug(Debug::Full);
        group.bench_function("memdl, debug full", |b| b.iter(|| memdl_load(&full, &bytes, symbol)));
        group.bench_function("memfd + dlopen", |b| b.iter(|| memfd_dlopen(&bytes, symbol)));
        group.bench_function("dlopen of a file", |b| b.iter(|| finish(dlopen(&file), symbol)));
        group.finish();
    }
}

criterion_group!(benches, load);
criterion_main!(benches);
