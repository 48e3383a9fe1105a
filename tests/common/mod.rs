//! What the tests share: building the test libraries. A missing tool is a failure that says what
//! to install, never a test that passes by skipping.

#![allow(dead_code)] // each test binary uses its own part of this

pub mod agree;
pub mod machine;
pub mod time;

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::env::consts::ARCH;
use std::ffi::{CStr, CString, OsStr, OsString, c_int, c_void};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub use agree::assert_agrees;
pub use time::{is_over, limit, limited};

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Builds a shared library from a source in `testlibs/` and gives the path of the file.
///
/// The output is keyed by everything that goes into it and linked into place, since test
/// binaries run in parallel.
pub fn build(compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    let shared: &[&str] = match compiler {
        "rustc" => &["--crate-type", "cdylib", "--edition", "2024"],
        "go" => &["-buildmode=c-shared"],
        _ => &["-shared", "-fPIC"],
    };
    build_with(compiler, source, &[shared, flags].concat(), "so")
}

/// Builds an executable from a source in `tests/` or `testlibs/`.
pub fn build_program(compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    build_with(compiler, source, flags, "bin")
}

fn build_with(compiler: &str, source: &str, flags: &[&str], extension: &str) -> PathBuf {
    let source = [repository("testlibs").join(source), repository(source)]
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no source {source}"));
    let text = fs::read(&source).unwrap();
    let mut hasher = DefaultHasher::new();
    (compiler, &source, &text, flags).hash(&mut hasher);
    // Version scripts, and libraries that are linked to.
    for file in flags.iter().map(|flag| flag.rsplit('=').next().unwrap_or(flag)) {
        fs::read(file).unwrap_or_default().hash(&mut hasher);
    }
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let output = folder.join(format!("{stem}-{:016x}.{extension}", hasher.finish()));
    if output.is_file() {
        return output;
    }
    // Test binaries, and the threads of one, build the same thing at once.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mine = format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    // No dot before the number: rustc takes what follows the last for the extension, and puts its objects
    // where those of another process lie.
    let unfinished = folder.join(format!("{stem}-{:016x}-{mine}.tmp", hasher.finish()));
    let mut command = Command::new(compiler);
    if compiler == "go" {
        command.args(["build", "-o"]).arg(&unfinished).args(flags).arg(&source);
        command.env("GOCACHE", folder.join("go-cache")).env("GOFLAGS", "");
        command.env("GO111MODULE", "off").env("CGO_ENABLED", "1");
    } else {
        command.arg("-o").arg(&unfinished).arg(&source).args(flags);
    }
    run(command.current_dir(folder), compiler);
    // Go leaves a header beside a library.
    let _ = fs::remove_file(unfinished.with_extension("h"));
    // Whoever is first: what others have open is not replaced by another file.
    if let Err(error) = fs::hard_link(&unfinished, &output) {
        assert!(output.is_file(), "{}: {error}", output.display());
    }
    fs::remove_file(&unfinished).unwrap();
    output
}

/// The linkers that are compared, of those that this release of the system has: gold goes, and mold came late.
pub fn linkers() -> Vec<&'static str> {
    ["bfd", "lld", "mold", "gold"].into_iter().filter(|linker| has_linker(linker)).collect()
}

/// Whether the linker that these flags name is here (`-fuse-ld=gold`). True where they name none.
pub fn can_link(flags: &[&str]) -> bool {
    flags.iter().filter_map(|flag| flag.strip_prefix("-fuse-ld=")).all(has_linker)
}

/// Whether a linker is here. One that is not is named on the standard error, where the harness does not hide it.
pub fn has_linker(linker: &str) -> bool {
    // These are everywhere: without them tests fail, and say what to install.
    if ["bfd", "lld"].contains(&linker) {
        return true;
    }
    let program = format!("ld.{linker}");
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_here = std::env::split_paths(&folders).any(|it| it.join(&program).exists());
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if !is_here && SAID.lock().unwrap().insert(program.clone()) {
        let _ = writeln!(io::stderr(), "left out: what {program} links, which is not installed");
    }
    is_here
}

