//! Panics inside a library that brings its own standard library along.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};

thread_local! { static DROPPED: Cell<i32> = const { Cell::new(0) } }

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + 1);
    }
}

#[inline(never)]
fn deep(depth: i32) -> i32 {
    let _guard = Guard;
    if depth == 0 {
        panic_any(7i32);
    }
    deep(depth - 1) + 1
}

#[unsafe(no_mangle)]
pub extern "C" fn run() -> i32 {
    std::panic::set_hook(Box::new(|_| {}));
    DROPPED.set(0);
    let caught = catch_unwind(|| deep(5)).expect_err("it panics");
    if caught.downcast_ref::<i32>() != Some(&7) || DROPPED.get() != 6 {
        return 1;
    }
    let again = catch_unwind(AssertUnwindSafe(|| resume_unwind(caught))).expect_err("it panics again");
    if again.downcast_ref::<i32>() != Some(&7) {
        return 2;
    }
    let thread = std::thread::spawn(|| deep(3)).join().expect_err("it panics in a thread");
    if thread.downcast_ref::<i32>() != Some(&7) {
        return 3;
    }
    let empty: Vec<i32> = std::hint::black_box(Vec::new());
    let index = catch_unwind(|| empty[3]).expect_err("out of bounds");
    if !index.downcast_ref::<String>().is_some_and(|text| text.contains("index is 3")) {
        return 4;
    }
    let text = std::backtrace::Backtrace::force_capture().to_string();
    // Through the frames below this library too.
    if text.lines().count() < 4 { 5 } else { 42 }
}
