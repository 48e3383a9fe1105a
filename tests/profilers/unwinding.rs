//! Who walks stacks by unwind tables, and finds these in files: perf with `--call-graph dwarf`, and eu-stack. With
//! `Profile::File` both walk through images as through libraries on disk.

use std::env;
use std::ffi::c_int;
use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    Opened, build, bytes, is_over, isolated_with, limited, maps, name_of, own_test, run,
};
use crate::profile::{CHILD, Folder, perf, recorded};
use memdl::{DebugLevel, ImageBuffer, Library, Loader, Profile};

type Function = unsafe extern "C" fn(c_int) -> c_int;

/// How a process gets its library, and which.
const WAY: &str = "MEMDL_TEST_WAY";
const FILE: &str = "MEMDL_TEST_FILE";

const C: (&str, &str, &[&str]) =
    ("gcc", "profile/callers.c", &["-g", "-O2", "-fomit-frame-pointer"]);
const CXX: (&str, &str, &[&str]) =
    ("g++", "profile/callers.cc", &["-g", "-O2", "-fomit-frame-pointer"]);
const RUST: (&str, &str, &[&str]) =
    ("rustc", "profile/callers.rs", &["-g", "-O", "-Cforce-frame-pointers=no"]);

/// The function that a frame of the host's has in the way of `what`.
#[inline(never)]
fn calls_the_image(function: Function, argument: c_int) -> c_int {
    // SAFETY: the type of the functions of these test libraries.
    black_box(unsafe { function(argument) })
}

/// Calls a function of the library in the environment, in a process of its own.
fn call_by_environment(function: &str, argument: c_int) {
    let file = PathBuf::from(env::var_os(FILE).unwrap());
    let profile = match env::var(WAY).unwrap().as_str() {
        "dlopen" => {
            let opened = Opened::new(&file, libc::RTLD_NOW);
            // SAFETY: the function's type.
            let function = unsafe {
                std::mem::transmute::<*mut libc::c_void, Function>(opened.symbol(function, None))
            };
            black_box(calls_the_image(function, argument));
            return;
        }
        "off" => Profile::Off,
        "file" => Profile::File,
        "jitdump" => Profile::JitDump,
        other => panic!("{other}"),
    };
    let loader = Loader::new().name("libcallers.so").profile(profile);
    // SAFETY: a test library.
    let library = unsafe { loader.load(&fs::read(&file).unwrap()) }.unwrap();
    // SAFETY: the function's type.
    let function = *unsafe { library.get::<Function>(function) }.unwrap();
    black_box(calls_the_image(function, argument));
}

/// Of the samples in the library's hottest function, the share whose stack reaches the host; by unwind tables.
fn share_that_reaches_the_host(test: &str, way: &str, library: &Path) -> Option<f64> {
    share_that_reaches_the_host_by(test, way, library, "dwarf,16384", "call")
}

/// As [`share_that_reaches_the_host`], as perf's `--call-graph` says. `None` in the process that perf looks at.
fn share_that_reaches_the_host_by(
    test: &str,
    way: &str,
    library: &Path,
    call_graph: &str,
    function: &str,
) -> Option<f64> {
    let folder = Folder::new(&format!("{}-{way}", test.rsplit("::").next().unwrap()));
    let home = folder.0.to_str().unwrap();
    let environment = [(WAY, way), (FILE, library.to_str().unwrap()), ("JITDUMPDIR", home)];
    let options = ["-F", "499", "--call-graph", call_graph];
    let (_, mut data) = recorded(test, &folder, &options, &environment, || {
        call_by_environment(function, 250);
    })?;
    if way == "jitdump" {
        let injected = folder.0.join("injected.data");
        let mut command = perf(&["inject", "--jit", "-i"]);
        run(command.arg(&data).arg("-o").arg(&injected).env("HOME", home), "linux-perf");
        data = injected;
    }
    let mut command = perf(&["script", "--no-inline", "-F", "ip,sym", "-i"]);
    let script = run(command.arg(&data).env("HOME", home), "linux-perf");
    let stacks = script.split("\n\n").filter(|stack| stack.contains("spins_here"));
    let (mut all, mut reaching) = (0_u32, 0_u32);
    for stack in stacks {
        all += 1;
        reaching += u32::from(stack.contains("calls_the_image"));
    }
    assert!(all > 50, "{way}: {all} samples:\n{script}");
    Some(f64::from(reaching) / f64::from(all))
}

