//! Loading from memory, by all the ways there are: memdl's, what executors do today (`memfd` and
//! `dlopen("/proc/self/fd/N")`), `dlopen` of a file, and other loaders.
//!
//! ```console
//! $ cargo bench --bench load                    # all: some minutes
//! $ cargo bench --bench load -- tiny libz       # some libraries: some seconds
//! $ cargo bench --bench load -- code            # how code runs that has been loaded
//! ```
//!
//! `--rounds N` instead of as many as fit into `--seconds S` for each library; `--fresh N` processes
//! for the first load of each way; `--no-peers` leaves the other loaders out, which are fetched and
//! built otherwise; `--save` puts the tables into `benches/README.md`, which tells what they mean.

#![allow(unsafe_code)]

#[path = "../tests/common/mod.rs"]
mod common;
mod harness;

use std::ffi::{CString, c_long, c_void};
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use harness::libraries::{self, Kind, LIBRARIES, Subject};
use harness::ways::{Bench, Loaded, Sample, WAYS, Way, dlopen, dlsym};
use harness::{Arguments, Results, Rounds, microseconds, peers, significant};
use memdl::{DebugLevel, Loader, SymbolKind};

/// What a target compares: a way with the seed's, load alone.
const TARGETS: &[(Way, &[(&str, f64)])] = &[
    (
        Way::LoadInNewMemory,
        &[
            ("tiny", 3.0),
            ("libz", 3.0),
            ("virtual-tables", 3.0),
            ("libsqlite3", 2.5),
            ("libcrypto", 2.5),
            ("libpython", 2.5),
            ("libLLVM", 2.0),
        ],
    ),
    (Way::Load(DebugLevel::Off), &[("tiny", 5.0), ("libsqlite3", 5.0)]),
    (
        Way::Buffer(DebugLevel::Off),
        &[
            ("tiny", 6.0),
            ("libz", 8.0),
            ("libsqlite3", 18.0),
            ("libcrypto", 18.0),
            ("libpython", 18.0),
            ("libopenblas", 25.0),
            ("libLLVM", 25.0),
        ],
    ),
    (
        Way::Instance(DebugLevel::Off),
        &[
            ("tiny", 4.5),
            ("libz", 12.0),
            ("libsqlite3", 50.0),
            ("libcrypto", 50.0),
            ("libpython", 17.0),
            ("libopenblas", 300.0),
            ("libLLVM", 20.0),
        ],
    ),
    (Way::Reset, &[("tiny", 150.0), ("libz", 300.0), ("libsqlite3", 400.0)]),
];

/// Those that are measured in fresh processes too.
const FRESH: &[Way] = &[
    Way::Seed,
    Way::File,
    Way::ElfLoader,
    Way::Load(DebugLevel::Off),
    Way::Load(DebugLevel::Full),
    Way::Buffer(DebugLevel::Off),
    Way::Instance(DebugLevel::Off),
];

/// How many times as fast a buffer is as `dlopen` of the file.
const OVER_FILE: &str = "load_buffer over dlopen of a file";
/// How many times the time of the system calls a load into new memory takes.
const OVER_FLOOR: &str = "load, new memory, over its system calls";

/// What is told in the large tables; the others are about debug information.
fn is_plain(way: Way) -> bool {
    !matches!(
        way,
        Way::Load(DebugLevel::Symbols | DebugLevel::Full)
            | Way::Buffer(DebugLevel::Full)
            | Way::Instance(DebugLevel::Full)
            | Way::Floor
    )
}

fn main() {
    let arguments = Arguments::read(&["save", "no-peers"]);
    if let Some(name) = arguments.text("library") {
        let kind = Kind::named(name);
        let subject = kind.open(Path::new(arguments.text("file").unwrap()));
        match arguments.text("way") {
            Some(way) => fresh(&subject, Way::named(way)),
            None => interleaved(name, &subject, &arguments),
        }
    } else if arguments.text("part") == Some("code") {
        code(Rounds::of(&arguments, 3.0));
    } else {
        whole(&arguments);
    }
}

