//! What fuzzers call does what a load does, and runs nothing of the image.

use crate::common::{build, bytes, debug_entries, isolated, maps};
use memdl::DebugLevel;
use memdl::internals::{self, Way};

#[test]
fn an_image_in_place_of_which_nothing_may_run_does_not() {
    let image = bytes("gcc", "testlibs/loading/must_not_run.c", &["-g"]);
    internals::parse_plan_bind(&image).unwrap();
    isolated(|| {
        let all = || {
            for way in Way::ALL {
                for debug in
                    [DebugLevel::Off, DebugLevel::Symbols, DebugLevel::Full, DebugLevel::Portable]
                {
                    let idle = internals::load_without_running(&image, way, debug, None).unwrap();
                    assert!(idle.look_at_symbols() >= 4);
                    assert!(idle.touch_thread_locals().unwrap());
                    let instances = if way == Way::Template { 2 } else { 1 };
                    let told = if debug == DebugLevel::Off { 0 } else { instances };
                    assert_eq!(debug_entries().len(), told, "{way:?}");
                }
            }
        };
        drop(internals::load_lazily_without_running(&image).unwrap());
        // What is made once in a process is there then.
        all();
        let before = maps().len();
        all();
        assert_eq!(maps().len(), before);
        assert!(debug_entries().is_empty());
    });
}

#[test]
fn the_parts_do_what_a_load_has_them_do() {
    let image = bytes("gcc", "testlibs/loading/must_not_run.c", &["-g", "-gz"]);
    let forms = [DebugLevel::Off, DebugLevel::Symbols, DebugLevel::Full, DebugLevel::Portable];
    for shared in [false, true] {
        let lens = forms.map(|form| internals::symfile(&image, form, shared).unwrap().len());
        let [off, names, full, portable] = lens;
        assert!(off == 0 && names > 0 && full > names && portable > names, "{lens:?}");
    }
    assert!(internals::rewrite_dwarf(&image).unwrap() > 100);

    let path = build("gcc", "testlibs/loading/must_not_run.c", &["-g", "-gz"]);
    let nm = std::process::Command::new("nm").arg(path).output().unwrap();
    let nm = String::from_utf8(nm.stdout).unwrap();
    let line = nm.lines().find(|line| line.ends_with(" t chosen")).unwrap();
    let address = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
    let frames = internals::symbolize_in(&image, address).unwrap();
    assert_eq!(frames[0].function().as_deref(), Some("chosen"));
    assert_eq!(frames[0].line(), Some(9));
    let (places, lines) = internals::read_lines(&image, &[address, address + 4]).unwrap();
    assert!(places == 2 && lines > 0, "{places} {lines}");
    let (functions, names) = internals::functions(&image).unwrap();
    assert!(functions >= 4 && names > 20, "{functions} {names}");
    assert_eq!(internals::demangle("_ZN3foo3barEi"), "foo::bar(int)");
    assert!(internals::join(&image, &image).unwrap_err().contains("no split DWARF"));
    assert!(internals::inflate(b"ZLIB", true).unwrap_err().contains("no header"));
}
