//! Libraries for another machine: what a report says of them, alone and with the libraries that they need, and that no way to
//! load takes them.
//!
//! The other machine is the other one of the two that memdl runs on, so the same tests hold on both.

use std::ffi::c_void;
use std::fs;
use std::process::Command;

use crate::common::machine::{FOREIGN, OWN};
use crate::common::{WAYS, assert_agrees, isolated, load_in_way, maps, repository, run};
use crate::inspect::{assert_is_what_readelf_says_of, binding, origin, relocation};
use memdl::{Error, ImportBinding, LibraryOrigin, Loader, Report, inspect};

/// What every report on such a file ends with.
fn refusal() -> String {
    format!("an image for {}; this process is {}", FOREIGN.name, OWN.name)
}

/// An address, which is never read.
fn somewhere() -> *const c_void {
    std::ptr::without_provenance(0x1000)
}

/// A loader without any library. Code of some machines calls a function for the address of a thread-local variable: that
/// function is there.
fn alone() -> Loader {
    let loader = Loader::new().name("library").system_libraries(false);
    loader.resolver(|it| (it.name() == "__tls_get_addr").then(somewhere))
}

/// `cross/library.c`, and a loader with its `libdep.so` and nothing else.
fn with_dep(flags: &[&str]) -> (Loader, Vec<u8>) {
    let [library, dep] = FOREIGN.library_and_dep(flags).map(|path| fs::read(path).unwrap());
    (alone().provide("libdep.so", dep), library)
}

fn texts<'e>(errors: impl IntoIterator<Item = &'e Error>) -> Vec<String> {
    errors.into_iter().map(Error::to_string).collect()
}

#[test]
fn a_library_for_another_machine_is_described() {
    for flags in [&[][..], &["-Wl,-z,pack-relative-relocs"], &["-O2", "-Wl,--hash-style=sysv"]] {
        let [library, dep] = FOREIGN.library_and_dep(flags);
        assert_is_what_readelf_says_of(&library, FOREIGN.name);
        assert_is_what_readelf_says_of(&dep, FOREIGN.name);
        let report = inspect(&fs::read(&library).unwrap());
        assert_eq!(report.machine_number(), Some(FOREIGN.e_machine));
        assert!(!report.is_for_this_machine() && report.is_complete());
        let [reason] = report.refusals() else { panic!("{report}") };
        assert!(reason.to_string().ends_with(&refusal()), "{reason}");
        assert_eq!(report.refusals_on_its_machine().count(), 0);
        assert_eq!(*origin(&report, "libdep.so"), LibraryOrigin::Unknown);
        assert_eq!(*binding(&report, "dep"), ImportBinding::Unknown);
        assert_eq!(*binding(&report, "nowhere"), ImportBinding::Null);
        assert!(report.relocation_types().iter().all(|it| it.is_supported), "{report}");
        let types: Vec<&str> = report.relocation_types().iter().map(|it| it.name).collect();
        let expected = match FOREIGN.name {
            "AArch64" => ["R_AARCH64_JUMP_SLOT", "R_AARCH64_TLSDESC", "R_AARCH64_IRELATIVE"],
            _ => ["R_X86_64_JUMP_SLOT", "R_X86_64_DTPMOD64", "R_X86_64_IRELATIVE"],
        };
        assert!(expected.iter().all(|it| types.contains(it)), "{types:?}");
        let text = report.to_string();
        assert!(text.contains(&format!(", for {}\n", FOREIGN.name)), "{text}");
        let end = format!("\ncannot be loaded in this process: {}\n", refusal());
        assert!(text.ends_with(&end) && !text.contains("refused"), "{text}");
    }
}

