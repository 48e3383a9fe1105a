//# source: clib.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4

(host) load a {LIBRARY}
(host) call a entry 5
(host) unload a
(host) pause
(host) load a {LIBRARY}
(host) call a entry 5
(host) unload a
(gdb) break host_pauses
(gdb) break leaf
(gdb) break {entry}
(gdb) run
Breakpoint 3, entry (n=5) at {entry}
(gdb) continue
Breakpoint 2, leaf (a=0, b=1) at clib.c:
(gdb) disable 2
(gdb) continue
[host] unloaded a
host_pauses ()
(gdb) info breakpoints
(dlopen) <PENDING>          leaf
(memdl) in leaf at clib.c:24
(dlopen) <PENDING>          {entry}
(memdl) in entry at {entry}
(gdb) info symbol leaf
No symbol
(gdb) enable 2
(gdb) continue
Breakpoint 3, entry (n=5) at {entry}
(gdb) continue
Breakpoint 2, leaf (a=0, b=1) at clib.c:
(gdb) print lib_global
= 7
(gdb) bt 3
in middle (n=5
(gdb) delete
(gdb) continue
[host] unloaded a
exited normally
