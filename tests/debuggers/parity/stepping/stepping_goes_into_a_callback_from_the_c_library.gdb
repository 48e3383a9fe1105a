//# source: clib.c
//# builds: gcc_o0_dwarf4 clang_o0_dwarf5

(gdb) break clib.c:entry
(gdb) run
Breakpoint 1, entry (n=5) at clib.c:
(gdb) tbreak compare
(gdb) next
(gdb) next
Temporary breakpoint 2, compare (
(gdb) bt -frame-info short-location
#0  compare (
qsort
entry (n=5)
host_calls
(gdb) finish
Value returned is $1 =
(gdb) info frame
called by frame at 0xADDRESS
