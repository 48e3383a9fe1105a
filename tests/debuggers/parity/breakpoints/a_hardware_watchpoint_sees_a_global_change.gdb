//# source: clib.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o2_dwarf5

(gdb) break {host}
(gdb) run
(gdb) set language c
(gdb) watch lib_global
Hardware watchpoint 2: lib_global
(gdb) rwatch lib_constructed
Hardware read watchpoint 3: lib_constructed
(gdb) continue
Hardware watchpoint 2: lib_global
Old value = 7
New value = 8
leaf (a=
(gdb) continue
Old value = 8
New value = 13
(gdb) info watchpoints
breakpoint already hit 2 times
(gdb) delete 2
(gdb) continue
exited normally
