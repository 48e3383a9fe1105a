//! What a caller's source of needed libraries is asked.

#![forbid(unsafe_code)]

use std::path::Path;

use crate::host::search::SearchPath;

/// A library that an image needs, for [`Loader::provider`](crate::Loader::provider).
#[derive(Clone, Copy, Debug)]
pub struct LibraryRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) needed_by: &'a str,
    pub(crate) search_path: &'a SearchPath,
}

impl<'a> LibraryRequest<'a> {
    /// The name as the `DT_NEEDED` entry, or the call of `dlopen`, has it.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// let loader = memdl::Loader::new()
    ///     .provider(move |request| (request.name() == "libexample.so").then(|| bytes.clone().into()));
    /// // SAFETY: we trust the constructors of both.
    /// assert!(unsafe { loader.load(&plugin_bytes) }.is_ok()); // it needs libexample.so
    /// ```
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The name of the image, or the path of the library, that needs it.
    ///
    /// ```
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// let loader = memdl::Loader::new().provider(|request| {
    ///     assert_eq!(request.needed_by(), "libplugin.so");
    ///     None // so it is searched for as `dlopen` does
    /// });
    /// // SAFETY: we trust the library's constructors.
    /// assert!(unsafe { loader.load(&plugin_bytes) }.is_err());
    /// ```
    #[must_use]
    pub fn needed_by(&self) -> &'a str {
        self.needed_by
    }

    /// The folders in which what needs it has it searched: those of its `DT_RUNPATH`, or else of its `DT_RPATH` and of
    /// the `DT_RPATH`s of what it was itself loaded for. `$ORIGIN` is the folder of [`needed_by`](Self::needed_by) if
    /// that is an absolute path. So a provider finds what lies at these paths in an archive, and no such folder needs
    /// to exist. What all libraries of the process search (`LD_LIBRARY_PATH`, the cache, the system's folders) is
    /// not in the list.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// use std::path::Path;
    ///
    /// let loader = memdl::Loader::new().name("/archive.zip/libplugin.so").provider(move |request| {
    ///     // The plug-in was linked with `-rpath '$ORIGIN/deps'`.
    ///     let mut paths = request.folders().map(|folder| folder.join(request.name()));
    ///     let is_there = paths.any(|path| path == Path::new("/archive.zip/deps/libexample.so"));
    ///     is_there.then(|| bytes.clone().into())
    /// });
    /// // SAFETY: we trust the constructors of both.
    /// assert!(unsafe { loader.load(&plugin_bytes) }.is_ok());
    /// ```
    pub fn folders(&self) -> impl Iterator<Item = &'a Path> {
        self.search_path.own_folders()
    }
}
