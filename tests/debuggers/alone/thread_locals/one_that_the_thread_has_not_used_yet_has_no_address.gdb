//# source: clib.c
//# builds: gcc_o0_g
//# compare: nothing
//# complaints: pass
//# note: What is not there yet is not at an address, that far from which something else could be.

(gdb) break leaf
(gdb) run
(gdb) print lib_thread
Cannot access memory at address
(gdb) set var lib_thread = 5
Cannot access memory at address
(gdb) print (long)&lib_thread < 0
$1 = 1\n
(gdb) next 5
(gdb) print lib_thread
$2 = 100\n
(gdb) delete
(gdb) continue
entry(5) = 514\n
