//! Takes the place of `debugger_commands.rs` in a build without the feature `debug`.

#![forbid(unsafe_code)]

use crate::base::error::Error;
use crate::debug::DebugLevel;
use crate::images::group::LoadedImage;

const WHAT: &str = "showing it to debuggers, since memdl was built without its feature `debug`";

pub(crate) fn set_debug(loaded: &LoadedImage, debug: DebugLevel) -> Result<(), Error> {
    match debug {
        DebugLevel::Off => Ok(()),
        _ => Err(Error::unsupported(WHAT).in_image(&loaded.name)),
    }
}

pub(crate) fn set_debug_info(loaded: &LoadedImage, _file: &[u8]) -> Result<(), Error> {
    Err(Error::unsupported(WHAT).in_image(&loaded.name))
}

pub(crate) fn keep() {}

pub(crate) fn set_up() {}
