//! Systems that refuse, memory that ends, work without end: what happens at limits.
//!
//! A binary of its own, since this executable is not as others are: it interposes the calls by which memdl
//! asks the kernel for memory (`faults`), and its allocator counts and refuses (`allocator`).

#[path = "../common/mod.rs"]
mod common;

mod allocator;
mod faults;
mod oom;
mod symbolize_hostile;
