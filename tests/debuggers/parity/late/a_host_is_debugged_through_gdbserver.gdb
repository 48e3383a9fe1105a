//# source: clib.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4
//# start: server

(gdb) break leaf
(gdb) continue
Breakpoint 1, leaf (
b=1) at clib.c:
(gdb) bt 4
host_calls
(gdb) watch lib_global
Hardware watchpoint 2: lib_global
(gdb) continue
Old value = 7
New value = 8
(gdb) info locals
(gdb) print middle(0, values)
(gdb) delete
(gdb) continue
exited normally
