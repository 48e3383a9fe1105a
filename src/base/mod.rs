//! What everything else is built on. Imports nothing of this crate.

#[macro_use]
pub(crate) mod escape;
pub(crate) mod addr;
pub(crate) mod environment;
pub(crate) mod error;
pub(crate) mod fallible;
pub(crate) mod left_right;
pub(crate) mod limits;
pub(crate) mod promise;
pub(crate) mod shared;
pub(crate) mod sync;
