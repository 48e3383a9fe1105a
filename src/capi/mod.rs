//! The C API of `include/memdl.h`.
//!
//! Each function checks its pointers, calls the Rust API, and turns an error into a null pointer or -1 and
//! a text for the calling thread. The header states what arguments must be and who owns what. A
//! `# Safety` section here that says "the header's contract" refers to the header's comment on that
//! function. Handles are boxes; C holds their raw pointers.
//!
//! Panics and exceptions are handled apart. **Panics** are faults of memdl, and no C caller can handle
//! them: [`errors::caught`] turns them into error texts. **Exceptions** come from constructors,
//! destructors and callbacks. They pass through, as they pass through `dlopen`; `catch_unwind` would abort
//! on them. So a load has two halves. The first parses and binds hostile bytes inside
//! [`errors::caught`]. The second may run code of images or callbacks. It runs outside, in
//! [`errors::transparent`], in functions that are `extern "C-unwind"`. There, drops run while an
//! exception passes, and a panic aborts with its message, since a panic cannot be caught without
//! catching exceptions too.

mod backtrace;
mod buffers;
mod c_names;
mod callbacks;
mod error_details;
mod errors;
mod images;
mod library;
mod log;
mod logger;
mod namespaces;
mod options;
mod pointers;
mod reports;
mod symbols;
mod templates;
mod version;
