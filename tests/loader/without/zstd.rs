//! What a build with all features but `zstd` does with debug sections that are compressed with Zstandard. With the
//! feature: `symbolize::it_says_as_much_as_was_kept`.

use std::ffi::c_void;
use std::fs;

use super::{log_warnings, take_warnings};
use crate::common::{AnyWay, build, call_run, compressed_with_zstd, isolated};
use memdl::{DebugLevel, Loader, symbolize};

#[test]
fn sections_that_cannot_be_unpacked_cost_the_lines_and_warnings() {
    isolated(|| {
        log_warnings();
        let plain = build("gcc", "loading/bss.c", &["-g"]);
        let compressed = compressed_with_zstd(&plain);
        for (bytes, has_lines) in [(fs::read(&plain).unwrap(), true), (compressed, false)] {
            for level in [DebugLevel::Symbols, DebugLevel::Full, DebugLevel::Portable] {
                // SAFETY: a test library.
                let library = unsafe { Loader::new().debug(level).load_any_way(&bytes) }.unwrap();
                assert_eq!(call_run(&library), 42);
                // SAFETY: only the address is wanted.
                let run = unsafe { library.get::<*const c_void>("run") }.unwrap().addr();
                let [frame] = &symbolize(run + 1)[..] else { panic!("not one frame") };
                assert_eq!(frame.function().unwrap(), "run");
                assert_eq!(frame.line().is_some(), has_lines, "{level:?}");
                library.close().unwrap();
                let warnings = take_warnings();
                let name_it = |text: &String| text.contains("its feature `zstd`");
                assert!(warnings.iter().all(name_it), "{level:?}: {warnings:?}");
                assert_eq!(warnings.is_empty(), has_lines, "{level:?}: {warnings:?}");
            }
        }
    });
}
