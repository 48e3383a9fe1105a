//!

pub(crate) mod needed;
pub(crate) mod prelink;
pub(crate) mod relocate;
pub(crate) mod scope;
