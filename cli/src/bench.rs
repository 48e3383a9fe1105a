//! `memdl bench`: the times of loads on this machine, beside what people use today.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use memdl::{DebugLevel, ImageBuffer, Loader};
use serde_json::{Value, json};

use crate::arguments::BenchOptions;
use crate::failure::{DIM, Failure, TITLE};
use crate::inspect::{name_of, read};

/// Processes for the time of a first load.
const PROCESSES: usize = 15;
/// The width of the longest bar.
const BAR: f64 = 30.0;

/// A way to load the library and unload it.
struct Way {
    /// For `--once`.
    word: &'static str,
    text: &'static str,
    is_memdl: bool,
}

const WAYS: [Way; 6] = [
    Way { word: "dlopen", text: "dlopen of the file", is_memdl: false },
    Way { word: "memfd", text: "memfd and dlopen", is_memdl: false },
    Way { word: "load", text: "memdl, load", is_memdl: true },
    Way { word: "load-off", text: "memdl, load, no debugging", is_memdl: true },
    Way { word: "buffer", text: "memdl, load_buffer", is_memdl: true },
    Way { word: "instance", text: "memdl, instantiate", is_memdl: true },
];

/// What a way needs beforehand.
struct Loads<'a> {
    path: CString,
    bytes: &'a [u8],
    loader: Loader,
    template: Option<memdl::Template>,
}

pub fn bench(options: &BenchOptions) -> Result<ExitCode, Failure> {
    let bytes = read(&options.file)?;
    let mut loads = Loads::new(&options.file, &bytes)?;
    if let Some(word) = &options.once {
        let way = WAYS.iter().find(|way| way.word == word);
        let way = way.ok_or_else(|| Failure::usage(format!("no way {word}")))?;
        loads.prepare(way)?;
        println!("{}", loads.once(way)?.as_nanos());
        return Ok(ExitCode::SUCCESS);
    }
    if !(options.seconds > 0.0 && options.seconds <= 3600.0) {
        return Err(Failure::usage("--seconds: more than 0, at most 3600"));
    }
    if cfg!(debug_assertions) {
        anstream::eprintln!(
            "{DIM}memdl itself was built without optimization: `cargo build --release`{DIM:#}"
        );
    }
    let mut rows = Vec::new();
    for way in &WAYS {
        let first = first(&options.file, way)?;
        loads.prepare(way)?;
        let next = loads.median(way, Duration::from_secs_f64(options.seconds))?;
        rows.push((way, first, next));
    }
    match options.json {
        true => print_json(&options.file, &rows),
        false => print(&name_of(&options.file), bytes.len(), &rows),
    }
    Ok(ExitCode::SUCCESS)
}

