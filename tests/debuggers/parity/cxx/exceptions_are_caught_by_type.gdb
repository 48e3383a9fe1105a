//# source: exceptions.cc
//# builds: gcc_o0_dwarf5

(gdb) catch throw runtime_error
(gdb) run
Catchpoint 1 (exception thrown), 0xADDRESS in
(gdb) up
in fails (n=5)
(gdb) tbreak {failed}
(gdb) continue
Temporary breakpoint 2, entry (n=5) at {failed}
(gdb) print error
std::exception &
(gdb) print error
(const std::exception &) @0xADDRESS