/// Nothing of this process counts: neither a library that is loaded here, nor a function, nor an image.
#[test]
fn its_imports_are_bound_to_what_is_given_and_to_nothing_else() {
    let (loader, library) = with_dep(&["-DIMPORT=getpid"]);
    let report = loader.inspect(&library);
    assert!(matches!(origin(&report, "libdep.so"), LibraryOrigin::Bytes { .. }), "{report}");
    for name in ["dep", "dep_value"] {
        let is_dep = matches!(binding(&report, name), ImportBinding::Image { name, .. } if **name == *"libdep.so");
        assert!(is_dep, "{report}");
    }
    assert_eq!(*binding(&report, "getpid"), ImportBinding::Missing);
    let own: Vec<&Error> = report.refusals_on_its_machine().collect();
    assert!(
        matches!(&own[..], [Error::Missing { symbols, .. }] if symbols.len() == 1 && symbols[0].name == "getpid"),
        "{report}"
    );
    // A load meets the machine first.
    assert!(report.refusals()[0].to_string().ends_with(&refusal()), "{report}");
    // What the process elsewhere has.
    let host = loader.define("getpid", somewhere());
    let report = host.inspect(&library);
    assert_eq!(*binding(&report, "getpid"), ImportBinding::Defined);
    assert_eq!(report.refusals_on_its_machine().count(), 0, "{report}");
    // A library that is needed and that this process has is not that machine's.
    let [_, dep] = FOREIGN.library_and_dep(&[]);
    let libc = FOREIGN.build("cross/dep.c", &["-Wl,-soname,libc.so.6"]);
    let needs = ["-Wl,--no-as-needed", libc.to_str().unwrap()];
    let [library, _] = FOREIGN.library_and_dep(&needs).map(|path| fs::read(path).unwrap());
    let loader = Loader::new().provide("libdep.so", fs::read(dep).unwrap());
    let report = loader.inspect(&library);
    assert_eq!(*origin(&report, "libc.so.6"), LibraryOrigin::Unknown, "{report}");
    let report = loader.system_libraries(false).inspect(&library);
    let reason = match origin(&report, "libc.so.6") {
        LibraryOrigin::Missing { reason, .. } => reason.clone(),
        other => panic!("{other}"),
    };
    assert!(reason.starts_with("not supplied"), "{reason}");
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let answers = asked.clone();
    let provider = Loader::new().provider(move |request| {
        answers.lock().unwrap().push(request.name().to_owned());
        (request.name() == "libc.so.6").then(|| memdl::Provided::from(fs::read(&libc).unwrap()))
    });
    let report = provider.inspect(&library);
    assert!(matches!(origin(&report, "libc.so.6"), LibraryOrigin::Bytes { .. }), "{report}");
    assert_eq!(*asked.lock().unwrap(), ["libdep.so", "libc.so.6"]);
}

#[test]
fn versions_and_machines_of_what_it_needs_are_checked() {
    let (loader, library) = with_dep(&[]);
    assert_eq!(loader.inspect(&library).refusals_on_its_machine().count(), 0);
    let with = |dep| alone().provide("libdep.so", fs::read(dep).unwrap()).inspect(&library);
    let soname = "-Wl,-soname,libdep.so";
    let report = with(FOREIGN.build("cross/library.c", &[soname]));
    let reasons = texts(report.refusals_on_its_machine());
    assert!(reasons.iter().any(|it| it.contains("undefined symbols: dep")), "{reasons:#?}");
    let other =
        format!("-Wl,--version-script={}", repository("testlibs/cross/other.map").display());
    let report = with(FOREIGN.build("cross/dep.c", &[soname, &other]));
    let reasons = texts(report.refusals_on_its_machine());
    assert!(reasons[0].contains("`DEP_1' in libdep.so"), "{reasons:#?}");
    // As `ld.so` has it, a library without versions defines all.
    let report = with(FOREIGN.build("cross/dep.c", &[soname]));
    assert_eq!(report.refusals_on_its_machine().count(), 0, "{report}");
    // One for this machine is none for that one; a load of one for this machine takes none for that one.
    let own = OWN.library_and_dep(&[]).map(|path| fs::read(path).unwrap());
    let [needs, own_dep] = own;
    let report = alone().provide("libdep.so", own_dep).inspect(&library);
    let expected =
        format!("an image for {}; the one that needs it is for {}", OWN.name, FOREIGN.name);
    let reasons = texts(report.refusals());
    assert!(
        reasons.iter().any(|it| it.starts_with("libdep.so: ") && it.ends_with(&expected)),
        "{reasons:#?}"
    );
    let [_, theirs] = FOREIGN.library_and_dep(&[]);
    let loader = alone().provide("libdep.so", fs::read(theirs).unwrap());
    let report = loader.inspect(&needs);
    assert!(report.is_for_this_machine());
    // SAFETY: it is refused.
    let refused = unsafe { loader.load(&needs) };
    assert_agrees(&report, &refused, "a needed library for another machine");
    let text = refused.unwrap_err().to_string();
    assert!(text.starts_with("libdep.so: ") && text.ends_with(&refusal()), "{text}");
}

