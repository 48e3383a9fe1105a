//! A program that loads a library with memdl and calls it.

use std::ffi::c_int;
use std::{env, fs};

fn main() {
    let bytes = fs::read(env::args().nth(1).unwrap()).unwrap();
    // SAFETY: the test's own library.
    let library = unsafe { memdl::Library::from_bytes(&bytes) }.unwrap();
    // SAFETY: that is its type.
    let entry = unsafe { library.get::<unsafe extern "C" fn(c_int) -> c_int>("entry") }.unwrap();
    // SAFETY: it takes any number up to eight.
    println!("entry(5) = {}", unsafe { entry(5) });
}
