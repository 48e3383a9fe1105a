//! Errors. Each text says which image and which part of it is at fault, and what to do about it.
//!
//! There is one enum. A variant is a kind of fault, not the function that met it, so that a caller can
//! distinguish: the file is malformed, memdl does not support it, something is missing, the system
//! refused, a limit was exceeded. Stages that know bytes but no names leave `image` empty, and the
//! loader fills it in ([`Error::in_image`]).
//!
//! This file makes errors. It logs none.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::base::addr::{FileOffset, Vaddr};
use crate::base::demangle::demangled;
use crate::base::escape::Escaped;
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::try_format;
use crate::base::mappings;

/// Why a load, or a lookup, failed. A failed load leaves the process as it was.
///
/// The fields hold names from the image unchanged. The text (`Display`) escapes control characters and
/// invisible characters, so that it can be printed and logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a well-formed shared library.
    #[error("{}malformed image: {} ({at})", In(image), Escaped(what))]
    #[non_exhaustive]
    Malformed {
        /// The image's name.
        image: String,
        /// The fault.
        what: Cow<'static, str>,
        /// The place in the image.
        at: Place,
    },

    /// The image may be well-formed, but memdl does not support it.
    #[error("{}not supported: {}", In(image), Escaped(what))]
    #[non_exhaustive]
    Unsupported {
        /// The image's name.
        image: String,
        /// The unsupported feature, and its place.
        what: Cow<'static, str>,
    },

    /// The image needs a level of the instruction set that this processor does not have
    /// (`GNU_PROPERTY_X86_ISA_1_NEEDED`; `ld.so`: "CPU ISA level is lower than required").
    #[error(
        "{}needs a processor of level {}{}; supply a build for another level",
        In(image),
        Escaped(level),
        Escaped(Lacking(lacking))
    )]
    #[non_exhaustive]
    Processor {
        /// The image's name.
        image: String,
        /// The level, as compilers name it: `x86-64-v3`.
        level: String,
        /// The features that the processor lacks, or that the system has not enabled, by their names in
        /// `/proc/cpuinfo`. Empty for a level that memdl does not know.
        lacking: Vec<&'static str>,
    },

    /// The image needs libraries, versions or symbols that nothing supplies. All of them are listed.
    #[error("{}", Escaped(MissingListing { image, libraries, versions, symbols }))]
    #[non_exhaustive]
    Missing {
        /// The image's name.
        image: String,
        /// Libraries that a `DT_NEEDED` or `DT_FILTER` entry names.
        libraries: Vec<MissingLibrary>,
        /// Symbol versions that a needed library should define, but does not.
        versions: Vec<MissingVersion>,
        /// Symbols that no library in scope defines.
        symbols: Vec<MissingSymbol>,
    },

    /// The host's verifier ([`Loader::verify`](crate::Loader::verify)) refuses the bytes.
    #[error("{}refused by the verifier: {}", In(image), Escaped(reason))]
    #[non_exhaustive]
    Refused {
        /// The image's name.
        image: String,
        /// The verifier's reason. It is part of the text, and so no [`source`](std::error::Error::source).
        reason: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The image refers to symbols of the host that it may not bind to
    /// ([`Loader::imports`](crate::Loader::imports)). All of them are listed.
    #[error("{}", Escaped(RefusedListing { image, symbols }))]
    #[non_exhaustive]
    RefusedImports {
        /// The image's name.
        image: String,
        /// The symbols.
        symbols: Vec<RefusedImport>,
    },

    /// A lookup by name found nothing.
    #[error("{}no symbol `{}`{}", In(image), Escaped(symbol), Escaped(AtVersion(version)))]
    #[non_exhaustive]
    SymbolNotFound {
        /// The library that was searched.
        image: String,
        /// The requested name.
        symbol: String,
        /// The requested version.
        version: Option<String>,
    },

    /// The operating system refused an operation.
    #[error("{}{}: {}", In(image), Escaped(what), Escaped(error))]
    #[non_exhaustive]
    System {
        /// The image's name.
        image: String,
        /// The operation.
        what: Cow<'static, str>,
        /// The system's error. It is part of the text, and so no [`source`](std::error::Error::source).
        error: io::Error,
    },

    /// There is not enough memory for the image.
    #[error("{}out of memory: cannot allocate {bytes} bytes", In(image))]
    #[non_exhaustive]
    OutOfMemory {
        /// The image's name; empty where there is no memory for the name either.
        image: String,
        /// The size of the allocation that failed, in bytes.
        bytes: u64,
    },

    /// The file that was given to [`Loader::debug_info`](crate::Loader::debug_info) belongs to another
    /// image.
    #[error("{}the separate debug information is not this image's: {}", In(image), Escaped(what))]
    #[non_exhaustive]
    DebugInfo {
        /// The image's name.
        image: String,
        /// The difference.
        what: String,
    },

    /// The image exceeds one of the caller's [`Limits`](crate::Limits).
    #[error("{}limit exceeded: {what} is {needed}, the limit is {limit}", In(image))]
    #[non_exhaustive]
    Limit {
        /// The image's name.
        image: String,
        /// The limited quantity.
        what: &'static str,
        /// The image's value.
        needed: u64,
        /// The largest allowed value.
        limit: u64,
    },
}