/// The compression of debug sections that objcopy has besides zlib: Zstandard, since binutils 2.40.
pub fn zstd() -> &'static str {
    let help = run(Command::new("objcopy").arg("--help"), "binutils");
    if help.contains("zstd") { "zstd" } else { "zlib" }
}

/// A library with its debug sections compressed by Zstandard.
pub fn compressed_with_zstd(library: &Path) -> Vec<u8> {
    assert_eq!(zstd(), "zstd", "this needs binutils 2.40 or later");
    let name = library.file_name().unwrap().to_str().unwrap();
    let copy =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("zstd-{}-{name}", process::id()));
    let mut objcopy = Command::new("objcopy");
    objcopy.arg("--compress-debug-sections=zstd").arg(library).arg(&copy);
    run(&mut objcopy, "binutils");
    let bytes = fs::read(&copy).unwrap();
    fs::remove_file(copy).unwrap();
    bytes
}

/// The version of the C library, as `(2, 36)`.
pub fn glibc() -> (u32, u32) {
    // SAFETY: a constant C string.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_str().unwrap();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Builds a shared library and reads it.
pub fn bytes(compiler: &str, source: &str, flags: &[&str]) -> Vec<u8> {
    fs::read(build(compiler, source, flags)).unwrap()
}

/// The command that runs a program which is compiled for the tests' own machine: itself, or by `MEMDL_TEST_RUNNER`
/// where this system is another one and emulates that machine (tests/aarch64/run.sh).
pub fn program(path: impl AsRef<OsStr>) -> Command {
    let Some(runner) = runner() else { return Command::new(path) };
    let mut command = Command::new(runner);
    command.arg(path);
    command
}

/// As [`program`], killed when [`limit`] of so many seconds is over.
pub fn limited_program(seconds: u64, path: impl AsRef<OsStr>) -> Command {
    let Some(runner) = runner() else { return limited(seconds, path) };
    let mut command = limited(seconds, runner);
    command.arg(path);
    command
}

fn runner() -> Option<OsString> {
    std::env::var_os("MEMDL_TEST_RUNNER").filter(|runner| !runner.is_empty())
}

/// Runs a tool of package-manager provenance to its successful end.
pub fn run(command: &mut Command, package: &str) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot run {command:?}: {error}; `sh tests/setup.sh` installs what tests need ({package})")
    });
    assert_success(&output, &format!("{command:?} failed"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Calls the `int run(void)` of a test library: 42, or the number of the check that failed.
pub fn call_run(library: &memdl::Library) -> c_int {
    // SAFETY: the convention of `testlibs/`: no arguments, no preconditions.
    unsafe { library.get::<unsafe extern "C" fn() -> c_int>("run").unwrap()() }
}

/// The ways to load, of which the environment variable `MEMDL_TEST_WAY` names one: `copy`, which is
/// what is meant if it is not set, `buffer`, `instance`, `shared`: an instance that debuggers are not
/// told of, so that it shares what it does not write with others, or `again`: one that is put where
/// another was before.
pub trait AnyWay {
    /// [`Loader::load`](memdl::Loader::load), or what comes to the same.
    ///
    /// # Safety
    /// As that.
    unsafe fn load_any_way(&self, bytes: &[u8]) -> Result<memdl::Library, memdl::Error>;

    /// [`Loader::prepare`](memdl::Loader::prepare), of libraries that tests choose: these, and what they
    /// need, may run here.
    fn template(&self, bytes: &[u8]) -> Result<memdl::Template, memdl::Error>;
}

/// That way.
pub fn way() -> String {
    std::env::var("MEMDL_TEST_WAY").unwrap_or_else(|_| "copy".to_owned())
}

/// All of them.
pub const WAYS: [&str; 5] = ["copy", "buffer", "instance", "shared", "again"];

/// Loads in one of the [`WAYS`].
///
/// # Safety
/// As [`Loader::load`](memdl::Loader::load).
pub unsafe fn load_in_way(
    loader: &memdl::Loader,
    bytes: &[u8],
    way: &str,
) -> Result<memdl::Library, memdl::Error> {
    // SAFETY: the caller's promise.
    unsafe {
        match way {
            "copy" => loader.load(bytes),
            "buffer" => {
                let mut buffer = memdl::ImageBuffer::new(bytes.len())?;
                buffer.copy_from_slice(bytes);
                loader.load_buffer(buffer)
            }
            "instance" => loader.prepare(bytes)?.instantiate(),
            "shared" => loader.clone().debug(memdl::DebugLevel::Off).prepare(bytes)?.instantiate(),
            "again" => {
                let template = loader.clone().debug(memdl::DebugLevel::Off).prepare(bytes)?;
                drop(template.instantiate()?);
                template.instantiate()
            }
            _ => panic!("MEMDL_TEST_WAY={way} is no way to load"),
        }
    }
}

impl AnyWay for memdl::Loader {
    unsafe fn load_any_way(&self, bytes: &[u8]) -> Result<memdl::Library, memdl::Error> {
        // SAFETY: the caller's promise.
        unsafe { load_in_way(self, bytes, &way()) }
    }

    fn template(&self, bytes: &[u8]) -> Result<memdl::Template, memdl::Error> {
        // SAFETY: the tests' own libraries, and those of the distribution.
        unsafe { self.prepare(bytes) }
    }
}

/// Loads a test library from its bytes, and `run` must be content.
pub fn load_and_run(loader: &memdl::Loader, bytes: &[u8], what: &str) -> memdl::Library {
    let report = loader.inspect(bytes);
    // SAFETY: the libraries of `testlibs/` may be loaded anywhere.
    let loaded = unsafe { loader.load_any_way(bytes) };
    assert_agrees(&report, &loaded, what);
    let library = loaded.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(call_run(&library), 42, "{what}: the number of the failed check, or 42");
    library
}

/// A library that the system's `dlopen` opened: the reference. Closed when dropped.
pub struct Opened(*mut c_void);

impl Opened {
    /// What `dlopen` gives for the file, if it takes it.
    pub fn try_new(path: &Path, flags: c_int) -> Option<Opened> {
        let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: a C string; whoever names the file vouches for its constructors.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
        (!handle.is_null()).then(|| Opened(handle))
    }

    pub fn new(path: &Path, flags: c_int) -> Opened {
        Opened::try_new(path, flags)
            .unwrap_or_else(|| panic!("dlopen {}: {}", path.display(), Opened::error()))
    }

    /// What `dlopen` says of a file that it refuses.
    pub fn refusal(path: &Path, flags: c_int) -> String {
        assert!(Opened::try_new(path, flags).is_none(), "dlopen takes {}", path.display());
        Opened::error()
    }

    fn error() -> String {
        // SAFETY: null or a C string, valid until this thread's next call.
        unsafe {
            let text = libc::dlerror();
            if text.is_null() {
                return String::new();
            }
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }

    /// `dlsym`, or `dlvsym`; null if there is none.
    pub fn symbol(&self, name: &str, version: Option<&str>) -> *mut c_void {
        let name = CString::new(name).unwrap();
        let version = version.map(|version| CString::new(version).unwrap());
        // SAFETY: an open handle and C strings.
        unsafe {
            match version {
                Some(version) => libc::dlvsym(self.0, name.as_ptr(), version.as_ptr()),
                None => libc::dlsym(self.0, name.as_ptr()),
            }
        }
    }

    /// Calls `int run(void)`.
    pub fn run(&self) -> c_int {
        let run = self.symbol("run", None);
        assert!(!run.is_null());
        // SAFETY: the convention of `testlibs/`.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(run)() }
    }

    /// Run-time address minus stated address.
    pub fn load_bias(&self) -> usize {
        let mut map: *const usize = std::ptr::null();
        const RTLD_DI_LINKMAP: c_int = 2;
        // SAFETY: an open handle; the request writes one pointer, to a structure that begins with
        // `l_addr` and lives as long as the library.
        unsafe {
            assert_eq!(libc::dlinfo(self.0, RTLD_DI_LINKMAP, (&raw mut map).cast()), 0);
            *map
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: from `dlopen`, closed once.
        unsafe { libc::dlclose(self.0) };
    }
}

/// A line of `/proc/self/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapsLine {
    pub range: Range<usize>,
    /// As `r-xp`.
    pub access: String,
    pub name: String,
}

/// This process's mappings.
pub fn maps() -> Vec<MapsLine> {
    // The main thread may have ended. An emulator without a kernel of its own knows the other name only.
    let file = if runner().is_none() { "/proc/thread-self/maps" } else { "/proc/self/maps" };
    let text = fs::read_to_string(file).unwrap();
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let access = fields.next()?.to_owned();
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let name = fields.skip(3).collect::<Vec<_>>().join(" ");
        Some(MapsLine { range: start..end, access, name })
    };
    text.lines().map(|text| line(text).unwrap_or_else(|| panic!("maps: {text}"))).collect()
}

/// This process's mappings without the allocator's, which are its own business: the heap, and those of threads, which
/// have so many addresses each, of which they use the first.
pub fn maps_without_heaps() -> Vec<MapsLine> {
    const HEAP: usize = 64 << 20;
    let maps = maps();
    let starts: Vec<usize> = maps
        .windows(2)
        .map(|pair| [&pair[0].range, &pair[1].range])
        .filter(|[used, rest]| used.end == rest.start && rest.end.is_multiple_of(HEAP))
        // The kernel joins what lies directly before with it.
        .filter(|[used, rest]| used.contains(&(rest.end - HEAP)))
        .map(|[_, rest]| rest.end - HEAP)
        .collect();
    let without_heap = |mut line: MapsLine| {
        let joined = starts.iter().find(|&start| line.range.contains(start));
        line.range.end = joined.map_or(line.range.end, |&start| start);
        let is_heap = line.name == "[heap]" || starts.contains(&(line.range.start / HEAP * HEAP));
        (!is_heap && !line.range.is_empty()).then_some(line)
    };
    maps.into_iter().filter_map(without_heap).collect()
}

/// The sizes of the symfiles in the list for debuggers, which such a build does not have.
#[cfg(not(feature = "debug"))]
pub fn debug_entries() -> Vec<u64> {
    Vec::new()
}

/// The sizes of the symfiles in the list for debuggers.
#[cfg(feature = "debug")]
pub fn debug_entries() -> Vec<u64> {
    #[repr(C)]
    struct Entry {
        next: *const Entry,
        previous: *const Entry,
        symfile: *const u8,
        symfile_size: u64,
    }
    #[repr(C)]
    struct Descriptor {
        version: u32,
        action: u32,
        relevant: *const Entry,
        first: *const Entry,
    }
    unsafe extern "C" {
        static __jit_debug_descriptor: Descriptor;
    }
    const { assert!(size_of::<Descriptor>() == 24) };
    let mut sizes = Vec::new();
    // SAFETY: the list as gdb documents it; nobody loads or unloads meanwhile (only in a process
    // that runs this test alone), so it stands still.
    unsafe {
        let mut entry = (&raw const __jit_debug_descriptor.first).read_volatile();
        while !entry.is_null() {
            let size = (*entry).symfile_size;
            let bytes = std::slice::from_raw_parts((*entry).symfile, size as usize);
            assert!(bytes.starts_with(b"\x7fELF"));
            sizes.push(size);
            entry = (*entry).next;
        }
    }
    sizes
}

/// Whether this executable is instrumented by a sanitizer (`sh tests/sanitizers.sh`). What it takes of
/// memory, stack and mappings is then the sanitizer's doing as well, so tests of something else than that
/// compare none of it.
pub fn is_sanitized() -> bool {
    std::env::var_os("MEMDL_TEST_SANITIZER").is_some()
}

/// The stack on which memdl does all that it does: 64 KiB when it is optimized. Without optimization
/// functions take several times as much of it, and with a sanitizer still more.
pub fn small_stack() -> usize {
    match (is_sanitized(), cfg!(debug_assertions)) {
        (true, _) => 1 << 20,
        (false, true) => 256 << 10,
        (false, false) => 64 << 10,
    }
}

/// Kilobytes of memory that the process has resident.
pub fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The most memory that was resident since `f` began, less what was then, in bytes.
pub fn peak_of(f: impl FnOnce()) -> usize {
    let status = |field: &str| -> usize {
        let text = fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    };
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    f();
    status("VmHWM:").saturating_sub(before)
}

pub fn is_mapped(address: usize) -> bool {
    maps().iter().any(|line| line.range.contains(&address))
}

/// A file of the system, as the C library's loader finds it.
pub fn system_library(name: &str) -> PathBuf {
    let folders = ["/lib64", "/usr/lib64", "/usr/lib"].map(PathBuf::from);
    let folders = [PathBuf::from(format!("/lib/{ARCH}-linux-gnu")), library_folder()]
        .into_iter()
        .chain(folders);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {name}; `sh tests/setup.sh` installs what tests need"))
}

/// Where Debian has the libraries of the machine.
pub fn library_folder() -> PathBuf {
    format!("/usr/lib/{ARCH}-linux-gnu").into()
}

/// The name of a library of the system of which each release has another version: `libssl.so.3` for `libssl.so.`.
/// Of several, the one with the lowest number.
pub fn system_library_of(prefix: &str, suffix: &str) -> String {
    let names =
        fs::read_dir(library_folder()).unwrap().map(|it| it.unwrap().file_name().into_string());
    let is_version = |name: &String| {
        let version = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        version.is_some_and(|version| version.split('.').all(is_number))
    };
    let found = names.filter_map(Result::ok).filter(is_version).min();
    found.unwrap_or_else(|| panic!("no {prefix}*; `sh tests/setup.sh` installs what tests need"))
}

/// The name of a test as the harness has it. `test` is its function, or a closure in it.
pub fn name_of<T>(_test: &T) -> &'static str {
    // As `binary::module::function::{{closure}}`.
    let name = std::any::type_name::<T>().trim_end_matches("::{{closure}}");
    name.split_once("::").unwrap().1
}

/// This executable, to be started again for the test of this name ([`name_of`]).
pub fn own_test(name: &str) -> Command {
    let mut command = program(std::env::current_exe().unwrap());
    command.args(ONLY).arg(name);
    command
}

/// As [`own_test`], killed when [`limit`] of so many seconds is over.
pub fn limited_own_test(seconds: u64, name: &str) -> Command {
    let mut command = limited_program(seconds, std::env::current_exe().unwrap());
    command.args(ONLY).arg(name);
    command
}

/// What the harness runs a single test with; the name follows.
const ONLY: [&str; 3] = ["--nocapture", "--test-threads=1", "--exact"];

/// Runs `body`, a closure of a test, in a process of its own, which is this test binary, started again
/// for this one test, and expects it to succeed. For what a crash would end, or other tests would
/// disturb.
pub fn isolated<F: FnOnce()>(body: F) {
    isolated_with(&[], body);
}

/// As [`isolated`], where the C library keeps neither the stacks nor the heaps of threads that have
/// ended: then mappings can be as they were before.
pub fn isolated_without_caches<F: FnOnce()>(body: F) {
    let tunables = "glibc.pthread.stack_cache_size=0:glibc.malloc.arena_max=1";
    isolated_with(&[("GLIBC_TUNABLES", tunables)], body);
}

/// As [`isolated`], with these variables in the environment from the start.
pub fn isolated_with<F: FnOnce()>(environment: &[(&str, &str)], body: F) {
    let test = name_of(&body);
    if let Some(output) = isolated_output_with(test, environment, body) {
        assert_success(&output, test);
    }
}

/// Fails with all that the process said, unless it succeeded.
pub fn assert_success(output: &Output, what: &str) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}{err}", output.status);
}

