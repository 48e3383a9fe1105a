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
//! A library that `ld.so` opens, and that needs one which only images know where to find, is opened after
//! that one. If `ld.so` would not recognize that one, for want of a `DT_SONAME`, both become members.
//!
//! Nothing is opened here and no code runs. Files are searched for and parsed. A file that memdl refuses is
//! left to the system.
//!
//! Source: gABI "Shared Object Dependencies".

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::path::{Path, PathBuf};

use crate::base::addr::PageSize;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, no_memory, require_memory, try_collect, try_filled};
use crate::base::limits::Limits;
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::name_filter::NameFilter;
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::SymbolTable;
use crate::host::global_scope::GlobalScope;
use crate::host::open;
use crate::host::search::{self, FolderOf, SearchPath, Searcher};
use crate::memory::bytes::{Bytes, Image};
use crate::memory::mapped_file::MappedFile;

/// Functions that an image calls with its own data, and whose runtime then searches the C library's list for
/// the owner of the data: D's (druntime, `rt/sections_elf_shared.d`). A call of `dl_iterate_phdr` is no
/// sign of that: many libraries read the list for backtraces (LLVM, libbsd, libgfortran).
const REGISTRIES: [&[u8]; 1] = [b"_d_dso_registry"];

/// Whether a name, needed by a library of that name and search path, is in memory.
type IsInMemory<'a> = dyn Fn(&[u8], &str, &SearchPath) -> Result<bool, Error> + 'a;

/// The images that a library could be bound to, and the host.
pub(crate) struct Surroundings<'a> {
    /// The images' symbol tables, in the order of the search.
    pub images: &'a dyn Fn() -> Result<Vec<SymbolTable<'a>>, Error>,
    /// Whether an image or bytes in memory satisfy a `DT_NEEDED` entry of this name, of this library.
    pub is_in_memory: &'a IsInMemory<'a>,
    /// Whether an image was read from this file.
    pub is_loaded_file: &'a dyn Fn(&Path) -> Result<bool, Error>,
    /// Symbols that the caller defines in the host's stead.
    pub defined: &'a BTreeMap<String, usize>,
    pub host: &'a GlobalScope,
    pub searcher: &'a Searcher,
    pub limits: &'a Limits,
}

/// How a library that is not in the process gets there.
pub(crate) enum Supply {
    /// As a member of the load group, from this file: it must be bound to images.
    Member(PathBuf),
    /// `ld.so` opens these files in turn; the last is the library's.
    System(Vec<PathBuf>),
}

/// A library that is not in the process.
struct Unopened {
    name: CString,
    file: PathBuf,
    /// Where what it needs is searched for.
    path: SearchPath,
    soname: Option<CString>,
    /// The libraries that it needs and that are not in the process either, by index.
    needed: Vec<usize>,
    /// `ld.so` would not find it where only images search.
    open_before: bool,
    must_see_images: Cell<bool>,
}

/// The libraries that were searched for.
struct Candidates<'s> {
    libraries: Vec<Unopened>,
    searcher: &'s Searcher,
    /// Names that are surely in the process. `ld.so` is asked for others where it matters.
    loaded_files: HashSet<Vec<u8>>,
    /// The names of the images' strong definitions.
    definitions: NameFilter,
}

