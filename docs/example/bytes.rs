// The bytes of `libexample.so`.
include!("compile.rs")("example", "")
