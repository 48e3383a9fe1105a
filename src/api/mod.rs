//! The public Rust API.

#[cfg(feature = "symbolize")]
pub(crate) mod backtrace;
pub(crate) mod closed;
pub(crate) mod function_symbol;
mod image_buffer;
pub(crate) mod images;
pub(crate) mod kept_memory;
pub(crate) mod library;
pub(crate) mod loader;
pub(crate) mod namespace;
pub(crate) mod pool;
pub(crate) mod report;
mod report_text;
pub(crate) mod startup;
pub(crate) mod symbol_name;

use std::panic::{RefUnwindSafe, UnwindSafe};

// A panic leaves no state half changed: locks are not poisoned, and what a panicking callback was called for is
// undone as any failure is.
impl UnwindSafe for library::Template {}
impl RefUnwindSafe for library::Template {}
impl UnwindSafe for pool::Pool {}
impl RefUnwindSafe for pool::Pool {}
impl UnwindSafe for pool::Pooled {}
impl RefUnwindSafe for pool::Pooled {}
impl UnwindSafe for namespace::Namespace {}
impl RefUnwindSafe for namespace::Namespace {}

#[cfg(test)]
mod tests {
    use std::panic::{RefUnwindSafe, UnwindSafe};

    use crate::{ImageBuffer, ImageInfo, Library, Namespace, Pool, Pooled, Template};

    fn is_for_all<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}

    #[test]
    fn types_are_for_threads_and_catch_unwind() {
        is_for_all::<Library>();
        is_for_all::<Template>();
        is_for_all::<Pool>();
        is_for_all::<Pooled>();
        is_for_all::<Namespace>();
        is_for_all::<ImageInfo>();
        is_for_all::<ImageBuffer>();
    }
}
