//# source: clib.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4

(gdb) break {leaf}
(gdb) run
(gdb) gcore {CORE}
Saved corefile
(gdb) kill
(gdb) core-file {CORE}
leaf (
(gdb) bt
#0
leaf (
in middle (n=
in entry (n=
host_calls (
(gdb) info locals
local =
(gdb) print lib_global
= 7
(gdb) print lib_static
= 9
(gdb) info symbol $pc
leaf +
in section .text of
(gdb) disassemble /s leaf
// MARK leaf
=>
(gdb) up
middle (
(gdb) info locals
sum =
