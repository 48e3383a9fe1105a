//! What each target does with its input. None runs code of it: [`memdl::internals`] says why.
//!
//! An input is a file as it would be received. Where there is something to choose, it is in the address
//! of the entry point, which means nothing in a shared library ([`choice`]).

#![forbid(unsafe_code)]
#![allow(dead_code)]

use std::sync::Once;

use memdl::internals::{self, Way};
use memdl::{DebugLevel, Error, Frame, Loader};

const FORMS: [DebugLevel; 4] =
    [DebugLevel::Full, DebugLevel::Portable, DebugLevel::Symbols, DebugLevel::Off];

/// A byte of `e_entry`: 0 to 7.
fn entry(file: &[u8], which: usize) -> u8 {
    file.get(24 + which).copied().unwrap_or(0)
}

/// One of these things, by such a byte.
fn choice<T: Copy, const N: usize>(file: &[u8], which: usize, of: [T; N]) -> T {
    of[usize::from(entry(file, which)) % N]
}

/// The file without what was chosen by: an image with such bytes is refused.
fn plain(file: &[u8]) -> Vec<u8> {
    let mut plain = file.to_vec();
    plain.iter_mut().take(16).skip(9).for_each(|byte| *byte = 0);
    plain
}

/// An error must be one that can be shown; so must what is logged.
fn shown<T>(result: Result<T, Error>) -> Option<T> {
    take_log();
    let show = |error: &Error| {
        check_text(&error.to_string());
        std::hint::black_box(format!("{error:?}"));
    };
    result.inspect_err(show).ok()
}

/// Has what is logged formatted, and checked.
fn take_log() {
    static LOGGER: Once = Once::new();
    struct Formats;
    impl log::Log for Formats {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            check_text(&record.args().to_string());
        }
        fn flush(&self) {}
    }
    LOGGER.call_once(|| {
        if log::set_logger(&Formats).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
    });
}

/// Nothing in a text acts on a terminal: names of images are escaped. (Lists have lines.)
fn check_text(text: &str) {
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

fn show(frames: &[Frame]) {
    for frame in frames {
        check_text(&frame.to_string());
    }
}

/// Parse, plan and bind; and a report, which agrees.
pub fn parse(file: &[u8]) {
    let plain = plain(file);
    let report = memdl::inspect(&plain);
    check_text(&report.to_string());
    if !report.is_for_this_machine() {
        // Nothing but the file counts, so what it refers to is missing, and all else is decided.
        let report = Loader::new().system_libraries(false).inspect(&plain);
        check_text(&report.to_string());
    }
    match internals::parse_plan_bind(&plain) {
        // No library is opened there, and there may be no memory.
        Err(Error::Missing { .. } | Error::System { .. } | Error::OutOfMemory { .. }) => {}
        Err(error) => {
            assert!(report.is_refused(), "{error}\n{report}");
            shown::<()>(Err(error));
        }
        Ok(()) => {}
    }
}

/// A whole load, one of the three ways.
pub fn load(file: &[u8]) {
    if choice(file, 4, [false, false, false, true]) {
        shown(internals::load_lazily_without_running(file));
        return;
    }
    let (way, debug) = (choice(file, 0, Way::ALL), choice(file, 1, FORMS));
    let Some(idle) = shown(internals::load_without_running(&plain(file), way, debug, None)) else {
        return;
    };
    idle.look_at_symbols();
    shown(idle.touch_thread_locals());
    shown(idle.set_debug(choice(file, 2, FORMS)));
    let own = choice(file, 3, [false, true]);
    if own {
        shown(idle.set_debug_info(file));
    }
}

/// What debuggers are given, in all forms, and profilers.
pub fn symfile(file: &[u8]) {
    take_log();
    let shared = choice(file, 0, [false, true]);
    for form in [DebugLevel::Full, DebugLevel::Portable] {
        let _ = internals::symfile(&plain(file), form, shared);
    }
}

/// The addresses in DWARF.
pub fn dwarf(file: &[u8]) {
    let _ = internals::rewrite_dwarf(file);
}

/// An image, and the package (`.dwp`) or the file that its debug information was split off to. The last
/// four bytes are the length of the first.
pub fn pair(input: &[u8]) {
    take_log();
    let Some((image, second)) = parts(input) else { return };
    if let Ok(whole) = internals::join(image, second) {
        let _ = internals::symfile(&plain(&whole), DebugLevel::Full, false);
        let _ = internals::rewrite_dwarf(&whole);
    }
    let debug = choice(image, 0, FORMS);
    if let Some(idle) =
        shown(internals::load_without_running(&plain(image), Way::Copy, debug, Some(second)))
    {
        show(&idle.symbolize(first_code(image)));
        shown(idle.set_debug_info(second));
    }
}

/// The two files of an input for [`pair`].
pub fn parts(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (files, len) = input.split_at_checked(input.len().checked_sub(4)?)?;
    files.split_at_checked(u32::from_le_bytes(len.try_into().ok()?) as usize)
}

/// A section that is compressed.
pub fn inflate(section: &[u8]) {
    for by_name in [false, true] {
        let _ = internals::inflate(section, by_name);
    }
}

/// Functions, files and lines of a few addresses: of the DWARF alone, or of an image that is in place.
pub fn symbolize(file: &[u8]) {
    let first = first_code(file);
    let picked = first.wrapping_add(16 * u64::from(entry(file, 1)));
    let near = [0, 1, 4, 16, 40, 100].map(|more| picked.wrapping_add(more));
    if choice(file, 2, [false, true]) {
        let form = choice(file, 0, [DebugLevel::Full, DebugLevel::Symbols]);
        let loaded = internals::load_without_running(&plain(file), Way::Copy, form, None);
        let Some(idle) = shown(loaded) else { return };
        let len = idle.address_range().len() as u64;
        for address in (0..4).map(|part| len / 4 * part).chain(near) {
            show(&idle.symbolize(address));
        }
    } else {
        let _ = internals::read_lines(file, &[&near[..], &[0, 0x1000, u64::MAX]].concat());
    }
}

/// A function's name.
pub fn demangle(name: &[u8]) {
    let name = String::from_utf8_lossy(name);
    let shown = internals::demangle(&name);
    assert!(shown.len() <= 4 * name.len() + 128);
}

/// Where the first segment that can be executed starts, by its program header.
fn first_code(file: &[u8]) -> u64 {
    let word = |at: usize| {
        let bytes = file.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let headers = word(32).and_then(|at| usize::try_from(at).ok()).unwrap_or(0);
    let found = (0..16).find_map(|index: usize| {
        let at = headers.checked_add(index * 56)?;
        let is_code = word(at)? & 0x1_ffff_ffff == 0x1_0000_0001;
        if is_code { word(at.checked_add(16)?) } else { None }
    });
    found.unwrap_or(0)
}
