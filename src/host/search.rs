//! Where `ld.so` searches for a library that something needs, and the file that it finds.
//!
//! In `ld.so`'s order: the `DT_RPATH` of whatever needs it, of whatever that was loaded for, and so on, and
//! of the executable, unless what needs it has a `DT_RUNPATH`; `LD_LIBRARY_PATH`; that `DT_RUNPATH`; the
//! cache; the system's folders. In each folder, libraries for better processors come first
//! (`glibc-hwcaps`).
//!
//! Finds files and reads the first bytes of their headers. Opens no library.
//!
//! Sources: `ld.so(8)`; glibc `elf/dl-load.c` (`_dl_map_object`, `open_verify`).

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::env;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::arch::{self, MACHINE};
use crate::base::error::Error;
use crate::base::fallible::{
    TryGrow, no_memory, require_memory_for_next, try_collect, try_insert, try_vec,
};
use crate::base::limits;
use crate::elf::decoded::Decoded;
use crate::host::dl;
use crate::host::ld_cache::LdCache;
use crate::host::process;
use crate::host::startup_set::startup_set;

/// The folders in which `ld.so` searches for what a library needs. What is common to all libraries is not in
/// here.
#[derive(Clone, Default, Debug)]
pub(crate) struct SearchPath {
    /// The folders of `DT_RPATH`s: the library's own, then those of the libraries that it was loaded for.
    rpaths: Vec<Arc<[PathBuf]>>,
    /// The first of them are the library's own.
    has_rpath: bool,
    /// The folders of its `DT_RUNPATH`. They replace `rpaths` for what the library itself needs.
    runpath: Option<Arc<[PathBuf]>>,
    /// Neither the cache nor the system's folders are searched.
    no_default_folders: bool,
}

/// A file, whatever its path: device and inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    /// The file at this path.
    pub(crate) fn of(path: &Path) -> Option<FileId> {
        let metadata = fs::metadata(path).ok()?;
        Some(FileId(metadata.dev(), metadata.ino()))
    }
}

/// A library's file.
pub(crate) struct FoundFile {
    pub path: PathBuf,
    pub folder: FolderOf,
}

/// Whose folder a file was found in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FolderOf {
    /// In one of the library that searches.
    Finder,
    /// In one of a library that it was loaded for.
    Loader,
    /// Where every library searches; also of a file that was named by its path.
    Process,
}

impl SearchPath {
    /// The path of an image of this name, which was loaded for the library whose path is `loader`.
    pub(crate) fn new(
        decoded: &Decoded,
        name: &str,
        loader: Option<&SearchPath>,
    ) -> Result<SearchPath, Error> {
        let inherited = loader.map_or(&[][..], |loader| &loader.rpaths);
        let has_own = decoded.rpath.is_some() || decoded.runpath.is_some();
        // Most images have neither.
        let system = if has_own { &process_folders().system[..] } else { &[] };
        let tokens = Tokens { origin: origin(name), system };
        let list = |text: &Option<CString>| -> Result<Option<Arc<[PathBuf]>>, Error> {
            let Some(text) = text else { return Ok(None) };
            Ok(Some(tokens.folders(text.to_bytes(), b":")?.into()))
        };
        let own = list(&decoded.rpath)?;
        let mut rpaths = try_vec(inherited.len().saturating_add(own.iter().len()))?;
        rpaths.extend(own.iter().chain(inherited).cloned());
        Ok(SearchPath {
            rpaths,
            has_rpath: own.is_some(),
            runpath: list(&decoded.runpath)?,
            no_default_folders: decoded.no_default_folders,
        })
    }

    /// The folders that are searched before `LD_LIBRARY_PATH`.
    fn before_environment(&self) -> impl Iterator<Item = (&PathBuf, FolderOf)> {
        let counts = self.runpath.is_none();
        let own = usize::from(self.has_rpath);
        let lists = self.rpaths.iter().enumerate().take_while(move |_| counts);
        let of_lists = lists.flat_map(move |(index, list)| {
            let folder_of = if index < own { FolderOf::Finder } else { FolderOf::Loader };
            list.iter().map(move |folder| (folder, folder_of))
        });
        let of_executable = process_folders().rpath.iter().take_while(move |_| counts);
        of_lists.chain(of_executable.map(|folder| (folder, FolderOf::Process)))
    }

