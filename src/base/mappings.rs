//! The limit of the number of mappings: `vm.max_map_count`.
//!
//! A process of many images reaches it long before memory is short. The system says `ENOMEM` all the same.
//!
//! Source: `Documentation/admin-guide/sysctl/vm.rst` of Linux.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

/// A process with as many mappings as it may have.
pub(super) struct AtLimit {
    mappings: usize,
    limit: usize,
}

/// How far below the limit a call can fail: one may need several mappings, and those of other threads come and go.
const NEAR: usize = 16;

/// Whether a system call failed with this error because of the limit. Only an error that may be one of it costs
/// anything. Allocates nothing.
pub(super) fn at_limit(error: &io::Error) -> Option<AtLimit> {
    if error.raw_os_error() != Some(libc::ENOMEM) {
        return None;
    }
    let limit = number("/proc/sys/vm/max_map_count")?;
    let mappings = lines("/proc/self/maps")?;
    (mappings.saturating_add(NEAR) >= limit).then_some(AtLimit { mappings, limit })
}

impl fmt::Display for AtLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AtLimit { mappings, limit } = self;
        write!(
            f,
            " (the process has {mappings} mappings, and vm.max_map_count permits {limit}: raise it with \
             `sysctl -w vm.max_map_count={}`, or keep fewer images, as a pool of instances does)",
            limit.saturating_mul(4)
        )
    }
}

/// The number that a file consists of.
fn number(path: &str) -> Option<usize> {
    let mut text = [0; 32];
    let len = File::open(path).ok()?.read(&mut text).ok()?;
    str::from_utf8(text.get(..len)?).ok()?.trim().parse().ok()
}

/// The number of lines of a file.
fn lines(path: &str) -> Option<usize> {
    let mut file = File::open(path).ok()?;
    let mut text = [0; 4096];
    let mut count = 0usize;
    loop {
        let read = match file.read(&mut text) {
            Ok(0) => return Some(count),
            Ok(len) => text.get(..len)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        count = count.saturating_add(read.iter().filter(|&&byte| byte == b'\n').count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_errors_and_other_shortages_are_not_explained() {
        let error = |number| at_limit(&io::Error::from_raw_os_error(number)).is_some();
        assert!(!error(libc::EPERM) && !error(libc::ENOMEM));
        assert!(lines("/proc/self/maps").unwrap() > 10);
        assert!(number("/proc/sys/vm/max_map_count").unwrap() > 100);
        assert_eq!((number("/proc/self/maps"), lines("/nowhere")), (None, None));
    }

    #[test]
    fn the_text_names_the_limit_and_its_cures() {
        let text = AtLimit { mappings: 65_530, limit: 65_530 }.to_string();
        for part in [
            "65530 mappings",
            "vm.max_map_count permits",
            "sysctl -w vm.max_map_count=262120",
            "pool",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
