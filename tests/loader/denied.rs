//! Hosts that deny system calls, as profiles of containers, hardened services and emulators do. `dlopen`
//! under the same denials is the reference.

use std::ffi::c_int;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use crate::common::{
    AnyWay, MapsLine, Opened, WAYS, build, bytes, call_run, debug_entries, exit_status, in_child,
    is_sanitized, isolated, load_in_way, machine, maps, maps_without_heaps,
};
use crate::helpers::{Number, OldThread, function, opened_function};
use goblin::elf::Elf;
use goblin::elf::program_header::{PF_R, PF_X, PT_LOAD};
use goblin::elf64::program_header::SIZEOF_PHDR;
use libc::{RTLD_LOCAL, RTLD_NOW, sock_filter};
use memdl::{DebugLevel, Error, Library, Loader};

/// Puts this thread, and those that it starts, under a seccomp filter.
fn install(mut program: Vec<sock_filter>) {
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let filter =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr().cast() };
    // SAFETY: a program of `len` instructions, which the kernel copies.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter, 0, 0), 0);
    }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Skips the next `count` instructions unless the accumulator passes `test` with `k`.
fn unless(test: u32, k: u32, count: u8) -> sock_filter {
    let code = (libc::BPF_JMP | libc::BPF_K | test) as u16;
    sock_filter { code, jt: 0, jf: count, k }
}

/// The call of this number fails with this error.
fn deny(call: libc::c_long, errno: i32) -> Vec<sock_filter> {
    vec![
        // The number is the first word of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        unless(libc::BPF_JEQ, call as u32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
    ]
}

fn initial_exec(name: &str) -> PathBuf {
    build("gcc", "tls/variables.c", &["-O1", "-ftls-model=initial-exec", name])
}

/// Initial values and changed ones in an older thread, in this one and in a new one, by both loaders.
fn check_initial_exec(old: &OldThread, what: &str) {
    let path = initial_exec("-DROOM=40");
    let file = fs::read(&path).unwrap();
    let check = |fresh: Number, used: Number, who: &str| {
        assert_eq!((old.call(fresh), old.call(used)), (42, 42), "{what}: {who}: an older thread");
        assert_eq!((fresh(), used()), (42, 42), "{what}: {who}: this thread");
        let new = thread::spawn(move || (fresh(), used())).join().unwrap();
        assert_eq!(new, (42, 42), "{what}: {who}: a new thread");
    };
    // The second is where the first was: each leaves zeroes.
    for _ in 0..2 {
        // SAFETY: a library of `testlibs/`.
        let library = unsafe { Loader::new().load_any_way(&file) };
        let library = library.unwrap_or_else(|error| panic!("{what}: {error}"));
        check(function(&library, "fresh"), function(&library, "used"), "memdl");
    }
    let opened = Opened::new(&path, RTLD_NOW | RTLD_LOCAL);
    check(opened_function(&opened, "fresh"), opened_function(&opened, "used"), "dlopen");
}

/// Does it in a thread under a filter that denies these calls, and in those that it starts.
fn denied(calls: &[libc::c_long], errno: i32, body: impl FnOnce() + Send) {
    let program = calls.iter().flat_map(|&call| deny(call, errno)).collect();
    let result = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            install(program);
            body();
        });
        thread.join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

const ERRORS: [i32; 3] = [libc::EPERM, libc::ENOSYS, libc::EACCES];
const OF_PROCESS_MEMORY: [libc::c_long; 2] =
    [libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];

#[test]
fn threads_have_initial_values_whatever_the_system_denies() {
    isolated(|| {
        let [readv, writev] = OF_PROCESS_MEMORY;
        let folders = libc::SYS_getdents64;
        #[cfg(target_arch = "x86_64")]
        let old_folders = libc::SYS_getdents;
        // Other machines never had the old call.
        #[cfg(not(target_arch = "x86_64"))]
        let old_folders = folders;
        let denials: [&[libc::c_long]; 5] =
            [&[], &[readv, writev], &[writev], &[folders, old_folders], &[readv, writev, folders]];
        for (calls, errno) in denials.iter().flat_map(|calls| ERRORS.map(|errno| (calls, errno))) {
            let what = format!("calls {calls:?}, error {errno}");
            denied(calls, errno, || check_initial_exec(&OldThread::start(), &what));
        }
    });
}

