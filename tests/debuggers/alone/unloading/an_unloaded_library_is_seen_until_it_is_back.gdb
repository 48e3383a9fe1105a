//# source: clib.c
//# builds: gcc_o0_g
//# compare: nothing
//# complaints: fail
//# note: So gdb finds a place for each breakpoint. With another instance there, it needs none.

(host) load a {LIBRARY}
(host) load b {LIBRARY}
(host) pause
(host) unload b
(host) call a entry 5
(host) pause
(host) unload a
(host) bury a if-free
(host) pause
(host) load a {LIBRARY}
(host) pause
(host) check
(gdb) break host_pauses
(gdb) run
(gdb) break leaf
2 locations
(gdb) ignore 2 100
(gdb) continue
host_pauses ()
(gdb) info breakpoints
keep y   0xADDRESS
in leaf at clib.c:24
(gdb) with language c -- print lib_global
= 52\n
(gdb) with language c -- set $before = &lib_global
(gdb) continue
the place of a is kept
host_pauses ()
(gdb) info breakpoints
keep y   0xADDRESS
in leaf at clib.c:24
(gdb) with language c -- print lib_global
= 52\n
(gdb) with language c -- print &lib_global == $before
= 1\n
(gdb) continue
host_pauses ()
(gdb) info breakpoints
keep y   0xADDRESS
in leaf at clib.c:24
(gdb) with language c -- print lib_global
= 7\n
(gdb) with language c -- print &lib_global == $before
= 0\n
(gdb) continue
exited normally
