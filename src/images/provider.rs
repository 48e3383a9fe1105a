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
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The name of the image, or the path of the library, that needs it.
    #[must_use]
    pub fn needed_by(&self) -> &'a str {
        self.needed_by
    }
}
