//! Which needed libraries become members of the load group, because they must be bound to its images.
//!
//! A library that the system opens for an image is bound to the host, to itself and to the libraries that it
//! needs. `ld.so`, had it loaded the image too, would have put all of them into one scope. For nearly all
//! libraries that makes no difference. It does for:
//!
//! * one that refers to a symbol of which an image has a strong definition and the host has none, as
//!   libstdc++ refers to the `operator new` of an allocator. Definitions that compilers emit into every
//!   library do not count ([`is_interposable`]);
//! * one that needs, by name, a library that is in memory;
//! * a runtime that images register with, and that then looks them up in the C library, which knows no
//!   images ([`REGISTRIES`]).
//!
//! It also does for every library that needs one of these. They become members of the load group, from
//! their files, unless they are in the process already: `ld.so` does not bind those again either.
//!
//! Nothing is opened here and no code runs. Files are parsed. A file that is not found, or that memdl
//! refuses, is left to the system, and so is a file in a folder that only `ld.so`'s cache names.
//!
//! Source: gABI "Shared Object Dependencies".

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::arch::MACHINE;
use crate::base::addr::PageSize;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, no_memory, require_memory, require_memory_for_next, try_vec};
use crate::base::limits::Limits;
use crate::elf::decoded::Decoded;
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::name_filter::NameFilter;
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::SymbolTable;
use crate::host::global_scope::GlobalScope;
use crate::host::{dl, open};
use crate::memory::bytes::{Bytes, Image};
use crate::memory::mapped_file::MappedFile;

/// Functions that an image calls with its own data, and whose runtime then searches the C library's list for
/// the owner of the data: D's (druntime, `rt/sections_elf_shared.d`). A call of `dl_iterate_phdr` is no
/// sign of that: many libraries read the list for backtraces (LLVM, libbsd, libgfortran).
const REGISTRIES: [&[u8]; 1] = [b"_d_dso_registry"];

/// The images that a library could be bound to, and the host.
pub(crate) struct Surroundings<'a> {
    /// The images' symbol tables, in the order of the search.
    pub images: &'a dyn Fn() -> Result<Vec<SymbolTable<'a>>, Error>,
    /// Whether an image or bytes in memory satisfy a `DT_NEEDED` entry of this name.
    pub is_in_memory: &'a dyn Fn(&[u8]) -> bool,
    /// Symbols that the caller defines in the host's stead.
    pub defined: &'a BTreeMap<String, usize>,
    pub host: &'a GlobalScope,
    pub limits: &'a Limits,
}

/// A library that is not in the process.
struct Unopened {
    name: CString,
    file: PathBuf,
    /// The libraries that it needs and that are not in the process either, by index.
    needed: Vec<usize>,
    must_see_images: Cell<bool>,
}

/// The libraries that were searched for.
struct Candidates {
    libraries: Vec<Unopened>,
    /// Names that are surely in the process. `ld.so` is asked for others where it matters.
    loaded_files: HashSet<Vec<u8>>,
    system_folders: Vec<PathBuf>,
    /// The names of the images' strong definitions.
    definitions: NameFilter,
}

