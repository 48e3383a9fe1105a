//! Look-ups by name, as `dlsym` does them: in a loaded library and the libraries that it needs.
//!
//! References of relocations are not bound here: that is `link/scope.rs`.
//!
//! Source: `dlsym(3)`.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::fallible::{
    TryGrow, require_memory, require_memory_for_next, try_collect, try_vec,
};
use crate::elf::lookup::{TypeClass, VersionMatch};
use crate::elf::symbol::{Sym, SymbolName};
use crate::host::global_scope::GlobalScope;
use crate::host::library::{Resolvers, SymbolValue};
use crate::images::group::{ImageRef, LoadGroup, Needs, Provider};
use crate::images::registry;
use crate::images::unique;
use crate::tls;

/// Whether the reference may be bound to a symbol of the host.
pub(crate) type MayUseHost<'a> = &'a dyn Fn() -> bool;

/// The address of a symbol of an image, or else of the libraries that it needs, breadth first.
#[inline]
pub(crate) fn in_library(
    group: &Arc<LoadGroup>,
    index: usize,
    name: &SymbolName<'_>,
    wanted: VersionMatch<'_>,
) -> Result<Option<*mut c_void>, Error> {
    // Nearly always the image defines it: then nothing is allocated.
    let is_filter = !group.member(index).filtees.is_empty();
    let own = if is_filter { None } else { in_image(group, index, name, wanted, &|| true)? };
    match own {
        Some(found) => Ok(Some(found)),
        None => {
            require_memory()?;
            let list = searchlist(Provider::Image(ImageRef::new(group.clone(), index)))?;
            in_list(list.get(usize::from(!is_filter)..).unwrap_or_default(), name, wanted, &|| true)
        }
    }
}

