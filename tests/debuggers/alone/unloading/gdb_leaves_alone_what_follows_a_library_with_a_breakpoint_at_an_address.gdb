//# source: clib.c
//# builds: gcc_o0_g
//# compare: nothing
//# note: A breakpoint at a bare address stays when there are no symbols any more. (With dlopen gdb
//# note: knows that its library went, by the dynamic linker's list.)

(host) load a {LIBRARY}
(host) call a entry 5
(host) unload a
(host) bury a if-free
(host) pause
(host) check
(host) pause
(gdb) break host_pauses
(gdb) tbreak leaf
(gdb) run
(gdb) eval "break *%p", $pc
(gdb) ignore 3 10
(gdb) continue
unloaded a
host_pauses ()
(gdb) delete 3
(gdb) continue
host_pauses ()
(not)  is 0x
(gdb) kill
