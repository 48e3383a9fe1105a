//! The text of a [`Report`]: a few lines for people.

#![forbid(unsafe_code)]

use std::fmt::{self, Display, Formatter};

use crate::api::report::{Import, Report};
use crate::base::escape::Escaped;
use crate::debug::DebugInformation;
use crate::elf::header;
use crate::load::survey::{ImportBinding, LibraryOrigin};

impl Display for LibraryOrigin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            LibraryOrigin::InProcess { path } if path.is_empty() => f.write_str("the executable"),
            LibraryOrigin::InProcess { path } => write!(f, "in this process: {}", Escaped(path)),
            LibraryOrigin::File { path } => write!(f, "would be opened: {}", Escaped(path)),
            LibraryOrigin::Copy { path } => {
                write!(f, "would be read and loaded with the image: {}", Escaped(path))
            }
            LibraryOrigin::Bytes { name } => write!(f, "provided: {}", Escaped(name)),
            LibraryOrigin::Image { name } => write!(f, "loaded by memdl: {}", Escaped(name)),
            LibraryOrigin::Unknown => f.write_str("not searched"),
            LibraryOrigin::Absent => f.write_str("not there, and not required"),
            LibraryOrigin::Missing { reason } => write!(f, "missing: {}", Escaped(reason)),
        }
    }
}

impl Display for ImportBinding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ImportBinding::Executable => f.write_str("the executable"),
            ImportBinding::Library { path } => write!(f, "{}", Escaped(path)),
            ImportBinding::Replaced { path } => {
                write!(f, "memdl, in place of {}", Escaped(path))
            }
            ImportBinding::Image { name } => write!(f, "the image {}", Escaped(name)),
            ImportBinding::Process => f.write_str("a library of this process"),
            ImportBinding::Defined => f.write_str("defined by the host"),
            ImportBinding::Resolver => f.write_str("the host's resolver"),
            ImportBinding::Null => f.write_str("null (weak)"),
            ImportBinding::Missing => f.write_str("missing"),
            ImportBinding::Unknown => f.write_str("unknown"),
            ImportBinding::Refused => f.write_str("refused"),
        }
    }
}

impl Display for DebugInformation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DebugInformation::Dwarf { compressed: false } => f.write_str("DWARF"),
            DebugInformation::Dwarf { compressed: true } => f.write_str("compressed DWARF"),
            DebugInformation::SplitDwarf => f.write_str("split DWARF"),
            DebugInformation::Link { file } => write!(f, "in the file {}", Escaped(file)),
            DebugInformation::SharedLink { file } => {
                write!(f, "shared in the file {}", Escaped(file))
            }
            DebugInformation::Mini => f.write_str("MiniDebugInfo"),
            DebugInformation::SymbolTable => f.write_str("a symbol table"),
        }
    }
}

impl Display for Import {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(self.name()))?;
        if let Some(version) = self.version() {
            write!(f, "@{}", Escaped(version))?;
        }
        write!(f, ": {}", self.binding())
    }
}

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The line about relocations, if there are any.
fn write_relocations(report: &Report, f: &mut Formatter<'_>) -> fmt::Result {
    for (index, it) in report.relocation_types().iter().enumerate() {
        let start = if index == 0 { "relocations:" } else { "," };
        write!(f, "{start} {} {}", it.count, it.name)?;
        if !it.is_supported {
            write!(f, " (type {}, not supported)", it.number)?;
        }
    }
    if report.relocation_types().is_empty() { Ok(()) } else { writeln!(f) }
}

/// The lines: what the library is, what it needs, the numbers of its symbols, the imports that no library supplies,
/// and why it would be refused.
impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes", Escaped(self.name()), self.size())?;
        match (self.machine(), self.machine_number()) {
            (Some(name), _) => writeln!(f, ", for {name}")?,
            (None, Some(number)) => writeln!(f, ", for machine {number}")?,
            (None, None) => writeln!(f, ", for no machine")?,
        }
        if let Some(id) = self.build_id() {
            writeln!(f, "build-id: {}", Hex(id))?;
        }
        if !self.isa_levels().is_empty() {
            writeln!(f, "processor: {}", self.isa_levels().join(", "))?;
        }
        if let Some(tls) = self.thread_local_storage() {
            let place = if tls.is_static { ", static" } else { "" };
            writeln!(f, "thread-local storage: {} bytes{place}", tls.size)?;
        }
        for kind in self.debug_information() {
            writeln!(f, "debug information: {kind}")?;
        }
        if self.is_nodelete() {
            writeln!(f, "stays loaded: DF_1_NODELETE")?;
        }
        for library in self.needed() {
            write!(f, "needs {}", Escaped(library.name()))?;
            if !library.is_direct() {
                write!(f, " (by {})", Escaped(library.needed_by()))?;
            }
            writeln!(f, ": {}", library.origin())?;
        }
        for needed in self.needed_versions() {
            let (version, library) = (Escaped(needed.version()), Escaped(needed.library()));
            writeln!(f, "needs version {version} of {library}")?;
        }
        write_relocations(self, f)?;
        let counts = [self.imports().len(), self.exports().len(), self.functions().len()];
        let [imports, exports, functions] = counts;
        writeln!(f, "symbols: {imports} imports, {exports} exports, {functions} functions")?;
        let is_ours = self.is_for_this_machine();
        let is_odd = |import: &&Import| match import.binding() {
            ImportBinding::Executable | ImportBinding::Library { .. } | ImportBinding::Null => {
                false
            }
            // Of another machine, there is no library but those that were supplied.
            ImportBinding::Image { .. } => is_ours,
            _ => true,
        };
        for import in self.imports().iter().filter(is_odd) {
            writeln!(f, "import {import}")?;
        }
        if !self.is_complete() {
            writeln!(f, "the report is not complete")?;
        }
        // What would be the same on the library's own machine; then what is not.
        self.refusals_on_its_machine().try_for_each(|reason| writeln!(f, "refused: {reason}"))?;
        match self.machine_number() {
            Some(e_machine) if !self.is_for_this_machine() => {
                let why = header::of_other_machine(e_machine);
                writeln!(f, "cannot be loaded in this process: {why}")
            }
            _ if !self.is_refused() => writeln!(f, "can be loaded"),
            _ => Ok(()),
        }
    }
}
