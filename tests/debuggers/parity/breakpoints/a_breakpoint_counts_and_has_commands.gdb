//# source: clib.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4

(gdb) break leaf
(gdb) ignore 1 2
(gdb) run
Breakpoint 1, leaf (a=2, b=3) at clib.c:
(gdb) info breakpoints
breakpoint already hit 3 times
(gdb) python gdb.breakpoints()[0].commands = 'silent\nprint a * 100\ncontinue'
(gdb) continue
(>=11) = 300
(>=11) = 400
(>=11) exited normally
