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

    /// `f(A<int, int>, A<A<int, int>, A<int, int>>, ...)`: each parameter says twice what the one
    /// before it says, and can say so in a few letters.
    fn doubling(parameters: usize) -> String {
        let mut name = String::from("_Z1f1AIiiE");
        for parameter in 1..parameters {
            // `S_` is `A`, the next is the first parameter, and so on; in base 36.
            let digit = char::from_digit(parameter as u32 - 1, 36).unwrap().to_ascii_uppercase();
            name.push_str(&format!("S_IS{digit}_S{digit}_E"));
        }
        name
    }

    #[test]
    fn a_short_name_for_a_very_long_one_stays_as_it_is() {
        assert_eq!(demangled(&doubling(2)), "f(A<int, int>, A<A<int, int>, A<int, int> >)");
        let start = std::time::Instant::now();
        for parameters in [20, 30] {
            let name = doubling(parameters);
            assert_eq!(demangled(&name), name);
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(1));
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
