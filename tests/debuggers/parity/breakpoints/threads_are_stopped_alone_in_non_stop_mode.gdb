//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) set non-stop on
(gdb) break leaf
(gdb) run
(gdb) thread 2
leaf (a=0, b=1) at clib.c:
(gdb) next
(gdb) bt 2
middle (n=5
(gdb) info threads
(running)
leaf (a=0, b=1) at clib.c:
(gdb) kill
