//# source: clib.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4

(gdb) break {middle}
(gdb) run
(gdb) watch sum
Hardware watchpoint 2: sum
(gdb) delete 1
(gdb) continue
Old value = 0
(gdb) watch i if i == 4
(gdb) delete 2
(gdb) continue
Hardware watchpoint 3: i
Old value = 3
New value = 4
(gdb) condition 3
(gdb) continue
Hardware watchpoint 3: i
New value = 5
(gdb) continue
Watchpoint 3 deleted because the program has left the block in
which its expression is valid.
entry (n=5) at {entry}
