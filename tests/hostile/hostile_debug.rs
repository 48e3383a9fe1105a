//! Debug information that was made to cost much: small files that state much. Each is loaded in each
//! form, on a thread with a small stack, within limits of time and memory; beyond them
//! debuggers see only symbols, and a warning names the limit.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    build, debug_entries, exit_status, in_child, is_sanitized, isolated, limit, peak_of,
    small_stack,
};
use memdl::{DebugLevel, Error, Library, Limits, Loader};

/// What a load may take: far more than the second that it may take where the optimizer was at work and
/// nobody else is. On a processor, of which others take their parts.
const TIME: Duration = Duration::from_secs(20);
const MEMORY: usize = 256 << 20;
/// What may be left afterwards, besides the image: the unpacked sections of a small file in each of the
/// two forms that a portable symfile keeps, and the memory that is kept for the next image.
const LEFT: usize = 112 << 20;

/// What was logged as a warning.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, data: &log::Metadata<'_>) -> bool {
        data.level() <= log::Level::Warn
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            WARNINGS.lock().unwrap().push(record.args().to_string());
        }
    }
    fn flush(&self) {}
}

fn warnings() -> Vec<String> {
    static SET: Once = Once::new();
    SET.call_once(|| {
        log::set_logger(&Log).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    std::mem::take(&mut WARNINGS.lock().unwrap())
}

/// A section to be added: its name, whether it is compressed, and its contents.
type Section = (&'static str, bool, Vec<u8>);

const COMPRESSED: u64 = 0x800;

/// The file with these sections too.
fn with_sections(file: &[u8], added: &[Section]) -> Vec<u8> {
    let headers = added.iter().map(|(name, compressed, contents)| {
        (name.as_bytes(), 1, if *compressed { COMPRESSED } else { 0 }, Place::New(contents))
    });
    with_headers(file, &headers.collect::<Vec<_>>())
}

enum Place<'a> {
    New(&'a [u8]),
    /// Where another one of those that are added is, by its number.
    Same(usize),
}

/// As [`with_sections`]: name, type, flags, contents.
fn with_headers(file: &[u8], added: &[(&[u8], u32, u64, Place<'_>)]) -> Vec<u8> {
    let word = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&file[at..at + len]);
        u64::from_le_bytes(bytes) as usize
    };
    let (table, count, names) = (word(40, 8), word(60, 2), word(62, 2));
    let mut headers: Vec<[u8; 64]> = file[table..table + count * 64].as_chunks().0.to_vec();
    let mut file = file.to_vec();
    let names_at = table + names * 64;
    let old = u64::from_le_bytes(file[names_at + 24..names_at + 32].try_into().unwrap()) as usize;
    let len = u64::from_le_bytes(file[names_at + 32..names_at + 40].try_into().unwrap()) as usize;
    let mut texts = file[old..old + len].to_vec();
    let mut places = vec![];
    let mut last: (&[u8], usize) = (&[], 0);
    for (name, sh_type, flags, place) in added {
        let (offset, size) = match place {
            Place::New(contents) => {
                let offset = file.len();
                file.extend_from_slice(contents);
                (offset, contents.len())
            }
            Place::Same(number) => places[*number],
        };
        places.push((offset, size));
        if last.0 != *name {
            last = (name, texts.len());
            texts.extend_from_slice(name);
            texts.push(0);
        }
        let mut header = [0; 64];
        header[..4].copy_from_slice(&(last.1 as u32).to_le_bytes());
        header[4..8].copy_from_slice(&sh_type.to_le_bytes());
        header[8..16].copy_from_slice(&flags.to_le_bytes());
        header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        header[48] = 1;
        headers.push(header);
    }
    headers[names][24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
    headers[names][32..40].copy_from_slice(&(texts.len() as u64).to_le_bytes());
    file.extend(texts);
    file.resize(file.len().next_multiple_of(8), 0);
    let table = file.len() as u64;
    file[40..48].copy_from_slice(&table.to_le_bytes());
    file[60..62].copy_from_slice(&(headers.len() as u16).to_le_bytes());
    headers.iter().for_each(|header| file.extend(header));
    file
}

/// As `SHF_COMPRESSED` has it.
fn compressed(kind: u32, size: usize, data: &[u8]) -> Vec<u8> {
    let size = (size as u64).to_le_bytes();
    [&kind.to_le_bytes()[..], &[0; 4], &size, &1_u64.to_le_bytes(), data].concat()
}

/// A section of one byte again and again, in Zstandard: four bytes for each 128 KiB.
fn zstd(byte: u8, size: usize) -> Vec<u8> {
    zstd_after(&[], byte, size)
}

/// The same, after a beginning.
fn zstd_after(beginning: &[u8], byte: u8, size: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend((size as u32).to_le_bytes());
    frame.extend(&((beginning.len() as u32) << 3).to_le_bytes()[..3]);
    frame.extend(beginning);
    let mut left = size - beginning.len();
    while left != 0 {
        let block = left.min(128 << 10);
        left -= block;
        let header = (block as u32) << 3 | 2 | u32::from(left == 0);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(byte);
    }
    compressed(2, size, &frame)
}

/// As [`zstd`], but as large as what may unpack to this.
fn padded(mut section: Vec<u8>, size: usize) -> Vec<u8> {
    // Skippable frames.
    let room = (size / 64 + 1).saturating_sub(section.len() + 8);
    section.extend([0x50, 0x2a, 0x4d, 0x18]);
    section.extend((room as u32).to_le_bytes());
    section.resize(section.len() + room, 0);
    section
}

/// A unit of DWARF 4 or 5 with the table of abbreviations at this offset.
fn unit(version: u8, table: u32, entries: &[u8]) -> Vec<u8> {
    let mut unit = vec![version, 0];
    if version >= 5 {
        unit.extend([1, 8]);
    }
    unit.extend(table.to_le_bytes());
    if version < 5 {
        unit.push(8);
    }
    unit.extend(entries);
    [&(unit.len() as u32).to_le_bytes()[..], &unit].concat()
}

/// A section of records that begin with their length.
fn record(contents: &[u8]) -> Vec<u8> {
    [&(contents.len() as u32).to_le_bytes()[..], contents].concat()
}

fn uleb(mut value: usize) -> Vec<u8> {
    let mut bytes = vec![];
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

const INFO: &str = ".debug_info";
const ABBREV: &str = ".debug_abbrev";

fn image(plain: bool) -> Vec<u8> {
    let flags: &[&str] = if plain { &["-O1", "-DPLAIN"] } else { &["-O1"] };
    std::fs::read(build("gcc", "debug/hostile.c", flags)).unwrap()
}

/// The levels of an image with these debug sections when [`DebugLevel::Full`] and [`DebugLevel::Portable`] are requested,
/// and the warnings.
struct Kind {
    name: &'static str,
    image: Vec<u8>,
    full: (DebugLevel, &'static str),
    portable: (DebugLevel, &'static str),
}

const STEPS: &str = "Limits::debug_info_steps";
const UNPACKED: &str = "Limits::unpacked_debug_info";
const RATIO: &str = "allowed for one of its size";
const NO_WARNING: &str = "";

fn kinds() -> Vec<Kind> {
    let (tls, plain) = (image(false), image(true));
    let of = |name, image: &[u8], sections: &[Section], full, portable| {
        let image = with_sections(image, sections);
        assert!(image.len() <= 1 << 20, "{name}: {}", image.len());
        Kind { name, image, full, portable }
    };
    let fine = (DebugLevel::Full, NO_WARNING);
    let names = |why| (DebugLevel::Symbols, why);
    let mut kinds = vec![];

    let bombs = || [ABBREV, INFO, ".debug_addr", ".debug_str", ".debug_line", ".debug_loc"];
    let bomb: Vec<Section> = bombs().map(|name| (name, true, zstd(0, 64 << 20))).to_vec();
    kinds.push(of("a bomb, with thread-locals", &tls, &bomb, names(RATIO), names(RATIO)));
    // Nobody but the debugger unpacks it.
    kinds.push(of("a bomb", &plain, &bomb[3..], fine, names(RATIO)));
    let large = || padded(zstd(0, 8 << 20), 8 << 20);
    let many: Vec<Section> = bombs().map(|name| (name, true, large())).to_vec();
    let what = "sections that are large together";
    kinds.push(of(what, &tls, &many, fine, names(UNPACKED)));
    let table = padded(zstd(0, 20 << 20), 20 << 20);
    let many: [Section; 3] =
        [(ABBREV, true, table), (INFO, false, vec![]), (".debug_addr", false, vec![])];
    kinds.push(of("millions of empty tables", &tls, &many, names(STEPS), names(STEPS)));
    let many: Vec<Section> = (0..120).map(|_| (".debug_types", true, zstd(0, 256 << 10))).collect();
    kinds.push(of("many small sections", &tls, &many, names(UNPACKED), names(UNPACKED)));

    let frames = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0].repeat(100_000);
    let frames = compressed(2, 0, &frames);
    let frames: [Section; 2] = [(ABBREV, false, vec![0]), (INFO, true, frames)];
    kinds.push(of("empty frames", &tls, &frames, fine, (DebugLevel::Portable, NO_WARNING)));

    // An attribute that takes no room, again and again, and the name of a file.
    let table =
        [&[1, 0x11, 0][..], &[0x3f, 0x19].repeat(150_000), &[0x76, 0x21, 0, 0x73, 0x17, 0, 0, 0]];
    let units = unit(4, 0, &[1, 0, 0, 0, 0]).repeat(30_000);
    let shared: [Section; 3] = [
        (ABBREV, false, table.concat()),
        (INFO, false, units),
        (".debug_addr", false, vec![0; 64]),
    ];
    let split = "split DWARF";
    kinds.push(of("roots of many attributes", &tls, &shared, names(STEPS), names(STEPS)));
    kinds.push(of("the same, plain", &plain, &shared, fine, (DebugLevel::Full, split)));

    // Tables that begin anywhere in one.
    let table = [&[1, 0x34, 0][..], &[0x02, 0x18].repeat(150_000), &[0, 0, 0]].concat();
    let units: Vec<u8> = (0..40_000).flat_map(|at| unit(4, at * 2, &[])).collect();
    let overlap: [Section; 2] = [(ABBREV, false, table), (INFO, false, units)];
    let cut_off = "unexpected end of input";
    kinds.push(of("tables that overlap", &plain, &overlap, fine, (DebugLevel::Full, cut_off)));

    // Entries of two bytes that refer to a list.
    let table = vec![1, 0x11, 1, 0x8c, 0x01, 0x17, 0, 0, 2, 0x34, 0, 0x02, 0x22, 0, 0, 0];
    let entries = [&[1, 12, 0, 0, 0][..], &[2, 0].repeat(450_000)].concat();
    let lists = [&record(&[&[5, 0, 8, 0, 1, 0, 0, 0, 4, 0, 0, 0][..], &[0]].concat())[..]].concat();
    let refer: [Section; 3] = [
        (ABBREV, false, table.clone()),
        (INFO, false, unit(5, 0, &entries)),
        (".debug_loclists", false, lists),
    ];
    kinds.push(of(
        "references to one list",
        &plain,
        &refer,
        fine,
        (DebugLevel::Portable, NO_WARNING),
    ));
    // Each is two bytes, so that there are two attributes of one byte.
    let table = [&table[..8], &[2, 0x34, 0, 0x02, 0x22, 0x02, 0x22, 0, 0, 0]].concat();
    let compressed_entries = |size: usize| {
        let start =
            [&(size as u32 - 4).to_le_bytes()[..], &[5, 0, 1, 8, 0, 0, 0, 0, 1, 12, 0, 0, 0]];
        let packed = padded(zstd_after(&start.concat(), 2, size), size);
        let refer: [Section; 2] = [(ABBREV, false, table.clone()), (INFO, true, packed)];
        refer
    };
    let (large, larger) = (compressed_entries(2 << 20), compressed_entries(20 << 20));
    let cut = "unexpected end of input";
    kinds.push(of("compressed entries", &plain, &large, fine, (DebugLevel::Full, cut)));
    kinds.push(of("more compressed entries", &plain, &larger, fine, names(STEPS)));

    // The locations are rewritten, each to where its variable is, so a unit's header comes first.
    let location = [10, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0].repeat(90_000);
    let locations: [Section; 1] = [(INFO, false, [&[10, 0, 0, 0, 0, 0], &location[..]].concat())];
    kinds.push(of(
        "thread-locals again and again",
        &tls,
        &locations,
        fine,
        (DebugLevel::Full, "unknown DWARF"),
    ));

    // An expression in an expression in an expression, back to front.
    let mut expression: Vec<u8> = vec![0x30];
    while expression.len() < 800_000 {
        let len: Vec<u8> = uleb(expression.len()).into_iter().rev().collect();
        expression.extend(len);
        expression.push(0xa3);
    }
    expression.reverse();
    let table = vec![1, 0x11, 0, 0x02, 0x18, 0, 0, 0];
    let entries = [&[1][..], &uleb(expression.len()), &expression].concat();
    let nested: [Section; 2] = [(ABBREV, false, table), (INFO, false, unit(4, 0, &entries))];
    kinds.push(of(
        "expressions in each other",
        &plain,
        &nested,
        fine,
        (DebugLevel::Portable, NO_WARNING),
    ));

    let line = [&[4, 0, 7, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0][..], &vec![0x80; 900_000]].concat();
    let lines: [Section; 1] = [(".debug_line", false, record(&line))];
    kinds.push(of("a long line program", &plain, &lines, fine, (DebugLevel::Portable, NO_WARNING)));
    let cie = [&[0xff, 0xff, 0xff, 0xff, 1, 0, 1, 1, 1][..], &vec![0; 900_000]].concat();
    let frames: [Section; 1] = [(".debug_frame", false, record(&cie))];
    kinds.push(of("long call frames", &plain, &frames, fine, (DebugLevel::Portable, NO_WARNING)));

    // Thousands of sections of one name.
    let table: Vec<u8> = vec![1, 0x11, 0, 0x76, 0x08, 0x73, 0x17, 0, 0, 0];
    let skeleton = |base: u32| unit(4, 0, &[&[1, b'a', 0][..], &base.to_le_bytes()].concat());
    let units: Vec<u8> = (0..4000).flat_map(|number| skeleton(number * 8)).collect();
    let mut sections: Vec<Section> =
        vec![(ABBREV, false, table), (INFO, false, units), (".debug_addr", false, vec![0; 32_000])];
    sections.extend((0..12_000).map(|_| (".debug_addr", false, vec![0; 8])));
    let twice = "more than one section of a name";
    kinds.push(of("thousands of sections", &tls, &sections, names(twice), names(twice)));

    let name = [b".debug_".to_vec(), vec![b'x'; 200_000]].concat();
    let headers: Vec<_> = (0..10_000).map(|_| (&name[..], 1, 0, Place::New(&[1]))).collect();
    let image = with_headers(&plain, &headers);
    let portable = (DebugLevel::Portable, NO_WARNING);
    kinds.push(Kind { name: "long names", image, full: fine, portable });
    kinds
}

/// How long this process was on a processor.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills in what is there for it.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What `f` returns, run on a thread with a small stack, within limits; and the memory that it left.
fn bounded<T: Send>(what: &str, f: impl FnOnce() -> T + Send) -> T {
    let mut result = None;
    let start = processor_time();
    let before = crate::common::resident();
    let peak = peak_of(|| {
        result = thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(small_stack()).spawn_scoped(scope, f);
            Some(thread.unwrap().join().unwrap())
        });
    });
    let elapsed = processor_time() - start;
    let left = crate::common::resident().saturating_sub(before) * 1024;
    println!("{what}: {elapsed:?}, {} KiB at the peak, {} KiB left", peak >> 10, left >> 10);
    std::io::stdout().flush().unwrap();
    assert!(elapsed < limit(TIME), "{what}: {elapsed:?}");
    assert!(is_sanitized() || (peak < MEMORY && left < LEFT), "{what}: {peak} {left}");
    result.unwrap()
}

fn load(loader: &Loader, image: &[u8]) -> Library {
    // SAFETY: the image has a function that returns a number, and no constructor.
    let library = unsafe { loader.load(image).unwrap() };
    // SAFETY: as above.
    assert_eq!(unsafe { library.get::<extern "C" fn() -> i32>("next").unwrap()() }, 41);
    library
}

/// Takes about 3 s by itself, unoptimized.
#[test]
fn whatever_a_small_file_states_it_costs_little() {
    isolated(|| {
        kinds().into_iter().step_by(2).for_each(costs_little);
    });
}

/// The other half, which takes as long.
#[test]
fn whatever_else_a_small_file_states_it_costs_little() {
    isolated(|| {
        kinds().into_iter().skip(1).step_by(2).for_each(costs_little);
    });
}

fn costs_little(kind: Kind) {
    let Kind { name, image, full, portable } = kind;
    warnings();
    let symbols = (DebugLevel::Symbols, NO_WARNING);
    for (wanted, (told, why)) in
        [(DebugLevel::Symbols, symbols), (DebugLevel::Full, full), (DebugLevel::Portable, portable)]
    {
        let what = format!("{name}, {wanted:?}");
        let loader = Loader::new().debug(wanted);
        let library = bounded(&what, || load(&loader, &image));
        let said = warnings();
        assert_eq!(library.debug(), told, "{what}: {said:?}");
        // One that names the image and the limit.
        assert_eq!(said.len(), usize::from(!why.is_empty()), "{what}: {said:?}");
        let is_right = |it: &String| it.starts_with("image: ") && it.contains(why);
        assert!(said.iter().all(is_right), "{what}: {said:?}");
        if wanted == DebugLevel::Symbols {
            let (told, why) = full;
            let what = format!("{name}, later in full");
            bounded(&what, || library.set_debug(DebugLevel::Full).unwrap());
            let said = warnings();
            assert_eq!(library.debug(), told, "{what}: {said:?}");
            assert_eq!(said.len(), usize::from(!why.is_empty()), "{what}: {said:?}");
            assert!(said.iter().all(|it| it.contains(why)), "{what}: {said:?}");
        }
    }
}

/// How long the longest fork takes while another thread is in `body`, as a part of the time that `body`
/// takes. A fork that begins in it counts whole.
fn longest_fork_during(body: impl FnOnce() + Send) -> f64 {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let start = Instant::now();
            body();
            is_over.store(true, Ordering::Relaxed);
            start.elapsed()
        });
        let mut longest = Duration::ZERO;
        while !is_over.load(Ordering::Relaxed) {
            let start = Instant::now();
            assert_eq!(exit_status(in_child(60, || 42)), Some(42));
            longest = longest.max(start.elapsed());
        }
        longest.as_secs_f64() / thread.join().unwrap().as_secs_f64()
    })
}