/// No other thread can be reached then, so that the load must fail.
#[test]
fn threads_that_cannot_be_reached_are_an_error() {
    isolated(|| {
        let file = fs::read(initial_exec("-DROOM=40")).unwrap();
        let general = bytes("gcc", "tls/variables.c", &["-O1", "-ftls-model=global-dynamic"]);
        let opened = Opened::new(&initial_exec("-DROOM=41"), RTLD_NOW | RTLD_LOCAL);
        // SAFETY: calls that change only this process, which has nothing else to do.
        unsafe {
            // From now on `/proc/self/mem` is root's.
            assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
            assert!(libc::geteuid() != 0 || libc::setresuid(65534, 65534, 65534) == 0);
        }
        let old = Mutex::new(OldThread::start());
        let in_old = |function| old.lock().unwrap().call(function);
        denied(&OF_PROCESS_MEMORY, libc::EPERM, || {
            // SAFETY: a library of `testlibs/`.
            let error = unsafe { Loader::new().load_any_way(&file) }.unwrap_err();
            assert!(matches!(error, Error::System { .. }), "{error:?}");
            let text = error.to_string();
            for part in ["threads that exist already", "process_vm_readv", "/proc/self/mem"] {
                assert!(text.contains(part), "{text}");
            }
            // Others load.
            // SAFETY: as above.
            let library = unsafe { Loader::new().load_any_way(&general) };
            assert_eq!(in_old(function(&library.unwrap(), "run")), 42);
        });
        assert_eq!(in_old(opened_function(&opened, "run")), 42);
        // Where the calls are not denied, this thread's, it loads.
        // SAFETY: as above.
        let library = unsafe { Loader::new().load_any_way(&file) }.unwrap();
        assert_eq!(in_old(function(&library, "run")), 42);
    });
}

/// The second word of `seccomp_data` that an argument's lower half is.
fn argument(index: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 16 + 8 * index)
}

const JUMPS_IF_SET: u32 = libc::BPF_JSET;
const EXECUTE: u32 = libc::PROT_EXEC as u32;

/// Calls that would make memory executable, or make executable memory that is writable, fail: as systemd's
/// `MemoryDenyWriteExecute=` has it (`seccomp_memory_deny_write_execute`).
fn systemd(errno: i32) -> Vec<sock_filter> {
    let number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let fail = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32);
    let both = EXECUTE | libc::PROT_WRITE as u32;
    let masked = statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, both);
    let mut program = vec![number, unless(libc::BPF_JEQ, libc::SYS_mmap as u32, 4)];
    program.extend([argument(2), masked, unless(libc::BPF_JEQ, both, 1), fail]);
    for (call, flags, bit) in [
        (libc::SYS_mprotect, 2, EXECUTE),
        (libc::SYS_pkey_mprotect, 2, EXECUTE),
        (libc::SYS_shmat, 2, libc::SHM_EXEC as u32),
    ] {
        program.extend([number, unless(libc::BPF_JEQ, call as u32, 3)]);
        program.extend([argument(flags), unless(JUMPS_IF_SET, bit, 1), fail]);
    }
    program
}

/// In addition, no memory but a file's can be executable: as SELinux without `execmem` has it.
fn without_execmem(errno: i32) -> Vec<sock_filter> {
    let number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let fail = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32);
    let mut program = vec![number, unless(libc::BPF_JEQ, libc::SYS_mmap as u32, 5)];
    program.extend([argument(2), unless(JUMPS_IF_SET, EXECUTE, 3)]);
    program.extend([argument(3), unless(JUMPS_IF_SET, libc::MAP_ANONYMOUS as u32, 1), fail]);
    program.extend(systemd(errno));
    program
}

fn set_mdwe() {
    const PR_SET_MDWE: c_int = 65;
    // SAFETY: a flag of this process.
    let result = unsafe { libc::prctl(PR_SET_MDWE, 1, 0, 0, 0) };
    assert_eq!(result, 0, "PR_SET_MDWE needs Linux 6.3");
}

/// From now on `/proc/self/mem` is root's, and this process is not.
fn lose_process_memory() {
    // SAFETY: calls that change only this process, which has nothing else to do.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
        assert!(libc::geteuid() != 0 || libc::setresuid(65534, 65534, 65534) == 0);
    }
    assert!(fs::File::open("/proc/self/mem").is_err());
}

