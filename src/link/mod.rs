//! Linking: finds the libraries that an image needs, binds its references, and applies its relocations.

pub(crate) mod apply;
pub(crate) mod bind;
pub(crate) mod bound;
pub(crate) mod dry_run;
pub(crate) mod needed;
pub(crate) mod prelink;
pub(crate) mod scope;
