//! What `src/left_right.rs` is built on, from loom; and signals.
//!
//! loom has no signals. Here a thread can arm a handler: it is called, in that thread, just before one
//! of the thread's steps (an atomic operation, a lock, or the use of a copy), or between two uses of a
//! copy by one closure. A model runs once for each step, so the signal comes everywhere.

use std::cell::RefCell;

use loom::sync::atomic;
pub use loom::sync::atomic::Ordering;
use loom::sync::{Mutex, MutexGuard};

/// How many steps are still to come before the handler, and the handler.
type Armed = Option<(usize, Box<dyn FnOnce()>)>;

loom::thread_local! {
    static ARMED: RefCell<Armed> = RefCell::new(None);
}

/// Has `handler` interrupt this thread before its step number `step`, counted from 0.
pub fn interrupt_before(step: usize, handler: impl FnOnce() + 'static) {
    ARMED.with(|armed| *armed.borrow_mut() = Some((step, Box::new(handler))));
}

/// Whether the handler has not been called, since there were fewer steps. It is not called any more.
pub fn is_still_armed() -> bool {
    ARMED.with(|armed| armed.borrow_mut().take().is_some())
}

/// Where a signal may come.
pub fn step() {
    let handler = ARMED.with(|armed| {
        let mut armed = armed.borrow_mut();
        match &mut *armed {
            Some((0, _)) => armed.take(),
            Some((steps, _)) => {
                *steps -= 1;
                None
            }
            None => None,
        }
    });
    if let Some((_, handler)) = handler {
        handler();
    }
}

pub struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub fn new(value: T) -> Lock<T> {
        Lock(Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        step();
        self.0.lock().unwrap()
    }
}

pub fn yield_now() {
    loom::thread::yield_now();
}

pub struct AtomicUsize(atomic::AtomicUsize);

impl AtomicUsize {
    pub fn new(value: usize) -> AtomicUsize {
        AtomicUsize(atomic::AtomicUsize::new(value))
    }

    pub fn load(&self, order: Ordering) -> usize {
        step();
        self.0.load(order)
    }

    pub fn store(&self, value: usize, order: Ordering) {
        step();
        self.0.store(value, order);
    }

    pub fn fetch_add(&self, value: usize, order: Ordering) -> usize {
        step();
        self.0.fetch_add(value, order)
    }

    pub fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
        step();
        self.0.fetch_sub(value, order)
    }
}

/// loom's own reports a use that is not ordered with a change by another thread.
pub struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(loom::cell::UnsafeCell::new(value))
    }

    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        step();
        self.0.with(f)
    }

    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        step();
        self.0.with_mut(f)
    }
}
