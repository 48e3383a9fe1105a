//# source: clib.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf5

(gdb) dprintf {leaf},"a is %d and %s\n", a, both.name
(gdb) run
a is 0 and pair
a is 4 and pair
[host] entry(5) = 514
exited normally
