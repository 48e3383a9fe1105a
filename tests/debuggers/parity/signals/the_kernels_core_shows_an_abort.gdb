//# source: signals.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4
//# start: kernel-core

(host) load a {LIBRARY}
(host) call a give_up 1
(gdb) bt
abort
in give_up (n=
at {aborts}
host_calls (function=
(gdb) frame function give_up
(gdb) info args
n =
(gdb) list
// MARK aborts
(gdb) print handled
= 0
(gdb) info symbol give_up
give_up in section .text of
(gdb) info line {aborts}
<give_up+
(gdb) x/i $pc
<give_up+
(gdb) ptype raises
type = int (int)
