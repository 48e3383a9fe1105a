//# source: ifunc.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4

(host) load a {LIBRARY}
(host) call a entry 5
(host) call a late 3
(gdb) break {entry}
(gdb) run
Breakpoint 1, entry (n=5) at {entry}
(gdb) break late
Breakpoint 2 at gnu-indirect-function resolver at 0xADDRESS
(gdb) continue
Breakpoint 2, impl_b (x=
 at {impl_b}
(gdb) delete
(gdb) continue
exited normally
