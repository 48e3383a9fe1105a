//# source: processes.c
//# builds: gcc_o0_dwarf4

(gdb) catch fork
(gdb) break in_child
(gdb) break in_parent
(gdb) run
Catchpoint 1 (forked process
(gdb) continue
in_parent (child=
(gdb) finish
Value returned is $1 = 6