impl<'a> Loads<'a> {
    fn new(path: &Path, bytes: &'a [u8]) -> Result<Loads<'a>, Failure> {
        let path = fs::canonicalize(path).map_err(|error| Failure::unreadable(path, &error))?;
        let loader = Loader::new().name(name_of(&path)).system_libraries(true);
        let path = CString::new(path.as_os_str().as_bytes());
        let path = path.map_err(|_| Failure::usage("a path with a NUL in it"))?;
        Ok(Loads { path, bytes, loader, template: None })
    }

    fn prepare(&mut self, way: &Way) -> Result<(), Failure> {
        if way.word == "instance" {
            let loader = self.loader.clone().debug(DebugLevel::Off);
            // SAFETY: to run the file is what the user has typed.
            let template = unsafe { loader.prepare(self.bytes) };
            self.template = Some(template.map_err(Failure::refused)?);
        }
        Ok(())
    }

    /// The time of one load and unload.
    fn once(&self, way: &Way) -> Result<Duration, Failure> {
        let load = |loader: &Loader| {
            let start = Instant::now();
            // SAFETY: to run the file is what the user has typed.
            let closed = unsafe { loader.load(self.bytes) }.and_then(|library| library.close());
            closed.map(|_| start.elapsed()).map_err(Failure::refused)
        };
        match way.word {
            "dlopen" => {
                let start = Instant::now();
                dlopen(&self.path)?;
                Ok(start.elapsed())
            }
            "memfd" => {
                let start = Instant::now();
                memfd(self.bytes)?;
                Ok(start.elapsed())
            }
            "load" => load(&self.loader),
            "load-off" => load(&self.loader.clone().debug(DebugLevel::Off)),
            "buffer" => {
                // Bytes are received into it, which takes the same time in all ways.
                let mut buffer = ImageBuffer::new(self.bytes.len()).map_err(Failure::refused)?;
                buffer.copy_from_slice(self.bytes);
                let start = Instant::now();
                // SAFETY: as above.
                let library = unsafe { self.loader.load_buffer(buffer) };
                let closed = library.and_then(|library| library.close());
                closed.map(|_| start.elapsed()).map_err(Failure::refused)
            }
            _ => {
                let template = self.template.as_ref();
                let template = template.ok_or_else(|| Failure::refused("nothing is prepared"))?;
                let start = Instant::now();
                // SAFETY: as above.
                let closed = unsafe { template.instantiate() }.and_then(|library| library.close());
                closed.map(|_| start.elapsed()).map_err(Failure::refused)
            }
        }
    }

    /// The median of as many as this time permits, three at least.
    fn median(&self, way: &Way, limit: Duration) -> Result<Duration, Failure> {
        let start = Instant::now();
        let mut times = Vec::new();
        // The first ones set up what later ones have.
        for _ in 0..3 {
            self.once(way)?;
        }
        while times.len() < 3 || (start.elapsed() < limit && times.len() < 1_000_000) {
            times.push(self.once(way)?);
        }
        Ok(middle(times))
    }
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The median of the first load in a fresh process.
fn first(file: &Path, way: &Way) -> Result<Duration, Failure> {
    let cannot = |why: String| Failure::refused(format!("{}: {why}", way.text));
    let own = std::env::current_exe().map_err(|error| cannot(error.to_string()))?;
    let mut times = Vec::new();
    for _ in 0..PROCESSES {
        let mut command = Command::new(&own);
        command.arg("bench").arg("--once").arg(way.word).arg("--").arg(file);
        let output = command.output().map_err(|error| cannot(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(cannot(said.trim().trim_start_matches("memdl: ").to_owned()));
        }
        // Below what the library's constructors print.
        let text = String::from_utf8_lossy(&output.stdout);
        let nanoseconds = text.lines().last().and_then(|line| line.trim().parse().ok());
        let nanoseconds = nanoseconds.ok_or_else(|| cannot("a process printed no time".into()))?;
        times.push(Duration::from_nanos(nanoseconds));
    }
    Ok(middle(times))
}

fn dlopen(path: &CStr) -> Result<(), Failure> {
    let failed = || {
        // SAFETY: a string that lives until the next call of this thread, or null.
        let text = unsafe {
            let text = libc::dlerror();
            if text.is_null() { "no reason".into() } else { CStr::from_ptr(text).to_string_lossy() }
        };
        Failure::refused(format!("dlopen: {text}"))
    };
    // SAFETY: to run the file is what the user has typed. The handle is closed once.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        if handle.is_null() {
            return Err(failed());
        }
        if libc::dlclose(handle) != 0 { Err(failed()) } else { Ok(()) }
    }
}

fn memfd(bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::refused(format!("memfd: {error}"));
    // SAFETY: a constant name; the descriptor that comes back is ours.
    let fd: c_int = unsafe { libc::memfd_create(c"library".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    // SAFETY: open, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut file = fs::File::from(fd);
    file.write_all(bytes).map_err(failed)?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    dlopen(&path.unwrap_or_default())
}

const OURS: Style = AnsiColor::Green.on_default();
const THEIRS: Style = AnsiColor::Yellow.on_default();

fn print(name: &str, len: usize, rows: &[(&Way, Duration, Duration)]) {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let name = name.escape_debug();
    anstream::println!(
        "{TITLE}{name}{TITLE:#}, {len} bytes: load and unload in microseconds, medians"
    );
    for (title, of) in [("first in a process", 0), ("next", 1)] {
        let time = |row: &(&Way, Duration, Duration)| us(if of == 0 { row.1 } else { row.2 });
        let longest = rows.iter().map(time).fold(f64::MIN_POSITIVE, f64::max);
        let dlopen = rows.first().map_or(f64::NAN, time);
        anstream::println!("\n{DIM}{title}{DIM:#}");
        for row in rows {
            let (way, time) = (row.0, time(row));
            let style = if way.is_memdl { OURS } else { THEIRS };
            let bar = bar(time / longest);
            let ratio = dlopen / time;
            anstream::println!(
                "  {:<26} {time:>9.1}  {style}{bar:<30}{style:#} {ratio:>5.1}x",
                way.text
            );
        }
    }
    anstream::println!("\n{DIM}x: how often it goes into the time of dlopen of the file{DIM:#}");
}

/// A bar of this part of the longest, in eighths of a character.
fn bar(part: f64) -> String {
    let eighths = (part * BAR * 8.0).round().max(1.0) as usize;
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    format!("{}{}", "█".repeat(eighths / 8), rest[eighths % 8])
}

fn print_json(file: &Path, rows: &[(&Way, Duration, Duration)]) {
    let rows = rows.iter().map(|(way, first, next)| {
        json!({
            "way": way.word,
            "first_ns": first.as_nanos() as u64,
            "next_ns": next.as_nanos() as u64,
        })
    });
    println!("{:#}", json!({ "file": file.to_string_lossy(), "ways": rows.collect::<Value>() }));
}
