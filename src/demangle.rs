//! From linkage names to what people write: Rust and C++.
//!
//! Names come from hostile bytes, and a short C++ name can stand for a very long one (it can refer
//! to its own parts again and again). So the result has a limit, and a name that exceeds it or
//! cannot be read stays as it is.
//!
//! Sources: Itanium C++ ABI 5.1; Rust RFC 2603 and the older scheme, by the crates that know them.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The name as its author knows it, at most four times as long and a bit.
pub(crate) fn demangled(name: &str) -> Cow<'_, str> {
    let mut text = Limited { text: String::new(), room: 4 * name.len() + 128 };
    let is_done = if let Ok(symbol) = rustc_demangle::try_demangle(name) {
        // `{:#}` leaves out the hash.
        write!(text, "{symbol:#}").is_ok()
    } else if name.starts_with("_Z") {
        let options = cpp_demangle::DemangleOptions::new().recursion_limit(128);
        cpp_demangle::BorrowedSymbol::new(name.as_bytes())
            .is_ok_and(|symbol| symbol.structured_demangle(&mut text, &options).is_ok())
    } else {
        false
    };
    if is_done { Cow::Owned(text.text) } else { Cow::Borrowed(name) }
}

/// A text that takes no more than it has room for.
struct Limited {
    text: String,
    room: usize,
}

impl Write for Limited {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.room = self.room.checked_sub(part.len()).ok_or(fmt::Error)?;
        self.text.push_str(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_languages_become_readable_and_others_stay() {
        let names = [
            ("_ZN3foo3barEi", "foo::bar(int)"),
            (
                "_ZNKSt6vectorIiSaIiEE4sizeEv",
                "std::vector<int, std::allocator<int> >::size() const",
            ),
            ("_ZN4core3ptr4read17h0123456789abcdefE", "core::ptr::read"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("memcpy", "memcpy"),
            ("_Z", "_Z"),
            ("", ""),
        ];
        for (name, readable) in names {
            assert_eq!(demangled(name), readable);
        }
    }

    /// `pair<pair<..., ...>, pair<..., ...>>`: each level says twice what the one below says.
    #[test]
    fn a_short_name_for_a_very_long_one_stays_as_it_is() {
        let mut argument = String::from("1AIiiE");
        let mut name = String::from("_Z1f1AIiiE");
        let mut substitution = String::from("S_");
        for level in 0..60 {
            argument = format!("1BI{substitution}{substitution}E");
            name.push_str(&argument);
            substitution = match level {
                0 => "S0_".into(),
                _ => format!("S{}_", radix_36(2 * level)),
            };
        }
        assert!(argument.len() < 20);
        let start = std::time::Instant::now();
        let shown = demangled(&name);
        assert!(shown.len() <= 4 * name.len() + 128);
        assert!(start.elapsed() < std::time::Duration::from_secs(1));
    }

    fn radix_36(mut number: u32) -> String {
        let mut digits = vec![];
        loop {
            digits.push(char::from_digit(number % 36, 36).unwrap().to_ascii_uppercase());
            number /= 36;
            if number == 0 {
                return digits.into_iter().rev().collect();
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let names = ["_ZNKSt6vectorIiSaIiEE4sizeEv", "_RNvMs_NtCs1_5alloc3vecINtB5_3VecpE4push"];
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for round in 0..20_000 {
            let mut name = names[round % 2].as_bytes().to_vec();
            for _ in 0..1 + random(4) {
                let at = 2 + random(name.len() - 2);
                name[at] = b"0123456789ABCEIKLMNQRSTZ_abehijlmnsvwxyz$."[random(42)];
            }
            let name = String::from_utf8(name).unwrap();
            assert!(demangled(&name).len() <= 4 * name.len() + 128);
        }
    }
}
