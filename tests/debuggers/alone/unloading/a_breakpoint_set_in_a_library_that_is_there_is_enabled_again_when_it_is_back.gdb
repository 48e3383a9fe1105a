//# source: clib.c
//# builds: gcc_o0_g
//# compare: nothing
//# complaints: pass
//# note: As README.md says: gdb is not told that a library went as it is of a file.

(host) load a {LIBRARY}
(host) load b {LIBRARY}
(host) pause
(host) unload b
(host) call a entry 1
(host) unload a
(host) pause
(host) load a {LIBRARY}
(host) pause
(host) call a entry 1
(gdb) break host_pauses
(gdb) run
(gdb) break leaf
Breakpoint 2 at\s
2 locations
(gdb) continue
leaf (a=0, b=1) at clib.c:24
(gdb) info breakpoints
keep y   0xADDRESS
in leaf at clib.c:24
(gdb) continue
host_pauses ()
(gdb) info breakpoints
breakpoint     keep n
(gdb) continue
host_pauses ()
(gdb) enable 2
(gdb) continue
leaf (a=0, b=1) at clib.c:24
(gdb) bt 1
(gdb) delete
(gdb) continue
exited normally
