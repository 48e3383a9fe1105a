//! What the builder shares with memdl: addresses, what reads by them, fallible allocation, memory being
//! filled.

pub mod addr;
pub mod build_id;
pub mod fallible;
pub mod features;
pub mod filler;
pub mod limits;
pub mod read;
pub mod room;
