//! Load options: the caller's, from [`Loader`](crate::Loader), and those of an image's `dlopen`.
//!
//! Options only: nothing here parses, opens or binds.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::limits::Limits;
use crate::debug::DebugLevel;
use crate::elf::symbol_table::SymbolTable;
use crate::host::global_scope::GlobalScope;
use crate::host::library::Resolvers;
use crate::host::search::FileId;
use crate::images::dlsym;
use crate::images::group::{ImageRef, LibraryProvider, LoadGroup, Provider};
use crate::images::namespace::Namespace;
use crate::images::policy::Policy;
use crate::images::registry;
use crate::images::scope::Scope;
use crate::link::scope::{LookupScope, Resolver, Shortcut};
use crate::memory::bytes::Bytes;
use crate::profile::Profile;

/// Load options.
#[derive(Clone)]
pub(crate) struct Settings {
    pub name: Option<Arc<str>>,
    /// The file that the root image was read from.
    pub file: Option<FileId>,
    /// The name that it was searched by.
    pub alias: Option<Arc<[u8]>>,
    /// Addresses by name, as if the host defined them.
    pub defined: BTreeMap<String, usize>,
    pub resolver: Option<Arc<Resolver>>,
    /// Groups whose images satisfy `DT_NEEDED` entries.
    pub depends_on: Vec<Arc<LoadGroup>>,
    /// Bytes that satisfy `DT_NEEDED` entries, by name.
    pub provided: Vec<(Arc<str>, Bytes<'static>)>,
    /// Supplies needed libraries, by name.
    pub provider: Option<Arc<LibraryProvider>>,
    /// The namespace that the images enter. `None`: one of their own.
    pub namespace: Option<Arc<Namespace<LoadGroup>>>,
    /// What the host allows the images.
    pub policy: Policy,
    pub global: bool,
    pub system_libraries: bool,
    pub scope: Scope,
    /// Bind calls at the first call, where the image allows it.
    pub lazy: bool,
    pub debug: DebugLevel,
    /// The debug file of the root image.
    pub debug_info: Option<Bytes<'static>>,
    pub profile: Profile,
    pub limits: Limits,
    /// Replaces functions of the host, by name.
    pub services: fn(&[u8]) -> Option<usize>,
    /// Leads calls of `dlopen` in libraries of the system to memdl.
    pub cover: fn(&[Provider]) -> Result<(), Error>,
    /// The image that opens the group. What nothing else defines is searched in its scope.
    pub opener: Option<ImageRef>,
}

impl Settings {
    /// The defaults of [`Loader::new`](crate::Loader::new).
    pub(crate) fn new(
        services: fn(&[u8]) -> Option<usize>,
        cover: fn(&[Provider]) -> Result<(), Error>,
    ) -> Settings {
        Settings {
            name: None,
            file: None,
            alias: None,
            defined: BTreeMap::new(),
            resolver: None,
            depends_on: Vec::new(),
            provided: Vec::new(),
            provider: None,
            namespace: None,
            policy: Policy::default(),
            global: false,
            system_libraries: true,
            scope: Scope::default(),
            lazy: false,
            debug: DebugLevel::default(),
            debug_info: None,
            profile: Profile::default(),
            limits: Limits::default(),
            services,
            cover,
            opener: None,
        }
    }

    /// The scope of the image that opens the group.
    fn opener_scope(&self) -> Result<Vec<Provider>, Error> {
        let opener = self.opener.as_ref();
        opener.map_or(Ok(Vec::new()), |opener| dlsym::scope(opener.group()))
    }

    /// The image that opens the group, and the images in its scope.
    pub(super) fn opener_images(&self) -> Result<Vec<ImageRef>, Error> {
        let opener = self.opener.as_ref();
        opener.map_or(Ok(Vec::new()), |opener| dlsym::images_in_scope(opener.group()))
    }

    /// The scope in which references of a load group's members are looked up.
    pub(super) fn lookup_scope<'a>(
        &'a self,
        searchlist: Vec<Provider>,
        members: Vec<SymbolTable<'a>>,
        of_system: Vec<bool>,
        resolvers: Resolvers,
    ) -> Result<LookupScope<'a>, Error> {
        Ok(LookupScope {
            scope: self.scope,
            is_foreign: false,
            defined: &self.defined,
            resolver: self.resolver.as_deref(),
            host: GlobalScope::new(resolvers)?,
            services: self.services,
            opener: self.opener_scope()?,
            global: registry::global_names(),
            searchlist,
            shortcut: Shortcut::default(),
            members,
            of_system,
            imports: &self.policy.imports,
        })
    }

    /// As [`Settings::lookup_scope`], for a group for another machine: what the caller supplies, and nothing of this
    /// process.
    pub(super) fn foreign_scope<'a>(
        &'a self,
        searchlist: Vec<Provider>,
        members: Vec<SymbolTable<'a>>,
    ) -> Result<LookupScope<'a>, Error> {
        Ok(LookupScope {
            scope: self.scope,
            is_foreign: true,
            defined: &self.defined,
            resolver: self.resolver.as_deref(),
            host: GlobalScope::nothing(),
            services: |_| None,
            opener: Vec::new(),
            global: None,
            searchlist,
            shortcut: Shortcut::default(),
            members,
            of_system: Vec::new(),
            imports: &self.policy.imports,
        })
    }
}