/// In a child that has loaded nothing yet: the first load, and a second one while the first is
/// there, so that no memory can be used again.
fn fresh(subject: &Subject, way: Way) {
    let mut bench = Bench::new(subject);
    bench.keep = true;
    let timed = || {
        // A template is made for the first instance, and counts.
        let ready = match way {
            Way::Instance(_) => harness::ways::Ready::Nothing,
            _ => bench.ready(way),
        };
        let start = Instant::now();
        let loaded = bench.load(way, ready);
        (start.elapsed().as_secs_f64() * 1e9, loaded)
    };
    let (first, one) = timed();
    let (second, two) = timed();
    bench.call(&one);
    bench.call(&two);
    Results::tell("", &way.name(), "first", first);
    // The same file is the same library.
    if way != Way::File {
        Results::tell("", &way.name(), "second", second);
    }
}

/// In a child for one library: some ways in turns; and lookups, if it is memdl's turn.
fn interleaved(name: &str, subject: &Subject, arguments: &Arguments) {
    let ways: Vec<Way> = arguments.text("ways").unwrap().split('|').map(Way::named).collect();
    let bench = Bench::new(subject);
    assert_unloads(subject);
    let rounds = Rounds::of(arguments, 3.0);
    // Each way goes twice in its turn. The second time is the one that counts: the first finds
    // what the other ways have left in the caches, and a process whose list of libraries has
    // changed, which none has that loads in one way only.
    let samples = rounds.interleave(ways.len(), |which| {
        let disturbed = bench.sample(ways[which]).load;
        (disturbed, bench.sample(ways[which]))
    });
    type Part = fn(&(f64, Sample)) -> f64;
    let parts: [(&str, Part); 3] = [
        ("load", |(_, sample)| sample.load),
        ("whole", |(_, sample)| sample.whole),
        ("disturbed", |(disturbed, _)| *disturbed),
    ];
    // The other loaders have a process of their own, since they are libraries themselves, with
    // thousands of symbols, that all others must look through. Of the seed's way there only the
    // ratios are told.
    let beside_peers = ways.iter().any(|way| way.is_peer());
    for (what, part) in parts {
        let samples: Vec<Vec<f64>> =
            samples.iter().map(|samples| samples.iter().map(part).collect()).collect();
        let named =
            ways.iter().zip(&samples).filter(|(way, _)| !(beside_peers && **way == Way::Seed));
        for (way, of_way) in named {
            Results::tell(name, &way.name(), what, harness::median(of_way.iter().copied()));
            let ratio = harness::times_as_fast(&samples[0], of_way);
            Results::tell(name, &way.name(), &format!("{what}, ratio"), ratio);
        }
        let of = |way| ways.iter().position(|other| *other == way).map(|at| &samples[at]);
        if let (Some(file), Some(buffer)) = (of(Way::File), of(Way::Buffer(DebugLevel::Off))) {
            let ratio = harness::times_as_fast(file, buffer);
            Results::tell(name, OVER_FILE, what, ratio);
        }
        if let (Some(load), Some(floor)) = (of(Way::LoadInNewMemory), of(Way::Floor)) {
            Results::tell(name, OVER_FLOOR, what, harness::times_as_fast(load, floor));
        }
    }
    if !beside_peers {
        lookups(name, subject, rounds);
    }
}

/// A library that stays after `dlclose` would be found, not loaded, from the second round on.
fn assert_unloads(subject: &Subject) {
    // SAFETY: an open handle, closed once; `RTLD_NOLOAD` opens nothing.
    unsafe {
        libc::dlclose(dlopen(&subject.path, libc::RTLD_NOW));
        let again = libc::dlopen(subject.path.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        assert!(again.is_null(), "{:?} cannot be unloaded", subject.path);
    }
}

/// `get` beside `dlsym`, over the functions that the library exports.
fn lookups(name: &str, subject: &Subject, rounds: Rounds) {
    let loader = Loader::new().debug(DebugLevel::Off).system_libraries(true);
    // SAFETY: whoever named the library vouches for its constructors.
    let library = unsafe { loader.load(&subject.bytes) }.unwrap();
    let handle = dlopen(&subject.path, libc::RTLD_NOW);
    let mut names: Vec<CString> = library
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Function && symbol.is_default_version())
        .filter_map(|symbol| CString::new(symbol.name()).ok())
        .collect();
    // An image's symbols come ordered by hash; a program asks in another order.
    names.sort();
    let step = names.len().div_ceil(2000).max(1);
    let names: Vec<&CString> = names.iter().step_by(step).collect();
    let samples = rounds.interleave(2, |which| {
        let start = Instant::now();
        for name in &names {
            let found = match which {
                0 => dlsym(handle, name),
                // SAFETY: only the address is looked at.
                _ => unsafe { library.get::<*mut c_void>(name.to_bytes()).unwrap().as_raw_ptr() },
            };
            assert!(!black_box(found).is_null());
        }
        start.elapsed().as_secs_f64() * 1e9 / names.len() as f64
    });
    for (way, samples) in ["dlsym", "get"].into_iter().zip(samples) {
        Results::tell(name, way, "lookup", harness::median(samples));
    }
}

