//# source: clib.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4

(gdb) break leaf
(gdb) run
(gdb) return 1000
(gdb) frame
#0  0xADDRESS in middle (n=5
(gdb) next
(gdb) print sum
= 1000
(gdb) delete
(gdb) continue
exited normally
