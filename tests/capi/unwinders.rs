//! Hosts in C++ with other unwinders than libgcc's: exceptions and backtraces go through images as they go through
//! a library of `dlopen`, which is the reference.

use std::fs;
use std::path::{Path, PathBuf};

use crate::capi::forms;
use crate::common::{build, build_program, limited, repository, run, system_library};

/// How memdl is linked.
const FORMS: [&str; 2] = ["a", "so"];

/// clang with LLVM's C++ library and unwinder; the unwinder. `None` where this release of the system has none.
fn llvm() -> Option<(String, String)> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("llvm");
    assert!(folder.exists(), "`sh tests/setup.sh` installs what tests need (clang with libunwind)");
    let path = |name| folder.join(name).to_str().unwrap().to_owned();
    let is_here = folder.join("clang++").exists();
    if !is_here {
        eprintln!("left out: LLVM's unwinder, which this release does not have");
    }
    is_here.then(|| (path("clang++"), path("libunwind.so.1")))
}

fn nongnu() -> String {
    system_library("libunwind.so.8").to_str().unwrap().to_owned()
}

/// `tests/hosts/unwinders.cc` with a form of memdl.
fn host(compiler: &str, form: &str, flags: &[&str]) -> PathBuf {
    let memdl = if form == "a" { &forms().fixed } else { &forms().shared };
    let include = format!("-I{}", repository("include").display());
    let search = format!("-Wl,-rpath,{}", memdl.parent().unwrap().display());
    let own =
        ["-g", "-O1", "-pthread", "-Wall", "-Wextra", "-Wl,-S", &include, memdl.to_str().unwrap()];
    let all = [&own[..], flags, &[&search, "-ldl"]].concat();
    build_program(compiler, "tests/hosts/unwinders.cc", &all)
}

fn throws(compiler: &str) -> PathBuf {
    build(compiler, "unwind/throws.cpp", &["-O1", "-pthread"])
}

/// A run of a host: its way to load, its steps, its libraries.
struct Run<'a> {
    host: &'a Path,
    library: &'a Path,
    preloaded: &'a str,
    others: &'a [&'a Path],
}

impl Run<'_> {
    /// All that the host says, and how it ends.
    fn said(&self, way: &str, steps: &str) -> String {
        let mut command = limited(60, self.host);
        command.args([way, steps]).arg(self.library).args(self.others);
        // No core files of those that end as they must.
        command.env("LD_PRELOAD", self.preloaded);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        format!("{}{}", String::from_utf8_lossy(&text), output.status)
    }

    /// What memdl and `dlopen` say, which must be the same.
    fn alike(&self, steps: &str, what: &str) -> String {
        let [ours, theirs] = ["memdl", "dlopen"].map(|way| self.said(way, steps));
        assert_eq!(ours, theirs, "{what}, {steps}: memdl, dlopen");
        ours
    }

    /// Exceptions in all directions, and a walk.
    fn check(&self, what: &str) {
        let said = self.alike("iopcb", what);
        let expected =
            "inside: 42\nout: shared\nthrough: of the host, 1 destroyed\ninto: 31\nbacktrace: ";
        let rest = said.strip_prefix(expected).unwrap_or_else(|| panic!("{what}: {said}"));
        let (frames, rest) = rest.split_once(" frames\n").unwrap();
        // Down to `_start`.
        assert!(frames.parse::<usize>().unwrap() >= 6, "{what}: {said}");
        assert_eq!(rest, "exit status: 0", "{what}");
        // In processes of their own: the first throw is another each time.
        self.alike("c", what);
        self.alike("bo", what);
        // The unwinder has worked before the load.
        assert_eq!(self.alike("tiopcb", what), said, "{what}");
    }
}

#[test]
fn hosts_with_nongnu_libunwind() {
    let library = &throws("g++");
    for form in FORMS {
        let linked = host("g++", form, &["-DNONGNU", "-lunwind"]);
        let plain = host("g++", form, &[]);
        for (host, preloaded) in [(&linked, ""), (&plain, nongnu().as_str())] {
            let run = Run { host, library, preloaded, others: &[] };
            run.check(&format!("nongnu, {form}, {preloaded:?}"));
        }
        let run = Run { host: &linked, library, preloaded: "", others: &[] };
        let said = run.alike("s", form);
        let frames = said.strip_prefix("unw_step: ").and_then(|it| it.split(' ').next()).unwrap();
        assert!(frames.parse::<usize>().unwrap() >= 6, "{said}");
    }
    // Linked statically, and no name of it is exported: memdl is in the same object.
    let flags = ["-DNONGNU", "-no-pie", "-l:libunwind.a", "-llzma", "-Wl,--exclude-libs,ALL"];
    let run = Run { host: &host("g++", "a", &flags), library, preloaded: "", others: &[] };
    run.alike("s", "static");
    run.alike("b", "static");
}

