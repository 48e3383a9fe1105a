//# source: clib.c
//# builds: gcc_o0_g
//# compare: nothing
//# note: After a dlclose, gdb 13.1 crashes here: so there is no comparison.

(host) load a {LIBRARY}
(host) call a entry 5
(host) unload a
(host) pause
(host) load a {LIBRARY}
(host) call a entry 5
(gdb) break host_pauses
(gdb) tbreak leaf
(gdb) run
(gdb) watch lib_global
Hardware watchpoint 3: lib_global
(gdb) continue
Old value = 7\nNew value = 8\n
(gdb) ignore 3 10
(gdb) continue
unloaded a
host_pauses ()
(gdb) info watchpoints
hw watchpoint  keep y
lib_global
(gdb) ignore 3 0
(gdb) continue
loaded a
watchpoint 3: lib_global
New value = 8\nleaf (a=0
(gdb) delete
(gdb) continue
entry(5) = 514\n
exited normally
