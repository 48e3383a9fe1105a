//! The images that are loaded: load groups, how they are found by address or handle, what keeps them.

pub(crate) mod dl_handles;
pub(crate) mod dlsym;
pub(crate) mod events;
pub(crate) mod global;
pub(crate) mod global_list;
pub(crate) mod group;
pub(crate) mod idle;
pub(crate) mod libc_registrations;
pub(crate) mod lifecycle;
pub(crate) mod named;
pub(crate) mod namespace;
pub(crate) mod plt;
pub(crate) mod policy;
pub(crate) mod provider;
pub(crate) mod registry;
pub(crate) mod roots;
pub(crate) mod scope;
pub(crate) mod snapshot;
pub(crate) mod tenant;
pub(crate) mod thread_exit;
pub(crate) mod unique;
pub(crate) mod walk;
