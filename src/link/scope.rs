//! The lookup scope: where a reference of an image is searched, and in which order.
//!
//! `ld.so`'s order for a library that `dlopen` loads is the process's global scope, then the
//! library itself and the libraries that it needs, breadth first. Ours is the same, with what the caller
//! adds at either end ([`Loader::define`](crate::Loader::define) stands for the host and so comes
//! with it; [`Loader::resolver`](crate::Loader::resolver) is called last, for symbols that nothing defines):
//!
//! 1. the image itself, if it has `DT_SYMBOLIC`;
//! 2. the host: names given with `define`, then the host's global scope;
//! 3. images that were loaded with `global(true)`, in load order;
//! 4. the load group's searchlist: the root image, then the libraries that it needs, breadth first; the
//!    libraries that an image is a filter for come before it (`DT_FILTER`, `DT_AUXILIARY`);
//! 5. for a library that an image opens with `dlopen`, the images in the scope of that image. `ld.so` would
//!    not search them, unless the library needs them by name; a runtime whose extensions do not name it
//!    could then not run from memory;
//! 6. the resolver.
//!
//! [`Scope::SelfFirst`] puts 4 and 5 before 2, as `RTLD_DEEPBIND` does with 4.
//!
//! Searching only: nothing is recorded or stored here.

#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use crate::base::error::Error;
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::name_filter::NameFilter;
use crate::elf::name_index::NameIndex;
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::SymbolTable;
use crate::host::global_scope::GlobalScope;
use crate::host::library::{HostLibrary, HostSymbol, SymbolValue};
use crate::images::dlsym::MayUseHost;
use crate::images::group::{Dependency, ImageRef, Provider};
use crate::images::policy::{Imports, SymbolRequest};
use crate::images::registry;
use crate::images::scope::Scope;
use crate::images::unique;
use crate::link::bound::Target;

/// The caller's function for symbols that nothing defines.
pub(crate) type Resolver = dyn Fn(&SymbolRequest<'_>) -> Option<*const c_void> + Send + Sync;

impl From<SymbolValue> for Target {
    fn from(value: SymbolValue) -> Target {
        match value {
            SymbolValue::Address(address) => Target::Address(address),
            SymbolValue::ThreadLocal { module, offset } => Target::Tls { module, offset },
        }
    }
}

/// A definition, and the group or library that must stay loaded for it.
pub(crate) struct Definition {
    pub target: Target,
    pub st_size: u64,
    pub is_canonical_plt: bool,
    /// The symbol of an image, if it is `STB_GNU_UNIQUE`.
    pub unique: Option<Sym>,
    pub dependency: Option<Dependency>,
}

/// What [`LookupScope::find_plainly`] finds.
pub(crate) enum Plainly<'a> {
    /// A plain definition, and the library that must stay loaded for it.
    Found(Target, Option<&'a Arc<HostLibrary>>),
    /// Nothing defines the name.
    Nowhere,
    /// It must be searched.
    Unknown,
}

/// Where in a searchlist searches begin. It is made once searches have gone through as many libraries in vain as the
/// list has names: so it costs no more than was spent already.
#[derive(Default)]
pub(crate) struct Shortcut {
    /// `None` if there was no memory for it.
    index: OnceCell<Option<NameIndex>>,
    /// The number of names in the list.
    names: OnceCell<usize>,
    /// The number of libraries that were searched.
    searched: Cell<usize>,
}

/// The fewest libraries of a searchlist for which it is worth it.
const MANY: usize = 4;

/// The scope of a group's references.
pub(crate) struct LookupScope<'a> {
    pub scope: Scope,
    /// The group is for another machine: no definition of this process counts.
    pub is_foreign: bool,
    pub defined: &'a BTreeMap<String, usize>,
    /// Called for symbols that nothing defines.
    pub resolver: Option<&'a Resolver>,
    pub host: GlobalScope,
    /// Replaces functions of the host, by name.
    pub services: fn(&[u8]) -> Option<usize>,
    /// The libraries in the scope of the image that opens the group.
    pub opener: Vec<Provider>,
    /// The names of images that all images see; `None` if there are none.
    pub global: Option<Arc<NameFilter>>,
    pub searchlist: Vec<Provider>,
    pub shortcut: Shortcut,
    /// The group's members' symbol tables, by index.
    pub members: Vec<SymbolTable<'a>>,
    /// Whether each member is a copy of a library of the system; false behind the end. Definitions in such
    /// members count as the host's, and their references are not restricted.
    pub of_system: Vec<bool>,
    /// The symbols of the host that the other members may bind to.
    pub imports: &'a Imports,
}