fn assert_perf_walks_as_with_dlopen(test: &str, library: (&str, &str, &[&str])) {
    let file = build(library.0, library.1, library.2);
    let Some(dlopen) = share_that_reaches_the_host(test, "dlopen", &file) else { return };
    let memdl = share_that_reaches_the_host(test, "file", &file).unwrap();
    assert!(dlopen > 0.9, "{dlopen}");
    assert!(memdl >= 0.9 * dlopen, "{memdl}, with dlopen {dlopen}");
}

#[test]
fn perf_walks_by_unwind_tables_through_c() {
    let test = name_of(&perf_walks_by_unwind_tables_through_c);
    assert_perf_walks_as_with_dlopen(test, C);
}

#[test]
fn perf_walks_by_unwind_tables_through_cxx() {
    let test = name_of(&perf_walks_by_unwind_tables_through_cxx);
    assert_perf_walks_as_with_dlopen(test, CXX);
}

#[test]
fn perf_walks_by_unwind_tables_through_rust() {
    let test = name_of(&perf_walks_by_unwind_tables_through_rust);
    assert_perf_walks_as_with_dlopen(test, RUST);
}

/// The tables in a jitdump would have to lie behind the code of their function, where the next one is. So there
/// are none, and perf stops in the image.
#[test]
fn perf_does_not_walk_by_unwind_tables_with_a_jitdump() {
    let test = name_of(&perf_does_not_walk_by_unwind_tables_with_a_jitdump);
    let file = build(C.0, C.1, C.2);
    if let Some(share) = share_that_reaches_the_host(test, "jitdump", &file) {
        assert!(share < 0.1, "{share}: say so in README.md");
    }
}

