//! Symfiles of images and objects, as tools read them that know nothing of this crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memdl_symfile::{
    Error, Form, Limits, LoadBias, Options, Registration, Symfile, ThreadLocals, Vaddr,
    debugger_listens,
};

const SOURCE: &str = "\
__thread int counter;
static int twice(int a) { return 2 * a; }
int answer(int a) {
    int b = twice(a);
    counter += b;
    return b + 2;
}
int data[100] = { 1 };
";

/// A folder of its own for each test; gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("answer.c"), SOURCE).unwrap();
        Scratch(folder)
    }

    /// What this command writes to `out`.
    fn built(&self, command: &str, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(command).args(arguments).current_dir(&self.0).output().unwrap();
        assert!(output.status.success(), "{command} {arguments:?}: {output:?}");
        fs::read(self.0.join("out")).unwrap()
    }

    /// What a tool says of the file.
    fn said(&self, file: &Symfile, tool: &str, arguments: &[&str]) -> String {
        let path = self.0.join("symfile");
        fs::write(&path, file).unwrap();
        let output = Command::new(tool).args(arguments).current_dir(&self.0).output().unwrap();
        assert!(output.status.success(), "{tool}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The value of a symbol in a file.
fn symbol(file: &[u8], name: &str) -> u64 {
    let elf = goblin::elf::Elf::parse(file).unwrap();
    let is_it = |it: &goblin::elf::Sym| elf.strtab.get_at(it.st_name) == Some(name);
    elf.syms.iter().find(is_it).unwrap_or_else(|| panic!("no {name}")).st_value
}

#[test]
fn an_image_has_its_lines_at_its_run_time_addresses() {
    let scratch = Scratch::new("image");
    for compiler in ["gcc", "clang"] {
        let image = scratch.built(compiler, &["-g", "-shared", "-fPIC", "-o", "out", "answer.c"]);
        let stated = symbol(&image, "answer");
        let bias = LoadBias::between(Vaddr(0), 0x7f12_3456_7000);
        let options = Options::new().form(Form::Portable);
        let symfile = Symfile::of_image(&image, bias, &options).unwrap();
        assert_eq!(symbol(symfile.as_ref(), "answer"), stated + 0x7f12_3456_7000);
        let address = format!("{:#x}", stated + 0x7f12_3456_7000 + 4);
        let said = scratch.said(&symfile, "addr2line", &["-f", "-e", "symfile", &address]);
        assert!(said.starts_with("answer\n") && said.contains("answer.c:3"), "{compiler}: {said}");
        // The other form has the DWARF inside, as it came.
        let wrapped = Symfile::of_image(&image, bias, &Options::new()).unwrap();
        assert_eq!(symbol(wrapped.as_ref(), "answer"), stated + 0x7f12_3456_7000);
        let said = scratch.said(&wrapped, "readelf", &["-SW", "symfile"]);
        assert!(said.contains(".gnu_debugdata") && !said.contains(".debug_info"), "{said}");
    }
}

/// Where the lines of a file's functions are, as readelf reads its DWARF: line and address.
fn lines(scratch: &Scratch, file: &[u8]) -> Vec<(u64, u64)> {
    fs::write(scratch.0.join("lines"), file).unwrap();
    let mut command = Command::new("readelf");
    command.args(["-W", "--debug-dump=decodedline", "lines"]).current_dir(&scratch.0);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |line: &str| {
        let mut words = line.strip_prefix("answer.c")?.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let address = words.next()?.strip_prefix("0x")?;
        Some((number, u64::from_str_radix(address, 16).ok()?))
    };
    text.lines().filter_map(row).collect()
}

/// The two machines, whichever this is: their `e_machine`, and what clang calls them. It builds for both, without their
/// headers and libraries.
const MACHINES: [(u16, &str); 2] =
    [(62, "--target=x86_64-linux-gnu"), (183, "--target=aarch64-linux-gnu")];

#[test]
fn images_of_each_machine_have_their_lines_and_that_machine() {
    const BIAS: u64 = 0x7f_3456_0000;
    for (e_machine, target) in MACHINES {
        let scratch = Scratch::new(&format!("machine-{e_machine}"));
        for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
            let what = format!("{target} {dwarf}");
            let flags = [target, dwarf, "-shared", "-fPIC", "-nostdlib", "-fuse-ld=lld"];
            let flags = [&flags[..], &["-Wl,--build-id=sha1", "-o", "out", "answer.c"]].concat();
            let image = scratch.built("clang", &flags);
            let bias = LoadBias::between(Vaddr(0), BIAS as usize);
            let of_symfile = |form| {
                let thread_locals = ThreadLocals::AtDistance(0x40);
                let options = Options::new().form(form).thread_locals(thread_locals);
                Symfile::of_image(&image, bias, &options).unwrap()
            };
            let [wrapped, portable] = [Form::Wrapped, Form::Portable].map(of_symfile);
            for symfile in [&wrapped, &portable] {
                let header = goblin::elf::Elf::parse(symfile.as_ref()).unwrap().header;
                assert_eq!(header.e_machine, e_machine, "{what}");
                for name in ["answer", "data"] {
                    let expected = symbol(&image, name) + BIAS;
                    assert_eq!(symbol(symfile.as_ref(), name), expected, "{what}: {name}");
                }
            }
            let stated = lines(&scratch, &image);
            let moved = stated.iter().map(|(line, address)| (*line, address + BIAS));
            assert!(stated.iter().any(|(line, _)| *line == 3), "{what}: {stated:?}");
            let found = lines(&scratch, portable.as_ref());
            assert_eq!(found, moved.collect::<Vec<_>>(), "{what}");
            let said =
                scratch.said(&portable, "readelf", &["-aW", "--debug-dump=info,frames", "symfile"]);
            assert!(!said.contains("arning") && said.contains("DW_TAG_formal_parameter"), "{what}");
        }
    }
}

#[test]
fn separate_debug_information_is_the_images_or_an_error() {
    let scratch = Scratch::new("separate");
    let flags = ["-g", "-shared", "-fPIC", "-Wl,--build-id=sha1", "-o", "out", "answer.c"];
    let whole = scratch.built("gcc", &flags);
    fs::write(scratch.0.join("whole"), &whole).unwrap();
    let debug = scratch.built("objcopy", &["--only-keep-debug", "whole", "out"]);
    let stripped = scratch.built("strip", &["-o", "out", "whole"]);
    let bias = LoadBias::between(Vaddr(0), 0x10_0000);
    let portable = || Options::new().form(Form::Portable);
    let symfile = Symfile::of_image(&stripped, bias, &portable().debug_info(&debug)).unwrap();
    let address = format!("{:#x}", symbol(&whole, "answer") + 0x10_0000 + 4);
    let said = scratch.said(&symfile, "addr2line", &["-f", "-e", "symfile", &address]);
    assert!(said.contains("answer.c:3"), "{said}");
    let other = scratch.built("gcc", &[&["-O2"], &flags[..]].concat());
    let refused = Symfile::of_image(&stripped, bias, &portable().debug_info(&other));
    assert!(matches!(refused, Err(Error::OtherImage)), "{refused:?}");
}

#[test]
fn an_object_has_the_addresses_of_its_sections() {
    let scratch = Scratch::new("object");
    let place = |section: &str| match section {
        ".text" => Some(0x5000_0000),
        ".data" => Some(0x5001_0000),
        ".text.answer" => Some(0x5002_0000),
        _ => None,
    };
    for (compiler, flags) in [
        ("gcc", &["-g", "-gdwarf-5"][..]),
        ("gcc", &["-g", "-gdwarf-4", "-O2"]),
        ("gcc", &["-g", "-gz", "-fno-asynchronous-unwind-tables"]),
        ("gcc", &["-g", "-ffunction-sections"]),
        ("clang", &["-g"]),
        ("clang", &["-g", "-gdwarf-4", "-ffunction-sections"]),
        ("clang", &["-g", MACHINES[0].1]),
        ("clang", &["-g", MACHINES[1].1]),
        ("clang", &["-g", "-gdwarf-4", "-ffunction-sections", MACHINES[1].1]),
    ] {
        let what = format!("{compiler} {flags:?}");
        let object = scratch.built(compiler, &[flags, &["-c", "-o", "out", "answer.c"]].concat());
        let symfile = Symfile::of_object(&object, &place, &Options::new()).unwrap();
        let expected = match flags.contains(&"-ffunction-sections") {
            true => 0x5002_0000,
            false => 0x5000_0000 + symbol(&object, "answer"),
        };
        assert_eq!(symbol(symfile.as_ref(), "answer"), expected, "{what}");
        assert_eq!(symbol(symfile.as_ref(), "data"), 0x5001_0000, "{what}");
        let address = format!("{:#x}", expected + 4);
        let said = scratch.said(&symfile, "addr2line", &["-f", "-e", "symfile", &address]);
        assert!(said.starts_with("answer\n") && said.contains("answer.c:"), "{what}: {said}");
        let said =
            scratch.said(&symfile, "readelf", &["-aW", "--debug-dump=info,frames", "symfile"]);
        assert!(!said.contains("arning") && said.contains("DW_TAG_formal_parameter"), "{what}");
        // The frame of each function is where the function is: in `.eh_frame`, or in `.debug_frame`.
        let at = format!("pc={expected:016x}..");
        assert!(said.contains(&at), "{what}: {at}: {said}");
    }
}

#[test]
fn what_is_malformed_is_an_error_and_never_a_panic() {
    let scratch = Scratch::new("malformed");
    let object = scratch.built("gcc", &["-g", "-c", "-o", "out", "answer.c"]);
    let image = scratch.built("gcc", &["-g", "-shared", "-fPIC", "-o", "out", "answer.c"]);
    let bias = LoadBias::between(Vaddr(0), 0x10_0000);
    let place = |section: &str| (section == ".text").then_some(u64::MAX - 7);
    let of_object = |bytes: &[u8]| Symfile::of_object(bytes, &place, &Options::new());
    let of_image = |bytes: &[u8]| {
        let form = Form::Portable;
        Symfile::of_image(
            bytes,
            bias,
            &Options::new().form(form).thread_locals(ThreadLocals::AtDistance(8)),
        )
    };
    assert!(of_object(&image).is_err());
    assert!(of_object(b"").is_err() && of_image(b"\x7fELF").is_err());
    for (bytes, build) in [(&object, &of_object as &dyn Fn(&[u8]) -> _), (&image, &of_image)] {
        for len in (0..bytes.len()).step_by(61) {
            let _: Result<Symfile, Error> = build(&bytes[..len]);
        }
        // Each byte of the headers, and some of the rest, changed.
        let places = (0..64).chain((64..bytes.len()).step_by(7));
        for place in places {
            for value in [0, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[place] = value;
                let _ = build(&changed);
            }
        }
    }
    let mut limits = Limits::default();
    limits.debug_info_steps = 1;
    let options = Options::new().form(Form::Portable).limits(limits);
    let over = Symfile::of_image(&image, bias, &options);
    assert!(matches!(over, Err(Error::DebugInformation { .. })), "{over:?}");
}

#[test]
fn an_unknown_relocation_is_named() {
    let scratch = Scratch::new("relocation");
    let object = scratch.built("gcc", &["-g", "-c", "-o", "out", "answer.c"]);
    let elf = goblin::elf::Elf::parse(&object).unwrap();
    let is_it = |it: &&goblin::elf::SectionHeader| {
        elf.shdr_strtab.get_at(it.sh_name) == Some(".rela.debug_info")
    };
    let table = elf.section_headers.iter().find(is_it).unwrap().sh_offset as usize;
    let mut changed = object.clone();
    changed[table + 8] = 99;
    let refused = Symfile::of_object(&changed, &|_| None, &Options::new());
    let text = refused.unwrap_err().to_string();
    assert_eq!(text, ".rela.debug_info: unknown relocation of type 99");
}

#[test]
fn registrations_come_and_go_in_threads_and_children() {
    let scratch = Scratch::new("registrations");
    let object = scratch.built("gcc", &["-g", "-c", "-o", "out", "answer.c"]);
    // SAFETY: no debugger is there that would write to these addresses.
    let register = || unsafe {
        Registration::new(Symfile::of_object(&object, &|_| Some(0x1000), &Options::new()).unwrap())
    };
    assert!(!debugger_listens());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| drop([register(), register()])));
        }
        for _ in 0..20 {
            // SAFETY: the child makes entries, which forks wait for, and leaves by `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: ends a child that hangs.
                unsafe { libc::alarm(60) };
                // SAFETY: as above.
                drop(unsafe { Registration::new(small()) });
                // SAFETY: the child is done.
                unsafe { libc::_exit(42) };
            }
            let mut status = 0;
            // SAFETY: our child, and a local.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42, "{status:#x}");
        }
    });
    let registration = register();
    assert!(!registration.symfile().as_ref().is_empty());
    assert!(!registration.withdraw().as_ref().is_empty());
}

