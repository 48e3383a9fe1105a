//! The targets for libFuzzer: see README.md.

pub mod mutate;
pub mod targets;

pub use libfuzzer_sys;

/// One target of [`targets`], with the mutator of [`mutate`] for its inputs, if there is one.
#[macro_export]
macro_rules! target {
    ($target:ident $(, $kind:ident)?) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::targets::$target(data));
        $($crate::libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            let flat = $crate::libfuzzer_sys::fuzzer_mutate;
            $crate::mutate::$kind(data, size, max_size, seed, &mut |data, size, max| flat(data, size, max))
        });)?
    };
}
