//# source: records.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4

(gdb) break {total}
(gdb) run
(gdb) watch -location of->matrix[1][2]
Hardware watchpoint 2: -location of->matrix[1][2]
(gdb) watch -location calls
(gdb) delete 1
(gdb) continue
Hardware watchpoint 3: -location calls
Old value = 0
New value = 1
(gdb) info watchpoints
hw watchpoint
(gdb) print first.matrix[1][2] = 60
(gdb) delete 2
(gdb) delete 3
(gdb) continue
exited normally
