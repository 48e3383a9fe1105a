//! Environment variables, with which the operator overrides the program's choices.
//!
//! A process that runs with more rights than its user has (`secure_getenv(3)`) takes none: its user is no
//! operator. The value of most is one word of a list. A word that is not in the list is logged and changes
//! nothing: a typing error never makes a load fail. This file sets no variable and caches none.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;

/// Whether the process runs with more rights than its user has.
pub(crate) fn is_secure() -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The value of an environment variable that is for operators.
pub(crate) fn value(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|_| !is_secure())
}

/// The meaning of the environment variable's value by the words in `known`; `chosen` if the variable is
/// not set, or its value is none of them.
pub(crate) fn overridden<T: Copy>(variable: &str, known: &[(&str, T)], chosen: T) -> T {
    let Some(value) = value(variable) else {
        return chosen;
    };
    value.to_str().and_then(|word| named(word, known)).unwrap_or_else(|| {
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        logged!(warn, "{variable}={value:?} is none of {}: ignored", words.join(", "));
        chosen
    })
}

/// The absolute folders in the environment variable, which separates them with colons; those in
/// `otherwise` if it is not set.
pub(crate) fn folders(variable: &str, otherwise: &str) -> Vec<PathBuf> {
    let listed = value(variable).unwrap_or_else(|| otherwise.into());
    std::env::split_paths(&listed).filter(|folder| folder.is_absolute()).collect()
}

/// The meaning of `word` by the list.
pub(crate) fn named<T: Copy>(word: &str, known: &[(&str, T)]) -> Option<T> {
    known.iter().find(|(other, _)| *other == word).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_of_the_list_overrides() {
        let known = [("off", 0), ("on", 1)];
        assert_eq!(
            ["off", "on", "On", ""].map(|word| named(word, &known)),
            [Some(0), Some(1), None, None]
        );
        // Tests run in threads, so none may set a variable. Nothing sets this one.
        assert_eq!(overridden("MEMDL_TEST_NEVER_SET", &known, 7), 7);
        // This one is always set, to a value that is in no list.
        assert_eq!(overridden("PATH", &known, 7), 7);
    }
}
