//# source: ifunc.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4
//# forms: full wrapped
//# note: with dlopen gdb finds the function in the GOT

(host) load a {LIBRARY} lazily
(host) call a entry 5
(host) call a entry 6
(gdb) break {entry}
(gdb) run
Breakpoint 1, entry (n=5) at {entry}
(gdb) continue
Breakpoint 1, entry (n=6) at {entry}
(gdb) break picked
Breakpoint 2 at 0xADDRESS: file ifunc.c, line {impl_a.line}.
(gdb) continue
Breakpoint 2, impl_a (x=6) at {impl_a}
(gdb) bt 2
#0  impl_a (x=6) at {impl_a}
 in entry (n=6) at {entry}
(gdb) delete
(gdb) continue
exited normally
