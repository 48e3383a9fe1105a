//# source: clib.c
//# builds: gcc_o0_dwarf5

(host) load a {LIBRARY}
(host) call a entry 5
(host) unload a
(host) pause
(gdb) tbreak middle
(gdb) run
(gdb) watch lib_global
(gdb) tbreak host_pauses
(gdb) continue
Old value = 7
(gdb) disable 2
(gdb) continue
host_pauses ()
at tests/debuggers/harness/host.rs:
(gdb) info breakpoints
hw watchpoint
lib_global
(gdb) delete 2
(gdb) continue
exited normally
