//! A library that brings its own standard library along, and uses what of it knows of threads.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;

static DROPPED: AtomicI32 = AtomicI32::new(0);
static REPORT: OnceLock<usize> = OnceLock::new();
static SHARED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Noted(String);

impl Drop for Noted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::SeqCst);
        if let Some(&report) = REPORT.get() {
            // SAFETY: the host's counter, which lives for ever.
            unsafe { (*(report as *const AtomicI32)).fetch_add(self.0.len() as i32, Ordering::SeqCst) };
        }
    }
}

thread_local! {
    static NOTED: Noted = Noted("ten bytes!".to_owned());
    static MAP: RefCell<HashMap<i32, String>> = RefCell::new(HashMap::new());
}

/// Counts the bytes of objects whose destructors ran at the end of a thread.
#[unsafe(no_mangle)]
pub extern "C" fn report_to(counter: *const AtomicI32) {
    let _ = REPORT.set(counter as usize);
}

/// Leaves destructors for the end of the calling thread.
#[unsafe(no_mangle)]
pub extern "C" fn touch() -> i32 {
    MAP.with_borrow_mut(|map| map.insert(1, "one".to_owned()));
    NOTED.with(|noted| noted.0.len() as i32)
}

#[unsafe(no_mangle)]
pub extern "C" fn run() -> i32 {
    std::panic::set_hook(Box::new(|_| {}));
    println!("printed by the library");
    eprintln!("and to standard error");
    if touch() != 10 {
        return 1;
    }
    let before = DROPPED.load(Ordering::SeqCst);
    let (send, receive) = mpsc::channel();
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let send = send.clone();
            thread::spawn(move || {
                touch();
                SHARED.lock().unwrap().push(format!("{:?}", thread::current().id()));
                send.send(number).unwrap();
            })
        })
        .collect();
    drop(send);
    if receive.iter().sum::<i32>() != 6 || threads.into_iter().any(|it| it.join().is_err()) {
        return 2;
    }
    if DROPPED.load(Ordering::SeqCst) != before + 4 {
        return 3;
    }
    if catch_unwind(|| panic!("inside")).is_ok() {
        return 4;
    }
    if thread::spawn(|| panic!("in a thread")).join().is_ok() {
        return 5;
    }
    let _ = std::panic::take_hook();
    42
}
