//# source: exceptions.cc
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4

(gdb) catch throw
(throw)
(gdb) catch rethrow
(gdb) catch catch
(gdb) run
Catchpoint 1 (exception thrown), 0xADDRESS in
(gdb) bt 4
__cxa_throw
in refuses (n=
at {throws}
in passes_on (n=
(gdb) set language c++
(gdb) print $_exception
(gdb) set language auto
(gdb) continue
Catchpoint 3 (exception caught), 0xADDRESS in
(gdb) continue
Catchpoint 2 (exception rethrown), 0xADDRESS in
(gdb) continue
Catchpoint 3 (exception caught), 0xADDRESS in
(gdb) up
entry (n=
(gdb) info breakpoints
exception catch
(gdb) delete
(gdb) continue
exited normally
