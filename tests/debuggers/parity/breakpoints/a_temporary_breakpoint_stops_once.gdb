//# source: clib.c
//# builds: gcc_o0_dwarf5 clang_o2_dwarf4

(gdb) tbreak leaf
(leaf) pending.
(gdb) run
Temporary breakpoint 1, leaf (a=
b=1) at clib.c:
(gdb) info breakpoints
No breakpoints or watchpoints.
(gdb) continue
[host] entry(5) = 514
exited normally
