// The bytes of `libdice.so`.
include!("compile.rs")("dice", "")
