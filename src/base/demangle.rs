//! Demangles the linkage names of Rust and C++.
//!
//! Names come from hostile bytes, and a short C++ name can stand for a very long one, since it can refer
//! to its own parts repeatedly. So the result has a limit. A name is returned as it is if its result exceeds
//! the limit, if it is malformed, too long, or nested too deeply.
//!
//! Both demangling crates recurse with large stack frames, and the time of the C++ one is exponential in the
//! depth. They have a limit on the depth; that of C++ is lowered here. Even so they need more stack than small
//! threads have, so for those another thread does the work.
//!
//! Sources: Itanium C++ ABI 5.1; Rust RFC 2603 and the legacy scheme, as the crates implement them.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::thread;

use crate::base::room::has_room;
use crate::base::stack::stack_room;

/// The longest name that is demangled, in bytes.
const MAX_NAME: usize = 32 << 10;
/// As [`MAX_NAME`], in C++.
const MAX_CPP_NAME: usize = 4 << 10;

/// The recursion limit of the C++ parser. Of the 51,000 names that libstdc++ and LLVM 19 export, 1 % are
/// nested deeper.
const MAX_DEPTH: u32 = 40;

/// The most stack that the crates need, measured with names that are nested in every way. A build without
/// optimisation needs several times as much.
const STACK: usize = if cfg!(debug_assertions) { 4 << 20 } else { 512 << 10 };

/// The demangled name; the name itself if it cannot be demangled. It is at most four times as long as the
/// name, and 128 bytes.
pub(crate) fn demangled(name: &str) -> Cow<'_, str> {
    // The prefixes of all schemes. On some systems an underscore comes before or is missing.
    let may_be_mangled = name.starts_with(['_', 'Z', 'R']) && name.len() <= MAX_NAME;
    let readable = if !may_be_mangled {
        None
    } else if stack_room().is_some_and(|room| room >= STACK) {
        readable(name)
    } else if !has_room(STACK) {
        // Starting a thread without memory for both its stack and its signal stack would abort.
        None
    } else {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("memdl-names".into()).stack_size(STACK);
            thread.spawn_scoped(scope, || readable(name)).ok()?.join().ok()?
        })
    };
    readable.map_or(Cow::Borrowed(name), Cow::Owned)
}

fn readable(name: &str) -> Option<String> {
    let mut text =
        Limited { text: String::new(), room: name.len().saturating_mul(4).saturating_add(128) };
    if let Ok(symbol) = rustc_demangle::try_demangle(name) {
        // `{:#}` leaves out the hash.
        write!(text, "{symbol:#}").ok()?;
    } else if name.starts_with("_Z") && name.len() <= MAX_CPP_NAME {
        let reading = cpp_demangle::ParseOptions::default().recursion_limit(MAX_DEPTH);
        let options = cpp_demangle::DemangleOptions::new().recursion_limit(128);
        let symbol = cpp_demangle::BorrowedSymbol::new_with_options(name.as_bytes(), &reading);
        symbol.ok()?.structured_demangle(&mut text, &options).ok()?;
    } else {
        return None;
    }
    Some(text.text)
}

/// A string with a limit on its length.
struct Limited {
    text: String,
    room: usize,
}

impl Write for Limited {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.room = self.room.checked_sub(part.len()).ok_or(fmt::Error)?;
        // Not by `symfile/src/base/fallible.rs`, whose errors use this file.
        self.text.try_reserve(part.len()).map_err(|_| fmt::Error)?;
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

    /// `f(A<int, int>, A<A<int, int>, A<int, int>>, ...)`: the type of each parameter contains that of the
    /// one before it twice, as a reference of a few letters.
    fn doubling(parameters: usize) -> String {
        let mut name = String::from("_Z1f1AIiiE");
        for parameter in 1..parameters {
            // Substitutions: `S_` is `A`, `S0_` the first parameter, and so on, in base 36.
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

    /// Names that are nested in every way in which the crates recurse.
    fn nested(depth: usize) -> Vec<String> {
        let around = |before: &str, inner: &str, middle: &str, behind: &str| {
            format!("{before}{}{middle}{}", inner.repeat(depth), behind.repeat(depth))
        };
        vec![
            around("_R", "Nv", "C1a", "1b"),
            around("_RI", "I", "NvC1a1b", "E") + "E",
            around("_RINvC1a1b", "R", "h", "") + "E",
            around("_RINvC1a1b", "F", "u", "Eu") + "E",
            around("_RINvC1a1bK", "T", "j0_", "E") + "E",
            around("_Z1f", "P", "i", ""),
            around("_Z1f", "1AI", "i", "E"),
            around("_Z1f", "PFv", "i", "E"),
            around("_Z1f", "A1_", "i", ""),
            around("_Z1f", "M1A", "i", ""),
            around("_Z", "Z", "1fv", "E") + "1x",
            around("_Z1fIX", "ng", "Li1E", "") + "EEvT_",
        ]
    }

    #[test]
    fn a_small_stack_is_enough_for_names_that_are_nested() {
        let run = || {
            for depth in [1, 20, 40, 100, 400, 3000] {
                for name in nested(depth) {
                    let text = demangled(&name).into_owned();
                    assert_ne!(text, "");
                    if depth == 1 && !name.starts_with("_ZZ") {
                        assert_ne!(text, name);
                    }
                }
            }
            assert_eq!(demangled("_ZN3foo3barEi"), "foo::bar(int)");
        };
        thread::Builder::new().stack_size(64 << 10).spawn(run).unwrap().join().unwrap();
    }

    /// Found by a fuzzer: with the crate's default limits these took 11 s and 4 s.
    #[test]
    fn names_that_can_be_read_in_many_ways_do_not_take_forever() {
        let start = std::time::Instant::now();
        for count in [13, 26, 50, 400] {
            for part in ["qu", "StI", "Dp", "plS_quplS_IququDp", "StDpDp", "DpStS1_I"] {
                let name = format!("_Z1f{}iEE", part.repeat(count));
                demangled(&name);
            }
        }
        let elapsed = start.elapsed();
        println!("{elapsed:?}");
        assert!(elapsed < std::time::Duration::from_secs(20), "{elapsed:?}");
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
