//! What `dlsym` finds: a symbol of a library that is in place, or of what it needs.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::Arc;

use crate::group::{Group, Provider};
use crate::host::{GlobalScope, SymbolValue};
use crate::symbol::{Class, SymbolName, Wanted};
use crate::unique;

/// The address of a symbol of an image, or else of what it needs, breadth first.
#[inline]
pub(crate) fn in_library(
    group: &Arc<Group>,
    index: usize,
    name: &SymbolName<'_>,
    wanted: Wanted<'_>,
) -> Option<*mut c_void> {
    // Nearly always it is the image's own: nothing is allocated for it.
    in_image(group, index, name, wanted).or_else(|| {
        let list = searchlist(Provider::Loaded(group.clone(), index));
        in_list(list.get(1..)?, name, wanted)
    })
}

/// The address of a symbol of the first of these that defines it.
pub(crate) fn in_list(
    list: &[Provider],
    name: &SymbolName<'_>,
    wanted: Wanted<'_>,
) -> Option<*mut c_void> {
    list.iter().find_map(|provider| match provider {
        Provider::Loaded(group, index) => in_image(group, *index, name, wanted),
        Provider::Host(library) => {
            let found = library.lookup(name, wanted, Class::Address)?;
            // SAFETY: a value of the library's own symbol, and the library is held.
            Some(unsafe { address_of(found.definition) })
        }
        Provider::Member(_) => None,
    })
}

#[inline]
fn in_image(
    group: &Arc<Group>,
    index: usize,
    name: &SymbolName<'_>,
    wanted: Wanted<'_>,
) -> Option<*mut c_void> {
    let loaded = group.member(index);
    let (_, symbol) = loaded.symbols().lookup(name, wanted, Class::Definition)?;
    let the_only = if symbol.is_unique() { unique_value(group, index, name) } else { None };
    let value = the_only.unwrap_or_else(|| loaded.value(&symbol));
    // SAFETY: a value of the image's own symbol, or of the library's that has the one definition;
    // both are in place.
    Some(unsafe { address_of(value) })
}

/// The one definition of a unique symbol, where that is another library's: as references of the
/// image are bound.
fn unique_value(group: &Arc<Group>, index: usize, name: &SymbolName<'_>) -> Option<SymbolValue> {
    let list = searchlist(Provider::Loaded(group.clone(), index));
    let of_host = list.iter().find_map(|provider| match provider {
        Provider::Host(library) => Some(library.unique(name)?.definition),
        Provider::Member(_) | Provider::Loaded(..) => None,
    });
    let of_image = || {
        let (group, index, symbol) = unique::definition(name.bytes())?;
        Some(group.member(index).value(&symbol))
    };
    let elsewhere = || Some(GlobalScope::new().unique(name)?.0.definition);
    of_host.or_else(of_image).or_else(elsewhere)
}

/// The address that a symbol's value means for the calling thread.
///
/// # Safety
/// The value is that of a symbol of a library that is in place.
pub(crate) unsafe fn address_of(value: SymbolValue) -> *mut c_void {
    match value {
        SymbolValue::Address(address) => address as *mut c_void,
        // SAFETY: the caller's promise: the module is loaded, and the offset lies in its block.
        SymbolValue::ThreadLocal { module, offset } => unsafe { module.address(offset) },
    }
}

/// What an image of this group sees besides the host: the group's first member and all that it
/// needs, then the same of the image that opened it, and so on.
pub(crate) fn scope(group: &Arc<Group>) -> Vec<Provider> {
    let mut list = Vec::new();
    let mut next = Some(group);
    while let Some(group) = next {
        let more = searchlist(Provider::Loaded(group.clone(), 0));
        more.into_iter().for_each(|provider| push_new(&mut list, provider));
        next = group.enclosing().map(|(enclosing, _)| enclosing);
    }
    list
}

/// The images in [`scope`].
pub(crate) fn images_in_scope(group: &Arc<Group>) -> Vec<(Arc<Group>, usize)> {
    images(scope(group))
}

/// The images among a library that is in place and all that it needs.
pub(crate) fn images_needed(first: Provider) -> Vec<(Arc<Group>, usize)> {
    images(searchlist(first))
}

fn images(list: Vec<Provider>) -> Vec<(Arc<Group>, usize)> {
    let of_image = |provider| match provider {
        Provider::Loaded(group, index) => Some((group, index)),
        Provider::Member(_) | Provider::Host(_) => None,
    };
    list.into_iter().filter_map(of_image).collect()
}

/// A library that is in place and all that it needs, breadth first, each once.
pub(crate) fn searchlist(first: Provider) -> Vec<Provider> {
    breadth_first(first, |_| Vec::new(), |_| true)
}

/// A library and all that it needs and `wanted` says, breadth first, each once. `own` tells what
/// members of a group at hand need.
pub(crate) fn breadth_first(
    first: Provider,
    own: impl Fn(usize) -> Vec<Provider>,
    wanted: impl Fn(&Provider) -> bool,
) -> Vec<Provider> {
    let mut list = vec![first];
    let mut index = 0;
    while let Some(provider) = list.get(index) {
        let needed = provider.needed(&own);
        needed.into_iter().filter(&wanted).for_each(|provider| push_new(&mut list, provider));
        index += 1;
    }
    list
}

fn push_new(list: &mut Vec<Provider>, provider: Provider) {
    if !list.iter().any(|known| known.is(&provider)) {
        list.push(provider);
    }
}
