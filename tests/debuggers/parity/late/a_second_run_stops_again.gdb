//# source: clib.c
//# builds: gcc_o0_dwarf5 clang_o2_dwarf4

(gdb) break leaf
(gdb) break {entry}
(gdb) run
Breakpoint 2, entry (
(gdb) run
Breakpoint 2, entry (
(gdb) continue
Breakpoint 1, leaf (
(gdb) kill
(gdb) run
Breakpoint 2, entry (