type Number = unsafe extern "C" fn(c_long) -> c_long;

/// Whose code is run.
const CODE: [Way; 5] = [
    Way::Seed,
    Way::File,
    Way::Load(DebugLevel::Off),
    Way::Buffer(DebugLevel::Off),
    Way::Instance(DebugLevel::Off),
];

const CODE_ROWS: [&str; 3] = [
    "100,000 calls through the pointer",
    "a compute loop",
    "an instruction on each of 4,096 pages",
];

/// Some code, loaded in each way: how long it runs. In a child.
fn code(rounds: Rounds) {
    let call = |symbol: Number| {
        for number in 0..100_000 {
            // SAFETY: it takes any number.
            black_box(unsafe { symbol(black_box(number)) });
        }
    };
    let once = |count: c_long| {
        move |symbol: Number| {
            // SAFETY: it takes a number of rounds.
            black_box(unsafe { symbol(count) });
        }
    };
    let measure = |row: &str, file: &Path, symbol, run: &dyn Fn(Number)| {
        let subject = Subject::open(file, symbol);
        let bench = Bench::new(&subject);
        // The first instance of a template shares nothing.
        let instance = Way::Instance(DebugLevel::Off);
        let _first = bench.load(instance, bench.ready(instance));
        let loaded = CODE.map(|way| bench.load(way, bench.ready(way)));
        let functions = loaded.each_ref().map(|loaded: &Loaded| {
            // SAFETY: the function is of this type.
            unsafe { std::mem::transmute::<*mut c_void, Number>(loaded.symbol(symbol)) }
        });
        let samples = rounds.interleave(CODE.len(), |which| {
            let start = Instant::now();
            run(functions[which]);
            start.elapsed().as_secs_f64() * 1e9
        });
        for (way, of_way) in CODE.iter().zip(&samples) {
            Results::tell(row, &way.name(), "code", harness::median(of_way.iter().copied()));
            let ratio = harness::times_as_fast(&samples[0], of_way);
            Results::tell(row, &way.name(), "code, ratio", ratio);
        }
    };
    let tiny = Kind::named("tiny");
    measure(CODE_ROWS[0], &tiny.file(), tiny.symbol, &call);
    measure(CODE_ROWS[1], &libraries::compute(), c"compute", &once(20_000));
    let scattered = libraries::scattered(4096);
    measure(CODE_ROWS[2], &scattered, c"walk", &once(50));
}

fn whole(arguments: &Arguments) {
    let machine = harness::machine();
    let mut results = Results::default();
    let mut notes = Vec::new();
    let kinds: Vec<&Kind> = LIBRARIES.iter().filter(|kind| arguments.wants(kind.name)).collect();
    assert!(!kinds.is_empty() || arguments.wants("code"), "no library has such a name");
    let with_peers = !arguments.has("no-peers");
    if with_peers && !kinds.is_empty() {
        eprintln!("building the other loaders");
        peers::build();
    }
    for kind in &kinds {
        one(kind, arguments, with_peers, &mut results, &mut notes);
    }
    let with_code = arguments.wants("code");
    if with_code {
        eprintln!("code");
        results.take(&harness::child(&with_options(arguments, &["--part", "code"]), 600).unwrap());
    }
    let names: Vec<String> = kinds.iter().map(|kind| kind.name.to_owned()).collect();
    let text = text(&machine, &names, with_code, &results, &notes);
    harness::report(arguments, "load", &text);
}