impl Surroundings<'_> {
    /// The libraries among `names` that must be members, with their files. None of `names` is in the process.
    /// Files are searched in `folders`, then in the system's folders.
    pub(crate) fn members(
        &self,
        names: Vec<CString>,
        folders: &[PathBuf],
    ) -> Result<HashMap<CString, PathBuf>, Error> {
        let mut found = Candidates {
            libraries: Vec::new(),
            loaded_files: open::loaded_files()?,
            system_folders: dl::search_folders(),
            definitions: defined_by(&(self.images)()?)?,
        };
        for name in names {
            found.find(name, folders)?;
        }
        let asked = found.libraries.len();
        // The libraries that they need are appended; the limit is that of a load group.
        for index in 0..usize::try_from(self.limits.images).unwrap_or(usize::MAX) {
            let Some(library) = found.libraries.get(index) else { break };
            let file = library.file.clone();
            let (needed, must_see_images) = self.examine(&mut found, &file)?;
            let Some(library) = found.libraries.get_mut(index) else { break };
            library.needed = needed;
            library.must_see_images.set(must_see_images && !open::is_loaded(&library.name));
        }
        let libraries = found.libraries;
        // Every library that needs one of them must be a member, too: until nothing changes.
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for library in &libraries {
                let mut needed = library.needed.iter().filter_map(|&index| libraries.get(index));
                if needed.any(|needed| needed.must_see_images.get()) {
                    changed |= !library.must_see_images.replace(true);
                }
            }
        }
        self.host.check_memory()?;
        let mut members = HashMap::new();
        members.try_reserve(asked).map_err(|_| no_memory::<(CString, PathBuf)>(asked))?;
        let asked = libraries.into_iter().take(asked).filter(|it| it.must_see_images.get());
        members.extend(asked.map(|library| (library.name, library.file)));
        Ok(members)
    }

    /// The libraries that a file needs, and whether it must itself be bound to images. Nothing for a file that
    /// is no library.
    fn examine(&self, found: &mut Candidates, file: &Path) -> Result<(Vec<usize>, bool), Error> {
        let nothing = || Ok((Vec::new(), false));
        let Ok(bytes) = MappedFile::open(file) else { return nothing() };
        let page = PageSize::current();
        let image = Image::parse(Bytes::Borrowed(&bytes), &MACHINE, page, self.limits);
        let Ok(image) = image else { return nothing() };
        let path = file.to_string_lossy();
        let folders = folders(&image.decoded, &path)?;
        let (mut all_needed, mut needs_image) = (Vec::new(), false);
        for name in names(&image.decoded, &path)? {
            if (self.is_in_memory)(name.to_bytes()) {
                needs_image = true;
            } else if !found.loaded_files.contains(name.to_bytes()) {
                let needed = found.find(name, &folders)?;
                all_needed.try_extend(needed)?;
            }
        }
        let must = needs_image || self.refers_to_images(&image, &found.definitions)?;
        Ok((all_needed, must))
    }

    /// Whether `ld.so` would bind a reference of this library to a definition of an image, or images register
    /// with it.
    fn refers_to_images(&self, library: &Image<'_>, defined: &NameFilter) -> Result<bool, Error> {
        let table = library.symbols()?;
        // New views, since each has its own budget of work.
        let images = (self.images)()?;
        for name in REGISTRIES.map(SymbolName::new) {
            let defines = |table: &SymbolTable<'_>| {
                table.lookup(&name, VersionMatch::Any, TypeClass::Definition).is_some()
            };
            let registers = |image: &SymbolTable<'_>| !defines(image) && image.refers_to(&name);
            if defines(&table) && images.iter().any(registers) {
                return Ok(true);
            }
        }
        // The hash table of a library without exports covers no symbols.
        let named = || library.relas().map(|rela| rela.symbol.saturating_add(1)).max().unwrap_or(0);
        let count = if table.len() > 1 { table.len() } else { named().min(table.capacity()) };
        for index in 1..count {
            if !table.gnu_hash_31(index).is_some_and(|hash| defined.may_have(hash)) {
                continue;
            }
            if self.is_of_image(library, &table, index, &images)
                && library.relas().any(|rela| rela.symbol == index)
            {
                return Ok(true);
            }
            images.iter().chain([&table]).try_for_each(SymbolTable::check_work)?;
        }
        Ok(false)
    }

    /// Whether `ld.so` would bind references to the symbol of this index to a definition of an image.
    fn is_of_image(
        &self,
        library: &Image<'_>,
        table: &SymbolTable<'_>,
        index: u32,
        images: &[SymbolTable<'_>],
    ) -> bool {
        let Some((symbol, name)) = table.symbol(index).and_then(|it| Some((it, table.name(&it)?)))
        else {
            return false;
        };
        let is_own = symbol.is_protected() || library.decoded.symbolic;
        if symbol.is_local() || is_own && !symbol.is_undefined() {
            return false;
        }
        let wanted = table.version(index).map_or(VersionMatch::Unversioned, VersionMatch::Version);
        let found = images.iter().find_map(|it| it.lookup(&name, wanted, TypeClass::Definition));
        found.is_some_and(|(_, symbol)| is_interposable(&name, &symbol))
            && !std::str::from_utf8(name.bytes()).is_ok_and(|it| self.defined.contains_key(it))
            && self.host.lookup(&name, wanted, TypeClass::Definition).is_none()
    }
}