/// The address of a symbol of the first library in `list` that defines it. Libraries of the host count only
/// if the symbol may be used.
pub(crate) fn in_list(
    list: &[Provider],
    name: &SymbolName<'_>,
    wanted: VersionMatch<'_>,
    may_use_host: MayUseHost<'_>,
) -> Result<Option<*mut c_void>, Error> {
    for provider in list {
        let found = match provider {
            Provider::Image(image) => {
                in_image(image.group(), image.index(), name, wanted, may_use_host)?
            }
            Provider::Host(library) => {
                let class = TypeClass::Address;
                let found = library.lookup(name, wanted, class, Resolvers::Run);
                let found = found.filter(|_| may_use_host());
                // SAFETY: a value of the library's own symbol, and the library is held.
                found.map(|found| unsafe { address_of(found.definition) }).transpose()?
            }
            Provider::Member(_) => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The address of a symbol of the first image that all images see and that defines it.
pub(crate) fn in_global_images(
    name: &SymbolName<'_>,
    wanted: VersionMatch<'_>,
    may_use_host: MayUseHost<'_>,
) -> Result<Option<*mut c_void>, Error> {
    let of_image = |image: ImageRef, symbol| {
        let found = of_symbol(image.group(), image.index(), name, &symbol, may_use_host);
        found.transpose()
    };
    registry::global_definition(name, wanted, TypeClass::Definition, of_image).transpose()
}

#[inline]
fn in_image(
    group: &Arc<LoadGroup>,
    index: usize,
    name: &SymbolName<'_>,
    wanted: VersionMatch<'_>,
    may_use_host: MayUseHost<'_>,
) -> Result<Option<*mut c_void>, Error> {
    let table = group.member(index).symbols();
    match table.lookup(name, wanted, TypeClass::Definition) {
        Some((_, symbol)) => of_symbol(group, index, name, &symbol, may_use_host),
        None => Ok(None),
    }
}

/// The address of this symbol of an image, unless it may not be used.
#[inline]
fn of_symbol(
    group: &Arc<LoadGroup>,
    index: usize,
    name: &SymbolName<'_>,
    symbol: &Sym,
    may_use_host: MayUseHost<'_>,
) -> Result<Option<*mut c_void>, Error> {
    let loaded = group.member(index);
    if loaded.of_system && !may_use_host() {
        return Ok(None);
    }
    let the_only =
        if symbol.is_unique() { unique_value(group, index, name, may_use_host)? } else { None };
    let value = the_only.unwrap_or_else(|| loaded.value(symbol));
    // SAFETY: a value of the image's own symbol, or of the library's that has the process's definition;
    // both are loaded.
    unsafe { address_of(value) }.map(Some)
}

/// The process's definition of a unique symbol, if another library has it. References are bound to it,
/// too.
fn unique_value(
    group: &Arc<LoadGroup>,
    index: usize,
    name: &SymbolName<'_>,
    may_use_host: MayUseHost<'_>,
) -> Result<Option<SymbolValue>, Error> {
    let list = searchlist(Provider::Image(ImageRef::new(group.clone(), index)))?;
    let of_host = list.iter().find_map(|provider| match provider {
        Provider::Host(library) => Some(library.unique(name)?.definition),
        Provider::Member(_) | Provider::Image(_) => None,
    });
    let of_image = || {
        let (image, symbol) = unique::definition(name.bytes())?;
        Some(image.image().value(&symbol))
    };
    let known = of_host.filter(|_| may_use_host()).or_else(of_image);
    if known.is_some() {
        return Ok(known);
    }
    let scope = GlobalScope::new(Resolvers::Rest)?;
    let elsewhere = scope.unique(name).map(|(symbol, _)| symbol.definition);
    scope.check_memory()?;
    Ok(elsewhere.filter(|_| may_use_host()))
}

/// The address of a symbol, for the calling thread.
///
/// # Safety
/// The value is that of a symbol of a loaded library.
pub(crate) unsafe fn address_of(value: SymbolValue) -> Result<*mut c_void, Error> {
    match value {
        SymbolValue::Address(address) => Ok(address as *mut c_void),
        // SAFETY: the caller's promise: the module is loaded, and the offset lies in its block.
        SymbolValue::ThreadLocal { module, offset } => unsafe {
            tls::variable_address(module, offset)
        },
    }
}

/// The scope of images of this group, without the host: the group's root and the libraries that it needs,
/// then the same of the image that opened the group, and so on.
pub(crate) fn scope(group: &Arc<LoadGroup>) -> Result<Vec<Provider>, Error> {
    let mut list = Vec::new();
    let mut next = Some(group);
    while let Some(group) = next {
        let more = searchlist(Provider::Image(ImageRef::new(group.clone(), 0)))?;
        more.into_iter().try_for_each(|provider| push_new(&mut list, provider))?;
        next = group.opener().map(ImageRef::group);
    }
    Ok(list)
}

/// The images in [`scope`].
pub(crate) fn images_in_scope(group: &Arc<LoadGroup>) -> Result<Vec<ImageRef>, Error> {
    images(scope(group)?)
}

/// The images among a loaded library and the libraries that it needs.
pub(crate) fn images_needed(first: Provider) -> Result<Vec<ImageRef>, Error> {
    images(searchlist(first)?)
}

fn images(list: Vec<Provider>) -> Result<Vec<ImageRef>, Error> {
    let of_image = |provider| match provider {
        Provider::Image(image) => Some(image),
        Provider::Member(_) | Provider::Host(_) => None,
    };
    Ok(try_collect(list.into_iter().filter_map(of_image))?)
}

/// A loaded library and the libraries that it needs, breadth first, each once, and filtees before their
/// filters.
pub(crate) fn searchlist(first: Provider) -> Result<Vec<Provider>, Error> {
    breadth_first(first, |_| Ok(Needs::default()), |_| true)
}

/// A library and the libraries that it needs and that `wanted` accepts, breadth first, each once. `own`
/// returns the needs of members of the group that is being loaded.
///
/// Filtees come just before their filter, where they are not earlier (glibc's `_dl_map_object_deps`), and
/// then their needs are next.
pub(crate) fn breadth_first(
    first: Provider,
    own: impl Fn(usize) -> Result<Needs, Error>,
    wanted: impl Fn(&Provider) -> bool,
) -> Result<Vec<Provider>, Error> {
    let mut list = try_vec(1)?;
    list.push(first);
    let mut filters: Vec<Provider> = Vec::new();
    // All before the index have had their turn, and the filters, which may lie behind it.
    let mut index: usize = 0;
    while let Some(provider) = list.get(index) {
        require_memory_for_next(index)?;
        if !filters.is_empty() && is_among(provider, &filters) {
            index = index.saturating_add(1);
            continue;
        }
        let Needs { needed, filtees } = provider.needs(&own)?;
        let filter = (!filtees.is_empty()).then(|| provider.clone());
        let is_filtee = |it: &Provider| !filtees.is_empty() && is_among(it, &filtees);
        let mut needed = needed.into_iter().filter(|it| wanted(it) && !is_filtee(it));
        needed.try_for_each(|provider| push_new(&mut list, provider))?;
        match filter {
            None => index = index.saturating_add(1),
            Some(filter) => {
                filters.try_push(filter)?;
                insert_filtees(&mut list, index, filtees.into_iter().filter(&wanted))?;
            }
        }
    }
    Ok(list)
}

/// Puts the filtees of the library at `index` before it, unless they are earlier.
fn insert_filtees(
    list: &mut Vec<Provider>,
    index: usize,
    filtees: impl Iterator<Item = Provider>,
) -> Result<(), Error> {
    let mut index = index;
    for filtee in filtees {
        match list.iter().position(|known| known.is(&filtee)) {
            Some(known) if known <= index => continue,
            Some(known) => drop(list.remove(known)),
            None => {}
        }
        list.try_push(filtee)?;
        // Filtees stay in their order.
        if let Some(behind) = list.get_mut(index..) {
            behind.rotate_right(1);
        }
        index = index.saturating_add(1);
    }
    Ok(())
}

fn is_among(provider: &Provider, list: &[Provider]) -> bool {
    list.iter().any(|known| known.is(provider))
}

fn push_new(list: &mut Vec<Provider>, provider: Provider) -> Result<(), Error> {
    if is_among(&provider, list) { Ok(()) } else { Ok(list.try_push(provider)?) }
}
