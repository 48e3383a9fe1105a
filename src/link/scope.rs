//! The search order: from a reference of an image to what it is bound to.
//!
//! `ld.so`'s order for a library that `dlopen` loads is the process's global scope, then the
//! library itself and all that it needs, breadth first. Ours is the same, with what the caller
//! adds at either end ([`Loader::define`](crate::Loader::define) stands for the host and so comes
//! with it; [`Loader::resolver`](crate::Loader::resolver) is asked last, for what nothing defines):
//!
//! 1. the image itself, if it says so (`DT_SYMBOLIC`);
//! 2. the host: names given with `define`, then the host's global scope;
//! 3. images that were loaded with `global(true)`, in load order;
//! 4. the load group's searchlist: the image that is loaded, then what it needs, breadth first;
//! 5. the resolver.
//!
//! [`Scope::SelfFirst`] puts 4 before 2, as `RTLD_DEEPBIND` does. A library that an image opens with
//! `dlopen` and that the system's loader cannot bind sees that image, and what it needs, before 2.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use crate::base::addr::Vaddr;
use crate::base::tls_index::ModuleId;
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::symbol::{Sym, SymbolName};
use crate::elf::symbol_table::SymbolTable;
use crate::host::ld_so::{GlobalScope, HostLibrary, HostSymbol, SymbolValue};
use crate::images::dlsym::MayUseHost;
use crate::images::group::{Dependency, ImageRef, Provider};
use crate::images::policy::{Imports, SymbolRequest};
use crate::images::unique;

/// Where an image's references are searched first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Scope {
    /// The host's definitions take precedence over the image's own, as with `dlopen`.
    #[default]
    HostFirst,
    /// The image and what it needs take precedence, as with `RTLD_DEEPBIND`.
    SelfFirst,
}

/// The caller's last resort.
pub(crate) type Resolver = dyn Fn(&SymbolRequest<'_>) -> Option<*const c_void> + Send + Sync;

/// What a reference is bound to, as far as it can be told before the group is in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A run-time address, or an absolute value.
    Address(usize),
    /// A place in the group's member of this index.
    Member { member: usize, st_value: Vaddr },
    /// A function that the IFUNC resolver at this place in the member chooses.
    MemberIfunc { member: usize, st_value: Vaddr },
    /// A thread-local of the group's member of this index.
    MemberTls { member: usize, offset: u64 },
    /// A thread-local of a module that is loaded already.
    Tls { module: ModuleId, offset: u64 },
}

impl Target {
    /// What a relocation without a symbol refers to, as `ld.so` has it: the address that the image
    /// states as 0.
    pub(crate) fn start_of(member: usize) -> Target {
        Target::Member { member, st_value: Vaddr(0) }
    }

    /// A symbol that the group's member of this index defines.
    #[inline]
    pub(crate) fn of_member(member: usize, symbol: &Sym) -> Target {
        let st_value = Vaddr(symbol.st_value);
        if symbol.is_thread_local() {
            Target::MemberTls { member, offset: symbol.st_value }
        } else if symbol.is_absolute() {
            Target::Address(symbol.st_value as usize)
        } else if symbol.is_ifunc() {
            Target::MemberIfunc { member, st_value }
        } else {
            Target::Member { member, st_value }
        }
    }
}

impl From<SymbolValue> for Target {
    fn from(value: SymbolValue) -> Target {
        match value {
            SymbolValue::Address(address) => Target::Address(address),
            SymbolValue::ThreadLocal { module, offset } => Target::Tls { module, offset },
        }
    }
}

/// A definition, and what must be kept for it to stay.
pub(crate) struct Definition {
    pub target: Target,
    pub st_size: u64,
    pub is_canonical_plt: bool,
    /// The symbol of an image, if it is `STB_GNU_UNIQUE`.
    pub unique: Option<Sym>,
    pub keep: Option<Dependency>,
}

/// All that a group's references are searched in.
pub(crate) struct LookupScope<'a> {
    pub scope: Scope,
    pub defined: &'a BTreeMap<String, usize>,
    /// Asked for what nothing defines.
    pub resolver: Option<&'a Resolver>,
    pub host: GlobalScope,
    /// What images get instead of the host's function of a name.
    pub services: fn(&[u8]) -> Option<usize>,
    /// Images that come before the host.
    pub opener: Vec<ImageRef>,
    pub global: Vec<ImageRef>,
    pub searchlist: Vec<Provider>,
    /// The group's members' symbol tables, by index.
    pub members: Vec<SymbolTable<'a>>,
    /// Which of the members are copies of libraries of the system: what they define counts as the host's,
    /// and their own references are not restricted. None of those that it is too short for.
    pub of_system: Vec<bool>,
    /// Which of the host's symbols the others may bind to.
    pub imports: &'a Imports,
}

