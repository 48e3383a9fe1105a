//! Backtraces through images: what `symbolize` says, beside binutils' addr2line on the same file, and
//! what a panic hook and a signal handler print with it.

use std::backtrace::Backtrace;
use std::ffi::{c_int, c_void};
use std::fs;
use std::panic;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::Mutex;
use std::thread;

use crate::common::{
    build, compressed_with_zstd, isolated, isolated_output, isolated_output_as, name_of,
    repository, run, zstd,
};
use memdl::{DebugLevel, Frame, Library, Loader, symbolize};

type Callback = extern "C-unwind" fn(c_int);

fn load(debug: DebugLevel, bytes: &[u8]) -> Library {
    let loader = Loader::new().name("libcalls.so").system_libraries(true).debug(debug);
    // SAFETY: a test library.
    unsafe { loader.load(bytes) }.unwrap()
}

/// The file, and the number of the line that ends with a comment.
fn place(source: &str, comment: &str) -> String {
    let path = repository("testlibs").join(source);
    let text = fs::read_to_string(&path).unwrap();
    let is_it = |line: &str| line.ends_with(comment);
    let line = text.lines().position(is_it).unwrap_or_else(|| panic!("no {comment}"));
    format!("{}:{}", path.display(), line + 1)
}

/// Calls `call_back` of a library, with a function that panics.
fn panic_in_callback(library: &Library) {
    extern "C-unwind" fn panics(number: c_int) {
        panic!("the callback got {number}");
    }
    // SAFETY: its type; it is built so that panics may pass.
    let call_back =
        unsafe { library.get::<unsafe extern "C-unwind" fn(Callback, c_int)>("call_back") };
    // SAFETY: no preconditions.
    unsafe { call_back.unwrap()(panics, 41) };
}

/// What a process writes to its standard error in which a callback from `library` panics.
fn panic_output(test: &str, library: &Path) -> Option<String> {
    let output = isolated_output_as(test, || {
        // As in docs/how-to/backtraces.md.
        panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}\n{}", memdl::symbolize_backtrace(&Backtrace::force_capture()))
        }));
        let library = load(DebugLevel::Full, &fs::read(library).unwrap());
        assert!(panic::catch_unwind(|| panic_in_callback(&library)).is_err());
        library.close().unwrap();
    })?;
    assert!(output.status.success());
    Some(String::from_utf8(output.stderr).unwrap())
}

/// Fails unless these texts are in it, in this order.
fn assert_in_order(text: &str, parts: &[String]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("no `{part}` there:\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_panic_hook_names_the_frames_of_a_c_library() {
    let test = name_of(&a_panic_hook_names_the_frames_of_a_c_library);
    let source = "symbolize/calls_back.c";
    let library = build("gcc", source, &["-g", "-O1", "-fexceptions"]);
    let Some(text) = panic_output(test, &library) else { return };
    assert_in_order(
        &text,
        &[
            "the callback got 42".into(),
            // The host's own frames are there too.
            "panic_in_callback::panics".into(),
            format!("- inner at {}:5 [libcalls.so]\n", place(source, "/* calls back */")),
            format!("- call_back at {}:5 [libcalls.so]\n", place(source, "/* calls inner */")),
            "panic_in_callback".into(),
        ],
    );
}

#[test]
fn a_panic_hook_names_the_frames_of_a_rust_library_inlined_ones_too() {
    let test = name_of(&a_panic_hook_names_the_frames_of_a_rust_library_inlined_ones_too);
    let source = "symbolize/calls_back.rs";
    let library = build("rustc", source, &["-g", "-O"]);
    let Some(text) = panic_output(test, &library) else { return };
    assert_in_order(
        &text,
        &[
            "the callback got 42".into(),
            "panic_in_callback::panics".into(),
            format!("- calls_back::module::inlined at {}", place(source, "// calls back")),
            format!("  calls_back::module::inner at {}", place(source, "// calls inlined")),
            format!("- call_back at {}", place(source, "// calls inner")),
            "panic_in_callback".into(),
        ],
    );
}

#[test]
fn a_signal_handler_names_where_it_crashed() {
    let source = "symbolize/calls_back.c";
    let library = build("gcc", source, &["-g", "-O1", "-fno-optimize-sibling-calls"]);
    extern "C" fn handler(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: what a handler with SA_SIGINFO gets; the limit ends the process in any case.
        let address = unsafe {
            libc::alarm(60);
            let context = &*context.cast::<libc::ucontext_t>();
            #[cfg(target_arch = "x86_64")]
            let address = context.uc_mcontext.gregs[libc::REG_RIP as usize];
            #[cfg(target_arch = "aarch64")]
            let address = context.uc_mcontext.pc;
            address as usize
        };
        for frame in symbolize(address) {
            eprintln!("crashed in {frame}");
        }
        eprintln!("{}", memdl::symbolize_backtrace(&Backtrace::force_capture()));
        // SAFETY: ends the process.
        unsafe { libc::_exit(42) };
    }
    let output = isolated_output(|| {
        let library = load(DebugLevel::Full, &fs::read(&library).unwrap());
        // SAFETY: a handler of the type that the flag says; then a function that crashes.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()), 0);
            library.get::<unsafe extern "C" fn(*mut c_int) -> c_int>("crash").unwrap()(
                ptr::null_mut(),
            );
        }
    });
    let Some(output) = output else { return };
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    let (crashes, calls) = (place(source, "/* crashes */"), place(source, "/* calls look_at */"));
    assert_in_order(
        &String::from_utf8(output.stderr).unwrap(),
        &[
            format!("crashed in look_at at {crashes}:12 [libcalls.so]\n"),
            format!("- look_at at {crashes}:12 [libcalls.so]\n"),
            format!("- crash at {calls}:12 [libcalls.so]\n"),
        ],
    );
}