impl LookupScope<'_> {
    /// The searchlist, once the scope is not used any more.
    pub(crate) fn into_searchlist(self) -> Vec<Provider> {
        self.searchlist
    }

    /// The definition that a reference of `member` to `name` is bound to. The resolver is not called here.
    /// A definition of the host that may not be used counts as absent.
    pub(crate) fn find(
        &self,
        member: usize,
        symbolic: bool,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
        may_use_host: MayUseHost<'_>,
    ) -> Option<Definition> {
        let found = self.find_in_scope(member, symbolic, name, wanted, class, may_use_host)?;
        if found.unique.is_none() || self.is_foreign {
            return Some(found);
        }
        // The process has one definition: a library's of `ld.so`, or the first image's. It counts wherever
        // in the scope it is, or outside the scope.
        let of_host = self.searchlist.iter().find_map(|provider| match provider {
            Provider::Host(library) => {
                Some(self.of_host(name, &library.unique(name)?, Some(library.clone())))
            }
            Provider::Member(_) | Provider::Image(_) => None,
        });
        let elsewhere = || {
            let (symbol, library) = self.host.unique(name)?;
            Some(self.of_host(name, &symbol, Some(library)))
        };
        let of_host = of_host.filter(|_| may_use_host());
        of_host
            .or_else(|| Definition::of_unique(name, may_use_host))
            .or_else(|| elsewhere().filter(|_| may_use_host()))
            .or(Some(found))
    }

    /// Whether [`LookupScope::find_plainly`] may be asked for references of `member`.
    pub(crate) fn is_plain(&self, member: usize, symbolic: bool) -> bool {
        let may_use_host = !self.imports.is_restricted() || self.is_of_system(member);
        !symbolic
            && may_use_host
            && self.scope == Scope::HostFirst
            && self.defined.is_empty()
            && self.opener.is_empty()
            && self.global.is_none()
    }

    /// What [`LookupScope::find`] finds for the address of a symbol, if that is not in the global scope and can be
    /// told without passing large results on: as for most.
    #[inline]
    pub(crate) fn find_plainly(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
    ) -> Plainly<'_> {
        if !self.host.surely_lacks(name.gnu_hash_31()) {
            return Plainly::Unknown;
        }
        let class = TypeClass::Address;
        let first = self.first_with(name.gnu_hash_31());
        for provider in self.searchlist.get(first..).unwrap_or_default() {
            match provider {
                Provider::Member(index) => {
                    let table = self.members.get(*index);
                    let found = table.and_then(|table| table.lookup(name, wanted, class));
                    if let Some((_, symbol)) = found {
                        return match symbol.is_plain_definition() {
                            true => Plainly::Found(Target::of_member(*index, &symbol), None),
                            false => Plainly::Unknown,
                        };
                    }
                }
                Provider::Image(_) => return Plainly::Unknown,
                Provider::Host(library) if library.is_startup() => {}
                Provider::Host(library) => {
                    if let Some(symbol) = library.symbol(name, wanted, class) {
                        if !symbol.is_plain_definition() {
                            return Plainly::Unknown;
                        }
                        let own = || library.plain_address(&symbol);
                        let address = (self.services)(name.bytes()).unwrap_or_else(own);
                        return Plainly::Found(Target::Address(address), Some(library));
                    }
                }
            }
        }
        Plainly::Nowhere
    }

    /// Whether only the host, and images that all images see, are searched before `member` for references of
    /// `member`.
    pub(crate) fn only_global_before(&self, member: usize) -> bool {
        self.opener.is_empty()
            && self.defined.is_empty()
            && matches!(self.searchlist.first(), Some(&Provider::Member(first)) if first == member)
    }

    /// Whether the host, or an image that all images see, may define a name with this hash.
    #[inline]
    pub(crate) fn may_be_global(&self, gnu_hash_31: u32) -> bool {
        self.host.may_define(gnu_hash_31)
            || self.global.as_ref().is_some_and(|names| names.may_have(gnu_hash_31))
    }

    /// Whether a member is a copy of a library of the system.
    pub(crate) fn is_of_system(&self, member: usize) -> bool {
        self.of_system.get(member).copied().unwrap_or(false)
    }

    fn find_in_scope(
        &self,
        member: usize,
        symbolic: bool,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
        may_use_host: MayUseHost<'_>,
    ) -> Option<Definition> {
        if symbolic && let Some(found) = self.in_member(member, name, wanted, class) {
            return Some(found);
        }
        let in_global = || {
            self.global.as_ref().filter(|names| names.may_have(name.gnu_hash_31()))?;
            registry::global_definition(name, wanted, class, |image, symbol| {
                Definition::of_symbol(&image, &symbol, may_use_host)
            })
        };
        let in_provider =
            |provider: &Provider| self.in_provider(provider, name, wanted, class, may_use_host);
        let local = || {
            let first = self.first_with(name.gnu_hash_31());
            self.searchlist.get(first..)?.iter().find_map(in_provider)
        };
        let is_host = |provider: &&Provider| matches!(provider, Provider::Host(_));
        let in_opener = || self.opener.iter().filter(|it| !is_host(it)).find_map(in_provider);
        // What an image needs is in its scope, also where it is not in the process's.
        let needed_by_opener = || self.opener.iter().filter(is_host).find_map(in_provider);
        let outer = || {
            let in_host = self.in_host(name, wanted, class, may_use_host);
            in_host.or_else(in_global)
        };
        let found = match self.scope {
            Scope::HostFirst => outer().or_else(local).or_else(in_opener),
            Scope::SelfFirst => local().or_else(in_opener).or_else(outer),
        };
        found.or_else(needed_by_opener)
    }

    /// The index in the searchlist before which no library defines a name with this hash.
    #[inline]
    fn first_with(&self, gnu_hash_31: u32) -> usize {
        let count = self.searchlist.len();
        if count < MANY {
            return 0;
        }
        match self.shortcut.index.get() {
            Some(Some(index)) => index.first(gnu_hash_31).map_or(count, |first| first as usize),
            Some(None) => 0,
            None => {
                let searched = self.shortcut.searched.get().saturating_add(count);
                self.shortcut.searched.set(searched);
                let names = || self.searchlist.iter().map(|it| self.name_count(it)).sum();
                if searched > *self.shortcut.names.get_or_init(names) {
                    let _ = self.shortcut.index.set(self.index().ok());
                }
                0
            }
        }
    }

    #[cold]
    fn index(&self) -> Result<NameIndex, Error> {
        let names = self.searchlist.iter().map(|it| self.name_count(it)).sum();
        let mut index = NameIndex::new(names)?;
        for (number, provider) in (0..).zip(&self.searchlist) {
            if self.is_passed(provider) {
                continue;
            }
            match provider {
                Provider::Member(member) => {
                    let table = self.members.get(*member);
                    let hashes = table.into_iter().flat_map(SymbolTable::gnu_hashes_31);
                    hashes.for_each(|hash| index.add(hash, number));
                }
                Provider::Image(image) => {
                    let table = image.image().symbols();
                    table.gnu_hashes_31().for_each(|hash| index.add(hash, number));
                }
                Provider::Host(library) => library.for_each_hash(|hash| index.add(hash, number)),
            }
        }
        Ok(index)
    }

    /// The number of names in which a search in this library looks.
    fn name_count(&self, provider: &Provider) -> usize {
        match provider {
            _ if self.is_passed(provider) => 0,
            Provider::Member(member) => self.members.get(*member).map_or(0, |it| it.len() as usize),
            Provider::Image(image) => image.image().symbols().len() as usize,
            Provider::Host(library) => library.name_count(),
        }
    }

    /// Whether it was searched already, with the global scope.
    fn is_passed(&self, provider: &Provider) -> bool {
        self.scope == Scope::HostFirst
            && matches!(provider, Provider::Host(library) if library.is_startup())
    }

    fn in_host(
        &self,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
        may_use_host: MayUseHost<'_>,
    ) -> Option<Definition> {
        if !self.defined.is_empty()
            && let Some(&address) =
                std::str::from_utf8(name.bytes()).ok().and_then(|name| self.defined.get(name))
        {
            return Some(Definition::at(address));
        }
        let found = self.host.lookup(name, wanted, class).filter(|_| may_use_host())?;
        Some(self.of_host(name, &found.symbol, found.library))
    }

    fn in_provider(
        &self,
        provider: &Provider,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
        may_use_host: MayUseHost<'_>,
    ) -> Option<Definition> {
        match provider {
            Provider::Member(index) => self
                .in_member(*index, name, wanted, class)
                .filter(|_| !self.is_of_system(*index) || may_use_host()),
            Provider::Image(image) => {
                Definition::of_image(image, name, wanted, class, may_use_host)
            }
            Provider::Host(_) if self.is_passed(provider) => None,
            Provider::Host(library) => {
                let symbol = library.lookup(name, wanted, class, self.host.resolvers());
                let symbol = symbol.filter(|_| may_use_host())?;
                Some(self.of_host(name, &symbol, Some(library.clone())))
            }
        }
    }

    fn of_host(
        &self,
        name: &SymbolName<'_>,
        symbol: &HostSymbol,
        library: Option<Arc<HostLibrary>>,
    ) -> Definition {
        let target = match symbol.definition {
            SymbolValue::Address(address) => {
                Target::Address((self.services)(name.bytes()).unwrap_or(address))
            }
            value => value.into(),
        };
        let dependency = library.filter(|library| !library.is_startup()).map(Dependency::Host);
        Definition {
            target,
            st_size: symbol.st_size,
            is_canonical_plt: symbol.is_canonical_plt,
            unique: None,
            dependency,
        }
    }

    fn in_member(
        &self,
        index: usize,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
    ) -> Option<Definition> {
        let (_, symbol) = self.members.get(index)?.lookup(name, wanted, class)?;
        Some(Definition::of_member(index, &symbol))
    }
}

