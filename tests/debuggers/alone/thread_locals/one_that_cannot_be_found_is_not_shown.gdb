//# source: clib.c
//# builds: gcc_o0_g
//# compare: nothing
//# note: Where a block is reached by no constant way, nothing is better than another variable's value.

(host) load a0 {LIBRARY}
(host) load a1 {LIBRARY}
(host) load a2 {LIBRARY}
(host) load a3 {LIBRARY}
(host) load a4 {LIBRARY}
(host) load a5 {LIBRARY}
(host) load a6 {LIBRARY}
(host) load a7 {LIBRARY}
(host) load a8 {LIBRARY}
(host) load a9 {LIBRARY}
(host) load a10 {LIBRARY}
(host) load a11 {LIBRARY}
(host) load a12 {LIBRARY}
(host) load a13 {LIBRARY}
(host) load a14 {LIBRARY}
(host) load a15 {LIBRARY}
(host) load a16 {LIBRARY}
(host) load a17 {LIBRARY}
(host) load a18 {LIBRARY}
(host) load a19 {LIBRARY}
(host) load a20 {LIBRARY}
(host) load a21 {LIBRARY}
(host) load a22 {LIBRARY}
(host) load a23 {LIBRARY}
(host) load a24 {LIBRARY}
(host) load a25 {LIBRARY}
(host) load a26 {LIBRARY}
(host) load a27 {LIBRARY}
(host) load a28 {LIBRARY}
(host) load a29 {LIBRARY}
(host) load a30 {LIBRARY}
(host) load a31 {LIBRARY}
(host) load a32 {LIBRARY}
(host) load a33 {LIBRARY}
(host) load a34 {LIBRARY}
(host) load a35 {LIBRARY}
(host) load a36 {LIBRARY}
(host) load a37 {LIBRARY}
(host) load a38 {LIBRARY}
(host) load a39 {LIBRARY}
(host) call a39 entry 5
(gdb) break leaf
(gdb) run
(gdb) print lib_thread
stack only has 0 elements
(not) $1
(gdb) print lib_global
$1 = 7\n