/// What addr2line says of addresses that a file states: for each the functions, as `name file:line`.
fn addr2line(file: &Path, addresses: &[u64]) -> Vec<Vec<String>> {
    let mut command = Command::new("addr2line");
    command.args(["-a", "-f", "-i", "-e"]).arg(file);
    command.args(addresses.iter().map(|address| format!("{address:#x}")));
    let text = run(&mut command, "binutils");
    let mut answers = Vec::new();
    let mut lines = text.lines().peekable();
    while lines.next_if(|line| line.starts_with("0x")).is_some() {
        let mut frames = Vec::new();
        while let Some(function) = lines.next_if(|line| !line.starts_with("0x")) {
            let place = lines.next().unwrap().split(" (discriminator").next().unwrap();
            frames.push(format!("{function} {place}"));
        }
        answers.push(frames);
    }
    answers
}

fn shown(frame: &Frame) -> String {
    let function = frame.linkage_name().unwrap_or("??");
    let line = frame.line().map_or("?".into(), |line| line.to_string());
    match frame.file() {
        Some(file) => format!("{function} {}:{line}", file.display()),
        None => format!("{function} ??:?"),
    }
}

/// Ends of paths only: the one says `a/../b`, the other `b`.
fn without_folders(frame: &str) -> String {
    let (function, place) = frame.split_once(' ').unwrap();
    format!("{function} {}", place.rsplit('/').next().unwrap())
}