#[test]
fn relocations_that_its_machine_does_not_have_are_named() {
    let (loader, library) = with_dep(&[]);
    // Of each machine: a relative one, one that only the static linker applies, a copy.
    let (relative, of_linker, copy) = match FOREIGN.name {
        "AArch64" => (1027u32, 261u32, 1024u32),
        _ => (8, 3, 5),
    };
    let names = match FOREIGN.name {
        "AArch64" => ["R_AARCH64_PREL32", "R_AARCH64_COPY"],
        _ => ["R_X86_64_GOT32", "R_X86_64_COPY"],
    };
    for (number, name) in [of_linker, copy].into_iter().zip(names) {
        let mut changed = library.clone();
        let at = relocation(&changed, relative) + 8;
        changed[at..at + 4].copy_from_slice(&number.to_le_bytes());
        let report = loader.inspect(&changed);
        let types = report.relocation_types();
        let it = types.iter().find(|it| it.number == number).unwrap();
        assert_eq!((it.name, it.count, it.is_supported), (name, 1, false));
        let reasons = texts(report.refusals_on_its_machine());
        assert!(reasons.len() == 1 && reasons[0].contains(name), "{reasons:#?}");
        let text = report.to_string();
        let expected = format!("1 {name} (type {number}, not supported)");
        assert!(text.contains(&expected) && text.contains("\nrefused: "), "{text}");
    }
    // Where a relocation applies is checked, too: none of the machine's memory is read-only and relocated.
    let mut changed = library.clone();
    let at = relocation(&changed, relative);
    changed[at..at + 8].copy_from_slice(&8u64.to_le_bytes());
    let reasons = texts(loader.inspect(&changed).refusals_on_its_machine());
    assert!(reasons.len() == 1 && reasons[0].contains("not writable"), "{reasons:#?}");
}

#[test]
fn no_way_to_load_takes_it() {
    isolated(|| {
        let (loader, library) = with_dep(&[]);
        let files = || maps().into_iter().filter(|line| line.name.starts_with('/')).count();
        let before = files();
        for way in WAYS {
            // SAFETY: it is refused.
            let refused = unsafe { load_in_way(&loader, &library, way) };
            assert_agrees(&loader.inspect(&library), &refused, way);
            let text = refused.unwrap_err().to_string();
            assert_eq!(text, format!("library: not supported: {}", refusal()), "{way}");
        }
        // Whatever else is wrong with it.
        for len in [64, 100, 1000, library.len() - 1] {
            // SAFETY: it is refused.
            let refused = unsafe { loader.load(&library[..len]) };
            assert!(refused.unwrap_err().to_string().ends_with(&refusal()), "{len} bytes");
        }
        assert_eq!(files(), before);
        assert!(memdl::images().is_empty());
    });
}

/// One that has no table here, as RISC-V's: described, and refused by its name.
#[test]
fn of_a_machine_that_is_not_known_the_rest_is_described() {
    let (loader, ours) = with_dep(&[]);
    let known = loader.inspect(&ours);
    for (e_machine, name) in [(243u16, Some("RISC-V")), (258, Some("LoongArch")), (0xfeed, None)] {
        let mut bytes = ours.clone();
        bytes[18..20].copy_from_slice(&e_machine.to_le_bytes());
        let report = loader.inspect(&bytes);
        assert_eq!((report.machine(), report.machine_number()), (name, Some(e_machine)));
        let refusals = texts(report.refusals());
        let is = name.map_or("another machine: e_machine is 65261", |name| name);
        let expected = format!("an image for {is}; this process is {}", OWN.name);
        assert!(refusals.len() == 1 && refusals[0].ends_with(&expected), "{refusals:?}");
        // SAFETY: it is refused.
        assert_agrees(&report, &unsafe { loader.load(&bytes) }, &expected);
        assert_eq!((report.exports(), report.functions()), (known.exports(), known.functions()));
        assert_eq!(report.build_id(), known.build_id());
        let all_unknown = |it: &Report| {
            it.needed().iter().all(|it| *it.origin() == LibraryOrigin::Unknown)
                && it.imports().iter().all(|it| *it.binding() == ImportBinding::Unknown)
        };
        assert!(all_unknown(&report) && report.relocation_types().is_empty());
        assert_eq!(report.imports().len(), known.imports().len());
    }
}

/// A debug file is compared with the image, and read, as for a load.
#[test]
fn its_debug_file_must_be_its_own() {
    let (loader, library) = with_dep(&[]);
    let folder = std::env::temp_dir().join(format!("memdl-foreign-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let [whole, debug] = ["whole", "debug"].map(|name| folder.join(name));
    let split = |bytes: &[u8]| {
        fs::write(&whole, bytes).unwrap();
        run(Command::new("llvm-objcopy").arg("--only-keep-debug").args([&whole, &debug]), "llvm");
        fs::read(&debug).unwrap()
    };
    let own = split(&library);
    let other = split(&with_dep(&["-O2"]).1);
    fs::remove_dir_all(&folder).unwrap();
    let with = |file| loader.clone().debug_info(file).inspect(&library);
    assert_eq!(with(own).refusals_on_its_machine().count(), 0);
    let reasons = texts(with(other).refusals_on_its_machine());
    assert!(reasons.len() == 1 && reasons[0].contains("debug"), "{reasons:#?}");
}
