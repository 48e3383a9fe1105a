//! Images and debug files of which a field, an entry or a section is wrong: loaded, or an error, in
//! bounded time and memory, with the process as it was before. Nothing of the images runs
//! ([`memdl::internals`]), so whatever happens is memdl's doing.
//!
//! The changes are those of the fuzzers (`fuzz/src/mutate.rs`), which know the structures of an ELF
//! file, and a few more; the seeds are fixed. A failure names the case: `MEMDL_TEST_CASE=SET:NUMBER`
//! runs that one alone.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::machine::FOREIGN;
use crate::common::{
    assert_agrees, bytes, can_link, debug_entries, glibc, is_sanitized, isolated_without_caches,
    limit, limited, maps, peak_of, repository, run, zstd,
};
use crate::mutate;
use goblin::elf::dynamic::DT_FLAGS_1;
use memdl::internals::{self, Way};
use memdl::{DebugLevel, Error, Loader, Report};

const FORMS: [DebugLevel; 3] = [DebugLevel::Full, DebugLevel::Portable, DebugLevel::Symbols];
/// How many cases there are between two looks at the process.
const BATCH: u32 = 250;
/// Far more than a case takes, on a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(10);
/// What a batch may take of memory, beyond what there was.
const MUCH: usize = 256 << 20;

/// An image, and a second file that has its debug information.
struct Seed {
    name: String,
    image: Vec<u8>,
    second: Option<Vec<u8>>,
}

/// The case that runs, for whoever reports a crash.
static CASE: AtomicU32 = AtomicU32::new(0);

