//! How a profiler comes to know the functions of an image that has no file.
//!
//! A profiler records program counters while the process runs, and the names of the files that are
//! mapped. It reads the names of functions from those files later, usually when the process has ended. For
//! code without a file, perf and the readers of its formats know two ways, and both are files that the
//! process writes: the perf map ([`perf_map`]), one line for each function, and the jitdump
//! ([`jitdump`]), which has the code too, and the time from which it was at its address. Neither has unwind
//! tables that perf uses. Where those are needed, code gets a file after all ([`image_files`]).
//!
//! So this is the one part of memdl that writes files, and only if the program or the operator requests
//! it. Otherwise nothing is read, written or kept. A failure is logged, and the image is left out: no load
//! fails here.
//!
//! Sources: Linux `tools/perf/Documentation/jit-interface.txt`, `jitdump-specification.txt`.

mod folder;
mod form;
pub(crate) mod functions;
mod image_files;
mod jitdump;
mod named_code;
mod perf_map;

use std::ops::Range;

use crate::base::addr::Vaddr;
use crate::base::demangle::demangled;
use crate::base::error::Error;
use crate::base::escape::{Escaped, Utf8};
use crate::base::fallible::{require_memory, try_collect, try_format, try_push_str};
use crate::base::sync::{Guard, Lock, Rank};
use crate::debug::DebugRegistration;
use crate::debug::lines::Dwarf;
use crate::elf::read::ReadAt;
use crate::memory::bytes::Image;
use crate::memory::mapped_file::ImageFile;
use crate::memory::mapping::Mapping;
use crate::memory::stage::Sealed;
pub use form::Profile;
use functions::Function;
use image_files::ImageFiles;
use jitdump::JitDump;
use named_code::{NamedCode, no_memory};
use perf_map::PerfMap;

impl Profile {
    /// The way of an image that is loaded with this one.
    pub(crate) fn effective(self) -> Profile {
        self.requested()
    }
}

/// The files of this process, of which there is one each.
struct Files {
    map: Option<PerfMap>,
    dump: Option<JitDump>,
    images: Option<ImageFiles>,
}

static FILES: Lock<Files> = Lock::new(Rank::Profile, Files { map: None, dump: None, images: None });

/// A forked child gets files of its own when it loads something.
fn lock() -> Guard<'static, Files> {
    FILES.lock()
}

/// The file that instances of this image map, if `profile` is [`Profile::File`] and it can be written.
#[inline]
pub(crate) fn image_file(profile: Profile, name: &str, image: &Image<'_>) -> Option<ImageFile> {
    // Relocations would be stored into its code.
    let is_wanted = profile == Profile::File && !image.decoded.text_relocations;
    if is_wanted { new_image_file(profile, name, image) } else { None }
}

#[cold]
fn new_image_file(profile: Profile, name: &str, image: &Image<'_>) -> Option<ImageFile> {
    let files = &mut lock().images;
    let file = ImageFiles::of_this_process(files).and_then(|it| it.of_image(name, image.bytes()));
    file.inspect_err(|error| {
        logged!(warn, "{name}: profilers will not see it ({profile:?}): {error}");
    })
    .ok()
}

/// Called when the process exits, or what memdl is linked into is unloaded.
pub(crate) fn finish() {
    // Never wait here: the thread that holds the lock may have ended.
    if let Some(mut files) = FILES.try_lock() {
        if let Some(map) = &mut files.map {
            map.finish();
        }
        if let Some(dump) = &mut files.dump {
            dump.finish();
        }
    }
}

/// An instance's entries in the files. Dropped before its memory is unmapped.
#[derive(Debug)]
pub(crate) struct Registration {
    /// Of the image.
    start: usize,
    profile: Profile,
}

