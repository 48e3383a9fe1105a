//! How cost grows: with the size of the file, relocations, imports, host libraries, live images,
//! threads that load at once; and how much memory instances take.
//!
//! ```console
//! $ cargo bench --bench growth                   # all: some minutes
//! $ cargo bench --bench growth -- imports        # some curves
//! ```
//!
//! `--rounds N` or `--seconds S` for each point; `--save` puts the tables into `benches/README.md`: that of `memory`
//! into a section of its own. `--draw` measures nothing: it draws the pictures of that document.

#![allow(unsafe_code)]

#[path = "../tests/common/mod.rs"]
mod common;
mod harness;

use std::ffi::{CString, c_int};
use std::fmt::Write;
use std::fs;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use harness::libraries::{self, Kind, Subject};
use harness::ways::{Bench, Loaded, Way, dlopen};
use harness::{Arguments, Results, Rounds, median, significant};
use memdl::{DebugLevel, Loader};

/// What is compared: memdl without debug information, and what `dlopen` does.
const WAYS: [Way; 5] = [
    Way::Seed,
    Way::File,
    Way::Load(DebugLevel::Off),
    Way::Buffer(DebugLevel::Off),
    Way::Instance(DebugLevel::Off),
];

/// A curve, or some of one kind.
struct Part {
    name: &'static str,
    title: &'static str,
    across: &'static str,
    /// In a child: tells the points, as row (the value across), column (the curve) and value.
    run: fn(Rounds),
}

/// It has a section of its own, which `--save` replaces by itself.
const MEMORY_PART: &str = "memory";

const PARTS: &[Part] = &[
    Part {
        name: "file-size",
        title: "Load, by the size of the file: µs",
        across: "KiB of read-only data",
        run: file_size,
    },
    Part {
        name: "relocations",
        title: "Load, by relative relocations: µs",
        across: "relocations",
        run: relocations,
    },
    Part {
        name: "imports",
        title: "Load, by imported symbols: µs",
        across: "symbols",
        run: imports,
    },
    Part {
        name: "host-libraries",
        title: "Load of libsqlite3, by host libraries: µs",
        across: "more libraries in the process",
        run: host_libraries,
    },
    Part {
        name: "live-images",
        title: "By live images: µs",
        across: "live images",
        run: live_images,
    },
    Part {
        name: "threads",
        title: "Loads of all threads: thousands per second",
        across: "threads",
        run: threads,
    },
    Part {
        name: "memory",
        title: "Memory of one of 100 instances: KiB, unless named otherwise",
        across: "",
        run: memory,
    },
];

fn main() {
    let arguments = Arguments::read(&["save", "draw"]);
    if arguments.has("draw") {
        return harness::draw();
    }
    let rounds = Rounds::of(&arguments, 1.0);
    if let Some(name) = arguments.text("part") {
        if let Some(library) = name.strip_prefix("memory-of-") {
            return memory_of(library, Way::named(arguments.text("way").unwrap()));
        }
        return (PARTS.iter().find(|part| part.name == name).unwrap().run)(rounds);
    }
    let parts: Vec<&Part> = PARTS.iter().filter(|part| arguments.wants(part.name)).collect();
    assert!(!parts.is_empty(), "no curve has such a name");
    let machine = harness::machine();
    let (memory, growth): (Vec<&Part>, Vec<&Part>) =
        parts.into_iter().partition(|part| part.name == MEMORY_PART);
    for (section, parts) in [("growth", growth), (MEMORY_PART, memory)] {
        if parts.is_empty() {
            continue;
        }
        let mut text = format!("{machine}\n\n");
        for part in parts {
            let told = told(part, &arguments);
            writeln!(text, "**{}**\n\n{}", part.title, table(part, &told)).unwrap();
        }
        harness::report(&arguments, section, &text);
    }
}

/// What a child tells that measures this part.
fn told(part: &Part, arguments: &Arguments) -> String {
    eprintln!("{}", part.name);
    let mut child = vec!["--part", part.name];
    for (option, flag) in [("rounds", "--rounds"), ("seconds", "--seconds")] {
        child.extend(arguments.text(option).into_iter().flat_map(|value| [flag, value]));
    }
    harness::child(&child, 900).unwrap_or_else(|why| panic!("{}: {why}", part.name))
}