#[test]
fn it_says_what_addr2line_says() {
    isolated(|| {
        let libraries: [(&str, &str, &[&str]); 7] = [
            ("gcc", "debug/clib.c", &["-g", "-O2", "-gdwarf-4"]),
            ("gcc", "debug/clib.c", &["-g", "-O2", "-gdwarf-5"]),
            ("clang", "debug/clib.c", &["-g", "-O1", "-gdwarf-5"]),
            ("g++", "debug/cpplib.cc", &["-g", "-O0"]),
            ("g++", "debug/cpplib.cc", &["-g", "-O2", "-gdwarf-3"]),
            ("rustc", "debug/rustlib.rs", &["-g", "-O"]),
            ("rustc", "symbolize/calls_back.rs", &["-g", "-O"]),
        ];
        let mut has_inlined = false;
        for (compiler, source, flags) in libraries {
            let file = build(compiler, source, flags);
            let bytes = fs::read(&file).unwrap();
            let elf = goblin::elf::Elf::parse(&bytes).unwrap();
            let text = elf.section_headers.iter();
            let text = text.filter(|it| elf.shdr_strtab.get_at(it.sh_name) == Some(".text"));
            let text = text.map(|it| it.sh_addr..it.sh_addr + it.sh_size).next().unwrap();
            let step = (text.end - text.start) as usize / 1500 + 1;
            let addresses: Vec<u64> = text.step_by(step).collect();
            let library = load(DebugLevel::Full, &bytes);
            let (mut with_lines, mut inlined, mut differ) = (0, 0, Vec::new());
            for (address, expected) in addresses.iter().zip(addr2line(&file, &addresses)) {
                let frames = symbolize(library.load_bias() + *address as usize);
                assert!(frames.iter().all(|frame| frame.address().0 == *address));
                assert!(frames.iter().rev().skip(1).all(Frame::is_inlined));
                assert!(frames.last().is_some_and(|frame| !frame.is_inlined()));
                inlined += frames.len() - 1;
                let found = frames.iter().map(|frame| without_folders(&shown(frame)));
                let expected = expected.iter().map(|frame| without_folders(frame));
                let (found, expected): (Vec<_>, Vec<_>) = (found.collect(), expected.collect());
                // Where there is no DWARF, or only room between functions, binutils tells the next
                // best symbol before.
                if expected.last().is_some_and(|it| it.ends_with('?')) || found[0].starts_with("??")
                {
                    continue;
                }
                with_lines += 1;
                if found != expected {
                    differ.push((address, found, expected));
                }
            }
            assert!(with_lines * 2 > addresses.len(), "{with_lines} of {}", addresses.len());
            has_inlined |= inlined > 100;
            // binutils takes the wrong file where functions of one name are in two.
            assert!(differ.len() * 100 <= with_lines, "{source} {flags:?}: {differ:#x?}");
            library.close().unwrap();
        }
        assert!(has_inlined);
    });
}

/// The function of a library that is exported as `name`, and a little further on.
fn inside(library: &Library, name: &str) -> usize {
    // SAFETY: only the address is wanted.
    unsafe { library.get::<*const c_void>(name) }.unwrap().addr() + 1
}

#[test]
fn it_says_as_much_as_was_kept() {
    let full = crate::common::bytes("gcc", "symbolize/calls_back.c", &["-g", "-O1"]);
    let stripped = crate::common::bytes("gcc", "symbolize/calls_back.c", &["-g", "-O1", "-s"]);
    let first = |library: &Library| symbolize(inside(library, "call_back"))[0].clone();
    for debug in [DebugLevel::Full, DebugLevel::Symbols] {
        let frame = first(&load(debug, &full));
        assert!(frame.file().is_some_and(|file| file.ends_with("symbolize/calls_back.c")));
        assert!(frame.line().is_some() && frame.column().is_some());
    }
    for (debug, bytes) in
        [(DebugLevel::Off, &full), (DebugLevel::Full, &stripped), (DebugLevel::Off, &stripped)]
    {
        let library = load(debug, bytes);
        let frame = first(&library);
        let known =
            (frame.function().unwrap().into_owned(), frame.file(), frame.line(), frame.column());
        assert_eq!(known, ("call_back".into(), None, None, None), "{debug:?}");
        assert_eq!(frame.to_string(), "call_back [libcalls.so]");
        // The ELF header is no function.
        let frames = symbolize(library.address_range().start);
        assert_eq!(frames.iter().map(Frame::to_string).collect::<Vec<_>>(), ["0x0 [libcalls.so]"]);
    }
    for compressed in ["-gz=zlib", "-gz=zlib-gnu"] {
        let flags = ["-g", "-O1", compressed];
        let library =
            load(DebugLevel::Full, &crate::common::bytes("gcc", "symbolize/calls_back.c", &flags));
        assert!(first(&library).file().is_some(), "{compressed}");
    }
    // Without the feature: `without::zstd`.
    if cfg!(feature = "zstd") && zstd() == "zstd" {
        let plain = build("gcc", "symbolize/calls_back.c", &["-g", "-O1"]);
        let library = load(DebugLevel::Full, &compressed_with_zstd(&plain));
        assert!(first(&library).file().is_some());
    }
}

