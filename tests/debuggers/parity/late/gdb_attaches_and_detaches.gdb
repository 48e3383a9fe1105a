//# source: clib.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4
//# start: attach

(host) load a {LIBRARY}
(host) await-debugger
(host) call a entry 5
(gdb) info symbol leaf
leaf in section .text of
(gdb) break leaf
Breakpoint 1 at 0xADDRESS: file clib.c, line
(gdb) set language c
(gdb) set var *(char *) &HOST_GOES = 1
(gdb) set language auto
(gdb) continue
Breakpoint 1, leaf (
b=1) at clib.c:
(gdb) bt 4
host_calls
(gdb) print lib_global
= 7
(gdb) finish
Value returned is $2 =
(gdb) detach
detached
