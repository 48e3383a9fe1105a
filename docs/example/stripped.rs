// The bytes of `libexample.so` without its debug information.
include!("compile.rs")("example", "-s")
