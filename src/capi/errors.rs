//! Errors as text for each thread; panics and exceptions on their way up (see the head of the folder).

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

use crate::base::escape::Escaped;
use crate::base::fallible::require_memory;
use crate::base::fallible::try_c_string;
use crate::base::fallible::try_format;

/// A failure of this file's or of memdl's, on its way to being a text.
pub(super) enum Failure {
    Text(Cow<'static, str>),
    Memdl(crate::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Text(text) => f.write_str(text),
            Failure::Memdl(error) => error.fmt(f),
        }
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

/// The texts of a thread's failures.
#[derive(Default)]
pub(super) struct ThreadTexts {
    /// The text that `memdl_error` returns next.
    pending: Option<CString>,
    /// The text that it returned last: C has a pointer to it.
    returned: Option<CString>,
}

thread_local! {
    static TEXTS: RefCell<ThreadTexts> = RefCell::default();
    /// `memdl_error` says this next: there was no memory to say anything else. It needs none itself.
    static NO_MEMORY: Cell<bool> = const { Cell::new(false) };
}

/// With this thread's texts; `None` in a thread so far gone that it has none any more.
pub(super) fn with_texts<T>(change: impl FnOnce(&mut ThreadTexts) -> T) -> Option<T> {
    TEXTS.try_with(|texts| texts.try_borrow_mut().ok().map(|mut texts| change(&mut texts))).ok()?
}

/// The value; or `None`, with the failure's text kept for `memdl_error`.
pub(super) fn noted<T>(result: Result<T, Failure>) -> Option<T> {
    result
        .map_err(|failure| {
            // Names that come from images are in it.
            let text =
                require_memory().and_then(|()| try_format(format_args!("{}", Escaped(failure))));
            match text.map_err(Failure::from).and_then(|text| c_string(&text)) {
                Ok(text) => {
                    NO_MEMORY.set(false);
                    with_texts(|texts| texts.pending = Some(text));
                }
                Err(_) => NO_MEMORY.set(true),
            }
        })
        .ok()
}

/// Runs memdl's code: a panic is a failure like any other. No code of images or callbacks may run
/// in it but what must not throw (resolvers).
pub(super) fn caught<T>(body: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
    // A value that a panic leaves half changed is dropped with it or, like the thread's texts, stays valid.
    noted(catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(format!("memdl panicked: {}", text.unwrap_or("no reason given")).into())
    }))
}

/// Runs what can run code of images: exceptions pass, a panic aborts.
pub(super) fn transparent<T>(body: impl FnOnce() -> T) -> T {
    struct Unwinding {
        was_panicking: bool,
    }
    impl Drop for Unwinding {
        fn drop(&mut self) {
            // Only panics of the Rust runtime that this is linked with count; a foreign exception
            // unwinds through here without being one.
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

/// C's idea of success.
pub(super) fn status(done: Option<()>) -> c_int {
    if done.is_some() { 0 } else { -1 }
}

/// The text of the thread's last failure, once.
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

/// Up to the first NUL, if there is one.
pub(super) fn c_string(text: &str) -> Result<CString, Failure> {
    let text = text.split('\0').next().unwrap_or_default();
    Ok(try_c_string(text.as_bytes())?.unwrap_or_default())
}

/// Null for `None`.
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
    fn a_panic_is_an_error_like_others() {
        assert_eq!(last_error(), None);
        assert!(caught(|| -> Result<(), Failure> { panic!("as a test, {}", 1) }).is_none());
        assert_eq!(last_error().as_deref(), Some("memdl panicked: as a test, 1"));
        assert_eq!(last_error(), None);
    }

    #[test]
    fn a_nul_in_a_text_is_escaped() {
        assert!(noted::<()>(Err("told\0told".into())).is_none());
        assert_eq!(last_error().as_deref(), Some("told\\u{0}told"));
    }

    #[test]
    fn without_memory_the_text_takes_none() {
        assert!(noted::<()>(Err(crate::Error::out_of_memory(7).into())).is_none());
        assert_eq!(last_error().as_deref(), Some(": out of memory: 7 bytes are not to be had"));
        NO_MEMORY.set(true);
        assert_eq!(last_error().as_deref(), Some("out of memory"));
        assert_eq!(last_error(), None);
    }

    #[test]
    fn what_is_transparent_gives_its_value() {
        assert_eq!(transparent(|| 5), 5);
    }
}
