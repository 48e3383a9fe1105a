//! The logger of a C host: what it hears of memdl's events, through a callback, or on standard error.
//!
//! A C host has no logger of the crate `log`, so this is one. It is installed only by calls of the C API: by
//! `memdl_set_log`, or by the first call if the operator has set `MEMDL_LOG`. A logger that a Rust host has
//! installed before stays.
//!
//! No lock is held while the callback runs: it may call memdl.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::c_names::in_c_names;
use super::callbacks::OwnedUser;
use crate::base::environment;
use crate::base::fallible::{has_spare_memory, try_c_string, try_format};
use crate::base::sync::{Rank, SharedLock};

/// The environment variable with which the operator overrides the host's level.
const ENVIRONMENT: &str = "MEMDL_LOG";
const WORDS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

/// `memdl_logger`.
pub type LoggerCallback =
    unsafe extern "C" fn(level: c_int, text: *const c_char, user: *mut c_void);

/// A callback of the host. It is dropped, and its context freed, after its last call.
pub(super) struct Callback {
    call: LoggerCallback,
    user: OwnedUser,
}

impl Callback {
    /// # Safety
    /// `call` may be called with the context as long as that is not freed, in any thread, with a C string that lives
    /// during the call.
    pub(super) unsafe fn new(call: LoggerCallback, user: OwnedUser) -> Callback {
        Callback { call, user }
    }

    /// Without memory for the text, nothing is passed on.
    fn pass(&self, level: Level, text: &str) {
        // A NUL in a text is escaped.
        let text = try_c_string(text.as_bytes());
        if let Ok(Some(text)) = text {
            // SAFETY: the promise of `new`; the context lives as long as `self`.
            unsafe { (self.call)(level as c_int, text.as_ptr(), self.user.get()) }
        }
    }
}

/// Where events go.
struct Sink {
    /// This logger is the process's.
    is_installed: bool,
    /// The level that the operator demands. Then events go to standard error if there is no callback.
    operator: Option<LevelFilter>,
    callback: Option<Arc<Callback>>,
}

static SINK: SharedLock<Sink> =
    SharedLock::new(Rank::Log, Sink { is_installed: false, operator: None, callback: None });

/// The logger.
struct CLog;

impl Sink {
    /// Makes this logger the process's. False if there is another one.
    fn install(&mut self) -> bool {
        self.is_installed = self.is_installed || log::set_logger(&CLog).is_ok();
        self.is_installed
    }
}

impl Log for CLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with("memdl")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || !has_spare_memory() {
            return;
        }
        let Ok(text) = try_format(*record.args()) else { return };
        let Ok(text) = in_c_names(&text) else { return };
        match callback() {
            Some(Some(callback)) => callback.pass(record.level(), &text),
            Some(None) => write_line(record.level(), &text),
            None => {}
        }
    }

    fn flush(&self) {}
}

/// The host's callback, if it has one. `None` if that cannot be found out.
fn callback() -> Option<Option<Arc<Callback>>> {
    // It does not wait for long: where a debugger calls memdl, the thread that changes the callback is stopped.
    const TRIES: usize = 1000;
    for _ in 0..TRIES {
        if let Some(sink) = SINK.try_read() {
            return Some(sink.callback.clone());
        }
        thread::yield_now();
    }
    None
}

/// Writes a line to standard error, by one call, so that lines of several threads do not mix.
fn write_line(level: Level, text: &str) {
    let level = level.as_str().to_ascii_lowercase();
    let line = try_format(format_args!("memdl[{}] {level}: {text}\n", process::id()));
    let Ok(line) = line else { return };
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        // SAFETY: bytes that live during the call. Not through `std::io`, whose lock another thread may have held
        // when this process was forked.
        let written = unsafe { libc::write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) => rest = rest.get(written.max(1)..).unwrap_or_default(),
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return,
        }
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Does what the operator demands by `MEMDL_LOG`, the first time.
#[inline]
pub(super) fn heed_operator() {
    static IS_DONE: AtomicBool = AtomicBool::new(false);
    if !IS_DONE.load(Ordering::Relaxed) && !IS_DONE.swap(true, Ordering::Relaxed) {
        read_operator_level();
    }
}

#[cold]
fn read_operator_level() {
    if environment::value(ENVIRONMENT).is_none() || !SINK.write().install() {
        return;
    }
    // A word that does not exist is worth a warning, which is logged at this level.
    log::set_max_level(LevelFilter::Warn);
    let level = environment::overridden(ENVIRONMENT, &WORDS, LevelFilter::Warn);
    SINK.write().operator = Some(level);
    log::set_max_level(level);
}

/// The level of a `memdl_log_level`.
pub(super) fn level_of(level: c_int) -> Option<LevelFilter> {
    WORDS.iter().map(|(_, known)| *known).find(|known| *known as c_int == level)
}

/// Sets the callback, and the level that it wants; `None` removes it. False if the process has another logger.
pub(super) fn set(level: LevelFilter, callback: Option<Callback>) -> bool {
    let callback = callback.map(Arc::new);
    let level = callback.as_ref().map_or(LevelFilter::Off, |_| level);
    let mut sink = SINK.write();
    if !sink.install() {
        // Its context is freed without the lock.
        drop(sink);
        drop(callback);
        return false;
    }
    let before = std::mem::replace(&mut sink.callback, callback);
    log::set_max_level(sink.operator.unwrap_or(level));
    drop(sink);
    // As above; but if another thread is calling it, that thread frees it.
    drop(before);
    true
}