/// What takes long is unpacked and read without a lock: a fork waits for none of it.
#[test]
fn a_fork_does_not_wait_for_debug_information_to_be_read() {
    isolated(|| {
        let kind = |name| kinds().into_iter().find(|kind| kind.name == name).unwrap().image;
        let unpacked = kind("sections that are large together");
        let read = kind("more compressed entries");
        for (what, image, wanted) in [
            ("unpacked", &unpacked, DebugLevel::Full),
            ("unpacked and read", &read, DebugLevel::Portable),
        ] {
            let part = || {
                // Anew each time: what was read once is kept.
                let library = load(&Loader::new().debug(DebugLevel::Symbols), image);
                let part = longest_fork_during(|| library.set_debug(wanted).unwrap());
                println!("{what}: the longest fork took {part:.3} of the time");
                part
            };
            // On a busy machine a fork may wait for a processor, but not each time: with a lock all would
            // take the whole time.
            assert!((0..6).any(|_| part() < 0.5), "{what}: a fork waits");
        }
    });
}

/// Each of the threads has its way in the end, from whatever the others have made of it meanwhile.
#[test]
fn threads_that_tell_more_or_less_of_one_image_at_once_do_not_mix_it_up() {
    isolated(|| {
        let file = std::fs::read(build("gcc", "foo.c", &["-g", "-O0", "-gz", "-Wl,--build-id"]));
        let file = file.unwrap();
        // SAFETY: a library of `testlibs/`.
        let library = unsafe { Loader::new().debug(DebugLevel::Symbols).load(&file) }.unwrap();
        let levels = [DebugLevel::Full, DebugLevel::Symbols, DebugLevel::Portable, DebugLevel::Off];
        // The sizes of the symfiles at each level.
        let told = || {
            levels.map(|level| {
                library.set_debug(level).unwrap();
                assert_eq!(library.debug(), level);
                debug_entries()
            })
        };
        let rounds = 100;
        let (opened_later, opened_at_once) = (told(), {
            library.set_debug(DebugLevel::Full).unwrap();
            library.set_debug_info(file.as_slice()).unwrap();
            told()
        });
        assert_eq!(opened_later.clone().map(|entries| entries.len()), [1, 1, 1, 0]);
        library.set_debug_info(file.as_slice()).unwrap();
        assert_eq!(told(), opened_later, "from the same file");
        thread::scope(|scope| {
            for first in 0..levels.len() {
                let library = &library;
                scope.spawn(move || {
                    for round in 0..rounds {
                        library.set_debug(levels[(first + round) % levels.len()]).unwrap();
                        assert!(levels.contains(&library.debug()));
                    }
                });
            }
            scope.spawn(|| {
                (0..rounds).for_each(|_| library.set_debug_info(file.as_slice()).unwrap())
            });
        });
        let in_the_end = told();
        assert!(
            [&opened_later, &opened_at_once].contains(&&in_the_end),
            "{opened_later:?} or {opened_at_once:?}, not {in_the_end:?}"
        );
        drop(library);
        assert_eq!(debug_entries(), []);
    });
}