    /// The folders that count for this library and not for every library of the process, in the order of the search.
    pub(crate) fn own_folders(&self) -> impl Iterator<Item = &Path> {
        let rpaths: &[Arc<[PathBuf]>] = if self.runpath.is_none() { &self.rpaths } else { &[] };
        let rpaths = rpaths.iter().flat_map(|list| list.iter());
        rpaths.chain(self.runpath.iter().flat_map(|list| list.iter())).map(PathBuf::as_path)
    }

    /// The lists of folders in the order of the search, but for those of the cache.
    pub(crate) fn lists(&self) -> Result<Vec<&[PathBuf]>, Error> {
        let common = process_folders();
        let inherited: &[Arc<[PathBuf]>] = if self.runpath.is_none() { &self.rpaths } else { &[] };
        let of_executable = if self.runpath.is_none() { &common.rpath[..] } else { &[] };
        let system = if self.no_default_folders { &[] } else { &common.system[..] };
        let inherited = inherited.iter().map(|list| &**list);
        let runpath = self.runpath.as_deref().unwrap_or_default();
        Ok(try_collect(inherited.chain([of_executable, &common.library_path, runpath, system]))?)
    }
}

/// The number of files that one load looks for. Names and lists of folders are the bytes' choice, and each look
/// takes about a microsecond.
const MAX_LOOKS: u64 = 400_000;
/// The length of all folders of one list, in bytes, with `$ORIGIN` replaced.
const MAX_LIST: u64 = 16 << 20;

/// Searches for files, for one load. It remembers which folders there are, as `ld.so` does.
pub(crate) struct Searcher {
    cache: LdCache,
    folders: RefCell<HashMap<PathBuf, bool>>,
    looks: Cell<u64>,
}

impl Searcher {
    pub(crate) fn new() -> Searcher {
        Searcher { cache: LdCache::open(), folders: RefCell::default(), looks: Cell::new(0) }
    }

    /// The file that a library with this search path gets for `name`. A name with a slash is the path of a
    /// file.
    pub(crate) fn find(&self, name: &CStr, path: &SearchPath) -> Result<Option<FoundFile>, Error> {
        let name = name.to_bytes();
        let at = |path: PathBuf, folder| Ok(Some(FoundFile { path, folder }));
        if name.contains(&b'/') {
            let path = PathBuf::from(OsStr::from_bytes(name));
            return if path.is_file() { at(path, FolderOf::Process) } else { Ok(None) };
        }
        for (folder, whose) in path.before_environment() {
            if let Some(file) = self.in_folder(folder, name)? {
                return at(file, whose);
            }
        }
        let common = process_folders();
        let in_folders = |folders: &[PathBuf]| self.in_folders(folders, name);
        if let Some(file) = in_folders(&common.library_path)? {
            return at(file, FolderOf::Process);
        }
        if let Some(file) = in_folders(path.runpath.as_deref().unwrap_or_default())? {
            return at(file, FolderOf::Finder);
        }
        if path.no_default_folders {
            return Ok(None);
        }
        let cached = self.cache.find(name).filter(|path| is_for_this_machine(path));
        let found = if cached.is_some() { cached } else { in_folders(&common.system)? };
        found.map_or(Ok(None), |file| at(file, FolderOf::Process))
    }

    /// The file that `ld.so` finds for a name without a slash in the folders that it lists for a library
    /// ([`dl::folders_of`]) and in the cache, which it searches before its own folders.
    #[cfg(feature = "internals")]
    pub(crate) fn find_in(
        &self,
        name: &CStr,
        folders: &[PathBuf],
    ) -> Result<Option<PathBuf>, Error> {
        let name = name.to_bytes();
        let system = &process_folders().system[..];
        // `-z nodefaultlib` leaves them, and the cache, out.
        let Some(before) = folders.strip_suffix(system) else {
            return self.in_folders(folders, name);
        };
        if let Some(file) = self.in_folders(before, name)? {
            return Ok(Some(file));
        }
        let cached = self.cache.find(name).filter(|path| is_for_this_machine(path));
        if cached.is_some() { Ok(cached) } else { self.in_folders(system, name) }
    }

