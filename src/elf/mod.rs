//! What a file says.

pub(crate) mod dynamic;
pub(crate) mod eh_frame;
pub(crate) mod image;
pub(crate) mod name_filter;
pub(crate) mod plan;
pub(crate) mod rela;
pub(crate) mod symbol;
