//! Takes the place of `mod.rs` in a build without the feature `profile`: profilers see no image.
//!
//! It has what the other folders name of the real one, and does nothing. So their code is the same in both builds.

#![forbid(unsafe_code)]

mod form;

use crate::debug::DebugRegistration;
use crate::memory::bytes::Image;
use crate::memory::mapped_file::ImageFile;
use crate::memory::mapping::Mapping;
use crate::memory::stage::Sealed;

pub use form::Profile;

impl Profile {
    /// The way of an image that is loaded with this one.
    pub(crate) fn effective(self) -> Profile {
        let requested = self.requested();
        if requested != Profile::Off {
            logged!(
                warn,
                "profilers will not see an image ({requested}): memdl was built without its feature `profile`"
            );
        }
        Profile::Off
    }
}

/// What no instance has.
pub(crate) enum Registration {}

impl Registration {
    pub(crate) fn new(
        _: Profile,
        _name: &str,
        _: &Image<'_>,
        _debug_info: Option<&[u8]>,
        _: &Mapping<Sealed>,
        _: &DebugRegistration,
    ) -> Option<Registration> {
        None
    }
}

pub(crate) fn image_file(_: Profile, _name: &str, _: &Image<'_>) -> Option<ImageFile> {
    None
}

pub(crate) fn finish() {}
