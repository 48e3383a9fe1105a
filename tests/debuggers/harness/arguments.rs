//! The command line, as `cargo test` hands it on: `cargo test --test debuggers -- parity clang_o2`.
//!
//! Words that are the beginning of tests' paths (`parity`, `parity::late`) choose those tests. Of the other
//! words a test's name must have one, if there are any. With `--exact`, a word is a whole name.

use libtest_mimic::{Arguments, Trial};

/// Options with a value as the next word.
const WITH_VALUE: &[&str] = &["--skip", "--test-threads", "--format", "--color", "--logfile", "-Z"];

/// The options, and the tests that are chosen.
pub fn chosen(
    command_line: impl Iterator<Item = String>,
    tests: Vec<Trial>,
) -> (Arguments, Vec<Trial>) {
    let (mut options, mut words) = (vec![], vec![]);
    let mut command_line = command_line.peekable();
    options.extend(command_line.next());
    while let Some(word) = command_line.next() {
        let takes_value = WITH_VALUE.contains(&&*word);
        if word.starts_with('-') { &mut options } else { &mut words }.push(word);
        if takes_value {
            options.extend(command_line.next());
        }
    }
    let arguments = Arguments::from_iter(options);
    let names: Vec<String> = tests.iter().map(|test| test.name().to_owned()).collect();
    let is_chosen = choice(&names, &words, arguments.exact);
    let tests = tests.into_iter().filter(|test| is_chosen(test.name())).collect();
    (arguments, tests)
}

fn choice(names: &[String], words: &[String], exact: bool) -> impl Fn(&str) -> bool {
    let begins = |name: &str, word: &str| {
        name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let is_path = |word: &&String| names.iter().any(|name| begins(name, word));
    let (paths, parts): (Vec<String>, Vec<String>) =
        words.iter().cloned().partition(|word| !exact && is_path(&word));
    move |name| {
        if exact {
            return parts.is_empty() || parts.iter().any(|word| word == name);
        }
        (paths.is_empty() || paths.iter().any(|path| begins(name, path)))
            && (parts.is_empty() || parts.iter().any(|word| name.contains(word)))
    }
}

/// As it says above.
pub fn words_choose_tests() {
    let names = ["parity::late::a::gcc", "parity::cxx::b::clang", "debug::clang"].map(String::from);
    let chosen = |words: &[&str], exact| {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let is_chosen = choice(&names, &words, exact);
        names.iter().map(|name| is_chosen(name)).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&[], false), [true, true, true]);
    assert_eq!(chosen(&["clang"], false), [false, true, true]);
    assert_eq!(chosen(&["parity", "clang"], false), [false, true, false]);
    assert_eq!(chosen(&["parity", "clang", "gcc"], false), [true, true, false]);
    assert_eq!(chosen(&["parity::late", "debug"], false), [true, false, true]);
    assert_eq!(chosen(&["debug::clang"], true), [false, false, true]);
    assert_eq!(chosen(&["debug"], true), [false, false, false]);
}
