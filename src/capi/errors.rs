//! The error text of each thread, and the boundary for panics and exceptions (see the head of the folder).

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::cell::Cell;
use std::cell::RefCell;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::ptr;
use std::thread;

use super::c_names::in_c_names;
use super::logger::heed_operator;
use crate::ErrorKind;
use crate::base::escape::Escaped;
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::require_memory;
use crate::base::fallible::try_c_string;
use crate::base::fallible::try_format;

/// An error of the C API or of memdl, before it becomes a text.
pub(super) enum Failure {
    /// Arguments that C must not pass.
    Text(Cow<'static, str>),
    Memdl(crate::Error),
    /// A fault of memdl's.
    Panic(String),
}

/// `MEMDL_ERROR_OUT_OF_MEMORY`, `MEMDL_ERROR_ARGUMENT`, `MEMDL_ERROR_PANIC`.
const OUT_OF_MEMORY: c_int = 9;
const ARGUMENT: c_int = 12;
const PANIC: c_int = 13;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Text(text) => f.write_str(text),
            Failure::Panic(text) => write!(f, "memdl panicked: {text}"),
            Failure::Memdl(error) => error.fmt(f),
        }
    }
}

impl Failure {
    /// The number that C gets: a `memdl_error_kind`.
    fn code(&self) -> c_int {
        match self {
            Failure::Text(_) => ARGUMENT,
            Failure::Panic(_) => PANIC,
            Failure::Memdl(error) => match error.kind() {
                ErrorKind::Malformed => 1,
                ErrorKind::Unsupported => 2,
                ErrorKind::Processor => 3,
                ErrorKind::Missing => 4,
                ErrorKind::Refused => 5,
                ErrorKind::RefusedImports => 6,
                ErrorKind::SymbolNotFound => 7,
                ErrorKind::System => 8,
                ErrorKind::OutOfMemory => OUT_OF_MEMORY,
                ErrorKind::DebugInfo => 10,
                ErrorKind::Limit => 11,
            },
        }
    }
}

impl From<OutOfMemory> for Failure {
    #[cold]
    fn from(error: OutOfMemory) -> Failure {
        Failure::Memdl(error.into())
    }
}

impl From<&'static str> for Failure {
    fn from(text: &'static str) -> Failure {
        Failure::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Text(Cow::Owned(text))
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Failure {
        Failure::Memdl(error)
    }
}

/// The error texts of a thread.
#[derive(Default)]
pub(super) struct ThreadTexts {
    /// The text that `memdl_error` returns next.
    pending: Option<CString>,
    /// The text that it returned last. C may still hold a pointer to it.
    returned: Option<CString>,
    /// The last error of memdl's, for those who ask what is missing.
    last: Option<crate::Error>,
}

thread_local! {
    static TEXTS: RefCell<ThreadTexts> = RefCell::default();
    /// Whether the next text of `memdl_error` is "out of memory", since there was no memory for another one.
    /// It needs no allocation.
    static NO_MEMORY: Cell<bool> = const { Cell::new(false) };
    /// The code of the last failure.
    static CODE: Cell<c_int> = const { Cell::new(0) };
}

/// Calls `change` with this thread's texts; `None` if the ending thread has already dropped them.
pub(super) fn with_texts<T>(change: impl FnOnce(&mut ThreadTexts) -> T) -> Option<T> {
    TEXTS.try_with(|texts| texts.try_borrow_mut().ok().map(|mut texts| change(&mut texts))).ok()?
}

/// The value; or `None`, and the text is kept for `memdl_error`.
pub(super) fn noted<T>(result: Result<T, Failure>) -> Option<T> {
    result
        .map_err(|failure| {
            CODE.set(failure.code());
            let text = text_of(&failure);
            NO_MEMORY.set(text.is_none());
            let last = match failure {
                Failure::Memdl(error) => Some(error),
                Failure::Text(_) | Failure::Panic(_) => None,
            };
            let before = with_texts(|texts| {
                if let Some(text) = text {
                    texts.pending = Some(text);
                }
                std::mem::replace(&mut texts.last, last)
            });
            // It may hold a reason of the host's, whose drop is foreign code.
            drop(before);
        })
        .ok()
}