/// An index of a package of DWARF 5: of each row the id, and where in `.debug_info.dwo` and
/// `.debug_abbrev.dwo` its parts are; the slots that are left have the id 1 and no row.
fn index(rows: &[(u64, [(u32, u32); 2])], slots: usize) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<u8>>();
    let mut index = words(&[5, 2, rows.len() as u32, slots as u32]);
    let place = |number: usize| rows.get(number).map_or((1, 0), |row| (row.0, number as u32 + 1));
    index.extend((0..slots).flat_map(|number| place(number).0.to_le_bytes()));
    index.extend((0..slots).flat_map(|number| place(number).1.to_le_bytes()));
    index.extend(words(&[1, 3]));
    index.extend(rows.iter().flat_map(|(_, parts)| words(&[parts[0].0, parts[1].0])));
    index.extend(rows.iter().flat_map(|(_, parts)| words(&[parts[0].1, parts[1].1])));
    index
}

/// A split unit of DWARF 5 in a package or, as a skeleton, in the image.
fn split_unit(is_skeleton: bool, id: u64, table: u32, entries: &[u8]) -> Vec<u8> {
    let kind = if is_skeleton { 4 } else { 5 };
    let head = [5, 0, kind, 8];
    record(&[&head[..], &table.to_le_bytes(), &id.to_le_bytes(), entries].concat())
}

