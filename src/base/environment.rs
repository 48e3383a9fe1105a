//! What the operator says: environment variables that override what the program has chosen.
//!
//! Most are one word out of a list. A word that is not in the list is logged and changes nothing,
//! so that a slip of the operator's never makes a load fail.

#![forbid(unsafe_code)]

use std::path::PathBuf;

/// What the environment variable says, by the words in `known`; if it is not set or says nothing
/// that is known, `chosen`.
pub(crate) fn overridden<T: Copy>(variable: &str, known: &[(&str, T)], chosen: T) -> T {
    let Some(value) = std::env::var_os(variable) else {
        return chosen;
    };
    value.to_str().and_then(|word| named(word, known)).unwrap_or_else(|| {
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        logged!(warn, "{variable}={value:?} is none of {}: ignored", words.join(", "));
        chosen
    })
}

/// The folders that the environment variable lists, with colons between them; if it is not set,
/// `otherwise`.
pub(crate) fn folders(variable: &str, otherwise: &str) -> Vec<PathBuf> {
    let listed = std::env::var_os(variable).unwrap_or_else(|| otherwise.into());
    std::env::split_paths(&listed).filter(|folder| folder.is_absolute()).collect()
}

/// What `word` means by the list.
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
        // No test may set a variable while others run; this one nobody sets.
        assert_eq!(overridden("MEMDL_TEST_NEVER_SET", &known, 7), 7);
        // And this one everybody has, with a value that is in no list.
        assert_eq!(overridden("PATH", &known, 7), 7);
    }
}