    /// The library of this name in the first of these folders that has one.
    fn in_folders(&self, folders: &[PathBuf], name: &[u8]) -> Result<Option<PathBuf>, Error> {
        for folder in folders {
            if let Some(file) = self.in_folder(folder, name)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// The library of this name in a folder.
    fn in_folder(&self, folder: &Path, name: &[u8]) -> Result<Option<PathBuf>, Error> {
        if !self.is_there(folder)? {
            return Ok(None);
        }
        let name = OsStr::from_bytes(name);
        let better = folder.join("glibc-hwcaps");
        // Nearly no folder has one. `ld.so` looks there since glibc 2.33.
        let is_asked = self.is_there(&better)? && process::is_glibc_since(33);
        let levels = if is_asked { arch::hwcaps_folders() } else { &[] };
        let better = levels.iter().map(|level| better.join(level).join(name));
        for file in better.chain([folder.join(name)]) {
            self.count()?;
            if is_for_this_machine(&file) {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Whether there is a folder at this path. The current one, and those in it, can change.
    fn is_there(&self, folder: &Path) -> Result<bool, Error> {
        if !folder.is_absolute() {
            return Ok(true);
        }
        let known = self.folders.borrow().get(folder).copied();
        if let Some(is_there) = known {
            return Ok(is_there);
        }
        self.count()?;
        let is_there = folder.is_dir();
        let mut folders = self.folders.borrow_mut();
        folders.try_reserve(1).map_err(|_| no_memory::<(PathBuf, bool)>(folders.len()))?;
        folders.insert(folder.to_owned(), is_there);
        Ok(is_there)
    }

    fn count(&self) -> Result<(), Error> {
        let looks = self.looks.get().saturating_add(1);
        self.looks.set(looks);
        // The map of folders grows with it.
        require_memory_for_next(looks as usize)?;
        limits::check("the number of files that a load looks for", looks, MAX_LOOKS)
    }
}

/// Whether `ld.so` would take this file, if only to find that it is no library. It passes over files that it
/// cannot open, and over libraries for other machines.
fn is_for_this_machine(path: &Path) -> bool {
    const CLASS_64: u8 = 2;
    let mut header = Vec::new();
    let Ok(metadata) = fs::metadata(path) else { return false };
    // To open a pipe, or a device, can have effects. `ld.so` stops at a folder, and says so.
    if !metadata.is_file() {
        return metadata.is_dir();
    }
    let Ok(file) = File::open(path) else { return false };
    if file.take(20).read_to_end(&mut header).is_err() {
        return false;
    }
    match header.as_slice() {
        [0x7f, b'E', b'L', b'F', class, .., low, high] if header.len() == 20 => {
            *class == CLASS_64 && u16::from_le_bytes([*low, *high]) == MACHINE.e_machine
        }
        _ => true,
    }
}

/// What is the same for all libraries of the process.
#[derive(Default)]
struct ProcessFolders {
    /// The folders of the executable's `DT_RPATH`, unless it has a `DT_RUNPATH`.
    rpath: Vec<PathBuf>,
    /// `LD_LIBRARY_PATH`, as the process was started with it.
    library_path: Vec<PathBuf>,
    /// The folders that are built into `ld.so`.
    system: Vec<PathBuf>,
}

impl ProcessFolders {
    /// Without memory for a list, its folders are not searched.
    fn find() -> ProcessFolders {
        let executable = startup_set().first().filter(|library| library.is_executable());
        let rpath = executable.and_then(|it| it.rpath()).map(CStr::to_bytes);
        let rpath = rpath.unwrap_or_default();
        let library_path = process::initial_variable("LD_LIBRARY_PATH").unwrap_or_default();
        let library_path = library_path.as_bytes();
        // `ld.so` lists a folder once that a list has twice.
        let count = |text: &[u8], separators: &[u8]| {
            let parts = text.split(|byte| separators.contains(byte));
            let trimmed = parts.map(without_slashes);
            if text.is_empty() { 0 } else { trimmed.collect::<BTreeSet<_>>().len() }
        };
        let ours = count(rpath, b":").saturating_add(count(library_path, b":;"));
        let system = dl::built_in_folders(ours);
        let file = env::current_exe().ok();
        let origin = file.as_deref().and_then(Path::parent).map(|it| it.as_os_str().as_bytes());
        let tokens = Tokens { origin, system: &system };
        ProcessFolders {
            rpath: tokens.folders(rpath, b":").unwrap_or_default(),
            library_path: tokens.folders(library_path, b":;").unwrap_or_default(),
            system,
        }
    }
}

/// Found out at the first search.
fn process_folders() -> &'static ProcessFolders {
    static FOLDERS: OnceLock<ProcessFolders> = OnceLock::new();
    FOLDERS.get_or_init(ProcessFolders::find)
}

/// The folder of an image whose name is an absolute path.
fn origin(name: &str) -> Option<&[u8]> {
    let folder = Path::new(name).parent().filter(|folder| folder.is_absolute())?;
    Some(folder.as_os_str().as_bytes())
}

/// The `DT_NEEDED` entries of an image of this name, in order.
pub(crate) fn needed_names<'d>(
    decoded: &'d Decoded,
    name: &str,
) -> Result<Vec<Cow<'d, CStr>>, Error> {
    let mut names = try_vec(decoded.needed.len())?;
    for (index, needed) in decoded.needed.iter().enumerate() {
        require_memory_for_next(index)?;
        names.push(expand_name(needed, name));
    }
    Ok(names)
}

/// The name of a library that an image called `image` asks for, with `ld.so`'s dynamic string tokens
/// replaced.
pub(crate) fn expand_name<'n>(name: &'n CStr, image: &str) -> Cow<'n, CStr> {
    if !name.to_bytes().contains(&b'$') {
        return name.into();
    }
    let tokens = Tokens { origin: origin(image), system: &process_folders().system };
    let expanded = tokens.expand(name.to_bytes());
    let expanded = expanded.and_then(|expanded| CString::new(expanded).ok());
    expanded.map_or(name.into(), Cow::Owned)
}