/// The names of strong definitions.
fn defined_by(images: &[SymbolTable<'_>]) -> Result<NameFilter, Error> {
    let mut hashes = Vec::new();
    for image in images {
        for (index, _) in image.exports().filter(|(_, symbol)| symbol.is_strong()) {
            hashes.try_extend(image.gnu_hash_31(index))?;
            image.check_work()?;
        }
    }
    NameFilter::new(&hashes)
}

/// Whether a definition may be meant to replace those of other libraries. Definitions that compilers and
/// linkers emit into every library are not: weak and unique ones, the ends of sections (`_end`; without a
/// type), and C++'s type information and static data of templates and inline functions, which link-time
/// optimisation makes strong. (The system refuses a library that lacks a variable of C++.)
fn is_interposable(name: &SymbolName<'_>, symbol: &Sym) -> bool {
    let is_common = !symbol.is_function() && name.bytes().starts_with(b"_Z");
    symbol.is_strong() && symbol.has_type() && !is_common
}

impl Candidates {
    /// The index of the library of this name, which is added if it lies in `folders` or the system's folders.
    fn find(&mut self, name: CString, folders: &[PathBuf]) -> Result<Option<usize>, Error> {
        let known = self.libraries.iter().position(|library| library.name == name);
        if known.is_some() {
            return Ok(known);
        }
        require_memory()?;
        let file = dl::find_file(&name, folders);
        let file = file.or_else(|| dl::find_file(&name, &self.system_folders));
        let Some(file) = file else { return Ok(None) };
        let (index, must_see_images) = (self.libraries.len(), Cell::new(false));
        self.libraries.try_push(Unopened { name, file, needed: Vec::new(), must_see_images })?;
        Ok(Some(index))
    }
}

/// The folders of an image's `DT_RUNPATH`. `$ORIGIN` is the image's folder, which is known only if the
/// image's name is an absolute path.
pub(crate) fn folders(decoded: &Decoded, name: &str) -> Result<Vec<PathBuf>, Error> {
    let Some(list) = &decoded.run_path else { return Ok(Vec::new()) };
    let origin = origin(name);
    let expanded = |folder: &[u8]| expand(&CString::new(folder).ok()?, origin.as_deref());
    let mut folders = Vec::new();
    for (index, folder) in list.to_bytes().split(|&byte| byte == b':').enumerate() {
        require_memory_for_next(index)?;
        let Some(folder) = expanded(folder) else { continue };
        let folder = Path::new(OsStr::from_bytes(folder.to_bytes()));
        if folder.is_absolute() {
            folders.try_push(folder.to_owned())?;
        }
    }
    Ok(folders)
}

/// The image's folder, if its name is an absolute path.
fn origin(name: &str) -> Option<String> {
    let folder = Path::new(name).parent().filter(|folder| folder.is_absolute())?;
    Some(folder.to_str()?.to_owned())
}

/// The `DT_NEEDED` entries of an image, in order.
pub(crate) fn names(decoded: &Decoded, name: &str) -> Result<Vec<CString>, Error> {
    let origin = origin(name);
    let mut names = try_vec(decoded.needed.len())?;
    for (index, needed) in decoded.needed.iter().enumerate() {
        require_memory_for_next(index)?;
        names.push(expand(needed, origin.as_deref()).unwrap_or_else(|| needed.clone()));
    }
    Ok(names)
}

/// Replaces `$ORIGIN` by the image's folder; `None` if that is unknown, or the result is longer than any
/// path.
fn expand(text: &CStr, origin: Option<&str>) -> Option<CString> {
    let has_origin = |text: &str| text.contains("$ORIGIN") || text.contains("${ORIGIN}");
    // Two searches in a name take longer than copying it.
    let text = match text.to_str() {
        Ok(utf8) if text.to_bytes().contains(&b'$') && has_origin(utf8) => utf8,
        _ => return Some(text.to_owned()),
    };
    let origin = origin?;
    let count = text.matches('$').count();
    if text.len().saturating_add(count.saturating_mul(origin.len())) >= libc::PATH_MAX as usize {
        return None;
    }
    CString::new(text.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)).ok()
}
