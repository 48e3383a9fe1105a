//! Reports and errors as JSON. Names are those of the library, bytes are hexadecimal, addresses are those that the file
//! states.

#![forbid(unsafe_code)]

use memdl::{DebugInformation, Error, ErrorKind, ImportBinding, LibraryOrigin, Report, SymbolKind};
use serde_json::{Value, json};

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A reason for which a load is refused.
pub fn of_error(error: &Error) -> Value {
    let mut value = json!({ "kind": kind(error.kind()), "text": error.to_string() });
    if let Error::Missing { libraries, versions, symbols, .. } = error {
        let libraries =
            libraries.iter().map(|it| json!({ "name": it.name, "needed_by": it.needed_by }));
        value["libraries"] = libraries.collect();
        value["versions"] = versions
            .iter()
            .map(|it| json!({ "library": it.library, "version": it.version, "needed_by": it.needed_by }))
            .collect();
        value["symbols"] = symbols
            .iter()
            .map(|it| json!({ "name": it.name, "version": it.version, "needed_by": it.needed_by }))
            .collect();
    }
    value
}

fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Malformed => "malformed",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Processor => "processor",
        ErrorKind::Missing => "missing",
        ErrorKind::Refused => "refused",
        ErrorKind::RefusedImports => "refused-imports",
        ErrorKind::SymbolNotFound => "symbol-not-found",
        ErrorKind::System => "system",
        ErrorKind::OutOfMemory => "out-of-memory",
        ErrorKind::DebugInfo => "debug-info",
        ErrorKind::Limit => "limit",
        _ => "other",
    }
}

/// A library that is needed: a word for where it comes from, and the path or name there.
fn origin(origin: &LibraryOrigin) -> (&'static str, Option<&str>) {
    match origin {
        LibraryOrigin::InProcess { path, .. } => ("process", Some(path)),
        LibraryOrigin::File { path, .. } => ("file", Some(path)),
        LibraryOrigin::Copy { path, .. } => ("copy", Some(path)),
        LibraryOrigin::Bytes { name, .. } => ("provided", Some(name)),
        LibraryOrigin::Image { name, .. } => ("image", Some(name)),
        LibraryOrigin::Unknown => ("unknown", None),
        LibraryOrigin::Absent => ("absent", None),
        LibraryOrigin::Missing { reason, .. } => ("missing", Some(reason)),
        _ => ("other", None),
    }
}

/// An import: a word for what it is bound to, and the path or name of that.
pub fn binding(binding: &ImportBinding) -> (&'static str, Option<&str>) {
    match binding {
        ImportBinding::Executable => ("executable", None),
        ImportBinding::Library { path, .. } => ("library", Some(path)),
        ImportBinding::Replaced { path, .. } => ("replaced", Some(path)),
        ImportBinding::Image { name, .. } => ("image", Some(name)),
        ImportBinding::Process => ("process", None),
        ImportBinding::Defined => ("defined", None),
        ImportBinding::Resolver => ("resolver", None),
        ImportBinding::Null => ("null", None),
        ImportBinding::Missing => ("missing", None),
        ImportBinding::Unknown => ("unknown", None),
        ImportBinding::Refused => ("refused", None),
        _ => ("other", None),
    }
}

fn symbol_kind(kind: SymbolKind) -> &'static str {
    match kind {
        SymbolKind::Function => "function",
        SymbolKind::Object => "object",
        SymbolKind::ThreadLocal => "thread-local",
        SymbolKind::IndirectFunction => "ifunc",
        _ => "other",
    }
}

fn debug_information(kind: &DebugInformation) -> Value {
    match kind {
        DebugInformation::Dwarf { compressed, .. } => {
            json!({ "kind": "dwarf", "compressed": compressed })
        }
        DebugInformation::SplitDwarf => json!({ "kind": "split-dwarf" }),
        DebugInformation::Link { file, .. } => json!({ "kind": "link", "file": file }),
        DebugInformation::SharedLink { file, .. } => json!({ "kind": "shared-link", "file": file }),
        DebugInformation::Mini => json!({ "kind": "mini" }),
        DebugInformation::SymbolTable => json!({ "kind": "symbol-table" }),
        _ => json!({ "kind": "other" }),
    }
}

/// All of a report.
pub fn of_report(report: &Report) -> Value {
    let needed = report.needed().iter().map(|library| {
        let (origin, of) = origin(library.origin());
        json!({
            "name": library.name(), "needed_by": library.needed_by(), "direct": library.is_direct(),
            "origin": origin, "path": of,
        })
    });
    let versions = report.needed_versions().iter().map(
        |it| json!({ "library": it.library(), "version": it.version(), "weak": it.is_weak() }),
    );
    let imports = report.imports().iter().map(|it| {
        let (binding, of) = binding(it.binding());
        json!({
            "index": it.index(), "name": it.name(), "version": it.version(), "kind": symbol_kind(it.kind()),
            "weak": it.is_weak(), "referenced": it.is_referenced(), "binding": binding, "library": of,
        })
    });
    let exports = report.exports().iter().map(|it| {
        json!({
            "index": it.index(), "name": it.name(), "version": it.version(),
            "default_version": it.is_default_version(), "kind": symbol_kind(it.kind()), "weak": it.is_weak(),
            "unique": it.is_unique(), "value": it.value(), "size": it.size(),
        })
    });
    let functions = report.functions().iter().map(|it| {
        json!({ "index": it.index(), "name": it.name(), "value": it.value(), "defined": it.is_defined() })
    });
    let notes = report.notes().iter().map(|it| {
        json!({ "owner": it.owner(), "type": it.kind(), "description": hex(it.description()) })
    });
    let relocations = report.relocation_types().iter().map(|it| {
        json!({ "type": it.number, "name": it.name, "count": it.count, "supported": it.is_supported })
    });
    let tls = report.thread_local_storage();
    json!({
        "name": report.name(),
        "size": report.size(),
        "machine": report.machine(),
        "machine_number": report.machine_number(),
        "soname": report.soname(),
        "rpath": report.rpath(),
        "runpath": report.runpath(),
        "build_id": report.build_id().map(hex),
        "isa_levels": report.isa_levels(),
        "needed": needed.collect::<Value>(),
        "needed_versions": versions.collect::<Value>(),
        "defined_versions": report.defined_versions(),
        "imports": imports.collect::<Value>(),
        "exports": exports.collect::<Value>(),
        "functions": functions.collect::<Value>(),
        "thread_local_storage":
            tls.map(|tls| json!({ "size": tls.size, "align": tls.align, "static": tls.is_static })),
        "relocation_types": relocations.collect::<Value>(),
        "notes": notes.collect::<Value>(),
        "debug_information": report.debug_information().iter().map(debug_information).collect::<Value>(),
        "unloads": report.unloads(),
        "complete": report.is_complete(),
        "for_this_machine": report.is_for_this_machine(),
        "loads": !report.is_refused(),
        "refusals": report.refusals().iter().map(of_error).collect::<Value>(),
    })
}
