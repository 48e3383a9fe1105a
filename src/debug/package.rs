//! Joining a package of split DWARF with an image, on a thread of its own.
//!
//! How they are joined is in [`memdl_symfile::builder::dwp`], which needs a deep stack and may panic where gimli's writer
//! asserts what hostile bytes can break. So it runs on a thread with that stack, and its panic becomes an
//! error. This file never reads a package.

#![forbid(unsafe_code)]

use std::io;
use std::thread;

use crate::base::fallible::check_room;
use memdl_symfile::Limits as Maximum;
use memdl_symfile::builder::dwp::{self, NotJoined};

/// The image's file, with the DWARF of `package` in the place of its skeletons.
pub(crate) fn join(image: &[u8], package: &[u8], most: Maximum) -> Result<Vec<u8>, NotJoined> {
    // The standard library aborts where a new thread has its stack and then finds no memory for signals'.
    check_room(dwp::STACK).map_err(|_| NotJoined::NoThread(io::ErrorKind::OutOfMemory.into()))?;
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("memdl-join".to_owned()).stack_size(dwp::STACK);
        let thread = thread
            .spawn_scoped(scope, || dwp::join(image, package, most))
            .map_err(NotJoined::NoThread)?;
        thread.join().unwrap_or(Err(NotJoined::TooMuch))
    })
}