/// As [`isolated`], whatever comes of it. `None` in the child, where `body` has been run.
pub fn isolated_output<F: FnOnce()>(body: F) -> Option<Output> {
    isolated_output_with(name_of(&body), &[], body)
}

/// As [`isolated_output`], for a `body` that is no closure of the test itself.
pub fn isolated_output_as(test: &str, body: impl FnOnce()) -> Option<Output> {
    isolated_output_with(test, &[], body)
}

fn isolated_output_with(
    test: &str,
    environment: &[(&str, &str)],
    body: impl FnOnce(),
) -> Option<Output> {
    const CHILD: &str = "MEMDL_TEST_CHILD";
    if std::env::var(CHILD).as_deref() == Ok(test) {
        body();
        return None;
    }
    let mut child = own_test(test)
        .env(CHILD, test)
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipes are read by `wait_with_output` while this thread of ours keeps the time.
    let id = child.id() as libc::pid_t;
    drop(child.stdin.take());
    let (start, base) = (Instant::now(), Duration::from_secs(120));
    let (done, finished) = std::sync::mpsc::channel();
    let timer = std::thread::spawn(move || {
        while !is_over(start, base) {
            let rest = limit(base).saturating_sub(start.elapsed());
            if finished.recv_timeout(rest.max(Duration::from_secs(1))).is_ok() {
                return true;
            }
        }
        // SAFETY: a signal to a child that is not waited for yet, or is just being.
        unsafe { libc::kill(id, libc::SIGKILL) };
        false
    });
    let output = child.wait_with_output().unwrap();
    let _ = done.send(());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(timer.join().unwrap(), "{test}: not done after {:?}\n{text}", start.elapsed());
    // A name that matches no test would pass without having run anything.
    assert!(text.contains("running 1 test"), "{test} is no test\n{text}");
    Some(output)
}

