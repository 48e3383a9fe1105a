//! Memory of images: reserved, filled, protected, kept for the next image. Nothing else calls `mmap`.

pub(crate) mod buffer;
pub(crate) mod bytes;
pub(crate) mod map;
pub(crate) mod reserve;
