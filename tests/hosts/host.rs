//! A program that loads a library with memdl, twice, and calls it. It shows what is logged.

use std::ffi::c_int;
use std::{env, fs};

struct Shown;

impl log::Log for Shown {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

fn main() {
    log::set_logger(&Shown).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let bytes = fs::read(env::args().nth(1).unwrap()).unwrap();
    // SAFETY: the test's own library.
    let library = unsafe { memdl::Library::from_bytes(&bytes) }.unwrap();
    // SAFETY: that is its type.
    let entry = unsafe { library.get::<unsafe extern "C" fn(c_int) -> c_int>("entry") }.unwrap();
    // SAFETY: it takes any number up to eight.
    println!("entry(5) = {}", unsafe { entry(5) });
    if env::args().nth(2).is_some() {
        // SAFETY: as above.
        unsafe { memdl::Library::from_bytes(&bytes) }.unwrap();
    }
}
