//! Filters (`DT_FILTER`, `DT_AUXILIARY`): another library's definitions come before the image's own. `dlopen`
//! of the same files is the reference.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Opened, WAYS, build, isolated, load_in_way, notes};
use crate::helpers::{apart, read};
use libc::RTLD_NOW;
use memdl::{Error, Library, Loader};

/// A part with these flags.
fn part(flags: &[&str]) -> PathBuf {
    build("gcc", "files/part.c", &[&["-O1", "-Wl,--no-as-needed"], flags].concat())
}

/// A folder of its own for the libraries of a test, by their names.
fn folder(name: &str, libraries: &[(&str, &Path)]) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("filters-{name}"));
    fs::create_dir_all(&folder).unwrap();
    for (name, path) in libraries {
        fs::write(folder.join(name), read(path)).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

/// What the functions of a library return, and the order of the constructors.
fn described(order: String, number: impl Fn(&str) -> Option<i32>) -> String {
    let numbers = ["impl", "own", "extra", "call", "call_2"].map(number);
    format!("{order} {numbers:?}")
}

fn by_dlopen(path: &Path) -> String {
    apart(|| {
        let mut opened = None;
        let order = notes(|| opened = Opened::try_new(path, RTLD_NOW));
        let Some(opened) = opened else { return Opened::refusal(path, RTLD_NOW) };
        described(order, |name| {
            let symbol = opened.symbol(name, None);
            // SAFETY: a function of `part.c`.
            (!symbol.is_null()).then(|| unsafe {
                std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> i32>(symbol)()
            })
        })
    })
}

/// What an image's functions return.
fn of_image(order: String, library: &Library) -> String {
    described(order, |name| {
        // SAFETY: a function of `part.c`.
        unsafe { library.get::<extern "C" fn() -> i32>(name) }.ok().map(|function| function())
    })
}

fn by_memdl(loader: &Loader, path: &Path, way: &str) -> String {
    apart(|| {
        let loader = loader.clone().name(path.to_str().unwrap());
        let mut result = None;
        // SAFETY: a library of `testlibs/`.
        let order = notes(|| result = Some(unsafe { load_in_way(&loader, &read(path), way) }));
        match result.unwrap() {
            Ok(library) => of_image(order, &library),
            Err(error) => error.to_string(),
        }
    })
}

/// The image is as `dlopen` has it, in all ways. Returns how that is.
fn assert_same(loader: &Loader, path: &Path) -> String {
    let expected = by_dlopen(path);
    for way in WAYS {
        let mut ours = by_memdl(loader, path, way);
        if way == "again" {
            // The constructors of the first instance ran, too; those of the system's libraries once.
            ours = expected.split_once(' ').map_or(String::new(), |it| it.0.to_owned())
                + " "
                + ours.split_once(' ').map_or("", |it| it.1);
        }
        assert_eq!(ours, expected, "{way}");
    }
    expected
}

fn host() -> Loader {
    Loader::new().system_libraries(true)
}

const REAL: [&str; 4] =
    ["-DLETTER=\"r\"", "-DIMPL=1", "-DEXTRA=100", "-Wl,-soname,libmemdl-real.so"];
const FRONT: [&str; 5] = ["-DLETTER=\"f\"", "-DIMPL=2", "-DOWN=3", "-DEXTRA=4", "-DCALL=call"];

#[test]
fn a_library_of_the_system_comes_before_the_image() {
    isolated(|| {
        let folder = folder("system", &[("libmemdl-real.so", &part(&REAL))]);
        let rpath = format!("-Wl,-rpath,{folder}");
        for tag in ["-Wl,-f,libmemdl-real.so", "-Wl,-F,libmemdl-real.so"] {
            let front = part(&[&FRONT[..], &[tag, &rpath]].concat());
            let result = assert_same(&host(), &front);
            assert_eq!(result, "rf [Some(1), Some(3), Some(100), Some(1), None]");
            // References of the image to itself are bound first where it says so.
            let own = part(&[&FRONT[..], &[tag, &rpath, "-Wl,-Bsymbolic"]].concat());
            let result = assert_same(&host(), &own);
            assert_eq!(result, "rf [Some(1), Some(3), Some(100), Some(2), None]");
        }
    });
}

#[test]
fn a_filter_needs_its_filtee_and_an_auxiliary_filter_does_not() {
    isolated(|| {
        let filter = part(&[&FRONT[..], &["-Wl,-F,libmemdl-nowhere.so"]].concat());
        assert!(
            by_dlopen(&filter).starts_with("libmemdl-nowhere.so: cannot open shared object file")
        );
        for loader in [host(), Loader::new()] {
            // SAFETY: a library of `testlibs/`, which is refused.
            match unsafe { loader.load(&read(&filter)) } {
                Err(Error::Missing { libraries, .. }) => {
                    assert_eq!(libraries[0].name, "libmemdl-nowhere.so");
                }
                other => panic!("{other:?}"),
            }
            let auxiliary = part(&[&FRONT[..], &["-Wl,-f,libmemdl-nowhere.so"]].concat());
            let result = assert_same(&loader, &auxiliary);
            assert_eq!(result, "f [Some(2), Some(3), Some(4), Some(2), None]");
        }
        // A file that is no library is as good as none; a library that lacks one that it needs is not.
        let lacks = part(&["-DIMPL=1", "-DCALL=call", "-Wl,-soname,libmemdl-lacks.so"]);
        let needs = part(&["-DIMPL=1", lacks.to_str().unwrap(), "-Wl,-soname,libmemdl-needs.so"]);
        let folder = folder("broken", &[("libmemdl-needs.so", &needs)]);
        fs::write(Path::new(&folder).join("libmemdl-text.so"), "no library").unwrap();
        let rpath = format!("-Wl,-rpath,{folder}");
        let text = part(&[&FRONT[..], &["-Wl,-f,libmemdl-text.so", &rpath]].concat());
        assert_eq!(assert_same(&host(), &text), "f [Some(2), Some(3), Some(4), Some(2), None]");
        let needs = part(&[&FRONT[..], &["-Wl,-f,libmemdl-needs.so", &rpath]].concat());
        assert!(
            by_dlopen(&needs).contains("libmemdl-lacks.so: cannot open"),
            "{}",
            by_dlopen(&needs)
        );
        let ours = by_memdl(&host(), &needs, "copy");
        assert!(ours.contains("libmemdl-lacks.so: cannot open"), "{ours}");
    });
}

/// Bytes, and images that are loaded, serve as files do.
#[test]
fn a_filtee_from_bytes() {
    isolated(|| {
        let real = part(&REAL);
        let folder = folder("bytes", &[("libmemdl-real.so", &real)]);
        let rpath = format!("-Wl,-rpath,{folder}");
        for tag in ["-Wl,-f,libmemdl-real.so", "-Wl,-F,libmemdl-real.so"] {
            let front = part(&[&FRONT[..], &[tag, &rpath]].concat());
            let provided = Loader::new().provide("libmemdl-real.so", read(&real));
            assert_same(&provided, &front);
            let broken = Loader::new()
                .system_libraries(false)
                .provide("libmemdl-real.so", &b"no library"[..]);
            let ours = by_memdl(&broken, &front, "copy");
            match tag.contains("-f") {
                true => assert_eq!(ours, "f [Some(2), Some(3), Some(4), Some(2), None]"),
                false => assert!(ours.contains("malformed image"), "{ours}"),
            }
            let mut loaded = None;
            // SAFETY: a library of `testlibs/`.
            notes(|| loaded = Some(unsafe { Loader::new().load(&read(&real)) }.unwrap()));
            let loaded = loaded.unwrap();
            for way in WAYS {
                let ours = by_memdl(&Loader::new().depends_on(&loaded), &front, way);
                assert!(ours.ends_with("f [Some(1), Some(3), Some(100), Some(1), None]"), "{ours}");
            }
        }
    });
}

/// The filter is needed by the image, from bytes, and as a library of the system; and `dlsym` in it alone.
#[test]
fn a_needed_library_that_is_a_filter() {
    isolated(|| {
        let real = part(&REAL);
        let folder_of_real = folder("needed-real", &[("libmemdl-real.so", &real)]);
        let rpath = format!("-Wl,-rpath,{folder_of_real}");
        for tag in ["-Wl,-f,libmemdl-real.so", "-Wl,-F,libmemdl-real.so"] {
            let soname = "-Wl,-soname,libmemdl-front.so";
            let front = part(&[&FRONT[..], &[tag, soname, &rpath]].concat());
            let folder = folder(&format!("needed{}", &tag[4..6]), &[("libmemdl-front.so", &front)]);
            let rpath = format!("-Wl,-rpath,{folder}");
            let last = part(&["-DLETTER=\"l\"", "-DEXTRA=7", "-Wl,-soname,libmemdl-last.so"]);
            fs::write(Path::new(&folder).join("libmemdl-last.so"), read(&last)).unwrap();
            let needs = [&*rpath, front.to_str().unwrap(), last.to_str().unwrap()];
            let root = part(&[&["-DLETTER=\"m\"", "-DCALL=call_2"], &needs[..]].concat());
            let result = assert_same(&host(), &root);
            assert!(result.contains("[Some(1), Some(3), Some(100), Some(1), Some(1)]"), "{result}");
            let provided = Loader::new()
                .provide("libmemdl-front.so", read(&front))
                .provide("libmemdl-real.so", read(&real))
                .provide("libmemdl-last.so", read(&last));
            assert_same(&provided, &root);
        }
    });
}

#[test]
fn filtees_keep_their_order_and_may_be_filters() {
    isolated(|| {
        let deep =
            part(&["-DLETTER=\"d\"", "-DEXTRA=9", "-DIMPL=9", "-Wl,-soname,libmemdl-deep.so"]);
        let tag = "-Wl,-f,libmemdl-deep.so";
        let names = ["libmemdl-deep.so", "libmemdl-one.so", "libmemdl-two.so"];
        let place = folder("chain", &[(names[0], &deep)]);
        let rpath = format!("-Wl,-rpath,{place}");
        let soname = "-Wl,-soname,libmemdl-one.so";
        let one = part(&["-DLETTER=\"1\"", "-DOWN=5", "-DEXTRA=5", tag, soname, &rpath]);
        let soname = "-Wl,-soname,libmemdl-two.so";
        let two = part(&["-DLETTER=\"2\"", "-DOWN=6", "-DEXTRA=6", "-DIMPL=6", soname]);
        let place = folder("chain", &[(names[1], &one), (names[2], &two)]);
        let provided = Loader::new()
            .provide(names[0], read(&deep))
            .provide(names[1], read(&one))
            .provide(names[2], read(&two));
        let path = |name: &str| format!("{place}/{name}");
        let (one, two, deep) = (path(names[1]), path(names[2]), path(names[0]));
        let filters = ["-Wl,-F,libmemdl-two.so", "-Wl,-f,libmemdl-one.so"];
        for more in [&[][..], &[&*deep], &[&*two, &*one], &[&*one, &*deep]] {
            for filters in [[filters[0], filters[1]], [filters[1], filters[0]]] {
                let root = part(&[&FRONT[..], &filters, more, &[&*rpath]].concat());
                assert_same(&provided, &root);
                assert_same(&host(), &root);
            }
        }
    });
}

/// A library that all have is searched first anyway; and a filter of itself, or two of each other, end.
#[test]
fn filters_of_the_c_library_and_of_themselves() {
    isolated(|| {
        let libc = part(&["-DABS=-5", "-DOWN=3", "-Wl,-F,libc.so.6"]);
        for way in WAYS {
            // SAFETY: a library of `testlibs/`.
            let library = unsafe { load_in_way(&host(), &read(&libc), way) }.unwrap();
            // SAFETY: `abs`.
            let abs = unsafe { *library.get::<extern "C" fn(i32) -> i32>("abs").unwrap() };
            assert_eq!(abs(-7), 7, "{way}");
        }
        let soname = "-Wl,-soname,libmemdl-self.so";
        let own = part(&[&FRONT[..], &["-Wl,-F,libmemdl-self.so", soname]].concat());
        let ours = by_memdl(&Loader::new(), &own, "copy");
        assert_eq!(ours, "f [Some(2), Some(3), Some(4), Some(2), None]");
        let [one, two] = [("1", "2"), ("2", "1")].map(|(own, other)| {
            let soname = format!("-Wl,-soname,libmemdl-circle-{own}.so");
            let filter = format!("-Wl,-F,libmemdl-circle-{other}.so");
            part(&[&format!("-DIMPL={own}"), "-DCALL=call", &soname, &filter])
        });
        let loader = Loader::new().provide("libmemdl-circle-2.so", read(&two));
        let ours = by_memdl(&loader, &one, "copy");
        // Each has had its turn once: the second, then the first before it.
        assert_eq!(ours, " [Some(1), None, None, Some(1), None]");
    });
}
