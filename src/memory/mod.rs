//! Memory of images: reserved, filled, protected, kept for the next image. The only folder that maps,
//! unmaps and protects memory: a test holds that.
//!
//! * From the kernel: [`reservation`], [`cow_image`] (pages at several addresses), [`mapped_file`], [`relro`]
//!   (data of objects that `ld.so` loaded), [`process_memory`] (whatever else is mapped), [`retry`] (calls
//!   that the kernel refused).
//! * Kept: [`cache`] (for the next image), [`wipe`] (contents), [`quarantine`] (addresses), [`scratch`].
//! * Of an image: [`buffer`] and [`bytes`] (its file), [`mapping`] (filling, and all access), [`contents`] (what is
//!   written again in memory of an image that had the same bytes),
//!   [`in_place`] and [`shared_text`] (two ways to fill), [`stage`] (its life), [`protect`],
//!   [`executable`] (code where the system does not let memory become executable).

pub(crate) mod buffer;
pub(crate) mod bytes;
pub(crate) mod cache;
pub(crate) mod contents;
pub(crate) mod cow_image;
mod executable;
pub(crate) mod in_place;
mod layout;
pub(crate) mod mapped_file;
pub(crate) mod mapping;
pub(crate) mod process_memory;
pub(crate) mod protect;
pub(crate) mod quarantine;
pub(crate) mod relro;
pub(crate) mod reservation;
pub(crate) mod retry;
pub(crate) mod scratch;
pub(crate) mod shared_text;
pub(crate) mod stage;
pub(crate) mod wipe;