/// The options that children know as well.
fn with_options<'a>(arguments: &'a Arguments, own: &[&'a str]) -> Vec<&'a str> {
    let mut all = own.to_vec();
    for option in ["rounds", "seconds"] {
        if let Some(value) = arguments.text(option) {
            all.extend([if option == "rounds" { "--rounds" } else { "--seconds" }, value]);
        }
    }
    all
}

/// Measures one library.
fn one(
    kind: &Kind,
    arguments: &Arguments,
    with_peers: bool,
    results: &mut Results,
    notes: &mut Vec<String>,
) {
    eprintln!("{}", kind.name);
    let file = kind.file();
    let common = ["--library", kind.name, "--file", file.to_str().unwrap()];
    let in_fresh = |way: &str| harness::child(&[&common[..], &["--way", way]].concat(), 60);
    // Does it run at all? Of memdl and the C library a failure is one of the benchmark.
    let mut without = Vec::new();
    for way in WAYS.iter().filter(|way| way.is_peer()) {
        let name = way.name();
        let failure = if with_peers { in_fresh(&name).err() } else { Some("left out".to_owned()) };
        if let Some(why) = failure {
            if with_peers && *way != Way::ElfLoaderImported {
                notes.push(format!("{name} does not load {}: {why}", kind.name));
            }
            without.push(name);
        }
    }
    let count = arguments.number("fresh").unwrap_or(7);
    let fresh: Vec<Way> =
        FRESH.iter().copied().filter(|way| !without.contains(&way.name())).collect();
    let rounds = Rounds { fewest: count, time: std::time::Duration::ZERO };
    let samples = rounds.interleave(fresh.len(), |which| {
        let name = fresh[which].name();
        let mut told = Results::default();
        told.take(&in_fresh(&name).unwrap_or_else(|why| panic!("{}, {name}: {why}", kind.name)));
        ["first", "second"].map(|what| told.get("", &name, what).unwrap_or(f64::NAN))
    });
    for (at, what) in ["first", "second"].into_iter().enumerate() {
        let samples: Vec<Vec<f64>> = samples
            .iter()
            .map(|samples| samples.iter().map(|sample| sample[at]).collect())
            .collect();
        for (way, of_way) in fresh.iter().zip(&samples) {
            let median = harness::median(of_way.iter().copied());
            results.put(kind.name, &way.name(), what, median);
            let ratio = harness::times_as_fast(&samples[0], of_way);
            results.put(kind.name, &way.name(), &format!("{what}, ratio"), ratio);
        }
    }
    let names = |peers: bool| {
        let ways =
            WAYS.iter().filter(|way| way.is_peer() == peers || (peers && **way == Way::Seed));
        ways.map(|way| way.name()).filter(|name| !without.contains(name)).collect::<Vec<_>>()
    };
    for ways in [names(false), names(true)].iter().filter(|ways| ways.len() > 1) {
        let ways = ways.join("|");
        let own = [&common[..], &["--ways", &ways]].concat();
        let told = harness::child(&with_options(arguments, &own), 900);
        results.take(&told.unwrap_or_else(|why| panic!("{}: {why}", kind.name)));
    }
}

/// How many times as fast as the seed's way in the same process.
fn ratio(results: &Results, library: &str, way: Way, what: &str) -> Option<f64> {
    results.get(library, &way.name(), &format!("{what}, ratio"))
}

/// Microseconds, and in brackets how many times as fast as the seed's way.
fn cell(results: &Results, library: &str, way: Way, what: &str) -> String {
    let value = results.get(library, &way.name(), what).filter(|value| value.is_finite());
    match (value, ratio(results, library, way, what)) {
        (Some(value), _) if way == Way::Seed => microseconds(value),
        (Some(value), Some(ratio)) => format!("{} ({})", microseconds(value), significant(ratio)),
        _ => "–".to_owned(),
    }
}

fn ways_table(results: &Results, names: &[String], ways: &[Way], what: &str) -> String {
    let head = ["library".to_owned()].into_iter().chain(ways.iter().map(|way| way.name()));
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|library| {
            let cells = ways.iter().map(|way| cell(results, library, *way, what));
            [library.clone()].into_iter().chain(cells).collect()
        })
        .collect();
    harness::table(&head.collect::<Vec<_>>(), &rows)
}

