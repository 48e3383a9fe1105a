//!

pub(crate) mod buffer;
pub(crate) mod map;
pub(crate) mod reserve;