/// Says which case it was when the process dies of a signal.
fn report_crashes() {
    extern "C" fn report(signal: libc::c_int) {
        let mut text = *b"case 0000000000 died of a signal\n";
        let mut number = CASE.load(Ordering::Relaxed);
        for digit in text[5..15].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        // SAFETY: both calls are safe in a signal handler; the text is a local.
        unsafe {
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT] {
        // SAFETY: the handler does what handlers may.
        unsafe { libc::signal(signal, report as *const () as libc::sighandler_t) };
    }
}

/// What a case must leave as it was. Heaps grow, and stacks.
#[derive(Debug, PartialEq)]
struct State {
    mappings: Vec<String>,
    debug_entries: usize,
    descriptors: usize,
}

impl State {
    fn now() -> State {
        memdl::release_memory();
        // The C library maps what is large, and gives it back when it is freed.
        let is_kept = |name: &str| !matches!(name, "[heap]" | "[stack]") && !is_sanitized();
        let mappings = maps().into_iter().filter(|line| is_kept(&line.name));
        State {
            mappings: mappings.map(|line| format!("{} {}", line.access, line.name)).collect(),
            debug_entries: debug_entries().len(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        }
    }
}

/// Bytes that change without knowing what they are, as the fuzzers' own mutations.
fn flat(state: &mut u64, data: &mut [u8], size: usize, most: usize) -> usize {
    let mut next = |below: usize| {
        *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (*state >> 33) as usize % below.max(1)
    };
    let mut len = size;
    for _ in 0..1 + next(4) {
        let at = next(len);
        match next(6) {
            0 => len = at,
            1 if len < most.min(data.len()) => len += 1 + next(most.min(data.len()) - len),
            2 => data[at..len].iter_mut().take(4).for_each(|byte| *byte = 0xff),
            3 => data[at..len].iter_mut().take(8).for_each(|byte| *byte = 0),
            _ if len > 0 => data[at] = next(256) as u8,
            _ => {}
        }
    }
    len
}

/// A file with something wrong in it, the same for each number.
fn mutated(original: &[u8], number: u32) -> Vec<u8> {
    let mut state = u64::from(number) << 32 | 0x6d65_6d64;
    let most = original.len() + 4096;
    let mut data = original.to_vec();
    data.resize(most, 0);
    let mut byte_mutation =
        |data: &mut [u8], size: usize, most: usize| flat(&mut state, data, size, most);
    let len = mutate::elf(&mut data, original.len(), most, number, &mut byte_mutation);
    data.truncate(len);
    // What the mutator leaves to a target's own choices must be zero.
    if !number.is_multiple_of(50) && data.len() >= 16 {
        data[7..16].fill(0);
    }
    match number % 24 {
        0 => data.truncate(number as usize * 2_654_435 % data.len().max(1)),
        1..=3 => change_entries(&mut data, number),
        _ => {}
    }
    never_pinned(&mut data);
    data
}

/// An image that says `DF_1_NODELETE` stays for good, as it should.
fn never_pinned(data: &mut [u8]) {
    const DF_1_NODELETE: u8 = 8;
    for at in 0..data.len().saturating_sub(15) {
        if data[at..at + 8] == DT_FLAGS_1.to_le_bytes() {
            data[at + 8] &= !DF_1_NODELETE;
        }
    }
}

/// Takes an entry out of a table, or puts it there twice: a program header, a dynamic entry, a symbol, a
/// relocation.
fn change_entries(data: &mut [u8], number: u32) {
    let Ok(elf) = goblin::elf::Elf::parse(data) else { return };
    let dynamic = elf.program_headers.iter().find(|it| it.p_type == 2);
    let tables = [
        (elf.header.e_phoff, 56, elf.program_headers.len()),
        dynamic.map_or((0, 16, 0), |it| (it.p_offset, 16, it.p_filesz as usize / 16)),
        elf.dynamic
            .as_ref()
            .map_or((0, 24, 0), |it| (it.info.symtab as u64, 24, elf.dynsyms.len())),
        elf.dynamic
            .as_ref()
            .map_or((0, 24, 0), |it| (it.info.rela as u64, 24, it.info.relasz / 24)),
    ];
    let number = number as usize / 24;
    let (start, len, count) = tables[number % tables.len()];
    let index = number / tables.len() % count.clamp(1, 64);
    let Ok(start) = usize::try_from(start) else { return };
    let Some(rest) = count.checked_sub(index + 1).and_then(|left| left.checked_mul(len)) else {
        return;
    };
    let Some(at) = index.checked_mul(len).and_then(|skip| start.checked_add(skip)) else { return };
    if at.checked_add(rest + len).is_none_or(|end| end > data.len()) {
        return;
    }
    if number.is_multiple_of(2) {
        data.copy_within(at + len..at + len + rest, at);
    } else {
        data.copy_within(at..at + rest, at + len);
    }
}

/// An error must be one that can be shown.
fn checked(error: &Error) {
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() < 100_000, "an error of {} bytes", text.len());
}

/// Asserts that a report on an image can be shown, and agrees with what a load came to.
fn check_report<T>(report: &Report, loaded: &Result<T, Error>) {
    let text = report.to_string();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    report.refusals().iter().for_each(checked);
    match loaded {
        // The report is one without that file.
        Err(Error::DebugInfo { .. }) => {}
        // The load may open nothing here.
        Err(Error::Missing { libraries, .. }) if !libraries.is_empty() => {}
        _ => assert_agrees(report, loaded, "a changed image"),
    }
}

/// Loads an image each way. How often that went well.
fn load(image: &[u8], second: Option<&[u8]>, number: u32) -> u32 {
    let mut loaded = 0;
    let report = memdl::inspect(image);
    for (way, index) in Way::ALL.into_iter().zip(0..) {
        // Each form for each way, in turn.
        let form = FORMS[(number + index) as usize % FORMS.len()];
        let found = internals::load_without_running(image, way, form, second);
        if way == Way::Copy {
            check_report(&report, &found);
        }
        match found {
            Ok(idle) => {
                loaded += 1;
                idle.look_at_symbols();
                let range = idle.address_range();
                for part in 0..4 {
                    let frames = idle.symbolize((range.len() / 4 * part) as u64);
                    assert!(frames.iter().all(|it| !it.to_string().chars().any(char::is_control)));
                }
                if number.is_multiple_of(8) {
                    let _ = idle.set_debug(FORMS[number as usize / 8 % FORMS.len()]);
                    if let Some(Err(error)) = second.map(|file| idle.set_debug_info(file)) {
                        checked(&error);
                    }
                }
            }
            Err(error) => checked(&error),
        }
    }
    loaded
}

/// Examines an image for another machine: all but a load, which refuses it. How often that went well. `second` is the
/// library that it needs.
fn examine(image: &[u8], second: Option<&[u8]>, number: u32) -> u32 {
    let alone = memdl::inspect(image);
    let way = Way::ALL[number as usize % Way::ALL.len()];
    let found = internals::load_without_running(image, way, DebugLevel::Full, None);
    check_report(&alone, &found);
    // Its number may have been changed to that of this machine.
    assert!(found.is_err() || alone.is_for_this_machine());
    let somewhere = || std::ptr::without_provenance(0x1000);
    let loader = Loader::new()
        .system_libraries(false)
        .resolver(move |it| (it.name() == "__tls_get_addr").then(somewhere));
    let loader = second.into_iter().fold(loader, |it, dep| it.provide("libdep.so", dep));
    let report = loader.inspect(image);
    let text = report.to_string();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n') && text.len() < 1 << 20, "{text:?}");
    report.refusals().iter().for_each(checked);
    assert!(report.relocation_types().len() <= 256);
    let _ = internals::rewrite_dwarf(image);
    let _ = internals::read_lines(image, &[0, 0x1000, 0x10700, 0x10740, u64::MAX]);
    let forms = [(FORMS[0], false), (FORMS[1], number.is_multiple_of(2))];
    let made = forms.map(|(form, shared)| internals::symfile(image, form, shared).is_ok());
    let is_accepted = report.refusals_on_its_machine().next().is_none();
    u32::from(is_accepted) + u32::from(made[0]) + u32::from(made[1])
}

/// What is done with an image and its second file in a case of this number. Returns how many of three things went well.
type Case = fn(&[u8], Option<&[u8]>, u32) -> u32;

/// Runs the cases from `first` on; `wrong` says whether it is the second file that is wrong.
fn run_cases(
    test: &str,
    seeds: &[Seed],
    first: u32,
    cases: u32,
    wrong: fn(u32) -> bool,
    load: Case,
) {
    let only = std::env::var("MEMDL_TEST_CASE").ok();
    let only = only.as_ref().and_then(|it| it.strip_prefix(test)?.strip_prefix(':')?.parse().ok());
    report_crashes();
    let case = |number: u32| {
        CASE.store(number, Ordering::Relaxed);
        let seed = &seeds[number as usize % seeds.len()];
        let start = Instant::now();
        let loaded = match &seed.second {
            Some(second) if wrong(number) => {
                load(&seed.image, Some(&mutated(second, number)), number)
            }
            second => load(&mutated(&seed.image, number), second.as_deref(), number),
        };
        let time = start.elapsed();
        assert!(time < limit(LONG), "case {number} of {}: {time:?}", seed.name);
        (loaded, time)
    };
    /// Says which case it was when it panics.
    struct Tell;
    impl Drop for Tell {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("case {}", CASE.load(Ordering::Relaxed));
            }
        }
    }
    let _tell = Tell;
    // What a process has once, it has then.
    for seed in seeds {
        let loaded = load(&seed.image, seed.second.as_deref(), 0);
        assert_eq!(loaded, 3, "{} is loaded as it is", seed.name);
    }
    if let Some(number) = only {
        let before = State::now();
        case(number);
        assert_eq!(State::now(), before);
        return;
    }
    let (mut loads, mut slowest) = (0, (Duration::ZERO, 0));
    let before = State::now();
    let mut peak = 0;
    for batch in (first..first + cases).step_by(BATCH as usize) {
        peak = peak.max(peak_of(|| {
            for number in batch..(first + cases).min(batch + BATCH) {
                let (loaded, time) = case(number);
                loads += loaded;
                slowest = slowest.max((time, number));
            }
        }));
        assert!(
            peak < MUCH || is_sanitized(),
            "{peak} bytes at the most, before case {}",
            batch + BATCH
        );
        assert_eq!(State::now(), before, "after the cases from {batch} on");
    }
    println!(
        "{test}: {cases} cases, {loads} of {} loads went well; slowest {slowest:?}, at most {peak} \
         bytes more",
        3 * cases
    );
    // Else they would all end at the same first check, or change nothing that matters.
    assert!((3 * cases / 10..3 * cases * 95 / 100).contains(&loads), "{loads}");
}