/// Nothing is writable and executable, and whatever the policy is, it is in force.
fn check_policy(is_denied: bool, what: &str) {
    let both = |line: &MapsLine| line.access.contains("wx");
    assert!(!maps().iter().any(both), "{what}: {:#x?}", maps());
    // SAFETY: a new page, which is unmapped.
    let is_refused = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let page = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0);
        let result = libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC);
        libc::munmap(page, 4096);
        result != 0
    };
    assert_eq!(is_refused, is_denied, "{what}");
}

/// How the memory at an address is mapped.
fn access_at(address: usize) -> String {
    maps().into_iter().find(|line| line.range.contains(&address)).unwrap().access
}

/// Libraries whose memory takes all the ways that there are.
struct Images(Vec<(String, PathBuf, Vec<u8>)>);

impl Images {
    fn build() -> Images {
        let large = "-DLARGE=(1<<17)";
        let sources: [(&str, &str, &[&str]); 9] = [
            ("gcc", "faults/image.c", &["-g"]),
            ("gcc", "faults/image.c", &["-g", large, "-DIFUNC", "-DINITIAL_EXEC"]),
            // All that is not written is one segment, the first.
            ("gcc", "faults/image.c", &[large, "-DIFUNC", "-Wl,-z,noseparate-code"]),
            ("gcc", "faults/image.c", &["-DLARGE=(3<<19)"]),
            ("gcc", "faults/image.c", &["-DLARGE=(3<<19)", "-Wl,-z,noseparate-code"]),
            ("gcc", "faults/image.c", &[large, "-fuse-ld=lld"]),
            ("gcc", "tls/variables.c", &["-O1", machine::DESCRIPTORS]),
            ("g++", "unwind/throws.cpp", &["-O1", "-pthread"]),
            ("gcc", "loading/text_relocation.S", &["-Wl,-z,notext"]),
        ];
        let image = |(compiler, source, flags): (&str, &str, &[&str])| {
            let path = build(compiler, source, flags);
            (format!("{source} {flags:?}"), path.clone(), fs::read(path).unwrap())
        };
        Images(sources.into_iter().map(image).collect())
    }

    /// Loads each in all ways, calls it in several threads, and unloads it.
    fn check(&self, is_denied: bool, what: &str) {
        let old = OldThread::start();
        for (name, path, file) in &self.0 {
            for way in WAYS {
                let what = format!("{what}: {name}, {way}");
                // SAFETY: a library of `testlibs/`.
                let library = unsafe { load_in_way(&Loader::new(), file, way) };
                let library = library.unwrap_or_else(|error| panic!("{what}: {error}"));
                check_policy(is_denied, &what);
                assert_eq!(call_run(&library), 42, "{what}");
                let status = in_child(20, || call_run(&library));
                assert!(name.starts_with("tls") || exit_status(status) == Some(42), "{what}");
                assert_eq!(old.call(function(&library, "run")), 42, "{what}");
                let access = access_at(function::<Number>(&library, "run") as usize);
                assert!(["r-xp", "r-xs"].contains(&&*access), "{what}: {access}");
            }
            // `ld.so` itself makes memory executable again where it relocates text.
            if !is_denied || !name.contains("notext") {
                assert_eq!(Opened::new(path, RTLD_NOW | RTLD_LOCAL).run(), 42, "dlopen: {name}");
            }
        }
    }
}

/// A debugger writes a breakpoint as this writes the byte that is there: from outside, into memory that the
/// process cannot write to.
fn takes_breakpoints(address: usize) -> bool {
    let file = fs::OpenOptions::new().read(true).write(true).open("/proc/self/mem").unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, address as u64).unwrap();
    file.write_all_at(&byte, address as u64).is_ok()
}

/// Instances that no debugger sees share their code, also where it must be executable from the start, and get
/// code of their own when one is to see them.
fn check_shared_text(image: &[u8], is_denied: bool, what: &str) {
    let template = Loader::new().debug(DebugLevel::Off).template(image).unwrap();
    // SAFETY: a library of `testlibs/`.
    let instance = || unsafe { template.instantiate() }.unwrap();
    // The first shares nothing.
    let _first = instance();
    let code = |library: &Library| function::<Number>(library, "of_image") as usize;
    let instances = [(); 3].map(|()| instance());
    for library in &instances {
        assert_eq!((call_run(library), access_at(code(library))), (42, "r-xs".into()), "{what}");
        assert!(!takes_breakpoints(code(library)), "{what}");
    }
    let old = OldThread::start();
    instances[1].set_debug(DebugLevel::Symbols).unwrap();
    assert_eq!(access_at(code(&instances[1])), "r-xp", "{what}");
    assert!(takes_breakpoints(code(&instances[1])), "{what}");
    assert_eq!(old.call(function(&instances[1], "run")), 42, "{what}");
    check_policy(is_denied, what);
    // The memory of one is the next one's.
    let [first, ..] = instances;
    let before = code(&first);
    drop(first);
    let again = instance();
    assert_eq!((code(&again), call_run(&again)), (before, 42), "{what}");
    // A pool hands it out again, as new.
    let pool = template.pool(1);
    for _ in 0..3 {
        // SAFETY: as above; nothing of it runs when it is released.
        let pooled = unsafe { pool.acquire() }.unwrap();
        assert_eq!(call_run(&pooled), 42, "{what}");
        let spoil: extern "C" fn() = function(&pooled, "spoil");
        spoil();
        pooled.release();
    }
}

