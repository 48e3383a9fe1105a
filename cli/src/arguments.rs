//! The command line.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Looks at shared libraries before they are loaded from memory, runs them, and lists those of a process.
#[derive(Parser)]
#[command(name = "memdl", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  memdl check libfoo.so                     would it load here?
  memdl check libfoo.so --host ./executor   would it load in that program?
  memdl run libfoo.so foo 42                call foo(42)
  memdl ps                                  which processes have images
  memdl bench libfoo.so                     times beside dlopen and memfd

Exit codes: 0 success, 1 refused or not found, 2 usage or unreadable files.
Colour is used on terminals, and not if NO_COLOR is set.";

#[derive(Subcommand)]
pub enum Command {
    /// Say whether libraries would load, and every reason why not. Runs none of their code.
    #[command(after_help = "\
Examples:
  memdl check target/*.so
  memdl check libfoo.so --host ./executor
  memdl check libfoo.so --provide libbar.so=build/libbar.so --json
  memdl check arm64/libfoo.so --host arm64/executor --libraries arm64/root/lib

Exit codes: 0 all would load, 1 one is refused, 2 usage or an unreadable file.")]
    Check(CheckOptions),
    /// Show what a library is, needs and offers. Runs none of its code.
    #[command(after_help = "\
Examples:
  memdl inspect libfoo.so
  memdl inspect libfoo.so --symbols
  memdl inspect arm64/libfoo.so --libraries arm64/root/lib --no-system-libraries
  memdl inspect libfoo.so --json | jq '.imports[] | select(.binding == \"missing\")'")]
    Inspect(InspectOptions),
    /// Load a library from memory and call one of its functions. Runs its code.
    #[command(after_help = "\
The function takes integers, as many as are given, and returns an `int`, which is printed.

Examples:
  memdl run libfoo.so foo 42
  memdl run libfoo.so foo 42 --wait     (then, elsewhere: gdb -p PID, `break foo`, `continue`)")]
    Run(RunOptions),
    /// List the images that processes or a core file have.
    #[command(after_help = "\
For each image: its addresses, its build-id, what debuggers see of it, and its name. A line says so if the
program was stripped of the symbols by which debuggers find images.

Examples:
  memdl ps            all processes that you may look into
  memdl ps 1234       one process
  memdl ps ./core     a core file")]
    Ps(PsOptions),
    /// Measure loads of a library beside `dlopen` and `memfd` with `dlopen`. Runs its code.
    #[command(after_help = "\
Times are medians. `first` is the first load in a fresh process, `next` one of many in a process.

Example:
  memdl bench libfoo.so")]
    Bench(BenchOptions),
    /// Print completions for a shell.
    #[command(after_help = "\
Example:
  memdl completions bash > ~/.local/share/bash-completion/completions/memdl")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page of the program, or of a command.
    #[command(after_help = "\
Example:
  memdl man check > memdl-check.1")]
    Man {
        /// A command.
        command: Option<String>,
    },
}

/// How a library is loaded.
#[derive(Args)]
pub struct LoadOptions {
    /// Supply a needed library: its name, as the library has it, and its file.
    #[arg(long, value_name = "NAME=FILE", value_parser = provided)]
    pub provide: Vec<(String, PathBuf)>,
    /// Let the system open no library: all that are needed must be loaded or provided.
    #[arg(long)]
    pub no_system_libraries: bool,
}

/// Where a report finds the libraries of another machine.
#[derive(Args)]
pub struct ForeignOptions {
    /// For files for another machine: look for needed libraries in this folder. Can be repeated.
    #[arg(long, value_name = "FOLDER")]
    pub libraries: Vec<PathBuf>,
}

fn provided(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("write NAME=FILE, as libbar.so=./libbar.so")?;
    Ok((name.to_owned(), file.into()))
}

#[derive(Args)]
pub struct CheckOptions {
    /// Shared libraries.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Look imports up in this program and in the libraries that it is linked with, instead of this one.
    #[arg(long, value_name = "EXE")]
    pub host: Option<PathBuf>,
    #[command(flatten)]
    pub load: LoadOptions,
    #[command(flatten)]
    pub foreign: ForeignOptions,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct InspectOptions {
    /// A shared library.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Show all imports and exports.
    #[arg(long)]
    pub symbols: bool,
    #[command(flatten)]
    pub load: LoadOptions,
    #[command(flatten)]
    pub foreign: ForeignOptions,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct RunOptions {
    /// A shared library.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The function to call.
    #[arg(value_name = "SYMBOL")]
    pub symbol: String,
    /// Its arguments: up to six integers, decimal or hexadecimal (0x...).
    #[arg(value_name = "INT", value_parser = integer, allow_negative_numbers = true)]
    pub arguments: Vec<i64>,
    /// The function returns a `long`.
    #[arg(long)]
    pub long: bool,
    /// Load, then wait for a debugger before the call.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub load: LoadOptions,
}

/// Decimal or hexadecimal, with or without a sign; up to 2^64 - 1.
fn integer(text: &str) -> Result<i64, String> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(rest) => (rest, 16),
        None => (digits, 10),
    };
    let value = u64::from_str_radix(digits, radix).map_err(|error| error.to_string())?;
    let value = if is_negative { -i128::from(value) } else { i128::from(value) };
    match i64::try_from(value) {
        Ok(value) => Ok(value),
        // The same bits.
        Err(_) => u64::try_from(value).map(|bits| bits as i64).map_err(|error| error.to_string()),
    }
}

#[derive(Args)]
pub struct PsOptions {
    /// A process, or a core file. Without it, all processes.
    #[arg(value_name = "PID|CORE")]
    pub target: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BenchOptions {
    /// A shared library.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Seconds for each way.
    #[arg(long, default_value_t = 0.5)]
    pub seconds: f64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Load once in this way and print the nanoseconds.
    #[arg(long, hide = true)]
    pub once: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn integers_are_read_as_c_reads_them() {
        assert_eq!(integer("42"), Ok(42));
        assert_eq!(integer("-42"), Ok(-42));
        assert_eq!(integer("0x2a"), Ok(42));
        assert_eq!(integer("0xffffffffffffffff"), Ok(-1));
        assert_eq!(integer("-0x8000000000000000"), Ok(i64::MIN));
        assert!(integer("-0x8000000000000001").is_err());
        assert!(integer("forty").is_err() && integer("").is_err());
    }
}