/// A symfile of an object with nothing in it.
fn small() -> Symfile {
    let mut object = vec![0; 64 + 64];
    object[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    // ET_REL, EM_X86_64; one section header behind the file header, the names, which are empty.
    object[16] = 1;
    object[18] = 62;
    object[40] = 64;
    object[58] = 64;
    object[60] = 1;
    // SHT_STRTAB.
    object[64 + 4] = 3;
    Symfile::of_object(&object, &|_| None, &Options::new()).unwrap()
}

/// An object to which this many section headers like one of its own are added, changed by `change`. A million words of
/// zeroes stand before them.
fn with_headers(object: &[u8], like: &str, count: u16, change: &dyn Fn(&mut [u8], u64)) -> Vec<u8> {
    let elf = goblin::elf::Elf::parse(object).unwrap();
    let is_it = |it: &goblin::elf::SectionHeader| elf.shdr_strtab.get_at(it.sh_name) == Some(like);
    let index = elf.section_headers.iter().position(is_it).unwrap();
    let (start, len) = (elf.header.e_shoff as usize, elf.section_headers.len() * 64);
    let headers = object[start..start + len].to_vec();
    let mut made = object.to_vec();
    made.resize(made.len().next_multiple_of(8) + (8 << 20), 0);
    let zeroes = (made.len() - (8 << 20)) as u64;
    let end = made.len() as u64;
    made[40..48].copy_from_slice(&end.to_le_bytes());
    made[60..62].copy_from_slice(&(count + elf.header.e_shnum).to_le_bytes());
    made.extend(&headers);
    for _ in 0..count {
        let mut header = headers[index * 64..][..64].to_vec();
        change(&mut header, zeroes);
        made.extend(header);
    }
    made
}

#[test]
fn what_many_sections_share_is_not_read_for_each() {
    let scratch = Scratch::new("shared");
    let object = scratch.built("gcc", &["-g", "-c", "-o", "out", "answer.c"]);
    let start = std::time::Instant::now();
    let mut limits = Limits::default();
    limits.debug_info_steps = 1_000_000;
    let options = Options::new().limits(limits);
    // Tables of 349,525 relocations each that do nothing, all of them the same.
    let tables = with_headers(&object, ".rela.debug_info", 50_000, &|header, zeroes| {
        header[24..32].copy_from_slice(&zeroes.to_le_bytes());
        header[32..40].copy_from_slice(&(8u64 << 20).to_le_bytes());
    });
    let error = Symfile::of_object(&tables, &|_| None, &options).unwrap_err();
    assert!(matches!(error, Error::DebugInformation { .. }), "{error}");
    // Debug sections with the same 8 MiB.
    let sections = with_headers(&object, ".debug_str", 50_000, &|header, zeroes| {
        header[24..32].copy_from_slice(&zeroes.to_le_bytes());
        header[32..40].copy_from_slice(&(8u64 << 20).to_le_bytes());
    });
    let error = Symfile::of_object(&sections, &|_| None, &options).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    // Without bounds it would be hours.
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}
