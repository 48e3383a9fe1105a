//# source: clib.c
//# builds: gcc_o0_dwarf4 clang_o2_dwarf5

(gdb) break {host}
(gdb) run
(gdb) hbreak leaf
Hardware assisted breakpoint 2 at 0xADDRESS: file clib.c
(gdb) thbreak {entry}
Hardware assisted breakpoint 3 at 0xADDRESS: file clib.c
(gdb) continue
Temporary breakpoint 3, entry (n=
at {entry}
(gdb) continue
Breakpoint 2, leaf (
(gdb) delete 2
(gdb) continue
exited normally
