//# source: processes.c
//# builds: gcc_o0_dwarf5

(gdb) set detach-on-fork off
(gdb) break in_child
(gdb) break in_parent
(gdb) run
in_parent (child=
(gdb) info inferiors
* 1
2
(gdb) inferior 2
(gdb) continue
in_child (n=5) at processes.c:
(gdb) print generation
= 0
(gdb) info breakpoints
<MULTIPLE>
inf 1
inf 2
(gdb) continue
exited with code 06
(gdb) thread 1.2
(gdb) finish
Value returned is $2 = 6