/// A kind of [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`Error::Malformed`]: the bytes are not a well-formed shared library.
    Malformed,
    /// [`Error::Unsupported`]: memdl does not support it.
    Unsupported,
    /// [`Error::Processor`]: it needs another processor.
    Processor,
    /// [`Error::Missing`]: libraries, versions or symbols that it needs are not there.
    Missing,
    /// [`Error::Refused`]: the host's verifier refuses it.
    Refused,
    /// [`Error::RefusedImports`]: the host does not allow its imports.
    RefusedImports,
    /// [`Error::SymbolNotFound`]: a lookup by name found nothing.
    SymbolNotFound,
    /// [`Error::System`]: the operating system refused an operation.
    System,
    /// [`Error::OutOfMemory`]: there is not enough memory.
    OutOfMemory,
    /// [`Error::DebugInfo`]: the debug information belongs to another image.
    DebugInfo,
    /// [`Error::Limit`]: it exceeds one of the caller's limits.
    Limit,
}

impl From<OutOfMemory> for Error {
    #[cold]
    fn from(OutOfMemory { bytes }: OutOfMemory) -> Error {
        Error::out_of_memory(bytes)
    }
}

/// A library that a `DT_NEEDED` or `DT_FILTER` entry names and nothing supplies. (An image does without one
/// that `DT_AUXILIARY` names.)
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingLibrary {
    /// The name, as the entry has it.
    pub name: String,
    /// The image that needs it.
    pub needed_by: String,
    /// The system's error, where it was asked to open the library.
    pub reason: Option<String>,
}

/// A version that the library of that name should define (gABI-GNU `DT_VERNEED`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingVersion {
    /// The library, which was found.
    pub library: String,
    /// The version that it lacks.
    pub version: String,
    /// The image that needs it.
    pub needed_by: String,
}

/// A symbol that no library in scope defines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingSymbol {
    /// Its name, not demangled.
    pub name: String,
    /// The version that the image asks for.
    pub version: Option<String>,
    /// The image that needs it.
    pub needed_by: String,
}

/// A symbol of the host that an image may not bind to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedImport {
    /// Its name, not demangled.
    pub name: String,
    /// The version that the image asks for.
    pub version: Option<String>,
    /// The image that refers to it.
    pub requested_by: String,
}

/// A place in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In the ELF header.
    Header,
    /// The program header of this index.
    Segment(usize),
    /// The dynamic section's entry with this `d_tag`.
    Dynamic(u64),
    /// The symbol of this index in the dynamic symbol table.
    Symbol(u32),
    /// A relocation, by the address that it changes (`r_offset`).
    Relocation(Vaddr),
    /// An offset in the file.
    Offset(FileOffset),
    /// An address, as the file states it.
    Address(Vaddr),
}

