//! What the builder shares with memdl: addresses, fallible allocation, memory being filled.

pub mod addr;
pub mod fallible;
pub mod filler;
pub mod room;
