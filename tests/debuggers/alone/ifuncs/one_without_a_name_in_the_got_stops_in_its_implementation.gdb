//# source: ifunc.c
//# builds: gcc_o0_dwarf5 clang_o0_dwarf4
//# compare: nothing
//# forms: full wrapped
//# note: with dlopen gdb stops in the resolver, if at all: no relocation names the function

(gdb) break {entry}
(gdb) run
Breakpoint 1, entry (n=5) at {entry}
(gdb) break local
Breakpoint 2 at 0xADDRESS: file ifunc.c, line {impl_b.line}.
(gdb) continue
Breakpoint 2, impl_b (x=5) at {impl_b}
(gdb) bt 2
#0  impl_b (x=5) at {impl_b}
 in entry (n=5) at ifunc.c:
(gdb) break far
Breakpoint 3 at gnu-indirect-function resolver at 0xADDRESS
(gdb) delete
(gdb) continue
exited normally
