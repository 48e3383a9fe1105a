//! Runs the inputs that fuzzing has kept (fuzz/corpus/): each reaches code that no other input reaches, or
//! failed once. None may panic, crash or hang. The right results for those that failed are in the tests of
//! the code that failed.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::targets;

/// The files in a `.tar.zst`.
fn unpacked(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut tar = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(archive).unwrap().read_to_end(&mut tar).unwrap();
    let mut files = Vec::new();
    let mut rest = &tar[..];
    while rest.len() >= 512 && rest[0] != 0 {
        let text = |range: std::ops::Range<usize>| {
            let field = rest[range].split(|byte| *byte == 0).next().unwrap();
            std::str::from_utf8(field).unwrap().trim()
        };
        let len = usize::from_str_radix(text(124..136), 8).unwrap();
        if matches!(rest[156], b'0' | 0) {
            files.push((text(0..100).to_owned(), rest[512..512 + len].to_vec()));
        }
        rest = &rest[512 + len.next_multiple_of(512)..];
    }
    files
}

/// Has the target take its inputs, of which there are at least so many.
fn replay(target: &str, least: usize, take: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let archive = corpus.join(format!("{target}.tar.zst"));
    let archive =
        fs::read(&archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    let inputs = unpacked(&archive);
    assert!(inputs.len() >= least, "{} inputs of {target}", inputs.len());
    let start = Instant::now();
    let mut slowest = (Duration::ZERO, "");
    for (name, input) in &inputs {
        // Where it does not come back from, its name is the last one told.
        println!("{target}/{name}");
        let start = Instant::now();
        take(input);
        slowest = slowest.max((start.elapsed(), name));
    }
    println!("{target}: {} inputs in {:?}, the slowest {slowest:?}", inputs.len(), start.elapsed());
}

macro_rules! replays {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target), 100, targets::$target);
        }
    )*};
}

replays! { parse load symfile dwarf pair inflate symbolize demangle }