#[test]
fn hosts_with_the_unwinder_of_llvm() {
    let Some((clang, unwinder)) = llvm() else { return };
    let libraries = [throws("g++"), throws(&clang)];
    let search = format!("-Wl,-rpath,{}", Path::new(&unwinder).parent().unwrap().display());
    for form in FORMS {
        let linked = host("g++", form, &["-Wl,--no-as-needed", &unwinder, &search]);
        let plain = host("g++", form, &[]);
        let of_clang = host(&clang, form, &[]);
        for (host, library, preloaded) in [
            (&linked, &libraries[0], ""),
            (&plain, &libraries[0], unwinder.as_str()),
            (&of_clang, &libraries[1], ""),
            (&of_clang, &libraries[1], nongnu().as_str()),
        ] {
            let run = Run { host, library, preloaded, others: &[] };
            run.check(&format!("LLVM, {form}, {}, {preloaded:?}", host.display()));
        }
        // All of it is linked statically: what the host throws is nothing that the library knows, but it goes
        // through; and what the library throws, it catches.
        let of_static = ["-static-libstdc++", "-static-libgcc"];
        for flags in [&[][..], &["-s"], &["-s", "-rdynamic"]] {
            let host = host(&clang, form, &[&of_static, flags].concat());
            let run = Run { host: &host, library: &libraries[1], preloaded: "", others: &[] };
            let what = format!("static, {form}, {flags:?}");
            assert!(run.alike("i", &what).starts_with("inside: 42\n"), "{what}");
            assert!(run.alike("p", &what).starts_with("through: of the host, "), "{what}");
            run.alike("cb", &what);
        }
        // Hidden: only what it asks the C library for shows it.
        let hidden = [&of_static[..], &["-s", "-Wl,--exclude-libs,ALL"]].concat();
        let host = host(&clang, form, &hidden);
        let run = Run { host: &host, library: &libraries[1], preloaded: "", others: &[] };
        run.alike("ib", &format!("hidden, {form}"));
    }
}

#[test]
fn hosts_with_a_static_libgcc() {
    let library = &throws("g++");
    for form in FORMS {
        for flags in [
            &["-static-libgcc"][..],
            &["-static-libgcc", "-s"],
            &["-static-libgcc", "-static-libstdc++", "-s"],
        ] {
            let host = host("g++", form, flags);
            let run = Run { host: &host, library, preloaded: "", others: &[] };
            let what = format!("{form}, {flags:?}");
            for steps in ["i", "o", "p", "cb", "f"] {
                run.alike(steps, &what);
            }
            assert!(run.said("memdl", "i").starts_with("inside: 42\n"), "{what}");
        }
    }
}

#[test]
fn an_unwinder_that_is_opened_later_finds_the_images_that_are_there() {
    let library = &throws("g++");
    let unwinders = [Some(nongnu()), llvm().map(|it| it.1)];
    for form in FORMS {
        let host = &host("g++", form, &[]);
        for unwinder in unwinders.iter().flatten() {
            let run = Run { host, library, preloaded: "", others: &[unwinder.as_ref()] };
            let said = run.alike("lbilo", unwinder);
            assert!(said.starts_with("later: 7 frames\n"), "{unwinder}: {said}");
        }
    }
    // Nothing is leaked that way.
    let host = &host("g++", "a", &["-fsanitize=address"]);
    let unwinder = nongnu();
    let run = Run { host, library, preloaded: "", others: &[unwinder.as_ref()] };
    assert!(run.alike("lbio", "sanitized").ends_with("out: shared\nexit status: 0"));
}

/// libunwind keeps what it has found by program counter. With `dlopen`, throws end the process here.
#[test]
fn libunwind_forgets_images_that_are_gone() {
    let sizes = ["-DSIZE=1000", "-DSIZE=2000", "-DSIZE=4000"];
    let frames =
        sizes.map(|size| build("g++", "unwind/frames.cpp", &["-O1", "-fno-stack-protector", size]));
    let others: Vec<&Path> = frames.iter().map(PathBuf::as_path).collect();
    let library = &throws("g++");
    for form in FORMS {
        let linked = host("g++", form, &["-DNONGNU", "-lunwind"]);
        let plain = host("g++", form, &[]);
        for (host, preloaded) in [(&linked, ""), (&plain, nongnu().as_str()), (&plain, "")] {
            let run = Run { host, library, preloaded, others: &others };
            let said = run.said("memdl", "noni");
            let expected = "next: done\nout: shared\nnext: done\ninside: 42\nexit status: 0";
            assert_eq!(said, expected, "{form}, {preloaded:?}");
        }
    }
    let fixed = host("g++", "a", &["-DNONGNU", "-no-pie", "-l:libunwind.a", "-llzma"]);
    let run = Run { host: &fixed, library, preloaded: "", others: &others };
    assert_eq!(run.said("memdl", "n"), "next: done\nexit status: 0");
}