#[test]
fn it_reads_what_was_split_off() {
    let whole = build("gcc", "symbolize/calls_back.c", &["-g", "-O1", "-Wl,--build-id"]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [split, stripped] = ["split", "stripped"].map(|name| {
        let file = folder.join(format!("symbolize-{name}-{}", std::process::id()));
        let flag = if name == "split" { "--only-keep-debug" } else { "--strip-all" };
        run(Command::new("objcopy").arg(flag).arg(&whole).arg(&file), "binutils");
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(file).unwrap();
        bytes
    });
    // SAFETY: a test library.
    let library = unsafe { Loader::new().debug_info(split).load(&stripped) }.unwrap();
    let frame = symbolize(inside(&library, "call_back"))[0].clone();
    assert!(frame.file().is_some_and(|file| file.ends_with("symbolize/calls_back.c")));
}

#[test]
fn what_is_in_no_image_has_no_frames() {
    isolated(|| {
        let library = load(
            DebugLevel::Full,
            &crate::common::bytes("gcc", "symbolize/calls_back.c", &["-g", "-O1"]),
        );
        let address = inside(&library, "call_back");
        assert_eq!(symbolize(address).len(), 1);
        library.close().unwrap();
        for address in
            [address, 0, usize::MAX, what_is_in_no_image_has_no_frames as *const () as usize]
        {
            assert_eq!(symbolize(address), []);
        }
    });
}

/// What was read of an image must go with it: the next may be at the same addresses.
#[test]
fn an_image_where_another_was_is_told_from_it() {
    isolated(|| {
        let sources = ["symbolize/calls_back.c", "debug/clib.c"];
        let images = sources.map(|source| crate::common::bytes("gcc", source, &["-g", "-O1"]));
        let names = ["call_back", "entry"];
        let (mut starts, mut rounds) = (vec![], 0);
        for round in 0..20 {
            let library = load(DebugLevel::Full, &images[round % 2]);
            let start = library.address_range().start;
            rounds += usize::from(starts.contains(&start));
            starts.push(start);
            let frame = symbolize(inside(&library, names[round % 2]))[0].clone();
            assert_eq!(frame.function().unwrap(), names[round % 2]);
            assert!(frame.file().unwrap().ends_with(sources[round % 2]));
        }
        assert!(rounds > 0, "no address came again");
    });
}

#[test]
fn threads_can_ask_while_others_load_and_unload() {
    isolated(|| {
        let bytes = crate::common::bytes("g++", "debug/cpplib.cc", &["-g", "-O2", "-gdwarf-3"]);
        let stays = load(DebugLevel::Full, &bytes);
        let expected = symbolize(inside(&stays, "entry"));
        assert!(expected[0].file().is_some());
        let last = Mutex::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let library = load(DebugLevel::Full, &bytes);
                        let address = inside(&library, "entry");
                        *last.lock().unwrap() = address;
                        assert_eq!(symbolize(address)[0].line(), expected[0].line());
                    }
                });
                scope.spawn(|| {
                    for _ in 0..200 {
                        assert_eq!(symbolize(inside(&stays, "entry")), expected);
                        // It may be gone at any moment.
                        let address = *last.lock().unwrap();
                        let _ = symbolize(address);
                    }
                });
            }
        });
    });
}

/// Debug sections are nothing that a load checks.
#[test]
fn no_debug_information_makes_it_panic_or_hang() {
    isolated(|| {
        let sound = crate::common::bytes("gcc", "debug/clib.c", &["-g", "-O2"]);
        let elf = goblin::elf::Elf::parse(&sound).unwrap();
        let is_debug = |name: &str| name.starts_with(".debug_");
        let sections = elf.section_headers.iter();
        let sections =
            sections.filter(|it| elf.shdr_strtab.get_at(it.sh_name).is_some_and(is_debug));
        let ranges: Vec<_> = sections.filter_map(|section| section.file_range()).collect();
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for _ in 0..600 {
            let mut bytes = sound.clone();
            for _ in 0..1 + random(8) {
                let range = &ranges[random(ranges.len())];
                bytes[range.start + random(range.len())] =
                    [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
            }
            let library = load(DebugLevel::Full, &bytes);
            for address in library.address_range().step_by(64) {
                assert!(!symbolize(address).is_empty());
            }
        }
    });
}
