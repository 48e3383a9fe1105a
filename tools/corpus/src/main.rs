//! The differential corpus: every shared library of a folder or a wheel, loaded by `dlopen` from its file
//! and by memdl from its bytes, and compared.
//!
//! ```text
//! cargo run --release -p corpus -- [FOLDER|WHEEL]... [--packages NAME...] [--recursive]
//!                                  [--only NAME] [--json FILE] [--jobs N] [--seconds N]
//!                                  [--with LIBRARY] [--keep FOLDER] [--library-path FOLDERS]
//! ```
//!
//! `--with LIBRARY`, which may be repeated, has `dlopen` open that library with `RTLD_GLOBAL` in both
//! processes first: extension modules need the symbols of their interpreter.
//!
//! A wheel is a package of PyPI: `--packages` fetches wheels by name, with pip, for the `python3` that is
//! found; a file that ends in `.whl`, or a folder with such files, is taken as it is. Wheels are unpacked
//! into a temporary folder, or the one of `--keep`, which later runs use again. See `README.md` here.
//!
//! A library that both refuse is compared once more, with its own folder as `LD_LIBRARY_PATH`, unless
//! `--library-path` says something else: what a package brings along finds its neighbours by the search path
//! of the module that needs it.
//!
//! Each library is loaded in two child processes (this program again; nothing else is in them):
//! one calls `dlopen(path, RTLD_NOW | RTLD_LOCAL)`, the other
//! `Loader::new().name(path).system_libraries(true).debug(DebugLevel::Off).load(bytes)`. Both write down
//!
//! * whether it loads, or why not;
//! * what every exported name resolves to, by `dlsym`/`dlvsym` and by `get`/`get_versioned`, and in
//!   the child of memdl whether `Library::symbols` agrees with the file's dynamic symbol table;
//! * every word that a dynamic relocation writes (`DT_RELA`, `DT_JMPREL`, `DT_RELR`; decoded here,
//!   from the file, not by memdl);
//! * whether closing it and leaving the process end alike;
//! * whether what `Loader::inspect` says before the load agrees with it.
//!
//! Addresses are told as a library and an offset into it, so that bases do not matter. A word that
//! is not the same is accepted for one of these reasons only, which the table counts:
//!
//! | reason | what is accepted |
//! |---|---|
//! | service | the relocation names one of the C library's functions that memdl replaces for its images, `dlopen` bound it to a library, and memdl to itself |
//! | thread-local storage | both lie in the image's own block, and the distance between the two loaders' offsets is the same for all of the image |
//! | TLS descriptor | as above; the descriptor was called in both processes to learn its place |
//! | copy in the process | the same offset, in the copy of the same library that the process had before, or that a library which needs it in turn brought in |
//! | member | the same offset, in a needed library that memdl had to load itself, since it cannot be opened alone or must see the image (memdl names it by its addresses; the file is the same) |
//! | anonymous memory | both point to memory that belongs to no library (heap, stacks) |
//! | constructors | equal, once both load a copy of the library without `DT_INIT` and `DT_INIT_ARRAY` |
//! | needed libraries first | equal to a third process, where `dlopen` opens the libraries that this one needs before it opens the library itself: memdl must do so, and `ld.so` gives unique symbols (`STB_GNU_UNIQUE`) to whoever comes first |
//! | another unique definition | memdl took a definition (`STB_GNU_UNIQUE`, checked in that library's table) which `ld.so` passed over, since no reference had been bound to it; there is no way to ask it |
//! | unsteady | two runs of `dlopen` differ from each other in this place |
//!
//! Everything else is listed. The exit status is 1 if something is, or if `dlopen` loads a library
//! that memdl does not.
//!
//! This tool loads what it is given: constructors run, each in a process of its own that is killed
//! after a time limit.
//!
//! This file owns the command line and the worker threads. `library_file` reads what is to be compared,
//! `child` and what it uses look at a loaded library, `compare` decides.

#[allow(dead_code)] // part of it is for tests
#[path = "../../../tests/common/agree.rs"]
mod agree;
mod child;
mod compare;
mod libraries;
mod library_file;
mod loaded;
mod places;
mod process;
mod report;
mod spawn;
mod values;
mod verdict;
mod wheels;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;