/// The image's name in an error, by a reference of the kind that the error is given by.
macro_rules! image_of {
    ($error:expr) => {{
        let (Error::Malformed { image, .. }
        | Error::Unsupported { image, .. }
        | Error::Processor { image, .. }
        | Error::Missing { image, .. }
        | Error::Refused { image, .. }
        | Error::RefusedImports { image, .. }
        | Error::SymbolNotFound { image, .. }
        | Error::System { image, .. }
        | Error::OutOfMemory { image, .. }
        | Error::DebugInfo { image, .. }
        | Error::Limit { image, .. }) = $error;
        image
    }};
}

impl Error {
    pub(crate) fn malformed(what: impl Into<Cow<'static, str>>, at: Place) -> Error {
        Error::Malformed { image: String::new(), what: what.into(), at }
    }

    pub(crate) fn unsupported(what: impl Into<Cow<'static, str>>) -> Error {
        Error::Unsupported { image: String::new(), what: what.into() }
    }

    pub(crate) fn processor(level: String, lacking: Vec<&'static str>) -> Error {
        Error::Processor { image: String::new(), level, lacking }
    }

    pub(crate) fn limit(what: &'static str, needed: u64, limit: u64) -> Error {
        Error::Limit { image: String::new(), what, needed, limit }
    }

    pub(crate) fn out_of_memory(bytes: u64) -> Error {
        Error::OutOfMemory { image: String::new(), bytes }
    }

    /// The error of the system call that just failed, from `errno`.
    pub(crate) fn last_os_error(what: impl Into<Cow<'static, str>>) -> Error {
        Error::system(what, io::Error::last_os_error())
    }

    /// The error of a system call. Where the limit of mappings is reached, it says so: the system's own text speaks of
    /// memory.
    pub(crate) fn system(what: impl Into<Cow<'static, str>>, error: io::Error) -> Error {
        let what = what.into();
        let what = match mappings::at_limit(&error) {
            Some(limit) => try_format(format_args!("{what}{limit}")).map_or(what, Cow::Owned),
            None => what,
        };
        Error::System { image: String::new(), what, error }
    }

    /// What kind of failure this is.
    ///
    /// ```
    /// let error = memdl::ImageBuffer::new(usize::MAX).unwrap_err();
    /// assert!(matches!(error.kind(), memdl::ErrorKind::System | memdl::ErrorKind::OutOfMemory));
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Malformed { .. } => ErrorKind::Malformed,
            Error::Unsupported { .. } => ErrorKind::Unsupported,
            Error::Processor { .. } => ErrorKind::Processor,
            Error::Missing { .. } => ErrorKind::Missing,
            Error::Refused { .. } => ErrorKind::Refused,
            Error::RefusedImports { .. } => ErrorKind::RefusedImports,
            Error::SymbolNotFound { .. } => ErrorKind::SymbolNotFound,
            Error::System { .. } => ErrorKind::System,
            Error::OutOfMemory { .. } => ErrorKind::OutOfMemory,
            Error::DebugInfo { .. } => ErrorKind::DebugInfo,
            Error::Limit { .. } => ErrorKind::Limit,
        }
    }

    /// The name of the image that the failure is about. Empty if it is about none.
    ///
    /// ```
    /// let loader = memdl::Loader::new().name("upload-17");
    /// // SAFETY: nothing is loaded.
    /// let error = unsafe { loader.load(b"no ELF file") }.unwrap_err();
    /// assert_eq!(error.image(), "upload-17");
    /// ```
    #[must_use]
    pub fn image(&self) -> &str {
        image_of!(self)
    }

    /// Sets the image's name, if it is not set yet.
    pub(crate) fn in_image(mut self, name: &str) -> Error {
        let image = image_of!(&mut self);
        if image.is_empty() && image.try_reserve(name.len()).is_ok() {
            image.push_str(name);
        }
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header => f.write_str("in the ELF header"),
            Place::Segment(index) => write!(f, "in program header {index}"),
            Place::Dynamic(tag) => write!(f, "in the dynamic section, d_tag {tag:#x}"),
            Place::Symbol(index) => write!(f, "in dynamic symbol {index}"),
            Place::Relocation(at) => write!(f, "in the relocation at {at}"),
            Place::Offset(at) => write!(f, "at file offset {at}"),
            Place::Address(at) => write!(f, "at address {at}"),
        }
    }
}