/// What `memdl_error` returns for a failure. `None` if there is no memory for it.
fn text_of(failure: &Failure) -> Option<CString> {
    require_memory().ok()?;
    // The text may have names that come from hostile bytes.
    let text = try_format(format_args!("{}", Escaped(failure))).ok()?;
    c_string(&in_c_names(&text).ok()?).ok()
}

/// Calls `look` with the last error, if memdl's last failure in this thread was one.
pub(super) fn with_last_error<T>(look: impl FnOnce(Option<&crate::Error>) -> T) -> Option<T> {
    with_texts(|texts| look(texts.last.as_ref()))
}

/// The code of the thread's last failure.
#[unsafe(no_mangle)]
pub extern "C" fn memdl_error_code() -> c_int {
    CODE.get()
}

/// Runs code of memdl, and turns a panic into an error. An exception would abort here, so no code of images
/// may run in it, and no callbacks but those that must not throw (resolvers, verifiers, filters).
pub(super) fn caught<T>(body: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
    heed_operator();
    // After a panic, values that it left half changed are dropped or, like the thread's texts, valid.
    noted(catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(Failure::Panic(text.unwrap_or("no reason given").to_owned()))
    }))
}

/// Runs code that may run code of images: exceptions pass, a panic aborts.
pub(super) fn transparent<T>(body: impl FnOnce() -> T) -> T {
    heed_operator();
    struct Unwinding {
        was_panicking: bool,
    }
    impl Drop for Unwinding {
        fn drop(&mut self) {
            // True for panics of this Rust runtime only: a foreign exception unwinds without a panic.
            if thread::panicking() && !self.was_panicking {
                // The panic's own message has been printed.
                eprintln!("memdl: a panic cannot cross into C: aborting");
                std::process::abort();
            }
        }
    }
    let unwinding = Unwinding { was_panicking: thread::panicking() };
    let value = body();
    std::mem::forget(unwinding);
    value
}

/// The status that C gets: 0 for success, -1 for an error.
pub(super) fn status(done: Option<()>) -> c_int {
    if done.is_some() { 0 } else { -1 }
}

/// The text of the thread's last error. It is returned once.
#[unsafe(no_mangle)]
pub extern "C" fn memdl_error() -> *const c_char {
    if NO_MEMORY.take() {
        return c"out of memory".as_ptr();
    }
    let text = with_texts(|texts| {
        texts.returned = texts.pending.take();
        pointer(&texts.returned)
    });
    text.unwrap_or(ptr::null())
}

/// A C string of the text up to its first NUL.
pub(super) fn c_string(text: &str) -> Result<CString, Failure> {
    let text = text.split('\0').next().unwrap_or_default();
    Ok(try_c_string(text.as_bytes())?.unwrap_or_default())
}

/// A pointer to the string; null for `None`.
pub(super) fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn last_error() -> Option<String> {
        let text = memdl_error();
        // SAFETY: null, or a C string that lives until this thread's next `memdl_error`.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(last_error(), None);
        assert!(caught(|| -> Result<(), Failure> { panic!("as a test, {}", 1) }).is_none());
        assert_eq!(last_error().as_deref(), Some("memdl panicked: as a test, 1"));
        assert_eq!(last_error(), None);
    }

    #[test]
    fn a_nul_in_a_text_is_escaped() {
        assert!(noted::<()>(Err("one\0two".into())).is_none());
        assert_eq!(last_error().as_deref(), Some("one\\u{0}two"));
    }

    #[test]
    fn without_memory_the_text_takes_none() {
        assert!(noted::<()>(Err(crate::Error::out_of_memory(7).into())).is_none());
        assert_eq!(last_error().as_deref(), Some("out of memory: cannot allocate 7 bytes"));
        NO_MEMORY.set(true);
        assert_eq!(last_error().as_deref(), Some("out of memory"));
        assert_eq!(last_error(), None);
    }

    #[test]
    fn transparent_returns_the_value() {
        assert_eq!(transparent(|| 5), 5);
    }
}