/// As [`whatever_a_small_file_states_it_costs_little`], of debug information in other files. Takes
/// about 5 s by itself, unoptimized.
#[test]
fn whatever_another_file_states_it_costs_little() {
    isolated(|| {
        warnings();
        let plain = image(true);
        let image = |units: Vec<u8>, more: &[Section]| {
            let table = vec![1, 0x4a, 0, 0x10, 0x17, 0, 0, 2, 0x4a, 0, 0, 0, 0];
            let sections = [(ABBREV, false, table), (INFO, false, units)];
            with_sections(&plain, &[&sections[..], more].concat())
        };
        let package = |entries: &[u8], table: &[u8], index: Vec<u8>| {
            let sections = [
                (".debug_info.dwo", false, entries.to_vec()),
                (".debug_abbrev.dwo", false, table.to_vec()),
                (".debug_cu_index", false, index),
            ];
            with_sections(&plain, &sections)
        };
        let skeletons = |count: u64| -> Vec<u8> {
            (0..count).flat_map(|id| split_unit(true, 7 + id, 0, &[2])).collect()
        };
        let load_with = |what: &str, image: &[u8], file: &[u8]| {
            assert!(image.len() <= 1 << 20 && file.len() <= 1 << 20, "{what}");
            let loader = Loader::new().debug_info(file);
            bounded(what, || {
                // SAFETY: as in `load`.
                let library = unsafe { loader.load(image) };
                library.map(|library| library.debug())
            })
        };
        let of = |entries: &[u8], table: &[u8], units: u64| {
            let info = split_unit(false, 7, 0, entries);
            let part = [(0, info.len() as u32), (0, table.len() as u32)];
            let rows: Vec<_> = (0..units).map(|id| (7 + id, part)).collect();
            let slots = (rows.len() + 1).next_power_of_two();
            (image(skeletons(units), &[]), package(&info, table, index(&rows, slots)))
        };
        let table = [1, 0x11, 1, 0, 0, 2, 0x0b, 1, 0, 0, 3, 0x34, 0, 0, 0, 0];

        let deep = [&[1][..], &[2].repeat(250), &[0].repeat(251)].concat();
        let (whole, dwp) = of(&deep, &table, 1);
        assert_eq!(load_with("entries in each other", &whole, &dwp).unwrap(), DebugLevel::Full);
        assert_eq!(warnings(), [""; 0]);

        for (what, entries, units, why) in [
            ("a million entries", [&[1][..], &[3].repeat(900_000), &[0]].concat(), 1, "too often"),
            (
                "one part for all",
                [&[1][..], &[3].repeat(200_000), &[0]].concat(),
                5000,
                "too often",
            ),
            ("deeper entries", [&[1][..], &[2].repeat(200_000)].concat(), 1, "too often"),
        ] {
            let (whole, dwp) = of(&entries, &table, units);
            // As without the package.
            assert_eq!(load_with(what, &whole, &dwp).unwrap(), DebugLevel::Full);
            let said = warnings();
            assert!(said.len() == 1 && said[0].contains(why), "{what}: {said:?}");
        }

        // Each look-up would go through all slots.
        let info = split_unit(false, 7, 0, &[1, 0]);
        let dwp = package(&info, &table, index(&[(7, [(0, info.len() as u32), (0, 16)])], 1 << 16));
        let whole = image(skeletons(30_000), &[]);
        let refused = load_with("a full index", &whole, &dwp).unwrap_err();
        assert!(refused.to_string().contains("no unit 0x0000000000000008"), "{refused}");

        // A million files of one byte each.
        let names = [&[1, 1, 0x0b, 0, 1, 1, 0x0b][..], &uleb(800_000), &[0; 800_000]].concat();
        let header = [&[1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1][..], &names];
        let header = header.concat();
        let line = [&[5, 0, 8, 0][..], &(header.len() as u32).to_le_bytes(), &header].concat();
        let whole = image(
            split_unit(true, 7, 0, &[1, 0, 0, 0, 0]),
            &[(".debug_line", false, record(&line))],
        );
        let (_, dwp) = of(&[1, 0], &table, 1);
        assert_eq!(load_with("a million files", &whole, &dwp).unwrap(), DebugLevel::Full);
        let said = warnings();
        assert!(said.len() == 1 && said[0].contains("too often"), "{said:?}");

        // Thousands of headers of the same notes, which are no build-id.
        let id =
            std::fs::read(build("gcc", "debug/hostile.c", &["-DPLAIN", "-Wl,--build-id"])).unwrap();
        let notes = [0_u8; 12].repeat(40_000);
        let first = (&b".note.x"[..], 7, 0, Place::New(&notes[..]));
        let others = (0..8000).map(|_| (&b".note.x"[..], 7, 0, Place::Same(0)));
        let other = with_headers(&plain, &std::iter::once(first).chain(others).collect::<Vec<_>>());
        let refused = load_with("notes again and again", &id, &other).unwrap_err();
        assert!(matches!(refused, Error::DebugInfo { .. }), "{refused}");
        assert_eq!(warnings(), [""; 0]);
    });
}