/// What a child told, in its order: the points of each curve.
fn curves(told: &str) -> Vec<(String, Vec<(String, f64)>)> {
    let mut curves: Vec<(String, Vec<(String, f64)>)> = Vec::new();
    for line in told.lines() {
        if let [across, curve, "point", value] = line.split('\t').collect::<Vec<_>>()[..] {
            let point = (across.to_owned(), value.parse().unwrap());
            match curves.iter_mut().find(|(name, _)| name == curve) {
                Some((_, points)) => points.push(point),
                None => curves.push((curve.to_owned(), vec![point])),
            }
        }
    }
    curves
}

fn table(part: &Part, told: &str) -> String {
    let curves = curves(told);
    let mut across: Vec<&String> = Vec::new();
    for (name, _) in curves.iter().flat_map(|(_, points)| points) {
        if !across.contains(&name) {
            across.push(name);
        }
    }
    let head: Vec<String> = std::iter::once(part.across.to_owned())
        .chain(curves.iter().map(|(name, _)| name.clone()))
        .collect();
    let rows: Vec<Vec<String>> = across
        .into_iter()
        .map(|at| {
            let cell = |points: &[(String, f64)]| {
                points.iter().find(|(name, _)| name == at).map_or(f64::NAN, |(_, value)| *value)
            };
            std::iter::once(at.clone())
                .chain(curves.iter().map(|(_, points)| significant(cell(points))))
                .collect()
        })
        .collect();
    harness::table(&head, &rows)
}

fn tell(across: impl ToString, curve: &str, value: f64) {
    Results::tell(&across.to_string(), curve, "point", value);
}

/// Loads alone, of one subject in all ways, each twice in its turn (as in `load.rs`).
fn loads(rounds: Rounds, across: impl ToString, subject: &Subject) {
    let bench = Bench::new(subject);
    let samples = rounds.interleave(WAYS.len(), |which| {
        bench.sample(WAYS[which]);
        bench.sample(WAYS[which]).load
    });
    for (way, samples) in WAYS.iter().zip(samples) {
        tell(across.to_string(), &way.name(), median(samples) / 1e3);
    }
}

fn file_size(rounds: Rounds) {
    for kib in [16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10] {
        let file = libraries::sized(kib << 10, "rodata");
        loads(rounds, kib, &Subject::open(&file, c"entry"));
    }
}

fn relocations(rounds: Rounds) {
    for count in [10, 100, 1_000, 10_000, 100_000, 1_000_000] {
        loads(rounds, count, &Subject::open(&libraries::relative(count), c"entry"));
    }
}