/// The end of the text of [`Error::Processor`].
struct Lacking<'a>(&'a [&'static str]);

impl fmt::Display for Lacking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str(", which is not known here"),
            features => write!(f, ", and this one lacks {}", features.join(", ")),
        }
    }
}

struct AtVersion<'a>(&'a Option<String>);

impl fmt::Display for AtVersion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

/// An image's name and a colon; nothing for an image without a name.
struct In<'a>(&'a str);

impl fmt::Display for In<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", Escaped(self.0)) }
    }
}

/// The number of items of a list that a text shows. The fields have all.
const SHOWN: usize = 20;

/// Writes a list in the order of its names, each once, and how many more there are.
fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    name: impl Fn(&T) -> &str,
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort_by(|a, b| name(a).cmp(name(b)));
    for (index, item) in sorted.iter().take(SHOWN).enumerate() {
        f.write_str(if index == 0 { " " } else { ", " })?;
        write(f, item)?;
    }
    match sorted.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, ", and {more} more"),
    }
}

/// The text of [`Error::RefusedImports`].
struct RefusedListing<'a> {
    image: &'a str,
    symbols: &'a [RefusedImport],
}

impl fmt::Display for RefusedListing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}the host does not allow these imports:", In(self.image))?;
        list(
            f,
            self.symbols,
            |symbol| &symbol.name,
            |f, symbol| {
                write!(f, "{}{}", demangled(&symbol.name), AtVersion(&symbol.version))?;
                match symbol.requested_by == self.image {
                    true => Ok(()),
                    false => write!(f, " (by {})", symbol.requested_by),
                }
            },
        )?;
        f.write_str(
            "; allow them with Loader::imports(..), or supply others with Loader::define(name, address)",
        )
    }
}

/// The text of [`Error::Missing`]: what is missing, and the ways to supply it.
struct MissingListing<'a> {
    image: &'a str,
    libraries: &'a [MissingLibrary],
    versions: &'a [MissingVersion],
    symbols: &'a [MissingSymbol],
}

impl MissingListing<'_> {
    /// ` (needed by x)`; empty where `x` is the image itself.
    fn by<'a>(&self, needed_by: &'a str) -> Cow<'a, str> {
        if needed_by == self.image { "".into() } else { format!(" (needed by {needed_by})").into() }
    }

    fn libraries(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("needs libraries that are not there:")?;
        list(
            f,
            self.libraries,
            |library| &library.name,
            |f, library| {
                write!(f, "{}{}", library.name, self.by(&library.needed_by))?;
                match &library.reason {
                    Some(reason) => write!(f, " [{reason}]"),
                    None => Ok(()),
                }
            },
        )?;
        f.write_str(
            "; supply each with Loader::provide(name, bytes), Loader::provider(..) or \
             Loader::depends_on(&library)",
        )?;
        let is_forbidden = |library: &MissingLibrary| {
            library.reason.as_ref().is_none_or(|it| it.contains("system_libraries(false)"))
        };
        if self.libraries.iter().any(is_forbidden) {
            f.write_str(", or let memdl open it with Loader::system_libraries(true)")?;
        }
        // musl's own name for the C library; Alpine's packages have it.
        let of_musl = |library: &&MissingLibrary| {
            library.name.starts_with("libc.musl-") || library.name.starts_with("ld-musl-")
        };
        match self.libraries.iter().find(of_musl) {
            Some(library) => {
                write!(f, "; {} was built for musl, and this process runs glibc", library.needed_by)
            }
            None => Ok(()),
        }
    }

    fn versions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("needs versions that are not there:")?;
        list(
            f,
            self.versions,
            |missing| &missing.version,
            |f, missing| {
                let by = self.by(&missing.needed_by);
                write!(f, "`{}' in {}{by}", missing.version, missing.library)
            },
        )?;
        f.write_str("; the library in this process is older than the one it was linked with")
    }

    fn symbols(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("undefined symbols:")?;
        list(
            f,
            self.symbols,
            |symbol| &symbol.name,
            |f, symbol| {
                let version = AtVersion(&symbol.version);
                write!(f, "{}{version}{}", demangled(&symbol.name), self.by(&symbol.needed_by))
            },
        )?;
        f.write_str(
            "; supply them with Loader::define(name, address), Loader::resolver(..), or a library \
             that defines them",
        )
    }
}

