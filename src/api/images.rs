//! A list of what is loaded, and counters: for operators, crash reporters and tools.
//!
//! The answers are made from what memdl has anyway when they are asked for. So a load counts nothing for them.
//! They own what they have, and hold no image.

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::api::kept_memory;
use crate::base::build_id::{BuildId, build_id};
use crate::base::error::Error;
use crate::base::escape::Escaped;
use crate::base::events;
use crate::base::fallible::{TryGrow, require_memory, require_memory_for_next};
use crate::debug::DebugLevel;
use crate::images::registry::{self, Entry};

/// An image that is loaded: an element of [`images`].
///
/// Its text (`Display`) is one line, as for a crash report: addresses, name, build-id.
#[derive(Clone, Debug)]
pub struct ImageInfo {
    name: Arc<str>,
    addresses: Range<usize>,
    load_bias: usize,
    build_id: Option<BuildId>,
    debug: DebugLevel,
    template: Option<u64>,
    load: u64,
    index: usize,
    holders: usize,
}

impl ImageInfo {
    fn of(entry: &Entry<'_>) -> ImageInfo {
        let Entry { image, load, index, holders } = *entry;
        ImageInfo {
            name: image.name.clone(),
            addresses: image.mapping.address_range(),
            load_bias: image.mapping.load_bias().get(),
            build_id: build_id(image.decoded.notes(&image.mapping)),
            debug: image.debug.debug(),
            template: image.template,
            load,
            index,
            holders,
        }
    }

    /// The name of the image in errors, debuggers and `/proc/self/maps`. It may come from its bytes.
    ///
    /// ```
    /// # let image = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/image.rs"));
    /// assert_eq!(image.name(), "libexample.so");
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The addresses from the image's first page to the end of its last one.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let image = memdl::images().remove(0);
    /// let counter = library.symbols().find(|symbol| symbol.name() == "foo_calls").unwrap();
    /// assert!(image.address_range().contains(&counter.address()));
    /// ```
    #[must_use]
    pub fn address_range(&self) -> Range<usize> {
        self.addresses.clone()
    }

    /// Run-time address minus the address that the file states.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let image = memdl::images().remove(0);
    /// assert_eq!(image.load_bias(), library.load_bias());
    /// ```
    #[must_use]
    pub fn load_bias(&self) -> usize {
        self.load_bias
    }

    /// The build-id, as `readelf -n` shows it: it identifies the file for symbolizers and debug servers. `None` if
    /// the image has none.
    ///
    /// ```
    /// # let image = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/image.rs"));
    /// // This one was linked with `--build-id=0x0123456789abcdef`.
    /// assert_eq!(image.build_id(), Some(&[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef][..]));
    /// ```
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_ref().map(BuildId::as_bytes)
    }

    /// How much debuggers saw of it.
    ///
    /// ```
    /// # let image = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/image.rs"));
    /// assert_eq!(image.debug(), memdl::DebugLevel::Full);
    /// ```
    #[must_use]
    pub fn debug(&self) -> DebugLevel {
        self.debug
    }

    /// The number of the template that it is an instance of ([`Template::id`](crate::Template::id)); `None` if it was
    /// loaded on its own. Idle instances of a pool are in the list, too.
    ///
    /// ```
    /// # let image = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/image.rs"));
    /// assert_eq!(image.template(), None); // `Library::from_bytes` has loaded it
    /// ```
    #[must_use]
    pub fn template(&self) -> Option<u64> {
        self.template
    }

    /// The number of the load that it came with, from 0 on. Images that were loaded together have the same one.
    ///
    /// ```
    /// # let image = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/image.rs"));
    /// assert_eq!(image.load(), 0); // it came with the first load of the process
    /// ```
    #[must_use]
    pub fn load(&self) -> u64 {
        self.load
    }

    /// How many hold the images of that load: [`Library`](crate::Library) values, pools, libraries that are bound to it,
    /// handles of `dlopen`, threads with destructors to run. 0 if it was being unloaded, and its
    /// destructors may have been running.
    ///
    /// ```
    /// # let image = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/image.rs"));
    /// assert_eq!(image.holders(), 1); // one `Library`
    /// ```
    #[must_use]
    pub fn holders(&self) -> usize {
        self.holders
    }
}

