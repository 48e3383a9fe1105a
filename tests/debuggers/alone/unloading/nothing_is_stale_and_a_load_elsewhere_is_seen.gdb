//# source: clib.c
//# builds: gcc_o0_g
//# compare: nothing
//# note: Another instance stays, so that nothing of those that go is kept. What is put into the place of the library is text of nobody's, in which gdb sees no breakpoint of its own.

(host) load other {LIBRARY}
(host) load a {LIBRARY}
(host) call a entry 5
(host) unload a
(host) bury a
(host) pause
(host) check
(host) load b {LIBRARY}
(host) call b entry 5
(host) check
(host) unload b
(host) bury b
(host) pause
(host) check
(gdb) break host_pauses
(gdb) break leaf
(gdb) break {middle}
(gdb) run
middle (n=5, values=0xADDRESS) at {middle}\n
(gdb) set $there = $pc
(gdb) continue
leaf (a=0, b=1) at clib.c:
(gdb) ignore 2 10
(gdb) ignore 3 10
(gdb) info breakpoints
<MULTIPLE>
in leaf at clib.c:
in leaf at clib.c:
<MULTIPLE>
in middle at {middle}
in middle at {middle}
(not) PENDING
(gdb) maintenance print objfiles in-memory
<in-memory@
<in-memory@
(gdb) continue
unloaded a
host_pauses ()
(not) leaf
(gdb) info breakpoints
in leaf at clib.c:
in middle at {middle}
(not) MULTIPLE
(gdb) maintenance print objfiles in-memory
<in-memory@
(gdb) info symbol $there
No symbol matches $there.
(gdb) x/2xb $there
0x1
(not) 0xcc
(gdb) ignore 2 0
(gdb) ignore 3 0
(gdb) continue
0 bytes differ
loaded b
middle (n=5, values=0xADDRESS) at {middle}\n
(gdb) print $pc != $there
= 1\n
(gdb) continue
leaf (a=0, b=1) at clib.c:
(gdb) bt
#0  leaf (
 in middle (
 in entry (
host_calls (
(gdb) info breakpoints
<MULTIPLE>
in leaf at clib.c:
(not) PENDING
(gdb) ignore 2 10
(gdb) ignore 3 10
(gdb) continue
0 bytes differ
unloaded b
host_pauses ()
(gdb) info breakpoints
in leaf at clib.c:
(not) MULTIPLE
(gdb) continue
0 bytes differ\n
0 bytes differ\n
done
exited normally
