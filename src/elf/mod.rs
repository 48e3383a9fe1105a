//! What the bytes of a file say. It takes bytes and gives validated values; it maps nothing, asks the
//! process nothing, and has no statics.

pub(crate) mod constants;
pub(crate) mod dynamic;
pub(crate) mod eh_frame;
pub(crate) mod image;
pub(crate) mod name_filter;
pub(crate) mod plan;
pub(crate) mod rela;
pub(crate) mod symbol;
