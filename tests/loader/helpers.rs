//! What several modules here use: functions of libraries, and threads that call them.

use std::ffi::{c_int, c_void};
use std::fs;
use std::path::Path;
use std::process;
use std::sync::mpsc;
use std::thread;

use crate::common::{Opened, exit_status, in_child};
use memdl::Library;

/// An `int name(void)`, which may unwind.
pub type Number = extern "C-unwind" fn() -> c_int;

pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// A function that stays callable as long as `library` does.
pub fn function<T: Copy>(library: &Library, name: &str) -> T {
    // SAFETY: the tests name functions of the sources with their types.
    unsafe { *library.get::<T>(name).unwrap() }
}

/// The same of a library that `dlopen` opened.
pub fn opened_function<T: Copy>(opened: &Opened, name: &str) -> T {
    let symbol = opened.symbol(name, None);
    assert!(!symbol.is_null() && size_of::<T>() == size_of::<*mut c_void>());
    // SAFETY: as above; T is a function pointer.
    unsafe { std::mem::transmute_copy(&symbol) }
}

/// A thread that waits for functions to call, and so is older than what it calls.
pub struct OldThread {
    calls: mpsc::Sender<Number>,
    results: mpsc::Receiver<c_int>,
    thread: Option<thread::JoinHandle<()>>,
}

impl OldThread {
    pub fn start() -> OldThread {
        let (calls, to_call) = mpsc::channel::<Number>();
        let (to_results, results) = mpsc::channel();
        let body = move || to_call.iter().for_each(|call| to_results.send(call()).unwrap());
        OldThread { calls, results, thread: Some(thread::spawn(body)) }
    }

    pub fn call(&self, function: Number) -> c_int {
        self.calls.send(function).unwrap();
        self.results.recv().unwrap()
    }
}

impl Drop for OldThread {
    fn drop(&mut self) {
        self.calls = mpsc::channel().0;
        self.thread.take().unwrap().join().unwrap();
    }
}

/// What `body` returns in a child of this process, so that the next one finds the libraries of the process as
/// they are now. How the child ended, if it does not return.
pub fn apart(body: impl FnOnce() -> String) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let result = folder.join(format!("apart-{}", process::id()));
    let status = in_child(60, || i32::from(fs::write(&result, body()).is_err()));
    match exit_status(status) {
        Some(0) => fs::read_to_string(&result).unwrap(),
        _ => format!("status {status:#x}"),
    }
}
