//! What can go wrong, told so that the reader knows which thing and what to do about it.
//!
//! One enum; a variant is a kind of fault, not the function that met it. A caller can tell apart:
//! the file is malformed, memdl does not do that, something is missing, the system said no, a
//! limit was hit. The stages that know bytes but not names leave `image` empty, and the loader
//! fills it in ([`Error::in_image`]), so that no stage has to carry a name around.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::base::addr::{FileOffset, Vaddr};
use crate::base::escape::Escaped;

/// Why a load, or a lookup, failed. A failed load leaves the process as it was.
///
/// Names in it come from the image, and are in its fields as they stand there. In its text
/// (`Display`) control characters and invisible ones are escaped, so that it can be printed and logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a well-formed shared library.
    #[error("{}: malformed image: {} ({at})", Escaped(image), Escaped(what))]
    Malformed {
        /// What the image is called.
        image: String,
        /// What is wrong.
        what: Cow<'static, str>,
        /// Where in the image.
        at: Place,
    },

    /// The bytes may be fine, but memdl does not load such an image.
    #[error("{}: not supported: {}", Escaped(image), Escaped(what))]
    Unsupported {
        /// What the image is called.
        image: String,
        /// What it asks for, and where.
        what: Cow<'static, str>,
    },

    /// The image needs what nothing supplies. Everything that is missing is listed.
    #[error("{}", Escaped(Listing { image, libraries, versions, symbols }))]
    Missing {
        /// What the image is called.
        image: String,
        /// Libraries that a `DT_NEEDED` entry names.
        libraries: Vec<MissingLibrary>,
        /// Symbol versions that a needed library should define, but does not.
        versions: Vec<MissingVersion>,
        /// Symbols that no library in scope defines.
        symbols: Vec<MissingSymbol>,
    },

    /// The host's verifier ([`Loader::verify`](crate::Loader::verify)) refuses the bytes.
    #[error("{}: refused by the verifier: {}", Escaped(image), Escaped(reason))]
    Refused {
        /// What the image is called.
        image: String,
        /// What the verifier says.
        #[source]
        reason: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The image refers to symbols of the host that it may not bind to
    /// ([`Loader::imports`](crate::Loader::imports)). All of them are listed.
    #[error("{}", Escaped(RefusedListing { image, symbols }))]
    RefusedImports {
        /// What the image is called.
        image: String,
        /// The symbols.
        symbols: Vec<RefusedImport>,
    },

    /// A lookup by name found nothing.
    #[error("{}: no symbol `{}`{}", Escaped(image), Escaped(symbol), Escaped(AtVersion(version)))]
    SymbolNotFound {
        /// The library that was searched.
        image: String,
        /// The name that was asked for.
        symbol: String,
        /// The version that was asked for.
        version: Option<String>,
    },

    /// The operating system refused.
    #[error("{}: {}: {}", Escaped(image), Escaped(what), Escaped(source))]
    System {
        /// What the image is called.
        image: String,
        /// What was tried.
        what: Cow<'static, str>,
        /// What the system said.
        source: io::Error,
    },

    /// There is no memory for what the bytes ask for.
    #[error("{}: out of memory: {bytes} bytes are not to be had", Escaped(image))]
    OutOfMemory {
        /// What the image is called; empty where there is no memory for its name either.
        image: String,
        /// How much was asked for.
        bytes: u64,
    },

    /// What was given to [`Loader::debug_info`](crate::Loader::debug_info) is not the image's.
    #[error(
        "{}: the separate debug information is not this image's: {}",
        Escaped(image),
        Escaped(what)
    )]
    DebugInfo {
        /// What the image is called.
        image: String,
        /// How that was found out.
        what: String,
    },

    /// The image wants more than the caller's [`Limits`](crate::Limits) allow.
    #[error("{}: limit exceeded: {what} is {needed}, the limit is {limit}", Escaped(image))]
    Limit {
        /// What the image is called.
        image: String,
        /// Which limit.
        what: &'static str,
        /// What the image wants.
        needed: u64,
        /// What is allowed.
        limit: u64,
    },
}

/// A library that a `DT_NEEDED` entry names and nothing supplies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingLibrary {
    /// The `DT_NEEDED` string.
    pub name: String,
    /// The image that needs it.
    pub needed_by: String,
    /// What the system said, where it was asked to open the library.
    pub reason: Option<String>,
}

