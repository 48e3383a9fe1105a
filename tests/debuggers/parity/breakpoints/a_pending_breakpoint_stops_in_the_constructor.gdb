//# source: clib.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4 clang_o2_dwarf5

(gdb) break lib_constructor
Breakpoint 1 (lib_constructor) pending.
(gdb) info breakpoints
<PENDING>  lib_constructor
(gdb) run
Breakpoint 1, lib_constructor () at
(>=11) {constructor}
(gdb) print lib_constructed
= 0
(gdb) bt 1
#0  lib_constructor () at
(>=11) {constructor}
(gdb) info breakpoints
in lib_constructor at clib.c:
breakpoint already hit 1 time
(gdb) continue
[host] loaded a
exited normally
