//# source: ifunc.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4

(gdb) break {entry}
(gdb) run
Breakpoint 1, entry (n=5) at {entry}
(gdb) break picked
Breakpoint 2 at 0xADDRESS: file ifunc.c, line {impl_a.line}.
(gdb) continue
Breakpoint 2, impl_a (x=5) at {impl_a}
(gdb) bt 2
#0  impl_a (x=5) at {impl_a}
 in entry (n=5) at {entry}
(gdb) delete
(gdb) print picked(7)
= 8
(gdb) continue
exited normally
