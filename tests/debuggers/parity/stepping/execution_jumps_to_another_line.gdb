//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) break {entry}
(gdb) run
(gdb) set var n = 0
(gdb) delete
(gdb) jump {entry}
[host] entry(5) = 1
exited normally
