//! A server that receives shared libraries over the network and runs functions of them with memdl, and its client.
//!
//! Read it in this order: [`protocol`] (what travels), [`server`] (what becomes of it), `run` (how a library is
//! called), then one of the two ways to do that: `pool` (in this process) or `fork` (in a process of its own).

#![deny(unsafe_code)]
// Bytes are hostile: an operation that can panic or wrap has a form that says what happens then.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod arguments;
pub mod auth;
mod cache;
pub mod client;
mod fork;
mod library;
pub mod load;
mod metrics;
mod permits;
mod policy;
mod pool;
pub mod protocol;
mod run;
pub mod server;
mod signals;
mod stream;

pub use policy::{public_key, sign};

/// An error of a command, for its user to read.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Says what was being done when an error came.
pub(crate) trait Context<T> {
    /// The error, after the text and a colon.
    fn context(self, doing: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| format!("{}: {error}", doing()).into())
    }
}
