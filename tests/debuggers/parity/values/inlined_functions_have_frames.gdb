//# source: records.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf5 clang_o2_dwarf4

(gdb) break clamped
(gdb) run
clamped (n=
(gdb) bt 2
clamped (n=
at records.c:
#1  total (of=
(gdb) info frame
inlined into frame 1
(gdb) info args
n =
(gdb) up
total (
(gdb) info breakpoints
in clamped at records.c:
(gdb) finish
