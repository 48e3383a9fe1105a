//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) break clib.c:leaf
(gdb) break -function leaf -source clib.c
(gdb) break -qualified leaf
(gdb) break -line 24 -source clib.c
(gdb) tbreak clib.c:compare
(gdb) run
Temporary breakpoint 5, compare (
(gdb) info breakpoints
1       breakpoint     keep y   0xADDRESS in leaf at clib.c:
2       breakpoint     keep y   0xADDRESS in leaf at clib.c:
3       breakpoint     keep y   0xADDRESS in leaf at clib.c:
4       breakpoint     keep y   0xADDRESS in leaf at clib.c:24
(gdb) continue
Breakpoint 1, leaf (
