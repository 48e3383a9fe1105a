//# source: exceptions.cc
//# builds: gcc_o0_dwarf5 clang_o0_dwarf5

(gdb) break {throws}
(gdb) run
refuses (n=5) at {throws}
(gdb) tbreak {caught}
(gdb) next
entry (n=5) at {caught}
(gdb) print refused
@0xADDRESS: {code = 5}