/// What dynamic string tokens stand for.
struct Tokens<'a> {
    /// `$ORIGIN`, if it is known.
    origin: Option<&'a [u8]>,
    /// The system's folders. `$LIB` is the first, from the root (glibc `DL_DST_LIB`).
    system: &'a [PathBuf],
}

impl Tokens<'_> {
    /// The folders of a list. Empty ones are the current folder, as in `ld.so`; one with a token that cannot
    /// be replaced is left out.
    fn folders(&self, text: &[u8], separators: &[u8]) -> Result<Vec<PathBuf>, Error> {
        let mut folders: Vec<PathBuf> = Vec::new();
        if text.is_empty() {
            return Ok(folders);
        }
        let parts = text.split(|byte| separators.contains(byte));
        let (mut seen, mut len) = (HashSet::new(), 0u64);
        for (index, part) in parts.enumerate() {
            require_memory_for_next(index)?;
            let Some(folder) = self.expand(part) else { continue };
            // A list has each folder once.
            if !try_insert(&mut seen, part)? {
                continue;
            }
            len = len.saturating_add(folder.len() as u64);
            limits::check("the length of a list of folders", len, MAX_LIST)?;
            folders.try_push(PathBuf::from(OsStr::from_bytes(&folder)))?;
        }
        Ok(folders)
    }

    /// Replaces `$ORIGIN`, `$LIB` and `$PLATFORM`, with or without braces. `None` if what one of them stands
    /// for is unknown, or the result is longer than any path.
    fn expand<'t>(&self, text: &'t [u8]) -> Option<Cow<'t, [u8]>> {
        let is_path = |path: &[u8]| path.len() < libc::PATH_MAX as usize;
        if !text.contains(&b'$') {
            return is_path(text).then_some(text.into());
        }
        let mut expanded = Vec::new();
        let mut parts = text.split(|&byte| byte == b'$');
        expanded.extend_from_slice(parts.next().filter(|part| is_path(part))?);
        for part in parts {
            let (value, rest) = if let Some(rest) = after_token(part, b"ORIGIN") {
                (self.origin?, rest)
            } else if let Some(rest) = after_token(part, b"LIB") {
                (self.system.first()?.as_os_str().as_bytes().strip_prefix(b"/")?, rest)
            } else if let Some(rest) = after_token(part, b"PLATFORM") {
                (process::platform()?.to_bytes(), rest)
            } else {
                (&b"$"[..], part)
            };
            if !is_path(&expanded) || !is_path(rest) || !is_path(value) {
                return None;
            }
            expanded.extend_from_slice(value);
            expanded.extend_from_slice(rest);
        }
        is_path(&expanded).then_some(expanded.into())
    }
}

