//! What symfiles are made from: the image, its debug file, and the policy that chooses between them.
//!
//! The form of a symfile, and its registration, are `debug/`'s. Nothing is registered here.

#![forbid(unsafe_code)]

use std::fmt::Display;

use crate::base::error::Error;
use crate::base::fallible::try_collect;
use crate::base::limits::Limits;
use crate::debug::{
    self, DebugLevel, DebugTemplate, DynamicSymbol, Instances, Source, SourceSegment,
};
use crate::elf::decoded::Decoded;
use crate::elf::eh_frame::EhFrame;
use crate::elf::read::ReadAt;
use crate::elf::symbol_table::SymbolTable;
use crate::memory::bytes::Image;

/// What debuggers get of each instance of `image`, from its own bytes or from its debug file. If an image
/// with thread-local variables is stripped and has no debug file given, an installed one is looked for
/// here: gdb, if it finds the file by itself, shows wrong memory for these variables.
pub(super) fn debug_template(
    name: &str,
    image: &Image<'_>,
    separate: Option<&[u8]>,
    wanted: DebugLevel,
    instances: Instances,
    limits: &Limits,
) -> Result<Option<DebugTemplate>, Error> {
    let refused =
        |what: &dyn Display| Error::DebugInfo { image: name.to_owned(), what: what.to_string() };
    let (package, separate) = match separate {
        Some(file) if debug::is_package(file) => (Some(file), None),
        other => (None, other),
    };
    if let Some(separate) = separate {
        debug::check_separate(image.bytes(), image.notes(), separate)
            .map_err(|fault| refused(&fault))?;
    }
    if wanted == DebugLevel::Off {
        return Ok(None);
    }
    let wants_installed = separate.or(package).is_none()
        && image.decoded.tls.is_some()
        && !debug::has_dwarf(image.bytes());
    let found = wants_installed
        .then(|| debug::installed_separate(image.notes(), limits.image_bytes))
        .flatten();
    let installed = found.filter(|file| {
        let checked = debug::check_separate(image.bytes(), image.notes(), file);
        checked
            .inspect_err(|fault| logged!(warn, "{name}: its installed debug file: {fault}"))
            .is_ok()
    });
    if wants_installed && installed.is_none() {
        logged!(
            info,
            "{name}: is stripped, and no debug file of it was found here. If gdb finds one, what \
             it shows of thread-local variables is not theirs"
        );
    }
    let separate = separate.or(installed.as_deref());
    let joined =
        match package.map(|package| debug::join(image.bytes(), package, debug::maximum(limits))) {
            Some(Err(fault)) if fault.is_refusal() => return Err(refused(&fault)),
            Some(Err(fault)) => {
                logged!(warn, "{name}: debuggers will not see what is in its package: {fault}");
                None
            }
            Some(Ok(whole)) => Some(whole),
            None => None,
        };
    let file = joined.as_deref().or(separate).or(Some(image.bytes()));
    let make = |source: &Source<'_>| DebugTemplate::new(name, source, wanted, limits, instances);
    with_debug_source(&image.decoded, file, image, &image.symbols()?, make)
}

/// Calls `make` with the description of an image that symfiles are made from. `file` holds the debug
/// sections, if there is such a file; `memory` is the image as it is, or will be, mapped.
pub(crate) fn with_debug_source<M: ReadAt, T>(
    decoded: &Decoded,
    file: Option<&[u8]>,
    memory: &M,
    symbols: &SymbolTable<'_>,
    make: impl FnOnce(&Source<'_>) -> T,
) -> Result<T, Error> {
    let segments = try_collect(decoded.segments.iter().map(|segment| SourceSegment {
        addresses: segment.addresses.clone(),
        executable: segment.access.execute,
        writable: segment.access.write,
    }))?;
    let dynamic_symbols = |visit: &mut dyn FnMut(DynamicSymbol<'_>)| {
        for (_, symbol) in symbols.iter() {
            visit(DynamicSymbol {
                name: symbols.string(symbol.st_name).unwrap_or(b""),
                st_value: symbol.st_value,
                st_size: symbol.st_size,
                st_info: symbol.st_info,
                st_other: symbol.st_other,
                st_shndx: symbol.st_shndx,
            });
        }
    };
    let eh_frame = || Some(EhFrame::locate(decoded.eh_frame_hdr.clone()?, memory)?.range);
    Ok(make(&Source {
        file,
        memory,
        segments: &segments,
        eh_frame: &eh_frame,
        tls_size: decoded.tls.as_ref().map_or(0, |tls| tls.size),
        dynamic_symbols: &dynamic_symbols,
        policy: debug::policy(decoded.tls.is_some()),
        e_machine: decoded.machine.e_machine,
    }))
}