/// The cure without a file: frame pointers.
#[test]
fn perf_walks_by_frame_pointers_with_a_jitdump() {
    let test = name_of(&perf_walks_by_frame_pointers_with_a_jitdump);
    let flags = ["-g", "-O2", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer"];
    let file = build(C.0, C.1, &flags);
    // The C library's functions have no frame pointers.
    if let Some(share) = share_that_reaches_the_host_by(test, "jitdump", &file, "fp", "call_own") {
        assert!(share > 0.9, "{share}");
    }
}

/// What `eu-stack` says of a process in the image: the names of its frames, from the image's function on to the
/// host's.
fn stack_of_waiting(test: &str, way: &str) -> Option<String> {
    if env::var(CHILD).as_deref() == Ok(test) {
        call_by_environment("waits", 1);
        return None;
    }
    let folder = Folder::new(&format!("eu-stack-{way}"));
    let file = build(C.0, C.1, C.2);
    let mut command = own_test(test);
    command.env(CHILD, test).env(WAY, way).env(FILE, &file).env("JITDUMPDIR", &folder.0);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let waits = lines.map_while(Result::ok).any(|line| line == "waits");
    let (id, start) = (child.id().to_string(), Instant::now());
    let stack = loop {
        // It fails where it cannot walk on.
        let mut command = limited(20, "eu-stack");
        let output = command.args(["-p", &id]).output().expect("`sh tests/setup.sh` installs it");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let of_it = text.split("TID ").find(|thread| thread.contains("pause"));
        let is_late = is_over(start, Duration::from_secs(20));
        match of_it {
            Some(thread) => break thread.to_owned(),
            None if is_late => break text,
            None => thread::sleep(Duration::from_millis(50)),
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(waits);
    Some(stack)
}

#[test]
fn eu_stack_walks_through_images_that_are_mapped_from_a_file() {
    let test = name_of(&eu_stack_walks_through_images_that_are_mapped_from_a_file);
    let Some(by_dlopen) = stack_of_waiting(test, "dlopen") else { return };
    let names = |stack: &str| {
        let names = stack.lines().filter_map(|line| line.split_whitespace().nth(2));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let of_image = |stack: &str| {
        let names = names(stack);
        let end = names.iter().position(|name| name.contains("calls_the_image"));
        names[..end.unwrap_or_else(|| panic!("{stack}"))].to_vec()
    };
    let expected = of_image(&by_dlopen);
    assert!(expected.ends_with(&["waits_here".to_owned(), "waits".to_owned()]), "{by_dlopen}");
    assert_eq!(of_image(&stack_of_waiting(test, "file").unwrap()), expected);
    // Else the image has no file.
    let off = stack_of_waiting(test, "off").unwrap();
    assert!(!off.contains("waits_here") && !off.contains("calls_the_image"), "{off}");
}

/// The files that this process maps from this folder, each once, with the accesses.
fn mapped_from(folder: &Folder) -> Vec<(PathBuf, String)> {
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    for line in maps().into_iter().filter(|line| Path::new(&line.name).starts_with(&folder.0)) {
        match found.iter_mut().find(|(path, _)| *path == Path::new(&line.name)) {
            Some((_, accesses)) => accesses.push_str(&format!(" {}", line.access)),
            None => found.push((line.name.into(), line.access)),
        }
    }
    found
}

fn loader() -> Loader {
    Loader::new().name("dir/libcallers.so").profile(Profile::File)
}

fn rounds(library: &Library) -> c_int {
    // SAFETY: the function's type.
    unsafe { library.get::<Function>("call").unwrap()(2) }
}

#[test]
fn images_are_mapped_from_files_that_stay() {
    let folder = Folder::new("image-files");
    let name = folder.0.clone();
    isolated_with(&[("JITDUMPDIR", name.to_str().unwrap())], move || {
        // It is the child's, which has the environment.
        let folder = Folder(env::var_os("JITDUMPDIR").unwrap().into());
        let image = bytes(C.0, C.1, C.2);
        // SAFETY: a test library, in all of these.
        let [first, second] = [(); 2].map(|()| unsafe { loader().load(&image) }.unwrap());
        let [(path, accesses)] = &mapped_from(&folder)[..] else { panic!("one file for both") };
        assert!(path.ends_with("0/libcallers.so"), "{path:?}");
        assert!(accesses.contains("r-xp") && !accesses.contains('w'), "{accesses}");
        assert_eq!(fs::read(path).unwrap(), image);
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o077, 0, "for this user only");
        let expected = rounds(&first);
        assert_eq!(rounds(&second), expected);
        first.close().unwrap();
        second.close().unwrap();
        assert_eq!(mapped_from(&folder), []);
        assert_eq!(fs::read(path).unwrap(), image, "for reports that are made later");

        // By every way to load.
        let mut buffer = ImageBuffer::new(image.len()).unwrap();
        buffer.copy_from_slice(&image);
        // SAFETY: a test library.
        let received = unsafe { loader().load_buffer(buffer) }.unwrap();
        // SAFETY: a test library.
        let template = unsafe { loader().debug(DebugLevel::Off).prepare(&image) }.unwrap();
        // SAFETY: a test library.
        let instance = unsafe { template.instantiate() }.unwrap();
        let pool = template.pool(1);
        for _ in 0..3 {
            // SAFETY: a test library.
            assert_eq!(rounds(&unsafe { pool.acquire() }.unwrap()), expected);
        }
        for library in [&received, &instance] {
            assert_eq!(rounds(library), expected);
        }
        let files = mapped_from(&folder);
        assert!(matches!(&files[..], [(file, _)] if file == path), "{files:?}");

        // Another image by the same name; and a child of `fork`.
        // SAFETY: a test library.
        let other = unsafe { loader().load(&bytes(CXX.0, CXX.1, CXX.2)) }.unwrap();
        rounds(&other);
        assert!(mapped_from(&folder).iter().any(|(path, _)| path.ends_with("1/libcallers.so")));
        let status = crate::common::in_child(60, || {
            // SAFETY: a test library.
            let own = unsafe { loader().load(&image) }.unwrap();
            let is_right = rounds(&own) == expected && mapped_from(&folder).len() == 3;
            if is_right { 42 } else { 1 }
        });
        assert_eq!(crate::common::exit_status(status), Some(42));
        std::mem::forget(folder);
    });
    drop(folder);
}

#[test]
fn an_image_whose_file_cannot_be_written_is_loaded_without() {
    let folder = Folder::new("no-image-files");
    let file = folder.0.join("file");
    fs::write(&file, "").unwrap();
    isolated_with(&[("JITDUMPDIR", file.to_str().unwrap())], || {
        // SAFETY: a test library.
        let library = unsafe { loader().load(&bytes(C.0, C.1, C.2)) }.unwrap();
        rounds(&library);
        assert!(maps().iter().all(|line| !line.name.contains("libcallers")));
    });
}