/// What follows a token, of the text behind a `$`; `None` if that is another token.
fn after_token<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    if let Some(text) = text.strip_prefix(b"{") {
        return text.strip_prefix(token)?.strip_prefix(b"}");
    }
    let rest = text.strip_prefix(token)?;
    let goes_on = rest.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    (!goes_on).then_some(rest)
}

/// A folder without the slashes at its end.
fn without_slashes(folder: &[u8]) -> &[u8] {
    match folder.iter().rposition(|&byte| byte != b'/') {
        Some(last) => folder.split_at(last.saturating_add(1)).0,
        None => folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Option<String> {
        let system = [PathBuf::from("/lib/some-machine"), PathBuf::from("/usr/lib")];
        let tokens = Tokens { origin: Some(b"/opt/x"), system: &system };
        tokens.expand(text.as_bytes()).map(|it| String::from_utf8(it.into_owned()).unwrap())
    }

    #[test]
    fn tokens_are_replaced_as_in_ld_so() {
        let platform = process::platform().unwrap().to_str().unwrap();
        for (text, expected) in [
            ("/a/b", "/a/b"),
            ("$ORIGIN", "/opt/x"),
            ("${ORIGIN}/../y", "/opt/x/../y"),
            ("/usr/$LIB/z", "/usr/lib/some-machine/z"),
            ("/${LIB}x:$LIB", "/lib/some-machinex:lib/some-machine"),
            ("$ORIGINAL/$LIB_/$NO/$", "$ORIGINAL/$LIB_/$NO/$"),
            ("${ORIGIN/$LIB", "${ORIGIN/lib/some-machine"),
            ("/$PLATFORM", &format!("/{platform}")),
        ] {
            assert_eq!(expand(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(expand(&"$ORIGIN".repeat(1000)), None, "longer than any path");
        let unknown = Tokens { origin: None, system: &[] };
        assert!(unknown.expand(b"$ORIGIN/x").is_none() && unknown.expand(b"$LIB").is_none());
    }

    #[test]
    fn a_list_has_all_its_folders() {
        let tokens = Tokens { origin: None, system: &[] };
        let folders = |text: &[u8]| tokens.folders(text, b":;").unwrap();
        assert_eq!(folders(b"/a:$ORIGIN/b;rel"), [Path::new("/a"), Path::new("rel")]);
        // An empty one is the current folder.
        assert_eq!(folders(b"/a::/b"), [Path::new("/a"), Path::new(""), Path::new("/b")]);
        assert!(folders(b"").is_empty());
    }

    #[test]
    fn the_systems_folders_are_known_and_searched() {
        let searcher = Searcher::new();
        assert!(process_folders().system.iter().any(|folder| folder == Path::new("/usr/lib")));
        let find = |name| searcher.find(name, &SearchPath::default()).unwrap();
        let found = find(c"libc.so.6").unwrap();
        assert!(found.path.ends_with("libc.so.6") && found.folder == FolderOf::Process);
        assert!(find(c"libnone.so").is_none() && find(c"/dev/null").is_none());
    }

    #[test]
    fn a_search_ends_however_long_the_lists_are() {
        let searcher = Searcher::new();
        let folders: Vec<PathBuf> = (0..1000).map(|it| PathBuf::from(format!("rel{it}"))).collect();
        let path = SearchPath { runpath: Some(folders.into()), ..SearchPath::default() };
        let mut names = (0..1000).map(|it| CString::new(format!("lib{it}.so")).unwrap());
        let error = names.find_map(|name| searcher.find(&name, &path).err()).unwrap();
        assert!(matches!(error, Error::Limit { limit: MAX_LOOKS, .. }), "{error}");
        // 4 KiB for each of 100,000 folders.
        let origin = [b'x'; 4000];
        let tokens = Tokens { origin: Some(&origin), system: &[] };
        let list: String = (0..100_000).map(|it| format!("$ORIGIN/{it}:")).collect();
        let error = tokens.folders(list.as_bytes(), b":").unwrap_err();
        assert!(matches!(error, Error::Limit { limit: MAX_LIST, .. }), "{error}");
    }
}