const SMALL: [&str; 6] = [
    "-shared",
    "-fPIC",
    "-Os",
    "-nostartfiles",
    "-Wl,-z,noseparate-code",
    "-Wl,-z,max-page-size=4096",
];

/// Images of each linker and compiler, with debug information of each kind.
fn images() -> Vec<Seed> {
    let script =
        format!("-Wl,--version-script={}", repository("testlibs/loading/versions.map").display());
    let everything = "loading/everything.c";
    let lld = "-fuse-ld=lld";
    // Of a linker that is not here, another one takes the place.
    let [mold, gold] =
        ["-fuse-ld=mold", "-fuse-ld=gold"].map(|it| if can_link(&[it]) { it } else { lld });
    let image = |compiler: &str, source: &str, flags: &[&str]| Seed {
        name: format!("{compiler} {source} {flags:?}"),
        image: bytes(compiler, source, flags),
        second: None,
    };
    let c = |compiler: &str, source: &str, flags: &[&str]| {
        image(compiler, source, &[&SMALL, flags].concat())
    };
    let rust = ["--crate-type=cdylib", "-Cpanic=abort", "-g", "-Clink-arg=-nostartfiles"];
    vec![
        c("gcc", everything, &["-g", "-Wl,--hash-style=both"]),
        c("gcc", everything, &["-s", "-Wl,--hash-style=sysv", "-Wl,-z,pack-relative-relocs"]),
        c("clang", everything, &["-gdwarf-4", lld, "-Wl,--pack-dyn-relocs=android"]),
        c(
            "clang",
            "loading/tls.c",
            &["-g", lld, "-Wl,--pack-dyn-relocs=android+relr", "-Wl,--use-android-relr-tags"],
        ),
        c("gcc", "loading/versions.c", &["-g", mold, &script]),
        c("gcc", everything, &["-gdwarf-4", "-gz=zlib", "-fuse-ld=bfd"]),
        c("gcc", "loading/must_not_run.c", &["-g", "-Wl,-z,now"]),
        c("gcc", "loading/small_tls.c", &["-gdwarf-4", "-ftls-model=initial-exec"]),
        c("gcc", "loading/tls.c", &["-g1", "-mtls-dialect=gnu2"]),
        c("g++", "loading/unique.cpp", &["-g", "-gz=zlib-gnu"]),
        image("gcc", "loading/order.c", &["-shared", "-fPIC", "-g"]),
        image("gcc", everything, &["-shared", "-fPIC", "-g", gold]),
        image("rustc", "debug/no_std.rs", &rust),
    ]
}

