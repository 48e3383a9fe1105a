//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) break leaf
(gdb) run
(gdb) delete
(gdb) continue
exited normally
(gdb) tbreak leaf
(dlopen) Temporary breakpoint 2 at 0xADDRESS: file clib.c, line
(memdl) Temporary breakpoint 2 (leaf) pending.
