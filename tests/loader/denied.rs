//! Hosts that deny system calls, as profiles of containers, hardened services and emulators do. `dlopen`
//! under the same denials is the reference.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use crate::common::{AnyWay, Opened, build, bytes, isolated};
use crate::helpers::{Number, OldThread, function, opened_function};
use libc::{RTLD_LOCAL, RTLD_NOW, sock_filter};
use memdl::{Error, Loader};

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
        let (folders, old_folders) = (libc::SYS_getdents64, libc::SYS_getdents);
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
