//# source: clib.c
//# builds: gcc_o0_g
//# library: OTHER geometry.f90 gfortran_o0_g
//# note: Another library comes meanwhile: gdb looks for the places of its breakpoints then, too.

(host) load a {LIBRARY}
(host) pause
(host) call a entry 1
(host) unload a
(host) pause
(host) load c {OTHER}
(host) load a {LIBRARY}
(host) pause
(host) call a entry 5
(host) unload a
(host) load a {LIBRARY}
(host) call a entry 1
(gdb) break host_pauses
(gdb) run
(gdb) break leaf
Breakpoint 2 at 0xADDRESS
(gdb) break {middle} if i == 1
Breakpoint 3 at 0xADDRESS
(gdb) continue
Breakpoint 2, leaf (a=0, b=1) at clib.c:24
(gdb) continue
host_pauses ()
(gdb) info breakpoints
(dlopen) breakpoint     keep y   <PENDING>          leaf
(memdl) in leaf at clib.c:24
(dlopen) breakpoint     keep y   <PENDING>          {middle}
(memdl) in middle at {middle}
stop only if i == 1
(gdb) continue
host_pauses ()
(gdb) continue
Breakpoint 2, leaf (a=0, b=1) at clib.c:24
(gdb) continue
Breakpoint 3, middle (n=5, values=0xADDRESS) at {middle}
(gdb) print i
= 1\n
(gdb) bt 2
in entry (n=5)
(gdb) disable 3
(gdb) delete 1
(gdb) continue
Breakpoint 2, leaf (a=1, b=2) at clib.c:24
(gdb) ignore 2 3
(gdb) continue
[host] unloaded a
[host] loaded a
Breakpoint 2, leaf (a=0, b=1) at clib.c:24
(gdb) continue
exited normally
