//! Errors of the program: one line on standard error, with what to do about it.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

/// Why the program ends.
#[derive(Debug)]
pub struct Failure {
    text: String,
    code: u8,
}

/// A library is refused, or something is not there.
pub const REFUSED: u8 = 1;
/// The command cannot be carried out as it was typed.
pub const USAGE: u8 = 2;

impl Failure {
    /// What was requested is not possible. Exit code 1.
    pub fn refused(text: impl Display) -> Failure {
        Failure { text: text.to_string(), code: REFUSED }
    }

    /// The command line, or a file that it names, is wrong. Exit code 2.
    pub fn usage(text: impl Display) -> Failure {
        Failure { text: text.to_string(), code: USAGE }
    }

    /// A file that cannot be read.
    pub fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Failure {
        Failure::usage(format!("cannot read {}: {error}", path.display()))
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    pub fn print(&self) {
        complain(&self.text);
    }
}

/// Advice in memdl's texts, which names the Rust API, and what it is here. Longer ones come first.
const ADVICE: [(&str, &str); 5] = [
    (
        "supply each with Loader::provide(name, bytes), Loader::provider(..) or Loader::depends_on(&library)",
        "supply each with --provide NAME=FILE",
    ),
    ("let memdl open it with Loader::system_libraries(true)", "leave out --no-system-libraries"),
    ("system_libraries(false) was chosen", "--no-system-libraries was chosen"),
    (
        "supply them with Loader::define(name, address), Loader::resolver(..), or a library",
        "name the program that has them (--host EXE), or supply a library (--provide NAME=FILE)",
    ),
    ("Loader::define(name, address)", "--host EXE"),
];

/// An error's text, with advice for the command line.
pub fn advise(text: &str) -> String {
    ADVICE.iter().fold(text.to_owned(), |text, (api, here)| text.replace(api, here))
}

/// Prints an error, on one line.
pub fn complain(text: &str) {
    let text = advise(text).replace('\n', "; ");
    anstream::eprintln!("{ERROR}memdl:{ERROR:#} {text}");
}

/// Of what is wrong.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Of what is right.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Of what is less important.
pub const DIM: Style = Style::new().dimmed();
/// Of titles.
pub const TITLE: Style = Style::new().bold();
