//! How a debugger comes to see an image that has no file.
//!
//! A debugger learns of a library from the dynamic linker's list, then opens the file of that name.
//! An image has neither. What gdb and lldb offer instead is the GDB JIT interface ([`jit`]): the
//! process keeps a list of ELF files in its own memory, *symfiles*, and calls an empty function,
//! on which the debugger has a breakpoint, when the list changes. It costs a function call when
//! nobody listens, and a debugger that comes later, or reads a core file, finds the list.
//!
//! **The form.** A symfile must tell run-time addresses, but DWARF has link-time addresses in tens
//! of thousands of places. gdb cannot be told a distance, except in one case: it slides an ELF file
//! that it finds in the section `.gnu_debugdata` of another by the distance between their sections.
//! So [`symfile`] puts the debug sections there, untouched, in a stored .xz ([`xz`]), and only the
//! few addresses outside depend on where the image lies. All gdbs from 8.1 on can read this; any
//! DWARF that they know works; it costs one copy of the debug sections for each symfile.
//!
//! **lldb** does not read `.gnu_debugdata` as built by the distributions. It sees names and
//! backtraces. It would see all if the DWARF were moved in place, which is [`Debug::Portable`]:
//! not done yet.
//!
//! **Unloading** is where this interface is weak: gdb keeps its breakpoints in an image whose entry
//! is gone, and would write into whatever is mapped there next. See [`Registration`]'s drop. So a
//! registration is dropped while the image is still mapped. And it is made when the image is
//! relocated and before its first constructor runs, so that breakpoints in those are hit.
//!
//! A load never fails because of all this: what cannot be told is logged and left out.

#[allow(dead_code)]
mod dwarf;
mod elf;
#[allow(dead_code)]
mod inflate;
mod jit;
mod sections;
mod symfile;
mod thread_local;
mod xz;

pub(crate) use jit::Registration;
pub(crate) use sections::{DynamicSymbol, Source, SourceSegment};

use crate::addr::LoadBias;
use symfile::{Detail, SymfileTemplate};

/// The environment variable that an operator can set, see [`Debug::effective`].
const ENVIRONMENT: &str = "MEMDL_DEBUG";

/// How much a debugger is told about an image.
///
/// The environment variable `MEMDL_DEBUG` (`off`, `symbols`, `full`, `portable`) overrides what
/// the program has chosen, so that a process can be made more or less visible without a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Debug {
    /// Nothing: no entry is made, no byte is copied.
    Off,
    /// Names of functions and variables, and how to walk the stack through the image. A fraction
    /// of the memory of [`Debug::Full`].
    Symbols,
    /// All that the image has: lines, types, variables. gdb 8.1 or newer sees it as if the image
    /// had come from a file; lldb sees names and backtraces. Needs a copy of the image's debug
    /// sections.
    #[default]
    Full,
    /// As [`Debug::Full`], for lldb as well as gdb. Not done yet: for now this is
    /// [`Debug::Full`], and each load logs a warning.
    Portable,
}

impl Debug {
    /// What the environment says, and if it says nothing that we know, `self`.
    pub(crate) fn effective(self) -> Debug {
        let Some(value) = std::env::var_os(ENVIRONMENT) else {
            return self;
        };
        value.to_str().and_then(Debug::named).unwrap_or_else(|| {
            log::warn!("{ENVIRONMENT}={value:?} is none of off, symbols, full, portable: ignored");
            self
        })
    }

    fn named(name: &str) -> Option<Debug> {
        Some(match name {
            "off" => Debug::Off,
            "symbols" => Debug::Symbols,
            "full" => Debug::Full,
            "portable" => Debug::Portable,
            _ => return None,
        })
    }
}

/// Where an instance of an image is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance {
    pub load_bias: LoadBias,
    pub thread_locals: ThreadLocals,
}

/// Where every thread has its block of an instance's thread-local variables, seen from its block
/// of the first module's, which is where debuggers start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThreadLocals {
    /// The block is this far away.
    AtDistance(i64),
    /// A pointer to the block is this far away.
    BehindPointerAt(i64),
    /// There is no constant way to it, or no such block.
    Elsewhere,
}

/// What debuggers will be told of each instance of an image.
#[derive(Debug)]
pub(crate) struct DebugTemplate(SymfileTemplate);

impl DebugTemplate {
    /// As much of `wanted` as can be had, which is [`Debug::effective`] already; `None` if it is
    /// [`Debug::Off`] or nothing can be had. `image` names the image in the log.
    pub(crate) fn new(image: &str, source: &Source<'_>, wanted: Debug) -> Option<DebugTemplate> {
        let detail = match wanted {
            Debug::Off => return None,
            Debug::Symbols => Detail::Symbols,
            Debug::Full => Detail::Full,
            Debug::Portable => {
                log::warn!("{image}: lldb will see names and backtraces only");
                Detail::Full
            }
        };
        match SymfileTemplate::new(source, detail) {
            Ok(symfile) => Some(DebugTemplate(symfile)),
            Err(error) => {
                log::warn!("{image}: debuggers will not see it: {error}");
                None
            }
        }
    }

    /// Tells debuggers of this instance: it is mapped, relocated, and outlives the registration.
    pub(crate) fn register(&self, instance: Instance) -> Registration {
        Registration::new(self.0.at(instance))
    }

    /// As [`DebugTemplate::register`], for the only instance: copies nothing.
    pub(crate) fn into_registration(self, instance: Instance) -> Registration {
        Registration::new(self.0.into_symfile(instance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_in_the_environment_are_those_documented() {
        let named = ["off", "symbols", "full", "portable", "Full", ""].map(Debug::named);
        assert_eq!(
            named,
            [
                Some(Debug::Off),
                Some(Debug::Symbols),
                Some(Debug::Full),
                Some(Debug::Portable),
                None,
                None
            ]
        );
        assert_eq!(Debug::default(), Debug::Full);
    }
}
