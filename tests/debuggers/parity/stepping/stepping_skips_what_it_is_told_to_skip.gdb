//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) skip function leaf
(gdb) break {middle}
(gdb) run
(gdb) step
for (int i = 0;
(gdb) info skip
leaf
