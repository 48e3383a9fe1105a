//# source: clib.c
//# builds: gcc_o0_dwarf4 gcc_o2_dwarf5 clang_o0_dwarf5

(gdb) break leaf if a == 3
(gdb) break {middle} if i == 4
(gdb) run
Breakpoint 1, leaf (a=
b=4) at clib.c:
(gdb) print a
= 3
(gdb) condition 2 i == 2 + 2
(gdb) condition 1
(gdb) continue
Breakpoint 2, middle (n=
(gdb) info breakpoints
stop only if i == 2 + 2
(gdb) continue
Breakpoint 1, leaf (a=
(gdb) print b
= 5
