//! What the benchmarks share: arguments, medians, child processes, reports.
//!
//! A benchmark starts itself again for each library or curve: what is loaded for one must not be
//! in the process for the next. In such a child the alternatives take turns, one sample of each in
//! every round, so that a noisy machine is noisy for all of them alike. A child prints one line for
//! each result; its parent makes tables of them, and with `--save` puts these into
//! `benches/README.md`.

#![allow(dead_code)] // each benchmark uses its own part of this

pub mod figure;
pub mod floor;
pub mod libraries;
pub mod peers;
pub mod plot;
pub mod ways;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::{repository, run};

/// What the command line asks for.
pub struct Arguments {
    /// Parts of names; none means everything.
    filters: Vec<String>,
    options: BTreeMap<String, String>,
}

impl Arguments {
    /// Of this process. `flags` take no value.
    pub fn read(flags: &[&str]) -> Arguments {
        let (mut filters, mut options) = (Vec::new(), BTreeMap::new());
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                // What cargo adds.
                Some("bench") => {}
                Some(flag) if flags.contains(&flag) => {
                    options.insert(flag.to_owned(), String::new());
                }
                Some(option) => {
                    let value = words.next().unwrap_or_else(|| panic!("--{option}: no value"));
                    options.insert(option.to_owned(), value);
                }
                None => filters.push(word),
            }
        }
        Arguments { filters, options }
    }

    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(&**filter))
    }

    pub fn text(&self, option: &str) -> Option<&str> {
        self.options.get(option).map(String::as_str)
    }

    pub fn number<T: std::str::FromStr>(&self, option: &str) -> Option<T> {
        let text = self.text(option)?;
        Some(text.parse().unwrap_or_else(|_| panic!("--{option} {text}: not such a number")))
    }

    pub fn has(&self, flag: &str) -> bool {
        self.options.contains_key(flag)
    }
}

/// How often: at least `fewest` rounds, then until `time` is over.
#[derive(Clone, Copy)]
pub struct Rounds {
    pub fewest: usize,
    pub time: Duration,
}

impl Rounds {
    /// As `--rounds` (just so many) or `--seconds` (for each library) say.
    pub fn of(arguments: &Arguments, seconds: f64) -> Rounds {
        match arguments.number("rounds") {
            Some(fewest) => Rounds { fewest, time: Duration::ZERO },
            None => Rounds {
                fewest: 11,
                time: Duration::from_secs_f64(arguments.number("seconds").unwrap_or(seconds)),
            },
        }
    }

    /// One sample of each alternative in every round, each round in another order, since what went
    /// before leaves its marks on caches and memory. The first two rounds do not count.
    pub fn interleave<T>(
        self,
        alternatives: usize,
        mut sample: impl FnMut(usize) -> T,
    ) -> Vec<Vec<T>> {
        const WARMING: usize = 2;
        const MOST: usize = 2000;
        let mut samples: Vec<Vec<T>> = (0..alternatives).map(|_| Vec::new()).collect();
        let mut order: Vec<usize> = (0..alternatives).collect();
        let mut state = 88_172_645_463_325_252u64;
        let start = Instant::now();
        for round in 0..MOST {
            if round >= self.fewest + WARMING && start.elapsed() >= self.time {
                break;
            }
            // Fisher and Yates, xorshift: the same orders in each run.
            for last in (1..alternatives).rev() {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                order.swap(last, (state % (last as u64 + 1)) as usize);
            }
            for &which in &order {
                let taken = sample(which);
                if round >= WARMING {
                    samples[which].push(taken);
                }
            }
        }
        samples
    }
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

/// How many times as fast `samples` are as `reference`'s: the median over the rounds. What disturbs
/// the machine for some rounds is the same for both in each, so this moves less than the ratio of
/// the medians.
pub fn times_as_fast(reference: &[f64], samples: &[f64]) -> f64 {
    median(reference.iter().zip(samples).map(|(reference, sample)| reference / sample))
}

/// What children measured: value by row (a library), column (an alternative) and what of it.
#[derive(Default)]
pub struct Results(BTreeMap<(String, String, String), f64>);

impl Results {
    /// In a child: tells its parent.
    pub fn tell(row: &str, column: &str, what: &str, value: f64) {
        println!("{row}\t{column}\t{what}\t{value}");
    }