impl fmt::Display for MissingListing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", In(self.image))?;
        let mut separator = "";
        if !self.libraries.is_empty() {
            self.libraries(f)?;
            separator = ": ";
        }
        if !self.versions.is_empty() {
            f.write_str(separator)?;
            self.versions(f)?;
            separator = ": ";
        }
        if !self.symbols.is_empty() {
            f.write_str(separator)?;
            self.symbols(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_names_the_three_ways_to_supply_it() {
        let text = Error::Missing {
            image: "a".into(),
            libraries: vec![
                MissingLibrary { name: "libx.so".into(), needed_by: "a".into(), reason: None },
                MissingLibrary { name: "liby.so".into(), needed_by: "b".into(), reason: None },
            ],
            versions: vec![],
            symbols: vec![],
        }
        .to_string();
        for part in
            ["libx.so", "liby.so (needed by b)", "provide", "depends_on", "system_libraries"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_library_for_musl_is_called_that() {
        let library =
            |name: &str| MissingLibrary { name: name.into(), needed_by: "a".into(), reason: None };
        for (name, expected) in [("libc.musl-x.so.1", true), ("libc.so.6", false)] {
            let (libraries, versions, symbols) = (vec![library(name)], vec![], vec![]);
            let error = Error::Missing { image: "a".into(), libraries, versions, symbols };
            assert_eq!(error.to_string().contains("a was built for musl"), expected, "{error}");
        }
    }

    #[test]
    fn a_list_is_sorted_and_cut() {
        let symbol = |index: usize| MissingSymbol {
            name: format!("symbol_{index:03}"),
            version: None,
            needed_by: "a".into(),
        };
        let symbols: Vec<_> = (0..50).rev().map(symbol).collect();
        let (libraries, versions) = (vec![], vec![]);
        let error = Error::Missing { image: String::new(), libraries, versions, symbols };
        let text = error.to_string();
        let start = "undefined symbols: symbol_000 (needed by a), symbol_001 (needed by a), ";
        assert!(text.starts_with(start) && text.contains("symbol_019"), "{text}");
        assert!(!text.contains("symbol_020") && text.contains(", and 30 more; "), "{text}");
        let Error::Missing { symbols, .. } = error else { unreachable!() };
        assert_eq!(symbols.len(), 50);
    }

    #[test]
    fn names_in_a_list_are_readable_and_stay_in_the_fields() {
        let symbol = MissingSymbol {
            name: "_ZN3foo3barEi".into(),
            version: Some("V1".into()),
            needed_by: "a".into(),
        };
        let (libraries, versions) = (vec![], vec![]);
        let error =
            Error::Missing { image: "a".into(), libraries, versions, symbols: vec![symbol] };
        let text = error.to_string();
        assert!(text.starts_with("a: undefined symbols: foo::bar(int)@V1; "), "{text}");
        let Error::Missing { symbols, .. } = error else { unreachable!() };
        assert_eq!(symbols.first().unwrap().name, "_ZN3foo3barEi");
    }

    #[test]
    fn a_chain_of_errors_says_each_thing_once() {
        use std::error::Error as _;
        let error = Error::system("mmap", io::Error::from_raw_os_error(libc::EPERM));
        assert!(error.to_string().contains("not permitted") && error.source().is_none());
        let error = Error::Refused { image: "a".into(), reason: "no such digest".into() };
        assert!(error.to_string().contains("no such digest") && error.source().is_none());
    }

    #[test]
    fn the_innermost_name_stays() {
        let error = Error::unsupported("x").in_image("inner").in_image("outer");
        assert_eq!(error.to_string(), "inner: not supported: x");
    }
}
