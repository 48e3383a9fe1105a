//! `memdl`: looks at shared libraries before they are loaded from memory, runs them, measures them, and lists those
//! that a process or a core file has.
//!
//! | file | what it does |
//! |---|---|
//! | [`arguments`] | the command line |
//! | [`check`] | `memdl check`: whether files load, here or in another host ([`host`]) |
//! | [`inspect`] | `memdl inspect`: a report, for people or as JSON ([`json`]) |
//! | [`run`] | `memdl run`: loads a file and calls a function |
//! | [`ps`] | `memdl ps`: the images of processes and cores ([`target`] reads their memory) |
//! | [`bench`] | `memdl bench`: times beside `dlopen` and `memfd` |
//! | [`failure`] | errors: one line each, with the way out |

#![deny(unsafe_code)]

mod arguments;
mod bench;
mod check;
mod failure;
mod host;
mod inspect;
mod json;
mod ps;
mod run;
mod target;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use arguments::{Arguments, Command};
use failure::Failure;

fn main() -> ExitCode {
    // A reader that has seen enough, as `head`, ends the program.
    reset_sigpipe();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error)
            if error.use_stderr()
                && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            let failure = Failure::usage(on_one_line(&error));
            failure.print();
            return failure.exit_code();
        }
        // Help, or the version.
        Err(error) => error.exit(),
    };
    let result = match arguments.command {
        Command::Check(options) => check::check(&options),
        Command::Inspect(options) => inspect::inspect(&options),
        Command::Run(options) => run::run(&options),
        Command::Ps(options) => ps::ps(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "memdl", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { command } => man(command.as_deref()),
    };
    result.unwrap_or_else(|failure| {
        failure.print();
        failure.exit_code()
    })
}

/// What is wrong with the command line, without the usage below it.
fn on_one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let words = text.lines().map(str::trim);
    let words =
        words.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<&str> = words.filter(|line| !line.is_empty()).collect();
    let text = words.join(" ");
    format!("{}; `--help` shows how", text.strip_prefix("error: ").unwrap_or(&text))
}

/// Prints the manual page of the program, or of one command.
fn man(name: Option<&str>) -> Result<ExitCode, Failure> {
    let mut command = Arguments::command();
    command.build();
    let page = match name {
        None => command,
        Some(name) => {
            let unknown = || Failure::usage(format!("no command {name}; `memdl help` lists them"));
            let found = command.find_subcommand(name).ok_or_else(unknown)?.clone();
            // The name of the page is that of the command that one types.
            found.name(format!("memdl-{name}")).bin_name(format!("memdl {name}"))
        }
    };
    let print = clap_mangen::Man::new(page).render(&mut std::io::stdout());
    print.map_err(|error| Failure::refused(format!("cannot write the page: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

#[allow(unsafe_code)]
fn reset_sigpipe() {
    // SAFETY: the default action, set before there is a second thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
