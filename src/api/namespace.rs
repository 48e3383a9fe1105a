//! The namespaces that callers hold.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use crate::images::group::LoadGroup;
use crate::images::namespace;

/// Images that find each other by name and by file, for [`Loader::namespace`](crate::Loader::namespace).
///
/// A clone is the same namespace. It keeps no image loaded, and lives as long as it, or an image in it, does.
///
/// ```
/// let namespace = memdl::Namespace::new();
/// let loaders = ["one", "other"].map(|name| memdl::Loader::new().name(name).namespace(&namespace));
/// ```
#[derive(Clone)]
pub struct Namespace(pub(crate) Arc<namespace::Namespace<LoadGroup>>);

impl Namespace {
    /// A namespace without images.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// let namespace = memdl::Namespace::new();
    /// let loader = memdl::Loader::new().namespace(&namespace);
    /// // SAFETY: we trust the constructors of both. The second one needs libexample.so, and finds the first.
    /// let libraries = unsafe { (loader.load(&bytes)?, loader.load(&plugin_bytes)?) };
    /// assert_eq!(memdl::images().len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new() -> Namespace {
        Namespace(namespace::Namespace::new())
    }
}

impl Default for Namespace {
    fn default() -> Namespace {
        Namespace::new()
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").finish_non_exhaustive()
    }
}