impl Registration {
    /// Publishes an instance, which is relocated; `None` if `profile` is [`Profile::Off`] or [`Profile::File`], or a
    /// file cannot be written. `profile` comes from [`Profile::effective`]; `debug_info` was split off the image.
    #[inline]
    pub(crate) fn new(
        profile: Profile,
        name: &str,
        image: &Image<'_>,
        debug_info: Option<&[u8]>,
        mapping: &Mapping<Sealed>,
        debug: &DebugRegistration,
    ) -> Option<Registration> {
        match profile {
            Profile::Off | Profile::File => None,
            _ => Registration::published(profile, name, image, debug_info, mapping, debug),
        }
    }

    #[cold]
    fn published(
        profile: Profile,
        name: &str,
        image: &Image<'_>,
        debug_info: Option<&[u8]>,
        mapping: &Mapping<Sealed>,
        debug: &DebugRegistration,
    ) -> Option<Registration> {
        let addresses = mapping.address_range();
        let mut dwarf = None;
        if profile == Profile::JitDump {
            let fault;
            (dwarf, fault) = Dwarf::of(debug);
            if let Some(fault) = fault {
                debug.warn_of(&fault);
            }
        }
        let code = |function: Function<'_>| {
            let place = |at: Vaddr| mapping.load_bias().apply(at);
            let lines = dwarf.as_mut().map(|dwarf| dwarf.lines(function.addresses.clone()));
            let lines = lines.unwrap_or_default().into_iter();
            Ok(NamedCode {
                addresses: place(function.addresses.start)..place(function.addresses.end),
                lines: try_collect(lines.map(|line| (place(line.address), line)))?,
                name: try_format(format_args!("{}", Utf8(function.name)))?,
                code: mapping.read(function.addresses).unwrap_or_default(),
            })
        };
        let functions = functions::of_image(image, debug_info).map(Vec::into_iter);
        let start = addresses.start;
        let written = match profile {
            Profile::Off | Profile::File => return None,
            Profile::PerfMap | Profile::LivePerfMap => {
                let rows = functions.and_then(|functions| rows(name, functions.map(code)));
                let keep = profile == Profile::PerfMap;
                let map = &mut lock().map;
                rows.map_err(no_memory)
                    .and_then(|rows| PerfMap::of_this_process(map)?.add(addresses, &rows, keep))
            }
            Profile::JitDump => {
                let dump = &mut lock().dump;
                functions
                    .map_err(no_memory)
                    .and_then(|functions| JitDump::of_this_process(dump)?.add(functions.map(code)))
            }
        };
        match written {
            Ok(()) => Some(Registration { start, profile }),
            Err(error) => {
                logged!(warn, "{name}: profilers will not see it ({profile:?}): {error}");
                None
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.profile != Profile::JitDump {
            let removed = perf_map::remove(&mut lock().map, self.start);
            if let Err(error) = removed {
                logged!(warn, "profilers will see an image that is gone: {error}");
            }
        }
    }
}

/// The lines of a perf map. perf shows names as they are written, so they are demangled. It does not know
/// the image of a line, so the name contains it.
fn rows<'a>(
    image: &str,
    functions: impl Iterator<Item = Result<NamedCode<'a>, Error>>,
) -> Result<String, Error> {
    let image = Escaped(image);
    let mut rows = String::new();
    for function in functions {
        require_memory()?;
        let NamedCode { addresses: Range { start, end }, name, .. } = function?;
        let (size, name) = (end.saturating_sub(start), Escaped(demangled(&name)));
        let row = try_format(format_args!("{start:x} {size:x} {name} [{image}]\n"))?;
        try_push_str(&mut rows, &row)?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_make_lines_of_its_own() {
        let function = |name: &[u8]| NamedCode {
            addresses: 0x1000..0x1010,
            name: Utf8(name).to_string(),
            code: &[],
            lines: Vec::new(),
        };
        let functions = [function(b"evil\n2000 10 root"), function(b"_ZN3foo3barEi\xff")];
        let rows = rows("lib\rfoo", functions.into_iter().map(Ok)).unwrap();
        assert_eq!(
            rows,
            "1000 10 evil\\n2000 10 root [lib\\rfoo]\n1000 10 _ZN3foo3barEi\\xff [lib\\rfoo]\n"
        );
    }
}
