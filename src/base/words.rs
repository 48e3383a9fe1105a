//! Words for options: what `Display` writes, what `FromStr` and environment variables read.

#![forbid(unsafe_code)]

/// A word that names no value of an option.
///
/// ```
/// let error = "everything".parse::<memdl::DebugLevel>().unwrap_err();
/// assert_eq!(error.to_string(), "`everything` is none of off, symbols, full, portable");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is none of {known}", crate::base::escape::Escaped(word))]
pub struct UnknownWord {
    pub(crate) word: String,
    pub(crate) known: String,
}

/// Implements `Display` and `FromStr` by a list of words and values, each value once.
macro_rules! words {
    ($type:ident, $words:expr) => {
        impl std::fmt::Display for $type {
            /// Writes the word that [`FromStr`](std::str::FromStr) reads.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let word = $words.iter().find(|(_, value)| value == self);
                f.pad(word.map_or("", |(word, _)| word))
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::base::words::UnknownWord;

            fn from_str(word: &str) -> Result<$type, Self::Err> {
                $crate::base::environment::named(word, &$words).ok_or_else(|| {
                    let known: Vec<&str> = $words.iter().map(|(word, _)| *word).collect();
                    Self::Err { word: word.to_owned(), known: known.join(", ") }
                })
            }
        }
    };
}
pub(crate) use words;

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};
    use std::str::FromStr;

    use crate::{Binding, Profile, Reset, Scope};

    fn assert_each<T: Copy + PartialEq + Debug + Display + FromStr>(values: &[T]) {
        for value in values {
            let word = value.to_string();
            assert!(!word.is_empty() && word.parse().ok() == Some(*value), "{value:?}: {word}");
        }
    }

    #[test]
    fn each_value_has_a_word() {
        use crate::DebugLevel::{Full, Off, Portable, Symbols};
        assert_each(&[Off, Symbols, Full, Portable]);
        use Profile::{File, JitDump, LivePerfMap, PerfMap};
        assert_each(&[Profile::Off, PerfMap, LivePerfMap, JitDump, File]);
        assert_each(&[Binding::Now, Binding::Lazy]);
        assert_each(&[Scope::HostFirst, Scope::SelfFirst]);
        assert_each(&[Reset::AfterConstructors, Reset::BeforeConstructors]);
        assert_eq!(format!("{:>8}", Binding::Lazy), "    lazy");
        assert!("Full".parse::<crate::DebugLevel>().is_err() && "".parse::<Scope>().is_err());
    }
}
