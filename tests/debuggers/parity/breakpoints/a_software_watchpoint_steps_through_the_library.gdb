//# source: clib.c
//# builds: gcc_o0_dwarf5

(gdb) break {leaf}
(gdb) run
(gdb) set can-use-hw-watchpoints 0
(gdb) set scheduler-locking on
(gdb) watch lib_static
Watchpoint 2: lib_static
(gdb) continue
Watchpoint 2: lib_static
Old value = 9
New value =
leaf (a=0, b=1) at clib.c:
