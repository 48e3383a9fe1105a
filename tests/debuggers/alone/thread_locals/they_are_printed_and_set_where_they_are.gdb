//# source: clib.c
//# builds: gcc_dwarf4_o0_globaldynamic gcc_dwarf5_o0_globaldynamic gcc_dwarf4_o0_localdynamic gcc_dwarf5_o0_localdynamic gcc_dwarf4_o0_initialexec gcc_dwarf5_o0_initialexec
//# compare: nothing
//# note: gdb looks for the block of a library that has no file in the wrong place, and writes there: the
//# note: locations have to lead it to the right one, wherever the block lies.
//# note: What the library computes with it says that it was set, and set there: 514 without.

(host) load a {LIBRARY}
(host) call a entry 5
(host) call a entry 5
(gdb) break leaf
(gdb) run
(gdb) next
(gdb) next
(gdb) next
(gdb) next
(gdb) next
(gdb) print lib_thread
$1 = 100\n
(gdb) set var lib_thread = 5
(gdb) print lib_thread
(gdb) print *&lib_thread
$3 = 5\n
(gdb) print lib_global
(gdb) delete
(gdb) continue
entry(5) = 704
