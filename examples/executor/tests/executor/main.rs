//! The executor as its users meet it: the program is started, and asked over its sockets.
//!
//! A process that a test starts ends with the test, or after a minute.

mod auth;
mod common;
mod fork;
mod operations;
mod pool;
mod protocol;
