//! Which needed libraries the system's loader must not open, because they have to see the images.
//!
//! A library that the system opens for an image is bound to the host, to itself and to what it
//! needs. `ld.so`, had it loaded the image too, would have put all of them into one scope. Nearly no
//! library can tell the difference. These can:
//!
//! * one that refers to a symbol of which an image has a strong definition and the host has none, as
//!   libstdc++ refers to the `operator new` of an allocator. Definitions of which every library has
//!   its own, all the same, do not count ([`is_meant`]);
//! * one that needs, by name, a library that is in memory;
//! * a runtime that images report themselves to, and that then asks the C library, which knows no
//!   images, about them ([`REGISTRIES`]).
//!
//! And so can whatever needs one of these. They become members of the load group, from their files,
//! unless they are in the process already: `ld.so` does not bind those anew either.
//!
//! Nothing is opened here and no code runs. Files are looked into; one that is not found, or is no
//! image that memdl takes, is left to the system. So are those in folders that only `ld.so`'s cache
//! knows of.
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
use crate::host::ld_so::{self, GlobalScope};
use crate::memory::bytes::{Bytes, Image};
use crate::memory::reserve::MappedFile;

/// Functions that an image calls with data of its own, for whose owner the runtime then searches
/// what the C library lists: D's (druntime, `rt/sections_elf_shared.d`). That a library asks for the
/// list (`dl_iterate_phdr`) does not tell it: many do, for backtraces (LLVM, libbsd, libgfortran).
const REGISTRIES: [&[u8]; 1] = [b"_d_dso_registry"];

/// What a load group has in memory, as far as it is known, and what there is besides.
pub(crate) struct Surroundings<'a> {
    /// The images' symbol tables, in the order of the search.
    pub images: &'a dyn Fn() -> Result<Vec<SymbolTable<'a>>, Error>,
    /// Whether a `DT_NEEDED` entry of this name means something that is in memory.
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
    /// What it needs that is not in the process either, by index.
    needed: Vec<usize>,
    must_see_images: Cell<bool>,
}

/// The libraries that are looked into.
struct Found {
    libraries: Vec<Unopened>,
    /// What is surely in the process; the rest is asked for where it matters.
    loaded_files: HashSet<Vec<u8>>,
    system_folders: Vec<PathBuf>,
    /// What images define for others to use.
    definitions: NameFilter,
}

impl Surroundings<'_> {
    /// Which of the libraries of these names, none of which is in the process, have to be members:
    /// their names and files. They are searched in `folders`, then where the system does.
    pub(crate) fn members(
        &self,
        names: Vec<CString>,
        folders: &[PathBuf],
    ) -> Result<HashMap<CString, PathBuf>, Error> {
        let mut found = Found {
            libraries: Vec::new(),
            loaded_files: ld_so::loaded_files()?,
            system_folders: ld_so::search_folders(),
            definitions: defined_by(&(self.images)()?)?,
        };
        for name in names {
            found.find(name, folders)?;
        }
        let asked = found.libraries.len();
        // What they need comes in behind them; there cannot be more than in a load group.
        for index in 0..usize::try_from(self.limits.images).unwrap_or(usize::MAX) {
            let Some(library) = found.libraries.get(index) else { break };
            let file = library.file.clone();
            let (needed, must_see_images) = self.look_into(&mut found, &file)?;
            let Some(library) = found.libraries.get_mut(index) else { break };
            library.needed = needed;
            library.must_see_images.set(must_see_images && !ld_so::is_loaded(&library.name));
        }
        let libraries = found.libraries;
        // To whatever needs them, until nothing changes.
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

    /// What a library needs, and whether it must see images by itself; nothing of a file that is no
    /// library.
    fn look_into(&self, found: &mut Found, file: &Path) -> Result<(Vec<usize>, bool), Error> {
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

    /// Whether `ld.so` would bind a reference of this library's to a definition of an image, or
    /// images report to it.
    fn refers_to_images(&self, library: &Image<'_>, defined: &NameFilter) -> Result<bool, Error> {
        let table = library.symbols()?;
        // New views, for each has a budget.
        let images = (self.images)()?;
        for name in REGISTRIES.map(SymbolName::new) {
            let defines = |table: &SymbolTable<'_>| {
                table.lookup(&name, VersionMatch::Any, TypeClass::Definition).is_some()
            };
            let reports = |image: &SymbolTable<'_>| !defines(image) && image.refers_to(&name);
            if defines(&table) && images.iter().any(reports) {
                return Ok(true);
            }
        }
        // A library without exports has a hash table that knows of no symbols.
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

    /// Whether `ld.so` would bind references to the symbol of this index to a definition of an
    /// image.
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
        found.is_some_and(|(_, symbol)| is_meant(&name, &symbol))
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

/// Whether a definition may be there for other libraries to use it instead of their own. What
/// compilers and linkers make for every library is not: weak and unique definitions, the ends of
/// sections (`_end`; without a type), and C++'s type information and static data of templates and
/// inline functions, which are strong where they were compiled at link time. (A variable of C++ that
/// a library lacks makes the system refuse it.)
fn is_meant(name: &SymbolName<'_>, symbol: &Sym) -> bool {
    let is_common = !symbol.is_function() && name.bytes().starts_with(b"_Z");
    symbol.is_strong() && symbol.has_type() && !is_common
}

impl Found {
    /// The library of this name, if it is among these, or in these folders or the system's.
    fn find(&mut self, name: CString, folders: &[PathBuf]) -> Result<Option<usize>, Error> {
        let known = self.libraries.iter().position(|library| library.name == name);
        if known.is_some() {
            return Ok(known);
        }
        require_memory()?;
        let file = ld_so::find_file(&name, folders);
        let file = file.or_else(|| ld_so::find_file(&name, &self.system_folders));
        let Some(file) = file else { return Ok(None) };
        let (index, must_see_images) = (self.libraries.len(), Cell::new(false));
        self.libraries.try_push(Unopened { name, file, needed: Vec::new(), must_see_images })?;
        Ok(Some(index))
    }
}

/// The folders of an image's `DT_RUNPATH`. `$ORIGIN` is the folder that the image came from, which
/// is known only if it is called by an absolute path.
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

/// The folder that an image came from, which is known only if it is called by an absolute path.
fn origin(name: &str) -> Option<String> {
    let folder = Path::new(name).parent().filter(|folder| folder.is_absolute())?;
    Some(folder.to_str()?.to_owned())
}

/// What an image needs: its `DT_NEEDED` entries, in order.
pub(crate) fn names(decoded: &Decoded, name: &str) -> Result<Vec<CString>, Error> {
    let origin = origin(name);
    let mut names = try_vec(decoded.needed.len())?;
    for (index, needed) in decoded.needed.iter().enumerate() {
        require_memory_for_next(index)?;
        names.push(expand(needed, origin.as_deref()).unwrap_or_else(|| needed.clone()));
    }
    Ok(names)
}

/// With the folder of the image for `$ORIGIN`; `None` if that is asked for and not known, or makes it
/// longer than any path.
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
