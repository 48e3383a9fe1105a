//! The global scope of images: what `RTLD_GLOBAL` does, at a load or later.
//!
//! Keeps no list: images' is the registry's, and libraries' is `ld.so`'s.
//!
//! Source: `dlopen(3)`.

#![forbid(unsafe_code)]

use crate::base::error::Error;
use crate::images::dlsym;
use crate::images::group::{ImageRef, Provider};
use crate::images::registry;

/// Makes the exports of an image, and of all libraries that it needs, visible to what is loaded later.
pub(crate) fn promote(image: &ImageRef) -> Result<(), Error> {
    for provider in dlsym::searchlist(Provider::Image(image.clone()))? {
        match provider {
            Provider::Image(image) => registry::make_global(&image)?,
            Provider::Host(library) => library.make_global(),
            Provider::Member(_) => {}
        }
    }
    Ok(())
}
