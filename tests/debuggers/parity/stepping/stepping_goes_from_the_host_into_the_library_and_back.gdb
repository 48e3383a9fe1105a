//# source: clib.c
//# builds: gcc_o0_dwarf5 gcc_o0_dwarf4 clang_o0_dwarf5

(gdb) break {host}
(gdb) run
host_calls
(gdb) step
entry (n=5) at clib.c:
(gdb) next
(gdb) next
// MARK entry
(gdb) step
middle (n=5, values=0xADDRESS) at clib.c:
(gdb) finish
entry (n=5) at {entry}
Value returned is $1 = 513
(gdb) next
(gdb) next
(gdb) frame function debuggers::harness::host::host_calls
host_calls (
