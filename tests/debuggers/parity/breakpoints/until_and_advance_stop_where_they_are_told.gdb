//# source: clib.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4

(gdb) break middle
(gdb) run
Breakpoint 1, middle (n=5
(gdb) advance {leaf}
leaf (a=0, b=1) at {leaf}
(gdb) up
middle (n=5
(gdb) down
(gdb) until {middle}
middle (n=5
at {middle}
(gdb) advance {entry}
entry (n=5) at {entry}
