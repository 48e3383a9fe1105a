//! Advice in texts, in names of the C API.
//!
//! memdl's texts name functions of the Rust API. Here these become names of `memdl.h`. A test of the source
//! (`tests/house/tidy.rs`) fails where a text has a name that this file does not know.

#![forbid(unsafe_code)]

use std::borrow::Cow;

use crate::base::error::Error;
use crate::base::fallible::try_push_str;

/// Names of the Rust API as texts have them, and what they are in C. The first that fits counts.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("Loader::provide(name, bytes)", "memdl_options_provide"),
    ("Loader::provider(..)", "memdl_options_set_provider"),
    ("Loader::depends_on(&library)", "memdl_options_depends_on"),
    ("Loader::define(name, address)", "memdl_options_define"),
    ("Loader::resolver(..)", "memdl_options_set_resolver"),
    ("Loader::imports(..)", "memdl_options_allow_imports"),
    ("Loader::system_libraries(true)", "memdl_options_set_system_libraries(options, 1)"),
    ("system_libraries(false)", "memdl_options_set_system_libraries(options, 0)"),
    ("Loader::debug_info", "memdl_options_set_debug_info"),
    ("Loader::seal", "memdl_options_set_seal"),
    ("Library::set_debug_info", "memdl_set_debug_info"),
    ("DebugLevel::Off", "MEMDL_DEBUG_OFF"),
    ("DebugLevel::Symbols", "MEMDL_DEBUG_SYMBOLS"),
    ("DebugLevel::Full", "MEMDL_DEBUG_FULL"),
    ("DebugLevel::Portable", "MEMDL_DEBUG_PORTABLE"),
    ("Limits::unpacked_debug_info", "MEMDL_LIMIT_UNPACKED_DEBUG_INFO"),
    ("Limits::debug_info_steps", "MEMDL_LIMIT_DEBUG_INFO_STEPS"),
];

/// The text with the names of the C API.
pub(super) fn in_c_names(text: &str) -> Result<Cow<'_, str>, Error> {
    let mut changed = String::new();
    let mut rest = text;
    while let Some((at, name, c_name)) = first_name(rest) {
        let (before, from) = rest.split_at(at);
        try_push_str(&mut changed, before)?;
        try_push_str(&mut changed, c_name)?;
        rest = from.get(name.len()..).unwrap_or_default();
    }
    if changed.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    try_push_str(&mut changed, rest)?;
    Ok(Cow::Owned(changed))
}

/// The first name of the Rust API in a text: where it is, and what it is in C.
fn first_name(text: &str) -> Option<(usize, &'static str, &'static str)> {
    let found = NAMES.iter().filter_map(|&(name, c_name)| Some((text.find(name)?, name, c_name)));
    // Of two at one place, the one that is listed first.
    found.min_by_key(|&(at, ..)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_those_of_c() {
        let text = "define it with Loader::define(name, address), or Loader::resolver(..), or not";
        let c = "define it with memdl_options_define, or memdl_options_set_resolver, or not";
        assert_eq!(in_c_names(text).unwrap(), c);
        assert!(matches!(in_c_names("nothing to change").unwrap(), Cow::Borrowed(_)));
        let both = "Loader::system_libraries(true) and system_libraries(false)";
        let c = "memdl_options_set_system_libraries(options, 1) and memdl_options_set_system_libraries(options, 0)";
        assert_eq!(in_c_names(both).unwrap(), c);
    }
}