/// Images for another machine, and the library that each needs.
fn foreign_images() -> Vec<Seed> {
    let seed = |flags: &[&str]| {
        let files = FOREIGN.library_and_dep(flags).map(|path| fs::read(path).unwrap());
        let [image, dep] = files;
        Seed { name: format!("{flags:?} for {}", FOREIGN.name), image, second: Some(dep) }
    };
    vec![
        seed(&["-Wl,--hash-style=both"]),
        seed(&["-gdwarf-4", "-O2", "-Wl,-z,pack-relative-relocs", "-Wl,--hash-style=sysv"]),
        seed(&["-gz", "-Wl,--pack-dyn-relocs=android", "-Wl,-z,max-page-size=4096"]),
        seed(&["-ftls-model=initial-exec", "-Wl,-z,now", "-Wl,-z,max-page-size=65536"]),
    ]
}

/// Images and what was split off them.
fn with_debug_files() -> Vec<Seed> {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mutations-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let source = repository("testlibs/debug/twin.c");
    let small = SMALL.join(" ");
    // llvm-dwp 11, of Debian 11, packs no DWARF 5.
    let (zstd, packed) = (zstd(), if glibc() >= (2, 34) { 5 } else { 4 });
    let apart = "objcopy --only-keep-debug lib.so second; strip lib.so";
    let scripts = [
        ("gcc", format!("gcc {small} -g {{}}; {apart}")),
        ("clang", format!("clang {small} -gdwarf-4 {{}}; {apart}")),
        (
            "zstd",
            format!(
                "gcc {small} -g {{}}; objcopy --only-keep-debug --compress-debug-sections={zstd} \
                 lib.so second; strip lib.so"
            ),
        ),
        ("zlib", format!("gcc {small} -gdwarf-4 -gz=zlib {{}}; {apart}")),
        ("dwp", format!("gcc {small} -gdwarf-4 -gsplit-dwarf {{}}; dwp -e lib.so -o second")),
        (
            "llvm-dwp",
            format!(
                "clang {small} -gdwarf-{packed} -gsplit-dwarf {{}}; llvm-dwp -e lib.so -o second"
            ),
        ),
        (
            "zstd alone",
            format!("gcc {small} -g {{}}; objcopy --compress-debug-sections={zstd} lib.so"),
        ),
    ];
    let seed = |(name, script): (&str, String)| {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        let script = script.replace("{}", &format!("-o lib.so {}", source.display()));
        let mut command = limited(60, "sh");
        command.args(["-ec", &script]).current_dir(&folder);
        run(&mut command, "binutils clang llvm");
        Seed {
            name: name.into(),
            image: fs::read(folder.join("lib.so")).unwrap(),
            second: fs::read(folder.join("second")).ok(),
        }
    };
    let seeds = scripts.into_iter().map(seed).collect();
    fs::remove_dir_all(&folder).unwrap();
    seeds
}

