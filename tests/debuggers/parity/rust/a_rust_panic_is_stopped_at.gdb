//# source: rusttypes.rs
//# builds: rustc_o0_dwarf4

(gdb) break std::panicking::rust_panic
(gdb) run
rust_panic
(gdb) bt
rusttypes::refuses (n=5) at {panics}
rusttypes::entry (n=5) at rusttypes.rs:
host_calls
(gdb) delete
(gdb) continue
exited normally