impl Surroundings<'_> {
    /// How an image with this search path gets the libraries of these names. None of them is in the process.
    /// One that is not found is left out.
    pub(crate) fn supplies(
        &self,
        names: Vec<CString>,
        path: &SearchPath,
    ) -> Result<HashMap<CString, Supply>, Error> {
        let mut found = Candidates {
            libraries: Vec::new(),
            searcher: self.searcher,
            loaded_files: open::loaded_files()?,
            definitions: defined_by(&(self.images)()?)?,
        };
        for name in names {
            found.find(name, path, Finder::Image)?;
        }
        let asked = found.libraries.len();
        // The libraries that they need are appended; the limit is that of a load group.
        for index in 0..usize::try_from(self.limits.images).unwrap_or(usize::MAX) {
            if index >= found.libraries.len() {
                break;
            }
            self.examine(&mut found, index)?;
        }
        let libraries = found.libraries;
        let needed_by = |library: &Unopened| {
            let needed = library.needed.iter();
            try_collect(needed.filter_map(|&index| libraries.get(index)))
        };
        for library in &libraries {
            for needed in needed_by(library)? {
                let is_recognized = needed.soname.as_ref() == Some(&needed.name);
                if needed.open_before && !is_recognized {
                    needed.must_see_images.set(true);
                }
            }
        }
        // Every library that needs one of them must be a member, too: until nothing changes.
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for library in &libraries {
                if needed_by(library)?.iter().any(|needed| needed.must_see_images.get()) {
                    changed |= !library.must_see_images.replace(true);
                }
            }
        }
        self.host.check_memory()?;
        let mut supplies = HashMap::new();
        supplies.try_reserve(asked).map_err(|_| no_memory::<(CString, Supply)>(asked))?;
        for (index, library) in libraries.iter().take(asked).enumerate() {
            require_memory()?;
            let supply = match library.must_see_images.get() {
                true => Supply::Member(library.file.clone()),
                false => Supply::System(opening_order(&libraries, index)?),
            };
            supplies.insert(library.name.clone(), supply);
        }
        Ok(supplies)
    }

    /// Finds what the library of this index needs, and whether it must itself be bound to images. Neither for
    /// a file that is no library.
    fn examine(&self, found: &mut Candidates<'_>, index: usize) -> Result<(), Error> {
        let Some(library) = found.libraries.get(index) else { return Ok(()) };
        let (name, file) = (library.name.clone(), library.file.clone());
        if (self.is_loaded_file)(&file)? {
            library.must_see_images.set(true);
            return Ok(());
        }
        let Ok(bytes) = MappedFile::open(&file) else { return Ok(()) };
        let page = PageSize::current();
        let image = Image::parse(Bytes::Borrowed(&bytes), page, self.limits);
        let Some(image) = image.ok().filter(|it| it.decoded.machine.is_this()) else {
            return Ok(());
        };
        let shown = file.to_string_lossy();
        let path = SearchPath::new(&image.decoded, &shown, Some(&library.path))?;
        let (mut all_needed, mut needs_image) = (Vec::new(), false);
        for name in search::needed_names(&image.decoded, &shown)? {
            if (self.is_in_memory)(name.to_bytes(), &shown, &path)? {
                needs_image = true;
            } else if !found.loaded_files.contains(name.to_bytes()) {
                let needed = found.find(name.into_owned(), &path, Finder::System)?;
                all_needed.try_extend(needed)?;
            }
        }
        let must = needs_image || self.refers_to_images(&image, &found.definitions)?;
        let must = must && !open::is_loaded(&name);
        let Some(library) = found.libraries.get_mut(index) else { return Ok(()) };
        library.soname = image.decoded.soname.clone();
        (library.path, library.needed) = (path, all_needed);
        library.must_see_images.set(must);
        Ok(())
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

/// Who searches for a library.
#[derive(Clone, Copy)]
enum Finder {
    /// An image, whose folders only memdl knows.
    Image,
    /// A library that `ld.so` may open, and whose folders it then knows.
    System,
}

impl Candidates<'_> {
    /// The index of the library of this name, which is added if a library with this search path finds its
    /// file.
    fn find(
        &mut self,
        name: CString,
        path: &SearchPath,
        finder: Finder,
    ) -> Result<Option<usize>, Error> {
        let known = self.libraries.iter().position(|library| library.name == name);
        if known.is_some() {
            return Ok(known);
        }
        require_memory()?;
        let Some(found) = self.searcher.find(&name, path)? else { return Ok(None) };
        let open_before = match (finder, found.folder) {
            (_, FolderOf::Process) | (Finder::System, FolderOf::Finder) => false,
            (_, FolderOf::Loader) | (Finder::Image, FolderOf::Finder) => true,
        };
        let index = self.libraries.len();
        self.libraries.try_push(Unopened {
            name,
            file: found.path,
            path: path.clone(),
            soname: None,
            needed: Vec::new(),
            open_before,
            must_see_images: Cell::new(false),
        })?;
        Ok(Some(index))
    }
}

/// The files to open for the library of this index: those that it needs, directly or not, and that `ld.so`
/// would not find, each behind what it needs itself; then its own.
fn opening_order(libraries: &[Unopened], index: usize) -> Result<Vec<PathBuf>, Error> {
    let needed_by = |index: usize| libraries.get(index).map_or(&[][..], |it| &it.needed).iter();
    let mut files = Vec::new();
    let mut visited = try_filled(false, libraries.len())?;
    let mut visit =
        |index: usize| visited.get_mut(index).is_some_and(|it| !std::mem::replace(it, true));
    visit(index);
    // A stack of (library, its needs that are still to be visited): the files control the depth.
    let mut stack = vec![(index, needed_by(index))];
    while let Some((this, left)) = stack.last_mut() {
        match left.next() {
            Some(&needed) if visit(needed) => stack.try_push((needed, needed_by(needed)))?,
            Some(_) => {}
            None => {
                require_memory()?;
                let library = libraries.get(*this);
                let opened = library.filter(|library| library.open_before || *this == index);
                files.try_extend(opened.map(|library| library.file.clone()))?;
                stack.pop();
            }
        }
    }
    Ok(files)
}