/// The file with code that is stated to be executed only.
fn execute_only(file: &[u8]) -> Vec<u8> {
    const FLAGS: usize = 4;
    let (mut patched, elf) = (file.to_vec(), Elf::parse(file).unwrap());
    for (index, header) in elf.program_headers.iter().enumerate() {
        if header.p_type == PT_LOAD && header.p_flags == PF_R | PF_X {
            patched[elf.header.e_phoff as usize + index * SIZEOF_PHDR + FLAGS] = PF_X as u8;
        }
    }
    assert_ne!(patched, file);
    patched
}

/// Everything in a process under a policy that `forbid` sets.
fn under(what: &str, is_denied: bool, forbid: impl FnOnce()) {
    let images = Images::build();
    let shared = &images.0[1].2;
    // Before the process is known to be under a policy, and after.
    let template = Loader::new().debug(DebugLevel::Off).template(shared).unwrap();
    // SAFETY: a library of `testlibs/`.
    let instance = || unsafe { template.instantiate() }.unwrap();
    let first = instance();
    forbid();
    let [second, third] = [instance(), instance()];
    for library in [first, second, third] {
        assert_eq!(call_run(&library), 42, "{what}");
    }
    check_shared_text(shared, is_denied, what);
    check_shared_text(&execute_only(shared), is_denied, what);
    images.check(is_denied, what);
    // Several threads at once share one template's text.
    let template = Loader::new().debug(DebugLevel::Off).template(shared).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    // SAFETY: as above.
                    let library = unsafe { template.instantiate() }.unwrap();
                    assert_eq!(call_run(&library), 42, "{what}");
                }
            });
        }
    });
    // Where there is a debugger, code has to take its breakpoints.
    let small = &images.0[0].2;
    for way in ["copy", "buffer", "instance"] {
        // SAFETY: as above.
        let library = unsafe { load_in_way(&Loader::new(), small, way) }.unwrap();
        assert!(takes_breakpoints(function::<Number>(&library, "run") as usize), "{what}: {way}");
    }
    // SAFETY: as above.
    let sealed = unsafe { Loader::new().seal(true).load(small) }.unwrap();
    assert!(sealed.is_sealed() && call_run(&sealed) == 42, "{what}");
}

#[test]
fn everything_loads_without_a_policy() {
    isolated(|| under("no policy", false, || ()));
}

#[test]
fn everything_loads_under_mdwe() {
    isolated(|| under("PR_SET_MDWE", true, set_mdwe));
}

#[test]
fn everything_loads_under_systemds_filter() {
    isolated(|| under("systemd's filter", true, || install(systemd(libc::EPERM))));
}

#[test]
fn everything_loads_under_both() {
    isolated(|| {
        under("both", true, || {
            set_mdwe();
            install(systemd(libc::EPERM));
        });
    });
}

/// Code is shared memory then, where debuggers cannot set breakpoints.
#[test]
fn code_needs_no_proc_under_mdwe() {
    isolated(|| {
        let images = Images::build();
        set_mdwe();
        lose_process_memory();
        images.check(true, "PR_SET_MDWE without /proc/self/mem");
    });
}

/// What must be as before a load that failed.
fn state() -> (Vec<MapsLine>, usize, usize) {
    memdl::release_memory();
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = if is_sanitized() { Vec::new() } else { maps_without_heaps() };
    (maps, debug_entries().len(), descriptors)
}

