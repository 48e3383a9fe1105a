//! What a caller's source of needed libraries is asked.

#![forbid(unsafe_code)]

/// A library that an image needs, for [`Loader::provider`](crate::Loader::provider).
#[derive(Clone, Copy, Debug)]
pub struct LibraryRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) needed_by: &'a str,
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
}
