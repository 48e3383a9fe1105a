//! How much debuggers see of an image.
//!
//! A build without the feature `debug` has this file, too: what it does with a level is in `without.rs`.

#![forbid(unsafe_code)]

use crate::base::environment;
use crate::base::words::words;

/// The environment variable that an operator can set, see [`DebugLevel::requested`].
const ENVIRONMENT: &str = "MEMDL_DEBUG";
const WORDS: [(&str, DebugLevel); 4] = [
    ("off", DebugLevel::Off),
    ("symbols", DebugLevel::Symbols),
    ("full", DebugLevel::Full),
    ("portable", DebugLevel::Portable),
];

/// How much a debugger sees of an image.
///
/// The environment variable `MEMDL_DEBUG` (`off`, `symbols`, `full`, `portable`) overrides what
/// the program has chosen, so that a process can be made more or less visible without a rebuild.
///
/// ```
/// use memdl::DebugLevel;
///
/// assert_eq!("symbols".parse(), Ok(DebugLevel::Symbols));
/// assert_eq!(DebugLevel::default().to_string(), "full");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DebugLevel {
    /// Nothing. No entry is made, no byte is copied.
    Off,
    /// Names of functions and variables, and how to walk the stack through the image. Less for a
    /// debugger to read; the image's debug sections are kept all the same, so that
    /// [`Library::set_debug`](crate::Library::set_debug) can show more later.
    Symbols,
    /// Everything that the image has: lines, types, variables. gdb 8.1 or newer sees it as if the image
    /// had come from a file; lldb sees names and backtraces. Needs a copy of the image's debug
    /// sections. A debugger that is there at the load sees an image of at most 8 MiB as with
    /// [`DebugLevel::Portable`]: gdb takes half as long for it, and lldb sees all.
    #[default]
    Full,
    /// As [`DebugLevel::Full`], for lldb as well as gdb. Reads all debug information at load, about 1 ms
    /// for each MB, and keeps it twice. If it cannot all be read with certainty (split DWARF, or
    /// damaged), this is [`DebugLevel::Full`], and a warning is logged.
    ///
    /// Neither this nor [`DebugLevel::Full`] unpacks or reads more than [`Limits::unpacked_debug_info`](crate::Limits::unpacked_debug_info) and
    /// [`Limits::debug_info_steps`](crate::Limits::debug_info_steps) allow: beyond that it is [`DebugLevel::Symbols`], and a warning is logged.
    Portable,
}

words!(DebugLevel, WORDS);

impl DebugLevel {
    /// The level that the environment requests, or `self` if it requests none that exists.
    pub(crate) fn requested(self) -> DebugLevel {
        environment::overridden(ENVIRONMENT, &WORDS, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_in_the_environment_are_those_documented() {
        let named = ["off", "symbols", "full", "portable", "Full", ""]
            .map(|word| environment::named(word, &WORDS));
        assert_eq!(
            named,
            [
                Some(DebugLevel::Off),
                Some(DebugLevel::Symbols),
                Some(DebugLevel::Full),
                Some(DebugLevel::Portable),
                None,
                None
            ]
        );
        assert_eq!(DebugLevel::default(), DebugLevel::Full);
    }
}