/// Every way to load fails with a text that has these parts, and leaves nothing behind.
fn check_refusal(parts: &[&str], images: &[&(String, PathBuf, Vec<u8>)], before: &Library) {
    // What the allocator has shall be in its heap, which is not looked at.
    // SAFETY: sets a parameter of the allocator's.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30) };
    for (name, path, file) in images {
        for way in WAYS {
            // SAFETY: a library of `testlibs/`.
            let load = || unsafe { load_in_way(&Loader::new().name("it"), file, way) };
            // The first one sets the process up.
            load().unwrap_err();
            let clean = state();
            let error = load().unwrap_err();
            assert!(matches!(error, Error::System { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.starts_with("it: making 0x"), "{text}");
            for part in parts.iter().chain(&["dlopen", "mprotect", "mmap"]) {
                assert!(text.contains(part), "{name}, {way}: {part} is not in: {text}");
            }
            assert_eq!(state(), clean, "{name}, {way}");
        }
        assert_eq!(Opened::new(path, RTLD_NOW | RTLD_LOCAL).run(), 42, "dlopen: {name}");
    }
    assert_eq!(call_run(before), 42);
}

fn refused_with(parts: &[&str], forbid: impl FnOnce()) {
    let images = Images::build();
    // SAFETY: a library of `testlibs/`.
    let before = unsafe { Loader::new().load(&images.0[0].2) }.unwrap();
    forbid();
    check_refusal(parts, &[&images.0[0], &images.0[1]], &before);
}

#[test]
fn a_refusal_of_all_executable_memory_names_selinux() {
    isolated(|| {
        refused_with(&["SELinux", "execmem", "Permission denied"], || {
            install(without_execmem(libc::EACCES));
        });
    });
}

#[test]
fn a_refusal_by_a_filter_names_it() {
    isolated(|| {
        let parts = ["seccomp", "MemoryDenyWriteExecute", "not permitted"];
        refused_with(&parts, || install(without_execmem(libc::EPERM)));
    });
}

#[test]
fn a_refusal_under_mdwe_names_it() {
    isolated(|| {
        refused_with(&["PR_SET_MDWE", "seccomp"], || {
            set_mdwe();
            install(without_execmem(libc::EPERM));
        });
    });
}

#[test]
fn what_was_loaded_before_a_policy_stays() {
    isolated(|| {
        let file = bytes("gcc", "faults/image.c", &["-DLARGE=(1<<17)", "-DIFUNC"]);
        // SAFETY: a library of `testlibs/`.
        let load = |debug| unsafe { Loader::new().debug(debug).load(&file) }.unwrap();
        let kept = [DebugLevel::Off, DebugLevel::Full].map(load);
        drop([DebugLevel::Off, DebugLevel::Full].map(load));
        set_mdwe();
        // In the memory of those that are gone, if it were kept.
        let new = [DebugLevel::Off, DebugLevel::Full].map(load);
        for library in kept.iter().chain(&new) {
            assert_eq!(call_run(library), 42);
            library.set_debug(DebugLevel::Symbols).unwrap();
            library.set_debug(DebugLevel::Off).unwrap();
            assert_eq!(call_run(library), 42);
        }
        drop((kept, new));
        assert_eq!(call_run(&load(DebugLevel::Off)), 42);
    });
}

/// The main thread may end before others. The kernel then knows no memory of the process by its number.
#[test]
fn the_main_thread_may_have_ended() {
    isolated(|| {
        let images = Images::build();
        let opened = initial_exec("-DROOM=48");
        let file = fs::read(initial_exec("-DROOM=40")).unwrap();
        let check = move || {
            let old = OldThread::start();
            // SAFETY: a library of `testlibs/`.
            let library = unsafe { Loader::new().load(&file) }.unwrap();
            assert_eq!(old.call(function(&library, "run")), 42);
            assert_eq!(old.call(opened_function(&Opened::new(&opened, RTLD_NOW), "run")), 42);
            set_mdwe();
            for (name, _, file) in &images.0 {
                // SAFETY: as above.
                let library = unsafe { Loader::new().load(file) }.unwrap();
                let address = function::<Number>(&library, "run") as usize;
                assert_eq!((call_run(&library), &*access_at(address)), (42, "r-xp"), "{name}");
            }
        };
        let status = in_child(60, || {
            thread::spawn(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
                // SAFETY: the child's end, whose status is what the parent waits for.
                unsafe { libc::_exit(i32::from(result.is_err())) }
            });
            // SAFETY: ends this thread alone, the main one of the child, without any clean-up.
            unsafe { libc::syscall(libc::SYS_exit, 0) as c_int }
        });
        assert_eq!(exit_status(status), Some(0), "{status:#x}");
    });
}
