//! What a build without the features `debug`, `symbolize` and `profile` does.

use super::{log_warnings, take_warnings};
use crate::common::{AnyWay, bytes, debug_entries, isolated, isolated_with};
use memdl::{DebugInformation, DebugLevel, Error, Library, Loader, Profile, images};

fn load(loader: &Loader) -> Library {
    let file = bytes("gcc", "foo.c", &["-g", "-Wl,--build-id=sha1"]);
    // SAFETY: a library of `testlibs/`.
    unsafe { loader.load_any_way(&file) }.unwrap()
}

/// The warnings of a load.
fn warnings(loader: &Loader) -> Vec<String> {
    drop(load(loader));
    take_warnings()
}

fn assert_names_feature(error: &Error, feature: &str) {
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains(&format!("its feature `{feature}`")), "{error}");
}

#[test]
fn debuggers_see_nothing_and_more_is_refused() {
    isolated(|| {
        assert_eq!(DebugLevel::default(), DebugLevel::Full);
        let library = load(&Loader::new().debug(DebugLevel::Full));
        assert_eq!(library.debug(), DebugLevel::Off);
        assert_eq!(images()[0].debug(), DebugLevel::Off);
        assert!(images()[0].build_id().is_some_and(|id| id.len() == 20));
        for level in [DebugLevel::Symbols, DebugLevel::Full, DebugLevel::Portable] {
            assert_names_feature(&library.set_debug(level).unwrap_err(), "debug");
        }
        library.set_debug(DebugLevel::Off).unwrap();
        assert_names_feature(&library.set_debug_info(&[]).unwrap_err(), "debug");
        assert_eq!(debug_entries(), []);
        assert!(library.close().unwrap().is_unloaded() && images().is_empty());
    });
}

#[test]
fn what_is_asked_for_in_vain_is_a_warning() {
    isolated(|| {
        log_warnings();
        assert!(warnings(&Loader::new()).is_empty());
        assert!(warnings(&Loader::new().debug(DebugLevel::Full)).is_empty());
        assert!(warnings(&Loader::new().profile(Profile::Off)).is_empty());
        for profile in [Profile::PerfMap, Profile::JitDump, Profile::File] {
            let said = warnings(&Loader::new().profile(profile));
            assert!(said[0].contains("its feature `profile`") && said.len() == 1, "{said:?}");
        }
        let said = warnings(&Loader::new().debug_info(vec![0_u8]));
        assert!(said[0].contains("its feature `debug`") && said.len() == 1, "{said:?}");
    });
}

#[test]
fn an_operator_is_warned_too() {
    isolated_with(&[("MEMDL_DEBUG", "full"), ("MEMDL_PERF", "map")], || {
        log_warnings();
        let said = warnings(&Loader::new());
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.iter().any(|it| it.contains("MEMDL_DEBUG=full")), "{said:?}");
        assert!(said.iter().any(|it| it.contains("its feature `profile`")), "{said:?}");
    });
}

#[test]
fn reports_still_tell_what_debug_information_there_is() {
    let report = memdl::inspect(&bytes("gcc", "foo.c", &["-g"]));
    let dwarf = |it: &DebugInformation| matches!(it, DebugInformation::Dwarf { .. });
    assert!(report.debug_information().iter().any(dwarf));
    assert!(report.debug_information().contains(&DebugInformation::SymbolTable));
}

#[test]
fn errors_have_the_linkage_names() {
    let file = bytes("g++", "loading/missing.cpp", &[]);
    // SAFETY: it is refused.
    let error = unsafe { Loader::new().load_any_way(&file) }.unwrap_err();
    assert!(error.to_string().contains("_Z6absenti"), "{error}");
}
