//! The list of images whose exports all later images see.
//!
//! A fleet of such images is as long as one likes, and each load asks for names that none of them has. So a filter
//! over all names ends most searches. Another filter for each [`BLOCK`] of images spares most of the rest: what is
//! searched is those images whose block may have the name. Both hold the names of exports, and those that images are
//! needed by.
//!
//! The registry's lock guards it. Reads tables of images, and runs no code of them.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory, try_collect};
use crate::elf::name_filter::{ChangingFilter, NameFilter};
use crate::elf::symbol::SymbolName;
use crate::images::group::LoadedImage;

/// The number of images of a block.
const BLOCK: usize = 32;

/// The images, each as an `I` that leads to it.
pub(super) struct GlobalList<I> {
    /// In the order in which the images became global. None but the last is empty.
    blocks: Vec<Block<I>>,
    /// All names. `None` until there is an image.
    names: Option<ChangingFilter>,
    /// The number of these names, without those of images that are gone.
    count: usize,
    /// The place of each image in the order, by the number of its group and its index.
    places: BTreeMap<(u64, usize), u64>,
    /// The place of the next image.
    next: u64,
}

struct Block<I> {
    /// With their places, which ascend, and the numbers of their names.
    images: Vec<(u64, I, usize)>,
    names: ChangingFilter,
}

/// What leads to an image that is entered in the registry.
pub(super) trait Lead {
    fn image(&self) -> &LoadedImage;
}

impl<I: Lead> GlobalList<I> {
    pub(super) const fn new() -> GlobalList<I> {
        GlobalList { blocks: Vec::new(), names: None, count: 0, places: BTreeMap::new(), next: 0 }
    }

    /// Whether a name that is not in them is surely not that of an export or of an image; `None` if there is no
    /// image.
    pub(super) fn names(&self) -> Option<&Arc<NameFilter>> {
        self.names.as_ref().filter(|_| !self.places.is_empty()).map(ChangingFilter::names)
    }

    /// All images.
    pub(super) fn iter(&self) -> impl Iterator<Item = &I> {
        self.blocks.iter().flat_map(|block| &block.images).map(|(_, image, _)| image)
    }

    /// The number of images.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The first image at this place or behind it whose names may have this hash, and for which `find` finds
    /// something; with its place.
    pub(super) fn find<T>(
        &self,
        from: u64,
        gnu_hash_31: u32,
        mut find: impl FnMut(&I) -> Option<T>,
    ) -> Option<(u64, T)> {
        if !self.names()?.may_have(gnu_hash_31) {
            return None;
        }
        let may_have = |block: &&Block<I>| block.names.names().may_have(gnu_hash_31);
        let images = self.blocks.iter().filter(may_have).flat_map(|block| &block.images);
        images
            .filter(|(place, ..)| *place >= from)
            .find_map(|(place, image, _)| Some((*place, find(image)?)))
    }

    /// Adds the image of this index of a group, if it is not there.
    pub(super) fn add(&mut self, group: u64, index: usize, image: I) -> Result<(), Error> {
        if self.places.contains_key(&(group, index)) {
            return Ok(());
        }
        require_memory()?;
        let hashes = hashes(image.image())?;
        self.make_room(hashes.len())?;
        if self.blocks.last().is_none_or(|last| last.images.len() >= BLOCK) {
            self.blocks.try_push(Block { images: Vec::new(), names: ChangingFilter::new(0)? })?;
        }
        if let (Some(block), Some(names)) = (self.blocks.last_mut(), &mut self.names) {
            block.make_room(hashes.len())?;
            block.images.try_room(1)?;
            // Names of an image that is not there do no harm.
            block.names.add(&hashes)?;
            names.add(&hashes)?;
            block.images.push((self.next, image, hashes.len()));
        }
        self.places.insert((group, index), self.next);
        self.next = self.next.wrapping_add(1);
        self.count = self.count.saturating_add(hashes.len());
        Ok(())
    }

    /// Makes room for so many more names.
    fn make_room(&mut self, more: usize) -> Result<(), Error> {
        if self.names.as_ref().is_some_and(|names| names.has_room(more)) {
            return Ok(());
        }
        let mut names = ChangingFilter::new(self.count.saturating_add(more))?;
        self.iter().try_for_each(|image| names.add(&hashes(image.image())?))?;
        self.names = Some(names);
        Ok(())
    }

    /// Removes the images of a group.
    pub(super) fn remove(&mut self, group: u64) {
        if self.places.is_empty() {
            return;
        }
        while let Some((&key, &place)) = self.places.range((group, 0)..=(group, usize::MAX)).next()
        {
            self.places.remove(&key);
            let is_before = |block: &Block<I>| block.images.last().is_some_and(|it| it.0 < place);
            let at = self.blocks.partition_point(is_before);
            let Some(block) = self.blocks.get_mut(at) else { continue };
            if let Ok(index) = block.images.binary_search_by_key(&place, |it| it.0) {
                let (_, _, names) = block.images.remove(index);
                self.count = self.count.saturating_sub(names);
            }
            if block.images.is_empty() {
                self.blocks.remove(at);
            }
        }
    }
}

impl<I: Lead> Block<I> {
    /// As [`GlobalList::make_room`].
    fn make_room(&mut self, more: usize) -> Result<(), Error> {
        if self.names.has_room(more) {
            return Ok(());
        }
        let known: usize = self.images.iter().map(|(_, _, names)| names).sum();
        let mut names = ChangingFilter::new(known.saturating_add(more))?;
        self.images.iter().try_for_each(|(_, image, _)| names.add(&hashes(image.image())?))?;
        self.names = names;
        Ok(())
    }
}

/// The hashes of the names of an image's exports, and of the names that it is needed by.
fn hashes(image: &LoadedImage) -> Result<Vec<u32>, Error> {
    let own = image.names().map(|name| SymbolName::new(name).gnu_hash_31());
    let table = image.symbols();
    Ok(try_collect(table.gnu_hashes_31().chain(own))?)
}
