//! The allocator of this executable: the system's, which counts what it gives, and refuses in a thread that
//! asks for that: one allocation, all from one on, or what is over a budget. A thread that asks for nothing
//! gets all that it wants.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Of the allocations above this size, the one of this number is refused.
    One { above: usize, number: usize },
    /// That one and all that follow.
    From { above: usize, number: usize },
    /// All that would make it more than so many bytes at once.
    Budget { bytes: usize },
}

/// What the calling thread wants, and how far it is.
#[derive(Clone, Copy)]
pub struct State {
    pub mode: Option<Mode>,
    pub seen: usize,
    pub live: isize,
    pub most: isize,
    pub refused: usize,
    /// How many bytes were found to be there before a library's work began that cannot report otherwise.
    pub foreseen: usize,
}

pub const IDLE: State = State { mode: None, seen: 0, live: 0, most: 0, refused: 0, foreseen: 0 };

/// The alignment of what only looks whether there is memory: `room::has_room`.
const FORESEES: usize = 64;

thread_local! {
    pub static STATE: Cell<State> = const { Cell::new(IDLE) };
}

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// What was asked for last that was refused, for the case that it is the end.
pub static LAST: AtomicUsize = AtomicUsize::new(0);

/// Whether an allocation of `new` bytes in place of `old` ones is granted.
fn grant(new: usize, old: usize, align: usize) -> bool {
    let mut state = STATE.get();
    let Some(mode) = state.mode else { return true };
    let grows = new > old;
    let is_refused = grows
        && match mode {
            Mode::One { above, number } | Mode::From { above, number } => {
                // What was foreseen is there; a budget and a limit look whether enough was.
                let is_foreseen = align != FORESEES && new <= state.foreseen;
                state.foreseen -= if is_foreseen && new > above { new } else { 0 };
                let counts = new > above && !is_foreseen;
                let at = state.seen;
                state.seen += usize::from(counts);
                let is_all = matches!(mode, Mode::From { .. });
                counts && (at == number || is_all && at > number)
            }
            Mode::Budget { bytes } => state.live + new as isize - old as isize > bytes as isize,
        };
    if is_refused {
        state.refused += 1;
        LAST.store(new, Ordering::Relaxed);
        trace(new);
    } else {
        state.live += new as isize - old as isize;
        state.most = state.most.max(state.live);
        if align == FORESEES {
            state.foreseen = new;
        }
    }
    STATE.set(state);
    !is_refused
}

/// With `MEMDL_TEST_TRACE=SIZE`, prints where an allocation of this size (0: of any size) was refused.
fn trace(size: usize) {
    static WANTED: OnceLock<Option<usize>> = OnceLock::new();
    let state = STATE.replace(IDLE);
    let variable = || std::env::var("MEMDL_TEST_TRACE").ok()?.parse().ok();
    if WANTED.get_or_init(variable).is_some_and(|wanted| wanted == 0 || wanted == size) {
        eprintln!("{size} refused: {}", std::backtrace::Backtrace::force_capture());
    }
    STATE.set(state);
}

/// Bytes that are allocated now, in all threads.
pub static NOW: AtomicUsize = AtomicUsize::new(0);
/// The most that were.
pub static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Counts what the system gave for `old` bytes.
fn counted(at: *mut u8, new: usize, old: usize) -> *mut u8 {
    if !at.is_null() {
        let now = NOW.fetch_add(new.wrapping_sub(old), Ordering::Relaxed);
        PEAK.fetch_max(now.wrapping_add(new).wrapping_sub(old), Ordering::Relaxed);
    }
    at
}

// SAFETY: the system's allocator, or nothing.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !grant(layout.size(), 0, layout.align()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        counted(unsafe { System.alloc(layout) }, layout.size(), 0)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !grant(layout.size(), 0, layout.align()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        counted(unsafe { System.alloc_zeroed(layout) }, layout.size(), 0)
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !grant(size, layout.size(), layout.align()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        counted(unsafe { System.realloc(at, layout, size) }, size, layout.size())
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        let mut state = STATE.get();
        state.live -= layout.size() as isize;
        STATE.set(state);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}
