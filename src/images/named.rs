//! Images by name and by file, and the scopes of those that were loaded later, in a namespace.

#![forbid(unsafe_code)]

use std::path::Path;
use std::ptr;
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::host::library::HostLibrary;
use crate::host::search::FileId;
use crate::images::dlsym;
use crate::images::group::{ImageRef, LoadGroup, LoadedImage, Provider};
use crate::images::namespace::Namespace;

/// The image that a `DT_NEEDED` entry of this name means.
pub(crate) fn named(
    namespace: &Namespace<LoadGroup>,
    name: &[u8],
) -> Result<Option<ImageRef>, Error> {
    find(namespace, |image| image.is_called(name))
}

/// The image of this file.
pub(crate) fn of_file(
    namespace: &Namespace<LoadGroup>,
    file: FileId,
) -> Result<Option<ImageRef>, Error> {
    find(namespace, |image| is_of_file(image, file))
}

/// The libraries that were loaded later, and that a group's references are searched in where nothing else
/// defines them: `ld.so` adds the searchlist of each library that is opened to the scopes of those in it that
/// are there already.
pub(crate) fn later_scopes(group: &LoadGroup) -> Result<Vec<Provider>, Error> {
    let is_of_group =
        |it: &Provider| matches!(it, Provider::Image(image) if ptr::eq(&**image.group(), group));
    let mut later = Vec::new();
    let Some(namespace) = group.shared_namespace() else { return Ok(later) };
    for other in namespace.groups()? {
        if ptr::eq(&*other, group) {
            continue;
        }
        let list = dlsym::searchlist(Provider::Image(ImageRef::new(other, 0)))?;
        if list.iter().any(is_of_group) {
            later.try_extend(list)?;
        }
    }
    Ok(later)
}

/// The library of `ld.so`'s that an image needs under this name, if that is the name of its file and not its
/// `DT_SONAME`: `ld.so` knows such a name only of libraries that it was asked for by it, and images are given
/// the path.
pub(crate) fn host_library(
    namespace: &Namespace<LoadGroup>,
    name: &[u8],
) -> Result<Option<Arc<HostLibrary>>, Error> {
    let is_it = |library: &HostLibrary| library.is_file(name) && !library.has_soname(name);
    Ok(namespace.groups()?.iter().find_map(|group| {
        let needed = (0..group.len()).flat_map(|index| &group.member(index).needed);
        let mut hosts = needed.filter_map(|provider| match provider {
            Provider::Host(library) => Some(library),
            Provider::Member(_) | Provider::Image(_) => None,
        });
        hosts.find(|library| is_it(library)).cloned()
    }))
}

fn find(
    namespace: &Namespace<LoadGroup>,
    is_it: impl Fn(&LoadedImage) -> bool,
) -> Result<Option<ImageRef>, Error> {
    Ok(namespace.groups()?.into_iter().find_map(|group| {
        let index = (0..group.len()).find(|&index| is_it(group.member(index)))?;
        Some(ImageRef::new(group, index))
    }))
}

/// Whether an image was read from this file, or is named by the path of this file.
fn is_of_file(image: &LoadedImage, file: FileId) -> bool {
    let path = Path::new(&*image.name);
    let named = || FileId::of(path.is_absolute().then_some(path)?);
    image.file.or_else(named) == Some(file)
}
