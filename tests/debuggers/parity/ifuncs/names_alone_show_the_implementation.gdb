//# source: ifunc.c
//# builds: gcc_o0_bare gcc_o2_bare

(gdb) break picked
(gdb) run
Breakpoint 1, 0xADDRESS in impl_a ()
(gdb) bt 2
in impl_a ()
in entry ()
(gdb) info symbol $pc
impl_a
(gdb) delete
(gdb) continue
exited normally
