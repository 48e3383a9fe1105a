//! Profilers: perf, run for real, names the functions of images; the files that it reads say what the
//! symbol table says, and are there only if somebody wants them.
//!
//! perf counts processor time by a clock of the kernel's (`cpu-clock`), which needs no hardware.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::common::{
    bytes, isolated, isolated_output, limited, limited_own_test, name_of, own_test, run,
    system_library, system_library_of,
};
use memdl::{Library, Loader, Profile};

/// This library spends its time in these.
const SPINS: &str = "profile/spins.cc";
const HOT: [&str; 3] = ["work::turn", "hidden_turn", "exported_turn"];

fn spins() -> Vec<u8> {
    bytes("g++", SPINS, &["-g", "-O1"])
}

fn load(profile: Profile, bytes: &[u8]) -> Library {
    let loader = Loader::new().name("libspins.so").system_libraries(true).profile(profile);
    // SAFETY: a test library, or one of the system's.
    unsafe { loader.load(bytes) }.unwrap()
}

fn spin(library: &Library, milliseconds: i32) {
    // SAFETY: its type.
    unsafe { library.get::<unsafe extern "C" fn(i32) -> i32>("spin").unwrap()(milliseconds) };
}

/// Where the map of a process is.
fn map_of(process: u32) -> PathBuf {
    format!("/tmp/perf-{process}.map").into()
}