    /// In the parent: takes what a child told.
    pub fn take(&mut self, told: &str) {
        for line in told.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            // A library that is loaded may print something of its own.
            if let [row, column, what, value] = fields[..]
                && let Ok(value) = value.parse()
            {
                self.put(row, column, what, value);
            }
        }
    }

    pub fn put(&mut self, row: &str, column: &str, what: &str, value: f64) {
        self.0.insert((row.to_owned(), column.to_owned(), what.to_owned()), value);
    }

    pub fn get(&self, row: &str, column: &str, what: &str) -> Option<f64> {
        self.0.get(&(row.to_owned(), column.to_owned(), what.to_owned())).copied()
    }
}

/// This program, copied as programs are installed. In the cache of pages, a file that a linker has just written is in
/// small pieces, and its code takes twice as long to run for the first time.
fn executable() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let program = std::env::current_exe().unwrap();
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program.file_name().unwrap());
        // A benchmark that runs at the same time may be using the old one.
        let new = copy.with_extension(std::process::id().to_string());
        fs::copy(program, &new).unwrap();
        fs::rename(new, &copy).unwrap();
        copy
    })
}

/// Runs this benchmark again, as a child with these arguments, and gives what it printed, or why
/// it failed.
pub fn child(arguments: &[&str], seconds: u32) -> Result<String, String> {
    let output = Command::new("timeout")
        .args(["-s", "KILL", &seconds.to_string()])
        .arg(executable())
        .args(arguments)
        // It would start threads at each load.
        .env("OPENBLAS_NUM_THREADS", "1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    // What a loader said, or else what the panic did; not where.
    let said = words.lines().find(|line| !line.is_empty() && !line.starts_with("thread "));
    Err(format!("{}: {}", output.status, said.unwrap_or("no word")))
}

/// Nanoseconds, readable as microseconds.
pub fn microseconds(nanoseconds: f64) -> String {
    significant(nanoseconds / 1e3)
}

/// Three significant digits, with separators.
pub fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    match value.abs() {
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at) % 3 == 0 {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
    }
}

/// A Markdown table; the first column is to the left, the others to the right.
pub fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|---|{}\n", head.join(" | "), "---:|".repeat(head.len() - 1));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text
}

/// What the numbers were measured on.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let gib = read("/proc/meminfo")
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<f64>().ok())
        .map_or(0.0, |kib| kib / 1048576.0);
    let system = read("/etc/os-release");
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let huge = huge.split('[').nth(1).and_then(|rest| rest.split(']').next());
    // SAFETY: it returns a C string that stays.
    let libc = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!(
        "{}, {} processors, {gib:.0} GiB; Linux {}, {}, glibc {}, huge pages: {}; {}. \
         Load average when it began: {}; {}.",
        model.map_or("unknown processor", |(_, model)| model),
        std::thread::available_parallelism().map_or(0, usize::from),
        read("/proc/sys/kernel/osrelease").trim(),
        system.map_or("unknown system", |name| name.trim_matches('"')),
        libc.to_string_lossy(),
        huge.unwrap_or("none"),
        run(Command::new("rustc").arg("--version"), "rustc").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
        run(Command::new("date").arg("+%Y-%m-%d"), "coreutils").trim(),
    )
}

/// Draws the pictures of `benches/README.md`.
pub fn draw() {
    let document = fs::read_to_string(repository("benches/README.md")).unwrap();
    draw_into(&document, &repository("benches"));
}

fn draw_into(document: &str, folder: &Path) {
    for (name, picture) in figure::pictures(document) {
        fs::write(folder.join(name), picture).unwrap();
    }
}

/// Prints the report; into `benches/README.md`, between the marks of this name, if asked to. Draws the pictures of
/// that document.
pub fn report(arguments: &Arguments, name: &str, text: &str) {
    println!("{text}");
    let path = repository("benches/README.md");
    let whole = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = whole.split_once(&begin).expect("benches/README.md has the marks");
    let (_, after) = rest.split_once(&end).expect("benches/README.md has the marks");
    let whole = format!("{before}{begin}{text}{end}{after}");
    let mut folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    if arguments.has("save") {
        fs::write(&path, &whole).unwrap();
        folder = repository("benches");
    } else {
        fs::write(folder.join("README.md"), &whole).unwrap();
    }
    draw_into(&whole, &folder);
    eprintln!("README.md, with its pictures, in {}", folder.display());
}
