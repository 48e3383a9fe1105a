//# source: clib.c
//# builds: gcc_o0_dwarf5 clang_o2_dwarf4
//# note: under PR_SET_MDWE memory cannot become executable, so memdl's code is executable from the start

(host) forbid-executable
(host) load a {LIBRARY}
(host) call a entry 5

(gdb) break leaf
(leaf) pending.
(gdb) run
Breakpoint 1, leaf (a=
b=1) at clib.c:
(gdb) finish
Value returned
(gdb) next
(gdb) info breakpoints
breakpoint already hit 1 time
(gdb) delete
(gdb) continue
[host] entry(5) = 514
exited normally
