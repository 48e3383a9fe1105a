//# source: clib.c
//# builds: gcc_o0_dwarf4

(gdb) break leaf
(gdb) run
(gdb) awatch lib_static
Hardware access (read/write) watchpoint 2: lib_static
(gdb) delete 1
(gdb) continue
Value = 9
leaf (a=0, b=1) at clib.c:
(gdb) continue
Old value = 9
New value =