impl Definition {
    /// An address that the caller of memdl supplies.
    pub(crate) fn at(address: usize) -> Definition {
        Definition::to(Target::Address(address))
    }

    /// This target, without a size, flags or dependency.
    pub(crate) fn to(target: Target) -> Definition {
        Definition { target, st_size: 0, is_canonical_plt: false, unique: None, dependency: None }
    }

    /// A symbol that the group's member of this index defines.
    pub(crate) fn of_member(member: usize, symbol: &Sym) -> Definition {
        Definition {
            target: Target::of_member(member, symbol),
            st_size: symbol.st_size,
            is_canonical_plt: false,
            unique: symbol.is_unique().then_some(*symbol),
            dependency: None,
        }
    }

    fn of_image(
        image: &ImageRef,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
        may_use_host: MayUseHost<'_>,
    ) -> Option<Definition> {
        let (_, symbol) = image.image().symbols().lookup(name, wanted, class)?;
        Definition::of_symbol(image, &symbol, may_use_host)
    }

    /// This symbol of a loaded image.
    fn of_symbol(
        image: &ImageRef,
        symbol: &Sym,
        may_use_host: MayUseHost<'_>,
    ) -> Option<Definition> {
        let loaded = image.image();
        if loaded.of_system && !may_use_host() {
            return None;
        }
        let target = loaded.value(symbol).into();
        Some(Definition {
            target,
            st_size: symbol.st_size,
            is_canonical_plt: false,
            unique: symbol.is_unique().then_some(*symbol),
            dependency: Some(Dependency::Group(image.group().clone())),
        })
    }

    /// The process's definition of a unique symbol, if a loaded image has it.
    fn of_unique(name: &SymbolName<'_>, may_use_host: MayUseHost<'_>) -> Option<Definition> {
        let (image, symbol) = unique::definition(name.bytes())?;
        if image.image().of_system && !may_use_host() {
            return None;
        }
        let target = image.image().value(&symbol).into();
        let dependency = Some(Dependency::Group(image.into_group()));
        Some(Definition { st_size: symbol.st_size, dependency, ..Definition::to(target) })
    }
}