macro_rules! cases {
    ($($name:ident: $seeds:ident from $first:literal, $wrong:expr, $case:ident;)*) => {$(
        #[test]
        fn $name() {
            const NAME: &str = stringify!($name);
            isolated_without_caches(|| run_cases(NAME, &$seeds(), $first, 1_250, $wrong, $case));
        }
    )*};
}

// Each in a process of its own, so that as many run at once as there are processors, and small, so
// that none takes long on a busy machine. Of a pair it is
// sometimes the image that is wrong.
cases! {
    images_01_with_something_wrong: images from 0, |_| false, load;
    images_02_with_something_wrong: images from 1_250, |_| false, load;
    images_03_with_something_wrong: images from 2_500, |_| false, load;
    images_04_with_something_wrong: images from 3_750, |_| false, load;
    images_05_with_something_wrong: images from 5_000, |_| false, load;
    images_06_with_something_wrong: images from 6_250, |_| false, load;
    images_07_with_something_wrong: images from 7_500, |_| false, load;
    images_08_with_something_wrong: images from 8_750, |_| false, load;
    images_09_with_something_wrong: images from 10_000, |_| false, load;
    images_10_with_something_wrong: images from 11_250, |_| false, load;
    images_11_with_something_wrong: images from 12_500, |_| false, load;
    images_12_with_something_wrong: images from 13_750, |_| false, load;
    images_13_with_something_wrong: images from 15_000, |_| false, load;
    images_14_with_something_wrong: images from 16_250, |_| false, load;
    images_15_with_something_wrong: images from 17_500, |_| false, load;
    images_16_with_something_wrong: images from 18_750, |_| false, load;
    debug_files_1_with_something_wrong: with_debug_files from 0, |number| number % 5 != 0, load;
    debug_files_2_with_something_wrong: with_debug_files from 1_250, |number| number % 5 != 0, load;
    debug_files_3_with_something_wrong: with_debug_files from 2_500, |number| number % 5 != 0, load;
    debug_files_4_with_something_wrong: with_debug_files from 3_750, |number| number % 5 != 0, load;
    foreign_images_1_with_something_wrong: foreign_images from 0, |number| number % 5 == 0, examine;
    foreign_images_2_with_something_wrong: foreign_images from 1_250, |number| number % 5 == 0, examine;
}
