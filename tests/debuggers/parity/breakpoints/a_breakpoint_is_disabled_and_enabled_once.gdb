//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) break leaf
(gdb) disable 1
(gdb) tbreak compare
(gdb) run
Temporary breakpoint 2, compare (
(gdb) enable once 1
(gdb) continue
Breakpoint 1, leaf (a=0, b=1) at clib.c:
(gdb) info breakpoints
breakpoint     dis  n   0xADDRESS in leaf at clib.c:
(gdb) continue
exited normally