impl LookupScope<'_> {
    /// The images and libraries of the group's scope, once nothing is searched any more.
    pub(crate) fn into_searchlist(self) -> Vec<Provider> {
        self.searchlist
    }

    /// What a reference of `member` to `name` is bound to; the resolver is not asked here. What the host
    /// defines, and may not be used, is as if it were not there.
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
        if found.unique.is_none() {
            return Some(found);
        }
        // There must be but one in the process: that of a library of `ld.so`'s, or of the image
        // that had it first, wherever in the order they are, or whether they are in it at all.
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

    /// Whether nobody but the host comes before `member` where references of its are searched.
    pub(crate) fn only_host_before(&self, member: usize) -> bool {
        self.opener.is_empty()
            && self.global.is_empty()
            && self.defined.is_empty()
            && matches!(self.searchlist.first(), Some(&Provider::Member(first)) if first == member)
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
        let in_images = |images: &[ImageRef]| {
            images
                .iter()
                .find_map(|image| Definition::of_image(image, name, wanted, class, may_use_host))
        };
        if let Some(found) = in_images(&self.opener) {
            return Some(found);
        }
        let local = || {
            self.searchlist
                .iter()
                .find_map(|provider| self.in_provider(provider, name, wanted, class, may_use_host))
        };
        let outer = || {
            let in_host = self.in_host(name, wanted, class, may_use_host);
            in_host.or_else(|| in_images(&self.global))
        };
        match self.scope {
            Scope::HostFirst => outer().or_else(local),
            Scope::SelfFirst => local().or_else(outer),
        }
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
            // Searched before, with the global scope.
            Provider::Host(library) if self.scope == Scope::HostFirst && library.is_startup() => {
                None
            }
            Provider::Host(library) => {
                let symbol = library.lookup(name, wanted, class).filter(|_| may_use_host())?;
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
        let keep = library.filter(|library| !library.is_startup()).map(Dependency::Host);
        Definition {
            target,
            st_size: symbol.st_size,
            is_canonical_plt: symbol.is_canonical_plt,
            unique: None,
            keep,
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
    /// An address that the caller vouches for.
    pub(crate) fn at(address: usize) -> Definition {
        Definition::to(Target::Address(address))
    }

    /// This target, with nothing known about it.
    pub(crate) fn to(target: Target) -> Definition {
        Definition { target, st_size: 0, is_canonical_plt: false, unique: None, keep: None }
    }

    /// A symbol that the group's member of this index defines.
    pub(crate) fn of_member(member: usize, symbol: &Sym) -> Definition {
        Definition {
            target: Target::of_member(member, symbol),
            st_size: symbol.st_size,
            is_canonical_plt: false,
            unique: symbol.is_unique().then_some(*symbol),
            keep: None,
        }
    }

    fn of_image(
        image: &ImageRef,
        name: &SymbolName<'_>,
        wanted: VersionMatch<'_>,
        class: TypeClass,
        may_use_host: MayUseHost<'_>,
    ) -> Option<Definition> {
        let loaded = image.image();
        let (_, symbol) = loaded.symbols().lookup(name, wanted, class)?;
        if loaded.of_system && !may_use_host() {
            return None;
        }
        let target = loaded.value(&symbol).into();
        Some(Definition {
            target,
            st_size: symbol.st_size,
            is_canonical_plt: false,
            unique: symbol.is_unique().then_some(symbol),
            keep: Some(Dependency::Group(image.group().clone())),
        })
    }

    /// The one definition of a unique symbol, if an image that is loaded has it.
    fn of_unique(name: &SymbolName<'_>, may_use_host: MayUseHost<'_>) -> Option<Definition> {
        let (image, symbol) = unique::definition(name.bytes())?;
        if image.image().of_system && !may_use_host() {
            return None;
        }
        let target = image.image().value(&symbol).into();
        let keep = Some(Dependency::Group(image.into_group()));
        Some(Definition { st_size: symbol.st_size, keep, ..Definition::to(target) })
    }
}
