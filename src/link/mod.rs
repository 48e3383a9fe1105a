//! Which libraries an image needs, what each of its references is bound to, and what that stores.

pub(crate) mod needed;
pub(crate) mod prelink;
pub(crate) mod relocate;
pub(crate) mod scope;
