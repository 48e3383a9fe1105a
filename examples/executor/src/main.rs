//! The executor's commands.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use memdl_executor::arguments::{Arguments, CallOptions, Command};
use memdl_executor::client::{self, Client};
use memdl_executor::protocol::hex;
use memdl_executor::{Error, auth, load, public_key, server, sign};

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memdl-executor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Serve(options) => {
            tracing_subscriber::fmt()
                .with_writer(io::stderr)
                .with_ansi(false)
                .with_target(false)
                .with_max_level(options.log)
                .init();
            server::serve(&options)
        }
        Command::Call(options) => call(&options),
        Command::Load(options) => print_line(load::load(&options)?.trim_end()),
        Command::Secret => print_line(&hex(&auth::random()?)),
        Command::PublicKey { secret } => print_line(&hex(&public_key(&secret)?)),
    }
}

fn print_line(line: &str) -> Result<(), Error> {
    println!("{line}");
    Ok(())
}

fn call(options: &CallOptions) -> Result<(), Error> {
    let mut library = client::library_file(&options.library)?;
    if let Some(secret) = &options.secret {
        library = library.signed(sign(secret, &fs::read(&options.library)?)?);
    }
    let input = match &options.input {
        Some(text) => text.clone().into_bytes(),
        None => {
            let mut input = Vec::new();
            io::stdin().read_to_end(&mut input)?;
            input
        }
    };
    let mut client = Client::connect(&options.server)?;
    let bar = match options.progress {
        true => ProgressBar::new(library.len() as u64),
        false => ProgressBar::hidden(),
    };
    bar.set_style(ProgressStyle::with_template(
        "sending {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
    )?);
    let output =
        client.call(&library, &options.function, &input, options.capacity, &mut |sent| {
            bar.set_position(sent as u64);
        })?;
    bar.finish_and_clear();
    let mut out = io::stdout();
    out.write_all(&output)?;
    Ok(out.flush()?)
}
