//# source: processes.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4

(host) load a {LIBRARY}
(host) call a quiet 5
(gdb) set follow-fork-mode child
(gdb) break in_child
(gdb) run
in_child (n=
5) at processes.c:
(gdb) bt 2
in forks (n=
(gdb) print generation
= 0
(gdb) next
(gdb) info symbol in_child
in_child in section .text of
(gdb) info inferiors
* 2
(gdb) delete
(gdb) continue
exited with code 06
