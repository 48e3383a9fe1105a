//# source: records.c
//# builds: gcc_o2_dwarf5 clang_o2_dwarf4 clang_o2_dwarf5

(gdb) break {sum}
(gdb) run
(gdb) info locals
(gdb) info args
(gdb) bt 2
total (of=
(gdb) print of
(gdb) print by
(gdb) print calls
= 1
(gdb) up
(gdb) info locals
(gdb) continue
exited normally