impl fmt::Display for ImageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.addresses;
        write!(f, "{start:#x}..{end:#x} {}", Escaped(&self.name))?;
        self.build_id.as_ref().map_or(Ok(()), |id| write!(f, " {id}"))
    }
}

/// All images that memdl has loaded, in the order of their loads: libraries, instances, what was loaded with
/// them, and what they opened by `dlopen`.
///
/// It is a snapshot. It holds no lock and no image: other threads may load and unload at once. It runs no
/// code of images. An image is in the list from just before its constructors run until its destructors have run.
/// A list that there is no memory for is empty.
///
/// In a signal handler this may never return: it waits for locks, which the interrupted thread may hold.
///
/// ```
/// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
/// for image in memdl::images() {
///     println!("{image}"); // "0x7f06a8c52000..0x7f06a8c57000 libexample.so 0123456789abcdef"
/// }
/// # assert!(memdl::images()[0].to_string().ends_with(" libexample.so 0123456789abcdef"));
/// # drop(library);
/// ```
#[must_use]
pub fn images() -> Vec<ImageInfo> {
    try_images().unwrap_or_default()
}

/// As [`images`]. The error is [`Error::OutOfMemory`].
pub(crate) fn try_images() -> Result<Vec<ImageInfo>, Error> {
    require_memory()?;
    let mut all = Vec::new();
    registry::visit(|entry| {
        require_memory_for_next(all.len())?;
        Ok(all.try_push(ImageInfo::of(&entry))?)
    })?;
    all.sort_unstable_by_key(|image| (image.load, image.index));
    Ok(all)
}

/// Counters: see [`statistics`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// The number of images that are loaded: the length of [`images`].
    pub images: usize,
    /// The address space of these images, in bytes: the sum of their address ranges.
    pub mapped_bytes: usize,
    /// How much of it is pages that an instance shares with other instances of its template
    /// ([`DebugLevel::Off`]), in bytes.
    pub shared_bytes: usize,
    /// Memory that is kept for further images, in bytes: what [`release_memory`](crate::release_memory) gives back.
    pub kept_bytes: usize,
    /// The number of loads since the process started, instances and libraries that images have opened by `dlopen`
    /// included. One load may bring several images.
    pub loads: u64,
    /// The number of these that were unloaded.
    pub unloads: u64,
    /// The number of loads that ended with an error, and of templates that could not be made.
    pub failures: u64,
}

/// What is loaded now, and what was since the process started. A child of `fork` goes on with its parent's numbers.
///
/// Calls that other threads make meanwhile may be counted in some of the numbers only. As [`images`], this is not
/// for signal handlers.
///
/// ```
/// let memdl::Statistics { images, kept_bytes, failures, .. } = memdl::statistics();
/// println!("{images} images, {} KiB kept, {failures} failures", kept_bytes / 1024);
/// # assert_eq!((images, kept_bytes, failures), (0, 0, 0));
/// ```
#[must_use]
pub fn statistics() -> Statistics {
    let mut statistics = Statistics {
        kept_bytes: kept_memory::kept_bytes(),
        loads: registry::loads(),
        unloads: registry::unloads(),
        failures: events::failures(),
        ..Statistics::default()
    };
    // Nothing that can fail.
    let _ = registry::visit(|Entry { image, .. }| {
        let add = |sum: &mut usize, more| *sum = sum.saturating_add(more);
        add(&mut statistics.images, 1);
        add(&mut statistics.mapped_bytes, image.mapping.address_range().len());
        add(&mut statistics.shared_bytes, image.mapping.shared_bytes());
        Ok(())
    });
    statistics
}
