//! When it pays off to ask the processor for its features.

#![forbid(unsafe_code)]

/// From this many bytes on, an algorithm is faster that first asks the processor for its features. In virtual machines the
/// first request in a process takes 30 us: each `CPUID` leaves the machine.
pub const MIN_FOR_FEATURES: usize = 1 << 17;