#[test]
fn an_unwinder_that_cannot_be_led_is_told_of_sections() {
    let library = &throws("g++");
    let plain = &build("gcc", "capi/plain.c", &["-O1"]);
    for form in FORMS {
        let host = &host("g++", form, &[]);
        let with = |flags: &[&str]| build("gcc", "unwind/told.c", flags);
        for flags in [&["-DSECTIONS"][..], &["-DSECTIONS", "-DLLVM"]] {
            let told = with(flags);
            let run = Run { host, library, preloaded: told.to_str().unwrap(), others: &[] };
            let expected = "a section is added\nit is removed\nexit status: 0";
            assert_eq!(run.said("memdl", ""), expected, "{form}, {flags:?}");
        }
        // One that takes none: what throws is refused, what does not is not.
        for flags in [&[][..], &["-DLLVM"]] {
            let told = with(flags);
            let preloaded = told.to_str().unwrap();
            let run = Run { host, library, preloaded, others: &[] };
            let said = run.said("memdl", "");
            for part in ["not supported: exceptions and backtraces", preloaded, "libgcc_s.so.1"] {
                assert!(said.contains(part), "{form}, {flags:?}: {said}");
            }
            assert!(said.ends_with("exit status: 2"), "{form}, {flags:?}: {said}");
            let run = Run { host, library: plain, preloaded, others: &[] };
            assert_eq!(run.said("memdl", ""), "exit status: 0", "{form}, {flags:?}");
        }
    }
}

/// The stacks of a profile of gperftools.
fn stacks(profile: &[u8]) -> Vec<Vec<u64>> {
    let words = profile.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let words: Vec<u64> = words.collect();
    // A header of so many words behind the first two; then records: how often, how deep, the stack.
    let mut at = 2 + words[1] as usize;
    let mut stacks = Vec::new();
    while words[at] != 0 {
        let depth = words[at + 1] as usize;
        stacks.push(words[at + 2..at + 2 + depth].to_vec());
        at += 2 + depth;
    }
    stacks
}

#[test]
fn the_profiler_of_gperftools_walks_through_images() {
    // Without frame pointers.
    let library = &build("g++", "unwind/throws.cpp", &["-O2", "-pthread", "-fomit-frame-pointer"]);
    let host = &host("g++", "a", &["-rdynamic"]);
    let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gperftools.profile");
    // Not for what keeps the time, which would write a profile of its own.
    let mut command = limited(120, "env");
    command.arg(format!("CPUPROFILE={}", profile.display())).arg("CPUPROFILE_FREQUENCY=500");
    command.arg(format!("LD_PRELOAD={}", system_library("libprofiler.so.0").display()));
    command.arg(host).args(["memdl", "mw"]).arg(library);
    let said = run(&mut command, "libgoogle-perftools-dev");
    let (start, len) = said.trim().split_once(' ').unwrap();
    let start = u64::from_str_radix(start.trim_start_matches("0x"), 16).unwrap();
    let main = start..start + len.parse::<u64>().unwrap();
    let stacks = stacks(&fs::read(&profile).unwrap());
    let reach = stacks.iter().filter(|stack| stack.iter().any(|at| main.contains(at))).count();
    let deep = stacks.iter().filter(|stack| stack.len() > 2).count();
    // One may be of the end of the process. A busy machine gives few samples, of which equal ones are one record.
    assert!(reach > 0 && reach + 1 >= deep, "{reach} of {deep} stacks reach main: {stacks:x?}");
}

#[test]
fn heaptrack_walks_through_images() {
    let library = &throws("g++");
    let host = &host("g++", "a", &["-rdynamic"]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("heaptrack");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let mut command = limited(120, "heaptrack");
    command.arg("-o").arg(folder.join("data")).arg(host).args(["memdl", "a"]).arg(library);
    run(&mut command, "heaptrack");
    let data = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let text = run(limited(120, "heaptrack_print").arg(data), "heaptrack");
    let from = "peak memory consumed over 1000 calls from\n";
    let stack = text.split_once(from).unwrap_or_else(|| panic!("{text}")).1;
    let stack = stack.split("\n\n").next().unwrap();
    assert!(stack.contains("\n    main\n"), "{stack}");
}