/// The lines of this process's map.
fn rows() -> Vec<String> {
    let text = fs::read_to_string(map_of(process::id())).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Removed with all that is in it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = path.join(format!("{name}-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (vec![], vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// perf, with a hard time limit.
pub(crate) fn perf(arguments: &[&str]) -> Command {
    let mut command = limited(60, "perf");
    command.args(arguments).env("LC_ALL", "C");
    command
}

/// Names the test that is run as the program that perf looks at.
pub(crate) const CHILD: &str = "MEMDL_TEST_PROFILED";

/// Runs `body` in a process that perf records with these options; gives its number, and the recording in `folder`.
/// `None` in that process.
pub(crate) fn recorded(
    test: &str,
    folder: &Folder,
    options: &[&str],
    environment: &[(&str, &str)],
    body: impl FnOnce(),
) -> Option<(u32, PathBuf)> {
    if env::var(CHILD).as_deref() == Ok(test) {
        println!("\nprocess={}", process::id());
        body();
        return None;
    }
    let data = folder.0.join("perf.data");
    let mut command = perf(&["record", "-q", "-k", "1", "-e", "cpu-clock"]);
    let own = own_test(test);
    command
        .args(options)
        .arg("-o")
        .arg(&data)
        .arg("--")
        .arg(own.get_program())
        .args(own.get_args())
        .env(CHILD, test);
    // perf keeps copies of what it saw in a cache there.
    command.envs(environment.iter().copied()).env("HOME", &folder.0);
    let output = run(&mut command, "linux-perf");
    let process = output.lines().find_map(|line| line.strip_prefix("process=")).unwrap();
    Some((process.parse().unwrap(), data))
}

/// What perf says of each symbol, as `share symbol`.
fn report(folder: &Folder, data: &Path) -> String {
    let mut command = perf(&["report", "--stdio", "-s", "sym", "-i"]);
    run(command.arg(data).env("HOME", &folder.0), "linux-perf")
}

fn assert_hot(report: &str) {
    for function in HOT {
        let row = report.lines().find(|line| line.contains(function));
        let row = row.unwrap_or_else(|| panic!("no {function}:\n{report}"));
        let share: f64 = row.trim().split('%').next().unwrap().parse().unwrap();
        assert!(share > 10.0, "{row}");
    }
}

#[test]
fn perf_names_functions_when_the_operator_asks_for_it() {
    let folder = Folder::new("by-map");
    let test = name_of(&perf_names_functions_when_the_operator_asks_for_it);
    let profiled = recorded(test, &folder, &[], &[("MEMDL_PERF", "map")], || {
        let library = load(Profile::Off, &spins());
        spin(&library, 400);
        // Also of what is gone when perf looks.
        library.close().unwrap();
    });
    let Some((process, data)) = profiled else { return };
    let map = map_of(process);
    let report = report(&folder, &data);
    assert_eq!(fs::metadata(&map).unwrap().mode() & 0o777, 0o600);
    fs::remove_file(map).unwrap();
    assert_hot(&report);
    // People's names, and of which image.
    assert!(report.contains("work::turn(work::item&) [libspins.so]"), "{report}");
}

#[test]
fn perf_names_functions_of_a_process_that_it_attaches_to() {
    let recording = |folder: &Folder| {
        let data = folder.0.join("perf.data");
        let process = process::id().to_string();
        let mut command = perf(&["record", "-q", "-e", "cpu-clock", "-p", &process, "-o"]);
        command.arg(&data).args(["--", "sleep", "0.5"]).env("HOME", &folder.0);
        let mut perf = command.spawn().unwrap();
        (data, move || perf.try_wait().unwrap())
    };
    isolated(|| {
        let folder = Folder::new("attached");
        let library = load(Profile::LivePerfMap, &spins());
        let (data, mut is_done) = recording(&folder);
        let status = loop {
            spin(&library, 50);
            if let Some(status) = is_done() {
                break status;
            }
        };
        assert!(status.success(), "{status}");
        assert_hot(&report(&folder, &data));
        let map = map_of(process::id());
        assert!(map.exists());
        library.close().unwrap();
        assert!(!map.exists(), "the lines of an image go with it");
    });
}

#[test]
fn perf_names_functions_with_their_lines_by_the_jitdump() {
    let folder = Folder::new("by-jitdump");
    let test = name_of(&perf_names_functions_with_their_lines_by_the_jitdump);
    let dumps = folder.0.to_str().unwrap();
    let profiled = recorded(test, &folder, &[], &[("JITDUMPDIR", dumps)], || {
        let library = load(Profile::JitDump, &spins());
        spin(&library, 400);
    });
    let Some((process, data)) = profiled else { return };
    let injected = folder.0.join("injected.data");
    let mut command = perf(&["inject", "--jit", "-i"]);
    run(command.arg(&data).arg("-o").arg(&injected).env("HOME", &folder.0), "linux-perf");
    let mut command = perf(&["report", "--stdio", "-s", "sym,srcline", "-i"]);
    let report = run(command.arg(&injected).env("HOME", &folder.0), "linux-perf");
    assert_hot(&report);
    let source = fs::read_to_string(crate::common::repository("testlibs").join(SPINS)).unwrap();
    let line = source.lines().position(|line| line.ends_with("// the line that is hot")).unwrap();
    let hot = format!("spins.cc:{}", line + 1);
    assert!(
        report.lines().any(|row| row.contains("work::turn") && row.contains(&hot)),
        "{hot}: {report}"
    );

    let name = format!("jit-{process}.dump");
    let dump = folder.files().into_iter().find(|file| file.file_name() == Some(name.as_ref()));
    let dump = fs::read(dump.unwrap()).unwrap();
    check_dump(&dump, process);
}

/// By the specification, record by record.
fn check_dump(dump: &[u8], process: u32) {
    let u32_at = |at: usize| u32::from_ne_bytes(dump[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_ne_bytes(dump[at..at + 8].try_into().unwrap());
    let text_at = |at: usize| {
        let text: Vec<u8> = dump[at..].iter().copied().take_while(|&byte| byte != 0).collect();
        String::from_utf8(text).unwrap()
    };
    const X86_64: u32 = 62;
    let header = [0, 4, 8, 12, 20].map(u32_at);
    assert_eq!(header, [0x4a69_5444, 1, 40, X86_64, process]);
    let (mut at, mut time) = (40, u64_at(24));
    let (mut functions, mut lines_of) = (BTreeMap::new(), None);
    let mut last = None;
    while at < dump.len() {
        let (kind, size) = (u32_at(at), u32_at(at + 4) as usize);
        assert!(u64_at(at + 8) >= time, "time goes on");
        time = u64_at(at + 8);
        match kind {
            0 => {
                assert_eq!(u32_at(at + 16), process);
                let (start, code_address) = (u64_at(at + 24), u64_at(at + 32));
                let (len, index) = (u64_at(at + 40) as usize, u64_at(at + 48));
                assert_eq!(start, code_address);
                assert_eq!(index, functions.len() as u64);
                let name = text_at(at + 56);
                assert_eq!(size, 56 + name.len() + 1 + len);
                assert!(lines_of.take().is_none_or(|address| address == start));
                functions.insert(name, dump[at + size - len..at + size].to_vec());
            }
            2 => {
                lines_of = Some(u64_at(at + 16));
                let (count, mut entry) = (u64_at(at + 24), at + 32);
                for _ in 0..count {
                    assert!(u64_at(entry) >= u64_at(at + 16));
                    let file = text_at(entry + 16);
                    assert!(file.starts_with('/'), "{file}");
                    entry += 16 + file.len() + 1;
                }
                assert_eq!(entry, at + size);
            }
            3 => assert_eq!(size, 16),
            other => panic!("a record of kind {other}"),
        }
        last = Some(kind);
        at += size;
    }
    assert_eq!((at, last), (dump.len(), Some(3)));
    // The linkage names, and the code as the file has it (it is not relocated).
    let bytes = spins();
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    for name in ["_ZN4work4turnERNS_4itemE", "_ZL11hidden_turnm", "exported_turn", "spin"] {
        let symbol = elf.syms.iter().find(|it| elf.strtab.get_at(it.st_name) == Some(name));
        let symbol = symbol.unwrap();
        let segment = elf
            .program_headers
            .iter()
            .find(|it| it.vm_range().contains(&(symbol.st_value as usize)));
        let segment = segment.unwrap();
        let start = (symbol.st_value - segment.p_vaddr + segment.p_offset) as usize;
        assert_eq!(functions[name], bytes[start..start + symbol.st_size as usize], "{name}");
    }
}

#[test]
fn when_nobody_asks_nothing_is_written() {
    let test = name_of(&when_nobody_asks_nothing_is_written);
    let folder = Folder::new("nobody");
    if env::var(CHILD).as_deref() == Ok(test) {
        let library = load(Profile::default(), &spins());
        spin(&library, 1);
        assert!(!map_of(process::id()).exists());
        println!("\nprocess={}", process::id());
        return;
    }
    let mut outputs = Vec::new();
    for word in [None, Some("off"), Some("no such word")] {
        let mut command = limited_own_test(60, test);
        command.env(CHILD, test).current_dir(&folder.0);
        command.env("HOME", &folder.0).env("JITDUMPDIR", &folder.0).env_remove("MEMDL_PERF");
        if let Some(word) = word {
            command.env("MEMDL_PERF", word);
        }
        outputs.push(run(&mut command, "coreutils"));
    }
    for output in outputs {
        let process = output.lines().find_map(|line| line.strip_prefix("process=")).unwrap();
        assert!(!map_of(process.parse().unwrap()).exists());
    }
    assert_eq!(folder.files(), Vec::<PathBuf>::new());
}

/// The functions of a file by `nm`: each address with its size and all its names.
fn functions_by_nm(file: &Path) -> BTreeMap<usize, (usize, Vec<String>)> {
    let mut functions = BTreeMap::<usize, (usize, Vec<String>)>::new();
    for flags in [&["--defined-only", "-S"][..], &["--defined-only", "-S", "-D"]] {
        let output = Command::new("nm").args(flags).arg(file).output().unwrap();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [address, size, kind, name] = words[..] else { continue };
            if !matches!(kind, "t" | "T" | "w" | "W" | "i") {
                continue;
            }
            let [address, size] = [address, size].map(|it| usize::from_str_radix(it, 16).unwrap());
            let (largest, names) = functions.entry(address).or_default();
            *largest = size.max(*largest);
            names.push(name.split('@').next().unwrap().to_owned());
        }
        if !functions.is_empty() {
            break;
        }
    }
    functions
}

#[test]
fn the_map_says_what_the_symbol_table_says() {
    isolated(|| {
        let own = crate::common::build("gcc", "debug/clib.c", &["-O2", "-g"]);
        let crypto = system_library_of("libcrypto.so.", "");
        let named = ["libz.so.1", "libsqlite3.so.0", &crypto].map(system_library);
        for file in [&[own][..], &named].concat() {
            let library = load(Profile::LivePerfMap, &fs::read(&file).unwrap());
            let functions = functions_by_nm(&file);
            assert!(!functions.is_empty());
            let mut end = 0;
            let mut starts = BTreeMap::new();
            for row in rows() {
                let [start, size, name] = row.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                    panic!("{row}")
                };
                let [start, size] = [start, size].map(|it| usize::from_str_radix(it, 16).unwrap());
                assert!(start >= end && size > 0, "overlaps: {row}");
                end = start + size;
                assert!(library.address_range().contains(&start), "{row}");
                let name = name.strip_suffix(" [libspins.so]").unwrap().to_owned();
                starts.insert(start - library.load_bias(), (size, name));
            }
            for (address, (size, names)) in &functions {
                let (shown, name) = starts.get(address).unwrap_or_else(|| panic!("no {names:?}"));
                assert!(names.contains(name), "{name} is none of {names:?}");
                // Only what lies in another function is cut off.
                let next = functions.range(address + 1..).next().map_or(usize::MAX, |it| *it.0);
                assert_eq!(*shown, (*size).min(next - address), "{name}");
            }
            library.close().unwrap();
        }
    });
}

#[test]
fn the_symbol_table_may_have_been_split_off() {
    isolated(|| {
        let folder = Folder::new("split");
        let whole = crate::common::build("g++", SPINS, &["-g", "-O1", "-Wl,--build-id"]);
        let [split, stripped] = ["split", "stripped"].map(|name| folder.0.join(name));
        for (flag, to) in [("--only-keep-debug", &split), ("--strip-all", &stripped)] {
            run(Command::new("objcopy").arg(flag).arg(&whole).arg(to), "binutils");
        }
        let [split, stripped] = [split, stripped].map(|file| fs::read(file).unwrap());
        let names = |loader: Loader| {
            // SAFETY: a test library.
            let _library = unsafe { loader.profile(Profile::LivePerfMap).load(&stripped) }.unwrap();
            let has = |name: &str| rows().iter().any(|row| row.contains(name));
            [has("exported_turn"), has("hidden_turn")]
        };
        let loader = Loader::new().system_libraries(true);
        assert_eq!(names(loader.clone()), [true, false]);
        assert_eq!(names(loader.debug_info(split)), [true, true]);
    });
}

#[test]
fn the_map_of_a_process_that_loads_and_unloads_all_day_does_not_grow() {
    let Some(output) = isolated_output(|| {
        let map = map_of(process::id());
        let bytes = spins();
        load(Profile::PerfMap, &bytes).close().unwrap();
        let (once, before) = (rows().len(), fs::metadata(&map).unwrap().len());
        assert!(once > 5);
        let mut most = 0;
        for _ in 0..200 {
            let libraries = [load(Profile::PerfMap, &bytes), load(Profile::PerfMap, &bytes)];
            let rows = rows();
            for library in &libraries {
                let [start, end] = [library.address_range().start, library.address_range().end];
                let of_it = rows.iter().filter(|row| {
                    let address = row.split(' ').next().unwrap();
                    (start..end).contains(&usize::from_str_radix(address, 16).unwrap())
                });
                assert_eq!(of_it.count(), once, "each function once");
            }
            most = most.max(fs::metadata(&map).unwrap().len());
        }
        // The kernel puts images where others were, mostly.
        assert!(most < 50 * before, "{most} bytes, once {before}");
        println!("\nprocess={}", process::id());
    }) else {
        return;
    };
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let process = output.lines().find_map(|line| line.strip_prefix("process="));
    let map = map_of(process.unwrap_or_else(|| panic!("{output}")).parse().unwrap());
    // It is there for a report that is made later.
    assert!(fs::read_to_string(&map).unwrap().contains("exported_turn [libspins.so]"));
    fs::remove_file(map).unwrap();
}

#[test]
fn a_live_map_is_gone_when_the_process_is() {
    let Some(output) = isolated_output(|| {
        let library = load(Profile::LivePerfMap, &spins());
        assert!(map_of(process::id()).exists());
        println!("\nprocess={}", process::id());
        std::mem::forget(library);
    }) else {
        return;
    };
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let process = output.lines().find_map(|line| line.strip_prefix("process="));
    assert!(!map_of(process.unwrap_or_else(|| panic!("{output}")).parse().unwrap()).exists());
}

#[test]
fn the_map_of_another_runtime_is_added_to_and_left() {
    isolated(|| {
        let map = map_of(process::id());
        fs::write(&map, "1000 10 theirs\n").unwrap();
        let library = load(Profile::LivePerfMap, &spins());
        let text = fs::read_to_string(&map).unwrap();
        assert!(text.starts_with("1000 10 theirs\n") && text.contains("exported_turn"), "{text}");
        // They go on meanwhile.
        let mut more = fs::OpenOptions::new().append(true).open(&map).unwrap();
        std::io::Write::write_all(&mut more, b"2000 10 theirs too\n").unwrap();
        library.close().unwrap();
        assert_eq!(rows(), ["1000 10 theirs", "2000 10 theirs too"]);
        // The room of what is gone is used again.
        let len = fs::metadata(&map).unwrap().len();
        let library = load(Profile::LivePerfMap, &spins());
        assert_eq!(fs::metadata(&map).unwrap().len(), len);
        assert!(rows().iter().any(|row| row.contains("exported_turn")));
        // Somebody cuts it: what is there then is theirs, and stays as it is.
        fs::write(&map, "x".repeat(10_000)).unwrap();
        library.close().unwrap();
        assert_eq!(fs::read_to_string(&map).unwrap(), "x".repeat(10_000));
        fs::remove_file(map).unwrap();
    });
}

#[test]
fn a_map_is_this_process_s_where_the_file_s_clock_lags() {
    isolated(|| {
        let map = map_of(process::id());
        fs::write(&map, "1000 10 theirs\n").unwrap();
        let theirs = fs::File::options().append(true).open(&map).unwrap();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let ticks = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let age = Duration::from_secs_f64(uptime - ticks.parse::<f64>().unwrap() / 100.0);
        theirs.set_modified(SystemTime::now() - age - Duration::from_millis(40)).unwrap();
        let library = load(Profile::LivePerfMap, &spins());
        assert_eq!(rows()[0], "1000 10 theirs");
        library.close().unwrap();
        fs::remove_file(map).unwrap();
    });
}

#[test]
fn the_map_of_a_former_process_is_replaced() {
    isolated(|| {
        let map = map_of(process::id());
        fs::write(&map, "1000 10 former\n").unwrap();
        let former = fs::File::options().append(true).open(&map).unwrap();
        former.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        let library = load(Profile::LivePerfMap, &spins());
        assert!(rows().iter().all(|row| row.ends_with("[libspins.so]")), "{:?}", rows());
        library.close().unwrap();
        assert!(!map.exists());
    });
}

#[test]
fn what_may_be_a_trap_is_not_written_to_and_the_load_goes_on() {
    isolated(|| {
        let folder = Folder::new("trap");
        let victim = folder.0.join("victim");
        let map = map_of(process::id());
        let untouched = |what: &str| {
            let library = load(Profile::PerfMap, &spins());
            spin(&library, 1);
            library.close().unwrap();
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{what}");
            fs::remove_file(&map).unwrap();
        };
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &map).unwrap();
        untouched("a symbolic link");
        symlink(folder.0.join("missing"), &map).unwrap();
        untouched("a symbolic link to what is not there");
        assert!(!folder.0.join("missing").exists());
        let other = Path::new("/tmp").join(format!("memdl-victim-{}", process::id()));
        fs::write(&other, "precious").unwrap();
        fs::hard_link(&other, &map).unwrap();
        untouched("a hard link");
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        fs::remove_file(other).unwrap();
        fs::write(&map, "").unwrap();
        fs::set_permissions(&map, fs::Permissions::from_mode(0o666)).unwrap();
        untouched("a file that all can write to");
        run(Command::new("mkfifo").arg(&map), "coreutils");
        untouched("a pipe, which nobody reads");
    });
}

#[test]
fn a_forked_child_has_a_map_of_its_own_with_what_it_was_born_with() {
    isolated(|| {
        let bytes = spins();
        let loader = |name: &str| Loader::new().name(name).profile(Profile::PerfMap);
        // SAFETY: a test library.
        let load = |name: &str| unsafe { loader(name).load(&bytes) }.unwrap();
        let (kept, dropped) = (load("kept"), load("dropped"));
        let before = fs::read_to_string(map_of(process::id())).unwrap();
        // SAFETY: the child ends without returning from here.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(dropped);
            let own = load("own");
            let names = ["[kept]", "[own]", "[dropped]"];
            let text = fs::read_to_string(map_of(process::id())).unwrap();
            let counts = names.map(|name| text.matches(name).count());
            let is_right = counts[0] > 5 && counts[0] == counts[1] && counts[2] == 0;
            let mine = [kept.address_range().start, own.address_range().start];
            fs::remove_file(map_of(process::id())).unwrap();
            // SAFETY: ends the process.
            unsafe { libc::_exit(if is_right && mine[0] != mine[1] { 42 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: a child of ours; the status is a local.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 42);
        assert_eq!(fs::read_to_string(map_of(process::id())).unwrap(), before);
        drop((kept, dropped));
        fs::remove_file(map_of(process::id())).unwrap();
    });
}

/// Section headers and the symbol table are nothing that a load checks.
#[test]
fn no_symbol_table_makes_a_load_fail() {
    isolated(|| {
        let sound = spins();
        let elf = goblin::elf::Elf::parse(&sound).unwrap();
        let start =
            elf.section_headers.iter().find(|it| it.sh_type == 2).unwrap().sh_offset as usize;
        let (header, end) = (40..64, sound.len());
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for round in 0..500 {
            let mut bytes = sound.clone();
            for _ in 0..1 + random(20) {
                let at = match round % 3 {
                    0 => header.start + random(header.len()),
                    _ => start + random(end - start),
                };
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
            }
            // The program headers' size and number are what a load does check.
            bytes[52..58].copy_from_slice(&sound[52..58]);
            let library = load(Profile::LivePerfMap, &bytes);
            let len = fs::metadata(map_of(process::id())).unwrap().len();
            assert!(len < 20 * bytes.len() as u64, "{len}");
            library.close().unwrap();
        }
    });
}

#[test]
fn many_threads_share_the_files() {
    isolated(|| {
        let bytes = spins();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let library = load(Profile::LivePerfMap, &bytes);
                        // SAFETY: a function, of which nothing but the address is wanted.
                        let spin = unsafe { library.get::<*const ()>("spin") }.unwrap().addr();
                        let row = format!("{spin:x} ");
                        assert!(rows().iter().any(|it| it.starts_with(&row)));
                        library.close().unwrap();
                    }
                });
            }
        });
        assert!(!map_of(process::id()).exists());
    });
}
