//# source: clib.c
//# builds: gcc_o0_g
//# compare: nothing
//# library: TWIN twin.c gcc_o0_g

(host) load a {LIBRARY}
(host) load b {TWIN}
(host) call b entry 5
(host) call a entry 1
(host) unload b
(host) pause
(host) call a entry 1
(gdb) break host_pauses
(gdb) break leaf
(gdb) run
Breakpoint 2
, leaf (a=5, b=1) at twin.c:
(gdb) next
(gdb) info locals
twin_local = 4\n
(gdb) bt
#0  leaf (a=5, b=1) at twin.c:
 in entry (n=5) at twin.c:
host_calls (
(gdb) info breakpoints
<MULTIPLE>
2.1\s
(again) 2.2\s
(again) in leaf at clib.c:
(again) in leaf at twin.c:
(gdb) continue
entry(5) = 5\n
Breakpoint 2
, leaf (a=0, b=1) at clib.c:
(gdb) next
(gdb) info locals
local = 1\n
(gdb) bt
#0  leaf (a=0, b=1) at clib.c:
 in entry (n=1) at clib.c:
(gdb) continue
unloaded b
host_pauses ()
(gdb) info breakpoints
in leaf at twin.c:
in leaf at clib.c:
(gdb) continue
Breakpoint 2.2, leaf (a=0, b=1) at clib.c:
(gdb) continue
exited normally
