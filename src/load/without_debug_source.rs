//! Takes the place of `debug_source.rs` in a build without the feature `debug`.

#![forbid(unsafe_code)]

use crate::base::error::Error;
use crate::base::limits::Limits;
use crate::debug::{DebugLevel, DebugTemplate, Instances};
use crate::memory::bytes::Image;

/// Nothing. A debug file that the program supplies is not looked at.
pub(super) fn debug_template(
    name: &str,
    _: &Image<'_>,
    separate: Option<&[u8]>,
    _: DebugLevel,
    _: Instances,
    _: &Limits,
) -> Result<Option<DebugTemplate>, Error> {
    if separate.is_some() {
        logged!(
            warn,
            "{name}: its debug file is ignored: memdl was built without its feature `debug`"
        );
    }
    Ok(None)
}
