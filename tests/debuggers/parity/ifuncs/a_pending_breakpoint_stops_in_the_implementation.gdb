//# source: ifunc.c
//# builds: gcc_o0_dwarf5 gcc_o2_dwarf5 clang_o0_dwarf4
//# note: with dlopen, gdb has stopped in the resolver, too, and gone on by itself

(gdb) break picked
(gdb) run
Breakpoint 1, impl_a (x=
 at {impl_a}
(gdb) info breakpoints
 in impl_a at {impl_a}
(memdl) already hit 1 time
(dlopen) already hit 2 times
(gdb) bt 2
#0  impl_a (x=
 in entry (n=
(gdb) info symbol $pc
impl_a
(gdb) continue
Breakpoint 1, impl_a (x=
(gdb) delete
(gdb) continue
exited normally
