//! Escaped text: names from images, made safe to print.
//!
//! The author of an image chooses its names (of symbols, versions, libraries, source files, sections).
//! A terminal obeys an escape sequence, a log file reads a newline as the next entry, and
//! right-to-left text can hide its meaning. So memdl's texts (errors, log messages, frames, the maps
//! for profilers) show such characters as Rust's escapes. Fields of public types keep the names
//! unchanged.
//!
//! Backslashes stay, so escaping a text twice is harmless, and a path stays a path. No stored name is
//! changed: the types here only display.
//!
//! Sources: Unicode Standard Annex 9 (the bidirectional controls), Technical Report 36 "Unicode
//! Security Considerations"; CVE-2021-42574.

#![forbid(unsafe_code)]

use std::fmt::{self, Write};

/// Displays `T` with each treacherous character escaped.
pub(crate) struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Displays bytes that should be UTF-8: invalid ones as `\xff`, the rest as [`Escaped`].
pub(crate) struct Utf8<'a>(pub &'a [u8]);

impl fmt::Display for Utf8<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            Escaping(f).write_str(chunk.valid())?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// Logs at a level (`warn`, `info`, ..), with the text escaped. memdl logs through this macro only.
macro_rules! logged {
    ($level:ident, $($text:tt)*) => {
        log::$level!("{}", $crate::base::escape::Escaped(format_args!($($text)*)))
    };
}

/// Escapes the text that is written through it.
struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // Usually there is nothing to escape, and the text is written in one piece.
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_treacherous(*c)) {
            let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
            self.0.write_str(before)?;
            write!(self.0, "{}", c.escape_default())?;
            rest = from.get(c.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

/// Whether a character moves the cursor, ends the line, changes the direction of the text, or is
/// invisible: readers and programs could misread the text.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' // soft hyphen
            | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            // Zero-width characters and marks of direction; separators of lines and paragraphs,
            // embeddings and overrides; invisible operators and isolates.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            // Tags and further variation selectors.
            | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn treacherous_characters_are_escaped_and_others_stay() {
        for (text, shown) in [
            ("plain naïve 名前 \\n", "plain naïve 名前 \\n"),
            ("a\x1b[31mb\nc\r\t\0\x7f\u{9b}", r"a\u{1b}[31mb\nc\r\t\u{0}\u{7f}\u{9b}"),
            ("x\u{202e}y\u{2066}z\u{200b}\u{feff}", r"x\u{202e}y\u{2066}z\u{200b}\u{feff}"),
            ("\u{2028}\u{e0041}", r"\u{2028}\u{e0041}"),
            ("", ""),
        ] {
            let once = Escaped(text).to_string();
            assert_eq!(once, shown);
            assert_eq!(Escaped(&once).to_string(), once, "twice is as once");
        }
        assert_eq!(Utf8(b"a\xff\xc3(\nb\xe2\x80").to_string(), r"a\xff\xc3(\nb\xe2\x80");
    }
}