fn text(
    machine: &str,
    names: &[String],
    with_code: bool,
    results: &Results,
    notes: &[String],
) -> String {
    let mut text = format!("{machine}\n\n");
    if !names.is_empty() {
        let plain: Vec<Way> = WAYS.iter().copied().filter(|way| is_plain(*way)).collect();
        let mut debug = vec![Way::Seed, Way::Load(DebugLevel::Off)];
        debug.extend(WAYS.iter().copied().filter(|way| !is_plain(*way) && *way != Way::Floor));
        let mut part = |title: &str, table: String| {
            writeln!(text, "**{title}**\n\n{table}").unwrap();
        };
        part("Load alone: µs (times as fast)", ways_table(results, names, &plain, "load"));
        part(
            "Load, look up, first call, unload: µs (times as fast)",
            ways_table(results, names, &plain, "whole"),
        );
        part(
            "Debug information, load alone: µs (times as fast)",
            ways_table(results, names, &debug, "load"),
        );
        part(
            "The first of two loads in a turn, after other ways: µs (times as fast)",
            ways_table(results, names, &plain, "disturbed"),
        );
        part(
            "New memory: beside the same system calls, page faults and copies alone: µs",
            floor_table(results, names),
        );
        part(
            "First load in a fresh process: µs (times as fast)",
            ways_table(results, names, FRESH, "first"),
        );
        let second: Vec<Way> = FRESH.iter().copied().filter(|way| *way != Way::File).collect();
        part(
            "Second load, the first still there, so that no memory is used again: µs (times as fast)",
            ways_table(results, names, &second, "second"),
        );
        part("Lookup: ns", lookup_table(results, names));
        part("Targets: times as fast, load alone", targets_table(results, names));
    }
    if with_code {
        let table = ways_table(results, &CODE_ROWS.map(str::to_owned), &CODE, "code");
        writeln!(text, "**Code that has been loaded: µs (times as fast)**\n\n{table}").unwrap();
    }
    for note in notes {
        writeln!(text, "{note}\n").unwrap();
    }
    text
}

fn floor_table(results: &Results, names: &[String]) -> String {
    let ways = [Way::Floor, Way::LoadInNewMemory].map(Way::name);
    let head = ["library".to_owned()].into_iter().chain(ways.clone());
    let head: Vec<String> = head.chain(["times as long".to_owned()]).collect();
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            let value = |way: &str| results.get(name, way, "load").unwrap_or(f64::NAN);
            let times = ways.each_ref().map(|way| microseconds(value(way)));
            let ratio = significant(value(OVER_FLOOR));
            [name.clone()].into_iter().chain(times).chain([ratio]).collect()
        })
        .collect();
    harness::table(&head, &rows)
}

fn lookup_table(results: &Results, names: &[String]) -> String {
    let head = ["library", "dlsym", "get", "get / dlsym"].map(str::to_owned);
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            let value = |way| results.get(name, way, "lookup").unwrap_or(f64::NAN);
            let (theirs, ours) = (value("dlsym"), value("get"));
            [theirs, ours, ours / theirs].map(significant).into_iter().fold(
                vec![name.clone()],
                |mut row, cell| {
                    row.push(cell);
                    row
                },
            )
        })
        .collect();
    harness::table(&head, &rows)
}

fn targets_table(results: &Results, names: &[String]) -> String {
    let head = ["way, library", "target", "is", ""].map(str::to_owned);
    let mut rows = Vec::new();
    for (way, targets) in TARGETS {
        for (library, target) in *targets {
            if names.iter().any(|name| name == library)
                && let Some(is) = ratio(results, library, *way, "load")
            {
                let verdict = if is >= *target { "reached" } else { "missed" };
                rows.push(vec![
                    format!("{}, {library}", way.name()),
                    significant(*target),
                    significant(is),
                    verdict.to_owned(),
                ]);
            }
        }
    }
    // Up to 8 MB, a buffer must be faster than `dlopen` of the file.
    for library in
        names.iter().filter(|name| !["libopenblas", "libLLVM", "data-64M"].contains(&&***name))
    {
        let is = results.get(library, OVER_FILE, "load").unwrap_or(f64::NAN);
        rows.push(vec![
            format!("{OVER_FILE}, {library}"),
            "1".to_owned(),
            significant(is),
            if is >= 1.0 { "reached" } else { "missed" }.to_owned(),
        ]);
    }
    harness::table(&head, &rows)
}