fn imports(rounds: Rounds) {
    let from = libraries::exports(10_000, 1);
    dlopen(&CString::new(from.as_os_str().as_bytes()).unwrap(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
    for count in [1, 10, 100, 1_000, 10_000] {
        loads(rounds, count, &Subject::open(&libraries::imports(count, &from), c"entry"));
    }
}

/// A library of the host with 100 exports of its own, which nothing asks for.
fn host_library(number: usize) -> PathBuf {
    let mut text = ".text\n".to_owned();
    for at in 0..100 {
        writeln!(text, ".globl host_{number}_{at}\n.type host_{number}_{at},@function").unwrap();
        writeln!(text, "host_{number}_{at}: ret").unwrap();
    }
    text.push_str(".section .note.GNU-stack,\"\",@progbits\n");
    libraries::built("gcc", &format!("host-{number}.S"), &text, &["-nostdlib"])
}

fn host_libraries(rounds: Rounds) {
    let sqlite = Kind::named("libsqlite3");
    let subject = sqlite.open(&sqlite.file());
    let mut open = 0;
    for count in [1, 10, 50, 100, 200] {
        for number in open..count {
            let path = host_library(number);
            let path = CString::new(path.as_os_str().as_bytes()).unwrap();
            // As those that a program is linked to.
            dlopen(&path, libc::RTLD_NOW | libc::RTLD_GLOBAL);
        }
        open = count;
        loads(rounds, count, &subject);
    }
}

/// Load, lookup, throw and unload of one more, while so many are there: first memdl's, then, when
/// those have gone, those of `ld.so`, since each walks through the other's.
fn live_images(rounds: Rounds) {
    allow_descriptors();
    let file = common::build("g++", "bench/throws.cpp", &["-O2"]);
    let subject = Subject::open(&file, c"throws");
    let mut bench = Bench::new(&subject);
    bench.keep = true;
    let few = Rounds { fewest: rounds.fewest.max(21), time: rounds.time };
    let ways = [
        (Way::Load(DebugLevel::Off), ""),
        (Way::Instance(DebugLevel::Off), "instantiate: "),
        (Way::Seed, "memfd: "),
    ];
    for (way, prefix) in ways {
        let mut live: Vec<Loaded> = Vec::new();
        for count in [1, 10, 100, 1_000, 3_000, 10_000] {
            while live.len() < count {
                live.push(bench.load(way, bench.ready(way)));
            }
            let samples = few.interleave(1, |_| live_image(&bench, way)).remove(0);
            for (at, what) in ["load", "get", "throw", "unload"].into_iter().enumerate() {
                let value = median(samples.iter().map(|took| took[at]));
                tell(count, &format!("{prefix}{what}"), value);
            }
        }
    }
}

/// Microseconds of load, lookup, throw and unload.
fn live_image(bench: &Bench, way: Way) -> [f64; 4] {
    let mut took = [0.0; 4];
    let mut clock = Instant::now();
    let mut lap = |at: usize| {
        took[at] = clock.elapsed().as_secs_f64() * 1e6;
        clock = Instant::now();
    };
    let loaded = bench.load(way, bench.ready(way));
    lap(0);
    let symbol = black_box(loaded.symbol(c"throws"));
    lap(1);
    // SAFETY: its type.
    let throws: extern "C" fn(c_int) -> c_int = unsafe { std::mem::transmute(symbol) };
    assert_eq!(throws(1), 2);
    lap(2);
    drop(loaded);
    lap(3);
    took
}

/// As many descriptors as the system lets us have: each library of `memfd` keeps its own, or the
/// next one would have its number and be taken for it.
fn allow_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads and writes one structure.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

fn threads(rounds: Rounds) {
    let time = if rounds.time.is_zero() { Duration::from_millis(100) } else { rounds.time / 4 };
    for name in ["tiny", "libsqlite3"] {
        let kind = Kind::named(name);
        let file = kind.file();
        let ways =
            [Way::Seed, Way::Load(DebugLevel::Off), Way::Instance(DebugLevel::Off), Way::Reset];
        // The numbers of threads take turns, too: what disturbs the machine disturbs all of them alike.
        let counts = [1, 2, 4];
        let few = Rounds { fewest: 5, time: Duration::ZERO };
        let samples = few.interleave(ways.len() * counts.len(), |which| {
            let (way, count) = (ways[which % ways.len()], counts[which / ways.len()]);
            at_once(kind, &file, way, count, time) / 1e3
        });
        for (which, samples) in samples.into_iter().enumerate() {
            let (way, count) = (ways[which % ways.len()], counts[which / ways.len()]);
            tell(count, &format!("{name}, {}", way.name()), median(samples));
        }
    }
}

/// Loads and unloads a second, of so many threads together. They have the same loader, template and pool.
fn at_once(kind: &Kind, file: &Path, way: Way, threads: usize, time: Duration) -> f64 {
    let subject = kind.open(file);
    let loader = Loader::new().debug(DebugLevel::Off).system_libraries(true);
    // SAFETY: whoever named the library vouches for its constructors, here and below.
    let template = unsafe { loader.prepare(&subject.bytes) }.unwrap();
    let pool = template.pool(threads);
    let start = Barrier::new(threads);
    let one = || {
        let bench = Bench::new(&subject);
        // SAFETY: as above; nothing of an instance is used when it is released.
        let load_and_unload = || unsafe {
            match way {
                Way::Load(_) => drop(loader.load(&subject.bytes).unwrap()),
                Way::Instance(_) => drop(template.instantiate().unwrap()),
                Way::Reset => drop(pool.acquire().unwrap()),
                way => drop(bench.load(way, bench.ready(way))),
            }
        };
        load_and_unload();
        start.wait();
        let (mut count, began) = (0, Instant::now());
        while began.elapsed() < time {
            // The clock takes its time, too.
            (0..4).for_each(|_| load_and_unload());
            count += 4;
        }
        // As many as there were time for: the last ones may have taken longer.
        count as f64 / began.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Of which instances the memory is told, and how many there are of each.
const MEMORY: [&str; 3] = ["tiny", "libsqlite3", "rust"];
const INSTANCES: usize = 100;
const MEMORY_WAYS: [Way; 10] = [
    Way::Seed,
    Way::File,
    Way::Load(DebugLevel::Off),
    Way::Load(DebugLevel::Full),
    Way::Buffer(DebugLevel::Off),
    Way::Buffer(DebugLevel::Full),
    Way::Instance(DebugLevel::Off),
    Way::Instance(DebugLevel::Symbols),
    Way::Instance(DebugLevel::Full),
    Way::Instance(DebugLevel::Portable),
];

/// Each library and way in a process of its own, so that none finds what another has left.
fn memory(_: Rounds) {
    for name in MEMORY {
        for way in MEMORY_WAYS {
            let (part, way) = (format!("memory-of-{name}"), way.name());
            let told = harness::child(&["--part", &part, "--way", &way], 120);
            print!("{}", told.unwrap_or_else(|why| panic!("{name}, {way}: {why}")));
        }
    }
}

/// What `/proc` and the C library say of this process: KiB, but for the last two.
fn used() -> [f64; 6] {
    let of = |file: &str, keys: &[&str]| -> f64 {
        let text = fs::read_to_string(file).unwrap();
        let line = |line: &str| {
            let (key, rest) = line.split_once(':')?;
            let is_asked = keys.contains(&key);
            is_asked.then(|| rest.split_whitespace().next()?.parse::<f64>().ok())?
        };
        text.lines().filter_map(line).sum()
    };
    const ROLLUP: &str = "/proc/self/smaps_rollup";
    let mappings = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    // SAFETY: it only reads the allocator's numbers.
    let heap = unsafe { libc::mallinfo2() };
    [
        of(ROLLUP, &["Rss"]),
        of(ROLLUP, &["Shared_Clean", "Shared_Dirty"]),
        of(ROLLUP, &["Private_Clean", "Private_Dirty"]),
        of("/proc/self/status", &["VmPTE"]),
        mappings as f64,
        (heap.uordblks + heap.hblkhd) as f64,
    ]
}

/// In a child: what each of some instances takes that are there at the same time, and whose function was called.
fn memory_of(name: &str, way: Way) {
    allow_descriptors();
    let kind = Kind::named(name);
    let file = kind.file();
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-copies-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    // The same file would be the same library.
    let subjects: Vec<Subject> = match way {
        Way::File => (0..=INSTANCES)
            .map(|at| {
                let copy = folder.join(at.to_string());
                fs::copy(&file, &copy).unwrap();
                kind.open(&copy)
            })
            .collect(),
        _ => vec![kind.open(&file)],
    };
    let mut benches: Vec<Bench> = subjects.iter().map(Bench::new).collect();
    benches.iter_mut().for_each(|bench| bench.keep = true);
    let mut loaded: Vec<Loaded> = Vec::with_capacity(INSTANCES + 1);
    let mut before = used();
    for at in 0..=INSTANCES {
        // What is there once only does not count.
        if at == 1 {
            before = used();
        }
        let bench = benches.get(at).unwrap_or(&benches[0]);
        loaded.push(bench.load(way, bench.ready(way)));
        bench.call(&loaded[at]);
    }
    let after = used();
    let row = format!("{name}, {}", way.name());
    let columns =
        ["resident", "shared", "private", "page tables", "number of mappings", "heap, bytes"];
    for (at, column) in columns.into_iter().enumerate() {
        tell(&row, column, (after[at] - before[at]) / INSTANCES as f64);
    }
    drop(loaded);
    fs::remove_dir_all(folder).unwrap();
}