/// A version that the library of that name should define (gABI-GNU `DT_VERNEED`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingVersion {
    /// The library that is there.
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
    /// Where a relocation applies (`r_offset`).
    Relocation(Vaddr),
    /// At this offset in the file.
    Offset(FileOffset),
    /// At this address, as the file states it.
    Address(Vaddr),
}

impl Error {
    pub(crate) fn malformed(what: impl Into<Cow<'static, str>>, at: Place) -> Error {
        Error::Malformed { image: String::new(), what: what.into(), at }
    }

    pub(crate) fn unsupported(what: impl Into<Cow<'static, str>>) -> Error {
        Error::Unsupported { image: String::new(), what: what.into() }
    }

    pub(crate) fn limit(what: &'static str, needed: u64, limit: u64) -> Error {
        Error::Limit { image: String::new(), what, needed, limit }
    }

    pub(crate) fn out_of_memory(bytes: u64) -> Error {
        Error::OutOfMemory { image: String::new(), bytes }
    }

    /// The system call that just failed, with `errno` as it is now.
    pub(crate) fn last_os_error(what: impl Into<Cow<'static, str>>) -> Error {
        Error::system(what, io::Error::last_os_error())
    }

    pub(crate) fn system(what: impl Into<Cow<'static, str>>, source: io::Error) -> Error {
        Error::System { image: String::new(), what: what.into(), source }
    }

    /// Names the image, where no stage has done so yet.
    pub(crate) fn in_image(mut self, name: &str) -> Error {
        let (Error::Malformed { image, .. }
        | Error::Unsupported { image, .. }
        | Error::Missing { image, .. }
        | Error::Refused { image, .. }
        | Error::RefusedImports { image, .. }
        | Error::SymbolNotFound { image, .. }
        | Error::System { image, .. }
        | Error::OutOfMemory { image, .. }
        | Error::DebugInfo { image, .. }
        | Error::Limit { image, .. }) = &mut self;
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

struct AtVersion<'a>(&'a Option<String>);

impl fmt::Display for AtVersion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

/// The text of [`Error::RefusedImports`].
struct RefusedListing<'a> {
    image: &'a str,
    symbols: &'a [RefusedImport],
}

impl fmt::Display for RefusedListing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the host does not allow these imports:", self.image)?;
        for (index, symbol) in self.symbols.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma} {}{}", symbol.name, AtVersion(&symbol.version))?;
            if symbol.requested_by != self.image {
                write!(f, " (by {})", symbol.requested_by)?;
            }
        }
        f.write_str(
            "; allow them with Loader::imports(..), or supply others with Loader::define(name, address)",
        )
    }
}

/// The text of [`Error::Missing`]: every missing thing, and how it could be supplied.
struct Listing<'a> {
    image: &'a str,
    libraries: &'a [MissingLibrary],
    versions: &'a [MissingVersion],
    symbols: &'a [MissingSymbol],
}

impl Listing<'_> {
    /// ` (needed by x)`, where that is not the image itself.
    fn by<'a>(&self, needed_by: &'a str) -> Cow<'a, str> {
        if needed_by == self.image { "".into() } else { format!(" (needed by {needed_by})").into() }
    }
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.image)?;
        if !self.libraries.is_empty() {
            f.write_str(": needs libraries that are not there:")?;
            for (index, library) in self.libraries.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                write!(f, "{comma} {}{}", library.name, self.by(&library.needed_by))?;
                if let Some(reason) = &library.reason {
                    write!(f, " [{reason}]")?;
                }
            }
            f.write_str(
                "; supply each with Loader::provide(name, bytes), with Loader::depends_on(&library), \
                 or let the system open it with Loader::system_libraries(true)",
            )?;
        }
        if !self.versions.is_empty() {
            f.write_str(": needs versions that are not there:")?;
            for (index, missing) in self.versions.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let by = self.by(&missing.needed_by);
                write!(f, "{comma} `{}' in {}{by}", missing.version, missing.library)?;
            }
            f.write_str("; the library in this process is older than the one it was linked with")?;
        }
        if !self.symbols.is_empty() {
            f.write_str(": undefined symbols:")?;
            for (index, symbol) in self.symbols.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let version = AtVersion(&symbol.version);
                write!(f, "{comma} {}{version}{}", symbol.name, self.by(&symbol.needed_by))?;
            }
            f.write_str(
                "; supply them with Loader::define(name, address), Loader::resolver(..), or a library \
                 that defines them",
            )?;
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
    fn the_innermost_name_stays() {
        let error = Error::unsupported("x").in_image("inner").in_image("outer");
        assert_eq!(error.to_string(), "inner: not supported: x");
    }
}