use crate::compare::{Outcome, compare};
use crate::libraries::collect;
use crate::report::Report;
use crate::wheels::{Wheels, is_wheel};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Compares how dlopen and memdl load every shared library of a folder or a wheel.
#[derive(Parser, Clone)]
struct Options {
    /// Folders with shared libraries or wheels, and wheels
    #[arg(required_unless_present = "packages")]
    places: Vec<PathBuf>,
    /// Fetch the wheels of these packages with pip
    #[arg(long, value_name = "NAME", num_args = 1..)]
    packages: Vec<String>,
    /// Keep wheels, packed and unpacked, in FOLDER, and use what is there
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Look into folders in these folders too
    #[arg(long)]
    recursive: bool,
    /// Only libraries with NAME in their file name
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Write the results to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare N libraries at a time
    #[arg(long, value_name = "N", default_value_t = processors(), value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// Kill a process that has not ended after N seconds
    #[arg(long, value_name = "N", default_value_t = 20)]
    seconds: u64,
    /// Open LIBRARY with RTLD_GLOBAL in each process first (may be repeated)
    #[arg(long, value_name = "LIBRARY")]
    with: Vec<OsString>,
    /// Set LD_LIBRARY_PATH in each process
    #[arg(long, value_name = "FOLDERS")]
    library_path: Option<OsString>,
}

impl Options {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn processors() -> u64 {
    thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let result = match args.first().and_then(|first| first.to_str()) {
        Some("--child") => child::child(&args[1..]).map(|()| ExitCode::SUCCESS),
        _ => run(&Options::parse()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("corpus: {error}");
        ExitCode::from(2)
    })
}

/// Finds the libraries to compare. Wheels are unpacked for that.
fn find(options: &Options, wheels: &mut Wheels) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for place in &options.places {
        // As above.
        let place = &fs::canonicalize(place)?;
        if is_wheel(place) {
            wheels.unpack(place)?;
        } else {
            collect(place, options, options.recursive, &mut paths)?;
            wheels::files(place)?.iter().try_for_each(|wheel| wheels.unpack(wheel))?;
        }
    }
    options.packages.iter().try_for_each(|package| wheels.fetch(package))?;
    for folder in &wheels.unpacked {
        collect(folder, options, true, &mut paths)?;
    }
    Ok(paths)
}

fn run(options: &Options) -> Result<ExitCode> {
    let scratch = env::temp_dir().join(format!("memdl-corpus-{}", std::process::id()));
    let keep = options.keep.clone().unwrap_or_else(|| scratch.join("wheels"));
    fs::create_dir_all(&keep)?;
    // Absolute, since libraries are loaded by these paths from other folders.
    let mut wheels = Wheels::new(fs::canonicalize(keep)?);
    let found = find(options, &mut wheels).and_then(|paths| compare_all(options, paths, &scratch));
    let _ = fs::remove_dir_all(&scratch);
    let report = Report::new(&found?, &wheels);
    print!("{}", report.text);
    if let Some(json) = &options.json {
        fs::write(json, report.json)?;
    }
    Ok(if report.is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares the libraries, several at a time.
fn compare_all(options: &Options, paths: Vec<PathBuf>, scratch: &Path) -> Result<Vec<Outcome>> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for worker in 0..options.jobs {
            let (next, outcomes, paths) = (&next, &outcomes, &paths);
            let folder = scratch.join(worker.to_string());
            scope.spawn(move || {
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = compare(path, &folder, options);
                    let mut outcomes = outcomes.lock().expect("no worker panics");
                    outcomes.push((path.clone(), outcome));
                    if outcomes.len().is_multiple_of(100) {
                        eprintln!("{} of {}", outcomes.len(), paths.len());
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no worker panics");
    outcomes.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut compared = Vec::new();
    for (path, outcome) in outcomes {
        match outcome {
            Ok(outcome) => compared.push(outcome),
            Err(error) => println!("{}: not compared: {error}", path.display()),
        }
    }
    Ok(compared)
}