/// The limits are the program's to choose.
#[test]
fn what_exceeds_the_programs_limits_is_told_by_name_only() {
    isolated(|| {
        warnings();
        let flags = ["-g", "-gz=zlib", "-Wl,--compress-debug-sections=zlib"];
        let image = std::fs::read(build("gcc", "debug/hostile.c", &flags)).unwrap();
        let mut little = Limits::default();
        little.unpacked_debug_info = 16;
        let mut short = Limits::default();
        short.debug_info_steps = 16;
        for (limits, full, why) in [
            (Limits::default(), DebugLevel::Full, NO_WARNING),
            (little, DebugLevel::Symbols, "more than 16 bytes (Limits::unpacked_debug_info"),
            (short, DebugLevel::Symbols, "more than 16 steps to read (Limits::debug_info_steps"),
        ] {
            for (wanted, told) in [
                (DebugLevel::Symbols, DebugLevel::Symbols),
                (DebugLevel::Full, full),
                (
                    DebugLevel::Portable,
                    if why.is_empty() { DebugLevel::Portable } else { DebugLevel::Symbols },
                ),
            ] {
                let library = load(&Loader::new().limits(limits.clone()).debug(wanted), &image);
                let said = warnings();
                assert_eq!(library.debug(), told, "{said:?}");
                assert_eq!(said.len(), usize::from(told != wanted), "{said:?}");
                assert!(said.iter().all(|it| it.contains(why)), "{said:?}");
            }
        }
    });
}
