//! A Rust library with what the standard library brings along.

use std::collections::BTreeMap;

/// Sums through a map and a string, so that the standard library is in it.
#[unsafe(no_mangle)]
pub extern "C" fn rust_sum(count: u32) -> u32 {
    let squares: BTreeMap<String, u32> = (0..count % 8).map(|n| (n.to_string(), n * n)).collect();
    squares.values().sum()
}