/// Forks, has the child end with what `body` returns, and gives how it ended: the status of `waitpid`.
/// A signal ends it when [`limit`] of so many seconds is over.
pub fn in_child(seconds: u64, body: impl FnOnce() -> c_int) -> c_int {
    let limit = limit(Duration::from_secs(seconds)).as_secs() as u32;
    // SAFETY: the child runs `body`, which is what the test promises to work there, and leaves by
    // `_exit`; the parent's status is a local.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            // Should it hang: whoever waits for the pipes of the parent must not.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::alarm(limit);
            libc::_exit(body());
        }
        let mut status = -1;
        assert_eq!(libc::waitpid(child, &mut status, 0), child, "{}", io::Error::last_os_error());
        status
    }
}

/// The exit status, if that is how the child ended.
pub fn exit_status(status: c_int) -> Option<c_int> {
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

/// What a test library notes through descriptor 199 while `body` runs. Only in a process
/// that runs this test alone.
pub fn notes(body: impl FnOnce()) -> String {
    let mut ends = [0; 2];
    // SAFETY: two new descriptors; 199 is nobody's in this process.
    // What was written is in the pipe's buffer when the writing ends are closed.
    let reader = unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        assert_eq!(libc::dup2(ends[1], 199), 199);
        body();
        libc::close(ends[1]);
        libc::close(199);
        fs::File::from_raw_fd(ends[0])
    };
    io::read_to_string(reader).unwrap()
}
